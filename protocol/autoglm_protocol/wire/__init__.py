"""Requests and events to Triton tensors and back: the only place that spells the JSON inside them."""

from autoglm_protocol.wire.chat import chat_from_tensors, chat_to_tensors
from autoglm_protocol.wire.decode import (
    DecodeRequest,
    cancel_to_tensors,
    decode_from_tensors,
    decode_to_tensors,
    profile_from_tensors,
    profile_to_tensors,
)
from autoglm_protocol.wire.events import (
    event_from_tensors,
    event_to_tensors,
    message_from_tensors,
    steps_to_tensors,
    trace_from_tensors,
    trace_to_tensors,
)

__all__ = [
    "DecodeRequest",
    "cancel_to_tensors",
    "chat_from_tensors",
    "chat_to_tensors",
    "decode_from_tensors",
    "decode_to_tensors",
    "event_from_tensors",
    "event_to_tensors",
    "message_from_tensors",
    "profile_from_tensors",
    "profile_to_tensors",
    "steps_to_tensors",
    "trace_from_tensors",
    "trace_to_tensors",
]
