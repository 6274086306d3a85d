"""A raw Triton client: tensors in, tensors out, nothing of the gateway."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from autoglm_protocol.events import Finished, StreamEvent, TokenDelta
from autoglm_protocol.tensors import AUTOGLM_PHONE, ModelContract, json_tensor
from autoglm_protocol.wire import event_from_tensors

ANSWER_TIMEOUT_S = 60.0
_FINAL = "triton_final_response"
_DTYPES = {"int32": "INT32", "int64": "INT64", "float32": "FP32", "float64": "FP64", "object": "BYTES"}


class RawStream:
    """One request on one gRPC stream. Iterate for the answers' tensors; `cancel` drops the call."""

    def __init__(self, address: str, model: str, tensors: Mapping[str, np.ndarray]) -> None:
        self._is_over = False
        self._client = triton.InferenceServerClient(address)
        self._answers: queue.SimpleQueue[tuple[Any, InferenceServerException | None]] = queue.SimpleQueue()
        self._client.start_stream(lambda result, error: self._answers.put((result, error)))
        self._client.async_stream_infer(model, as_inputs(tensors), enable_empty_final_response=True)

    def __enter__(self) -> RawStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # cancelling at the very end of an answer can make Triton 2.51 count it as in flight for ever
        self._client.stop_stream(cancel_requests=not self._is_over)
        self._client.close()

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """Tensors of each answer until the final flag. Raises InferenceServerException, after reading to the end."""
        failure: InferenceServerException | None = None
        while True:
            result, error = self._answers.get(timeout=ANSWER_TIMEOUT_S)
            if error is not None:
                failure = error
                # an error message on a stream is a whole answer, and carries no flag
                if result is None and not self._has_flagged_end():
                    self._is_over = True
                    raise failure
                continue
            response = result.get_response()
            if response.outputs:
                yield {output.name: result.as_numpy(output.name) for output in response.outputs}
            if response.parameters[_FINAL].bool_param:
                self._is_over = True
                if failure is not None:
                    raise failure
                return

    def _has_flagged_end(self) -> bool:
        try:
            answer = self._answers.get(timeout=1.0)
        except queue.Empty:
            return False
        self._answers.put(answer)
        return True

    def cancel(self) -> None:
        self._client.stop_stream(cancel_requests=True)


def as_inputs(tensors: Mapping[str, np.ndarray]) -> list[Any]:
    inputs: list[Any] = []
    for name, tensor in tensors.items():
        item = triton.InferInput(name, list(tensor.shape), _DTYPES[tensor.dtype.name])
        item.set_data_from_numpy(tensor)
        inputs.append(item)
    return inputs


def infer(address: str, contract: ModelContract, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One call of a model that answers once. Raises InferenceServerException."""
    client = triton.InferenceServerClient(address)
    try:
        result = client.infer(contract.model, as_inputs(tensors))
        assert result is not None
        return {spec.name: result.as_numpy(spec.name) for spec in contract.outputs}
    finally:
        client.close()


def chat_tensors(content: Any, *, options: Any = None, **sampling: Any) -> dict[str, np.ndarray]:
    """A user's message, greedy and of fixed length unless told otherwise."""
    chosen = {"temperature": 0.0, "max_tokens": 16, "ignore_eos": True, **sampling}
    tensors = {"messages": json_tensor([{"role": "user", "content": content}]), "sampling": json_tensor(chosen)}
    return tensors if options is None else {**tensors, "options": json_tensor(options)}


def events(address: str, tensors: Mapping[str, np.ndarray]) -> list[StreamEvent]:
    """A whole stream of `autoglm_phone`. Raises InferenceServerException."""
    with RawStream(address, AUTOGLM_PHONE.model, tensors) as stream:
        return [event_from_tensors(answer) for answer in stream]


def text_of(stream: list[StreamEvent]) -> str:
    return "".join(event.text for event in stream if isinstance(event, TokenDelta))


def end_of(stream: list[StreamEvent]) -> Finished:
    assert isinstance(stream[-1], Finished), stream[-1]
    return stream[-1]


def inference_counts(address: str) -> dict[str, int]:
    """Executions of each model since the start, by Triton's own statistics."""
    client = triton.InferenceServerClient(address)
    try:
        statistics: Any = client.get_inference_statistics()
        return {model.name: model.execution_count for model in statistics.model_stats}
    finally:
        client.close()


def eventually(is_true: Any, *, within_s: float) -> bool:
    """Whether a condition of another process comes true in time; asked every 20 ms."""
    pause = threading.Event()
    for _ in range(int(within_s / 0.02)):
        if is_true():
            return True
        pause.wait(0.02)
    return bool(is_true())
