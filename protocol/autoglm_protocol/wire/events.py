"""Events and the other messages of an answer to Triton tensors and back."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from autoglm_protocol.errors import InternalError, from_wire_text, wire_text
from autoglm_protocol.events import (
    Cancelled,
    ChoiceFinished,
    Failed,
    Finished,
    FinishReason,
    Started,
    StreamEvent,
    TokenDelta,
    TokenLogprob,
    Usage,
)
from autoglm_protocol.steps import Steps
from autoglm_protocol.tensors import Array, Tensors, as_bytes, bytes_tensor, json_tensor, read_json


def event_to_tensors(event: StreamEvent) -> Tensors:
    """Failed travels so only after other events: before, it is a Triton error (`errors.wire_text`)."""
    text: str = ""
    token_ids: tuple[int, ...] = ()
    body: dict[str, Any]
    if isinstance(event, Started):
        body = {"type": "started", "usage": event.usage.to_json(), "dynamic_graph": dict(event.dynamic_graph)}
    elif isinstance(event, TokenDelta):
        text, token_ids = event.text, event.token_ids
        body = {"type": "delta", "index": event.index}
        if event.logprobs is not None:
            body["logprobs"] = [_logprob_json(entry) for entry in event.logprobs]
        if event.layers is not None:
            body["layers"] = event.layers
        if event.chars is not None:
            body["chars"] = event.chars
    elif isinstance(event, ChoiceFinished):
        body = {"type": "choice_finished", "index": event.index, "finish_reason": event.finish_reason.value}
    elif isinstance(event, Finished):
        body = {
            "type": "finished",
            "finish_reason": event.finish_reason.value,
            "usage": event.usage.to_json(),
            "dynamic_graph": dict(event.dynamic_graph),
        }
    elif isinstance(event, Cancelled):
        body = {"type": "cancelled", "usage": event.usage.to_json(), "dynamic_graph": dict(event.dynamic_graph)}
    else:
        body = {"type": "failed", "error": wire_text(event.error)}
    return _message_tensors(body, text, token_ids)


def steps_to_tensors(steps: Steps) -> Tensors:
    """The message before the terminal one, for a request with the parameter `return_steps`."""
    return _message_tensors({"type": "steps", "steps": steps.to_json()})


def trace_to_tensors(trace: bytes) -> Tensors:
    """A profile's answer: a gzipped Chrome trace."""
    return _message_tensors({"type": "profile", "trace": base64.b64encode(trace).decode()})


def message_from_tensors(tensors: Mapping[str, Array]) -> StreamEvent | Steps:
    """What `event_to_tensors` or `steps_to_tensors` wrote."""
    body = read_json(tensors, "event", None)
    return Steps.from_json(body["steps"]) if body["type"] == "steps" else _event(tensors, body)


def event_from_tensors(tensors: Mapping[str, Array]) -> StreamEvent:
    return _event(tensors, read_json(tensors, "event", None))


def trace_from_tensors(tensors: Mapping[str, Array]) -> bytes:
    return base64.b64decode(read_json(tensors, "event", None)["trace"])


def _message_tensors(body: dict[str, Any], text: str = "", token_ids: tuple[int, ...] = ()) -> Tensors:
    return {
        "text": bytes_tensor([text.encode()]),
        "token_ids": np.array(token_ids, dtype=np.int32),
        "event": json_tensor(body),
    }


def _event(tensors: Mapping[str, Array], body: dict[str, Any]) -> StreamEvent:
    kind = body["type"]
    if kind == "delta":
        raw_logprobs = body.get("logprobs")
        return TokenDelta(
            text=as_bytes(tensors["text"][0]).decode(),
            token_ids=tuple(int(t) for t in tensors["token_ids"]),
            index=body["index"],
            logprobs=None if raw_logprobs is None else tuple(_logprob(entry) for entry in raw_logprobs),
            layers=tuple(body["layers"]) if "layers" in body else None,
            chars=tuple(body["chars"]) if "chars" in body else None,
        )
    if kind == "started":
        return Started(usage=Usage(**body["usage"]), dynamic_graph=body["dynamic_graph"])
    if kind == "choice_finished":
        return ChoiceFinished(index=body["index"], finish_reason=FinishReason(body["finish_reason"]))
    if kind == "finished":
        return Finished(
            finish_reason=FinishReason(body["finish_reason"]),
            usage=Usage(**body["usage"]),
            dynamic_graph=body["dynamic_graph"],
        )
    if kind == "cancelled":
        return Cancelled(usage=Usage(**body["usage"]), dynamic_graph=body["dynamic_graph"])
    if kind == "failed":
        return Failed(error=from_wire_text(body["error"]) or InternalError("a model of the server failed"))
    raise ValueError(f"unknown event type {kind!r}")


def _logprob_json(entry: TokenLogprob) -> list[Any]:
    # Tokens are bytes, not text: base64 keeps half a character whole.
    top = [[i, text, base64.b64encode(raw).decode(), lp] for i, text, raw, lp in entry.top]
    return [entry.token_id, entry.token, base64.b64encode(entry.raw).decode(), entry.logprob, top]


def _logprob(raw: list[Any]) -> TokenLogprob:
    token_id, token, data, logprob, top = raw
    return TokenLogprob(
        token_id=token_id,
        token=token,
        raw=base64.b64decode(data),
        logprob=logprob,
        top=tuple((i, text, base64.b64decode(b), lp) for i, text, b, lp in top),
    )
