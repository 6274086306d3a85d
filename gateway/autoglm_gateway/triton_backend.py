"""One Triton server as a Backend: the only import of tritonclient in the gateway.

A request is one ModelStreamInfer call on a shared channel. The generated stubs are used, not the client class: events
arrive without its copies, and cancelling a call is the call's own method.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import grpc
import grpc.aio
import numpy as np
from tritonclient.grpc import service_pb2  # pyright: ignore[reportMissingTypeStubs]
from tritonclient.grpc.service_pb2_grpc import (  # pyright: ignore[reportMissingTypeStubs]
    GRPCInferenceServiceStub,
)

from autoglm_gateway.backend import Profile
from autoglm_gateway.tracing import Tracing, current_trace, is_traced
from autoglm_protocol.chat import ChatRequest
from autoglm_protocol.errors import (
    AutoglmError,
    DeadlineError,
    InternalError,
    PayloadTooLargeError,
    UnavailableError,
    from_wire_text,
)
from autoglm_protocol.events import Cancelled, Failed, Finished, StreamEvent
from autoglm_protocol.profile import ProfileBounds
from autoglm_protocol.steps import Steps
from autoglm_protocol.tensors import AUTOGLM_PHONE, TEXT_DECODER, Array, ModelContract, Tensors, bytes_tensor
from autoglm_protocol.wire import chat_to_tensors, message_from_tensors, profile_to_tensors, trace_from_tensors

pb: Any = service_pb2  # its classes are made at import, where no type checker sees them
_EOF: Any = grpc.aio.EOF  # pyright: ignore # not in the stubs
_log = logging.getLogger(__name__)
_PROBE_TIMEOUT_S = 2.0
_FEATURES_PARAMETER = "features"
_PROFILE_WRITING_S = 120.0
_DTYPES = {
    contract.model: {spec.name: spec.dtype for spec in contract.inputs} for contract in (AUTOGLM_PHONE, TEXT_DECODER)
}
_NUMPY = {"INT32": np.int32, "INT64": np.int64, "FP32": np.float32}
_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Triton takes pings sooner than every 5 minutes for abuse and closes the connection.
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # A restarted Triton is used again within a second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)


class TritonBackend:
    """Streams from the BLS model `autoglm_phone` at `address` (host:port). To be made inside the event loop."""

    def __init__(self, address: str, *, tracing: Tracing) -> None:
        self.address = address
        self._tracing = tracing
        self._features: frozenset[str] | None = None
        self._channel = grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS)
        self._stub: Any = GRPCInferenceServiceStub(self._channel)
        self._ending: set[Any] = set()

    @property
    def features(self) -> frozenset[str]:
        """What the parameter `features` of the model's config.pbtxt lists; empty until the model was ready once."""
        return self._features or frozenset()

    async def generate(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        call = self._stub.ModelStreamInfer()
        is_over = False
        sent_ns = time.time_ns()
        try:
            await call.write(_chat_request(request))
            await call.done_writing()
            while not is_over:
                event = _message(await call.read())
                if isinstance(event, Steps):
                    self._tracing.add_steps(event, sent_ns=sent_ns)
                elif event is not None:
                    is_over = isinstance(event, Finished | Failed | Cancelled)
                    yield event
        except grpc.aio.AioRpcError as error:
            is_over = True
            yield Failed(error=self._translated(error))
        except grpc.aio.UsageError:
            # Writing to a call that is already over; its status says why.
            is_over = True
            yield Failed(error=await self._status_of(call))
        finally:
            if is_over:
                self._let_end(call)
            else:
                call.cancel()

    async def ready(self) -> bool:
        try:
            answer = await self._stub.ModelReady(
                pb.ModelReadyRequest(name=AUTOGLM_PHONE.model), timeout=_PROBE_TIMEOUT_S
            )
            if answer.ready and self._features is None:
                self._features = await self._read_features()
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.ready)

    async def profile(self, bounds: ProfileBounds) -> Profile:
        call = self._stub.ModelStreamInfer(timeout=bounds.seconds + _PROFILE_WRITING_S)
        try:
            await call.write(_infer_request(TEXT_DECODER, "profile", profile_to_tensors(bounds)))
            await call.done_writing()
            message: Any = await call.read()
            if message is _EOF:
                raise InternalError("the model server ended the profile too soon")
            if message.error_message:
                raise _model_error(message.error_message)
            trace = trace_from_tensors(_tensors(message.infer_response))
        except grpc.aio.AioRpcError as error:
            raise self._translated(error) from error
        except grpc.aio.UsageError as error:
            raise await self._status_of(call) from error
        self._let_end(call)
        return Profile(trace_gzip=trace, server=self.address)

    async def close(self) -> None:
        await self._channel.close()

    async def _read_features(self) -> frozenset[str]:
        answer = await self._stub.ModelConfig(pb.ModelConfigRequest(name=AUTOGLM_PHONE.model), timeout=_PROBE_TIMEOUT_S)
        listed = answer.config.parameters[_FEATURES_PARAMETER].string_value
        return frozenset(part.strip() for part in listed.split(",") if part.strip())

    def _let_end(self, call: Any) -> None:
        # A call that is dropped before Triton closed it counts as cancelled there; hold it until then.
        if not call.done():
            self._ending.add(call)
            call.add_done_callback(self._ending.discard)

    async def _status_of(self, call: Any) -> AutoglmError:
        return self._translated(
            grpc.aio.AioRpcError(
                await call.code(), await call.initial_metadata(), await call.trailing_metadata(), await call.details()
            )
        )

    def _translated(self, error: grpc.aio.AioRpcError) -> AutoglmError:
        known = from_wire_text(error.details() or "")
        if known is not None:
            return known
        _log.warning(
            "Triton call failed", extra={"triton": self.address, "code": error.code().name, "details": error.details()}
        )
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineError("the request took too long")
        if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return PayloadTooLargeError("the request is larger than the model server takes")
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
            return UnavailableError("the model server is not reachable")
        return InternalError("the model server failed")


