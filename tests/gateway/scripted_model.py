# ruff: noqa: E402 # the environment is activated before the first import
"""A Triton model with the contract of autoglm_phone that does what the last message's text says.

`say TEXT` answers with TEXT, a delta per character; `refuse` is refused with a field; `fail N` breaks after N deltas;
`stall` sends one delta and then waits to be cancelled; `load N` sends N deltas as fast as it can; `hang FIFO` keeps
every request waiting until somebody has written to that pipe. Any other text is answered with one delta.
"""

import json
import threading

import autoglm_site

autoglm_site.activate()

import triton_python_backend_utils as pb_utils

from autoglm_protocol.errors import AutoglmError, InternalError, InvalidRequestError, wire_text
from autoglm_protocol.events import Cancelled, Finished, FinishReason, Started, TokenDelta, Usage
from autoglm_protocol.wire import chat_from_tensors, event_to_tensors

POLL_S = 0.02


class TritonPythonModel:
    def initialize(self, args):
        family = pb_utils.MetricFamily(
            name="autoglm_test_cancelled", description="Cancelled", kind=pb_utils.MetricFamily.COUNTER
        )
        self.family = family
        self.cancelled = family.Metric(labels={})
        usage = pb_utils.MetricFamily(name="autoglm_kv_usage_ratio", description="KV", kind=pb_utils.MetricFamily.GAUGE)
        self.usage_family = usage
        self.usage = usage.Metric(labels={})
        self.usage.set(0.25)
        self.gate = threading.Lock()

    def execute(self, requests):
        for request in requests:
            threading.Thread(target=self.answer, args=(request,), daemon=True).start()

    def answer(self, request):
        sender = request.get_response_sender()
        try:
            for event in self.events(request, sender):
                self.send(sender, event)
        except AutoglmError as error:
            sender.send(
                pb_utils.InferenceResponse(error=pb_utils.TritonError(wire_text(error))),
                flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL,
            )
            return
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def events(self, request, sender):
        tensors = {}
        for name in ("messages", "images", "audios", "sampling", "options"):
            tensor = pb_utils.get_input_tensor_by_name(request, name)
            if tensor is not None:
                tensors[name] = tensor.as_numpy()
        chat = chat_from_tensors(tensors, request_id=request.request_id(), model="autoglm_phone")
        verb, _, rest = chat.messages[-1].text.partition(" ")
        if verb == "refuse":
            raise InvalidRequestError("depth is 7, must be 6 or 12", param="depth")
        with self.gate:
            if verb == "hang":
                with open(rest, "rb") as pipe:
                    pipe.read()
        usage = Usage(prompt_tokens=10, image_tokens=sum(len(image.data) for image in chat.images))
        graph = {"depth": 6, "request_id": chat.request_id, **json.loads(request.parameters() or "{}")}
        yield Started(usage=usage, dynamic_graph=graph)
        count = 0
        if verb == "stall":
            yield TokenDelta(text="x", token_ids=(1,))
            never = threading.Event()
            while not sender.is_cancelled():
                never.wait(POLL_S)
            self.cancelled.increment(1)
            yield Cancelled()
            return
        deltas = rest if verb == "say" else "a" * (int(rest) if rest.isdigit() else 1)
        for character in deltas:
            count += 1
            yield TokenDelta(text=character, token_ids=(count,))
        if verb == "fail":
            raise InternalError("the decoder broke")
        yield Finished(
            finish_reason=FinishReason.STOP,
            usage=Usage(prompt_tokens=10, image_tokens=usage.image_tokens, completion_tokens=count),
            dynamic_graph=graph,
        )

    def send(self, sender, event):
        outputs = [pb_utils.Tensor(name, tensor) for name, tensor in event_to_tensors(event).items()]
        sender.send(pb_utils.InferenceResponse(output_tensors=outputs))
