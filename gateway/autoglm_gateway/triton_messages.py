"""Requests to the bytes that Triton's gRPC service takes, and its messages to events."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2  # pyright: ignore[reportMissingTypeStubs]

from autoglm_protocol.chat import ChatRequest
from autoglm_protocol.errors import AutoglmError, InternalError, UnavailableError, from_wire_text
from autoglm_protocol.events import Failed, StreamEvent
from autoglm_protocol.profile import ProfileBounds
from autoglm_protocol.steps import Steps
from autoglm_protocol.tensors import AUTOGLM_PHONE, TEXT_DECODER, Array, ModelContract, Tensors, bytes_tensor
from autoglm_protocol.wire import chat_to_tensors, message_from_tensors, profile_to_tensors, trace_from_tensors

pb: Any = service_pb2  # its classes are made at import, where no type checker sees them
_log = logging.getLogger(__name__)
_DTYPES = {
    contract.model: {spec.name: spec.dtype for spec in contract.inputs} for contract in (AUTOGLM_PHONE, TEXT_DECODER)
}
_NUMPY = {"INT32": np.int32, "INT64": np.int64, "FP32": np.float32}
_RAW_CONTENTS_TAG = bytes([7 << 3 | 2])
"""ModelInferRequest.raw_input_contents, a field of bytes."""


def chat_message(request: ChatRequest, *, trace: Mapping[str, str], return_steps: bool) -> bytes:
    """A ModelInferRequest to `autoglm_phone`. `trace`: W3C's headers."""
    parameters: dict[str, str | bool] = {**trace}
    if return_steps:
        parameters["return_steps"] = True
    return _infer_request(AUTOGLM_PHONE, request.request_id, chat_to_tensors(request), parameters)


def profile_message(bounds: ProfileBounds) -> bytes:
    """A ModelInferRequest to `text_decoder`."""
    return _infer_request(TEXT_DECODER, "profile", profile_to_tensors(bounds), {})


def event_of(message: Any) -> StreamEvent | Steps | None:
    """Of a ModelStreamInferResponse; None without tensors, which only marks the end of the stream."""
    if message.error_message:
        return Failed(error=model_error(message.error_message))
    response = message.infer_response
    return message_from_tensors(_tensors(response)) if response.outputs else None


def trace_of(message: Any) -> bytes:
    """A profile's answer. Raises AutoglmError."""
    if message.error_message:
        raise model_error(message.error_message)
    return trace_from_tensors(_tensors(message.infer_response))


def model_error(text: str) -> AutoglmError:
    known = from_wire_text(text)
    if known is not None:
        return known
    _log.warning("Triton refused or failed", extra={"details": text[:2000]})
    if "is not healthy" in text:  # its process has stopped or died
        return UnavailableError("the model does not answer")
    if "unknown model" in text or "is not ready" in text or "unavailable" in text.lower():
        return UnavailableError("the model is not ready")
    return InternalError("the model server failed")


def _infer_request(
    contract: ModelContract, request_id: str, tensors: Mapping[str, Array], parameters: Mapping[str, str | bool]
) -> bytes:
    message = pb.ModelInferRequest(model_name=contract.model, id=request_id)
    for name, value in parameters.items():
        if isinstance(value, bool):
            message.parameters[name].bool_param = value
        else:
            message.parameters[name].string_param = value
    pieces: list[bytes] = []
    for name, tensor in tensors.items():
        dtype = _DTYPES[contract.model][name]
        message.inputs.add(name=name, datatype=dtype, shape=tensor.shape)
        content = [*_with_lengths(tensor)] if dtype == "BYTES" else [tensor.tobytes()]
        pieces += (_RAW_CONTENTS_TAG, _varint(sum(map(len, content))), *content)
    # Put behind by hand: protobuf would copy each picture three times, and pages of new memory cost most here.
    return b"".join((message.SerializeToString(), *pieces))


def _with_lengths(tensor: Array) -> Iterator[bytes]:
    for item in tensor:
        yield len(item).to_bytes(4, "little")
        yield item


def _varint(value: int) -> bytes:
    groups: list[int] = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*groups, value))


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