def _chat_request(request: ChatRequest) -> Any:
    message = _infer_request(AUTOGLM_PHONE, request.request_id, chat_to_tensors(request))
    for name, value in current_trace().items():
        message.parameters[name].string_param = value
    if is_traced():
        message.parameters["return_steps"].bool_param = True
    return message


def _infer_request(contract: ModelContract, request_id: str, tensors: Mapping[str, Array]) -> Any:
    message = pb.ModelInferRequest(model_name=contract.model, id=request_id)
    for name, tensor in tensors.items():
        dtype = _DTYPES[contract.model][name]
        message.inputs.add(name=name, datatype=dtype, shape=tensor.shape)
        message.raw_input_contents.append(
            b"".join(len(item).to_bytes(4, "little") + item for item in tensor)
            if dtype == "BYTES"
            else tensor.tobytes()
        )
    return message


def _message(message: Any) -> StreamEvent | Steps | None:
    """None for a message without tensors, which only marks the end of the stream."""
    if message is _EOF:
        return Failed(error=InternalError("the model server ended the stream too soon"))
    if message.error_message:
        return Failed(error=_model_error(message.error_message))
    response = message.infer_response
    return message_from_tensors(_tensors(response)) if response.outputs else None


def _tensors(response: Any) -> Tensors:
    tensors: Tensors = {}
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        if output.datatype == "BYTES":
            tensors[output.name] = bytes_tensor(_split_bytes(raw))
        else:
            tensors[output.name] = np.frombuffer(raw, dtype=_NUMPY[output.datatype])
    return tensors


def _split_bytes(raw: bytes) -> list[bytes]:
    items: list[bytes] = []
    position = 0
    while position < len(raw):
        start = position + 4
        position = start + int.from_bytes(raw[position:start], "little")
        items.append(raw[start:position])
    return items


def _model_error(text: str) -> AutoglmError:
    known = from_wire_text(text)
    if known is not None:
        return known
    _log.warning("Triton refused or failed", extra={"details": text[:2000]})
    if "unknown model" in text or "is not ready" in text or "unavailable" in text.lower():
        return UnavailableError("the model is not ready")
    return InternalError("the model server failed")
