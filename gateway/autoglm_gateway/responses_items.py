"""The output items of a response: thought, message, function calls; whole, and as the events that build them up."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

from autoglm_gateway.reasoning import Split
from autoglm_protocol.chat import ToolCall

Json = dict[str, Any]
Named = tuple[str, Json]
"""An event's type, and what is in it beside type and number."""


def output_items(split: Split, calls: tuple[ToolCall, ...]) -> list[Json]:
    """Of a whole answer. A message is left out only where a call stands in its place."""
    items = [] if not split.reasoning else [_reasoning(new_id("rs"), split.reasoning)]
    if split.content or not calls:
        items.append(_message(new_id("msg"), split.content))
    return [*items, *(_call(new_id("fc"), call) for call in calls)]


class OpenItem:
    """A thought or a message whose text is still coming."""

    def __init__(self, *, is_reasoning: bool, output_index: int) -> None:
        self.is_reasoning = is_reasoning
        self._id = new_id("rs" if is_reasoning else "msg")
        self._output_index = output_index
        self._word = "reasoning_text" if is_reasoning else "output_text"
        self._texts: list[str] = []

    def opening(self) -> Iterator[Named]:
        empty: Json = {**self._item("in_progress"), "content": []}
        yield "response.output_item.added", {"output_index": self._output_index, "item": empty}
        yield "response.content_part.added", {**self._where(), "part": self._part("")}

    def delta(self, text: str) -> Named:
        self._texts.append(text)
        return f"response.{self._word}.delta", {**self._where(), "delta": text, **self._logprobs()}

    def closing(self) -> Iterator[Named]:
        text = "".join(self._texts)
        yield f"response.{self._word}.done", {**self._where(), "text": text, **self._logprobs()}
        yield "response.content_part.done", {**self._where(), "part": self._part(text)}
        yield "response.output_item.done", {"output_index": self._output_index, "item": self.done()}

    def done(self) -> Json:
        return self._item("completed")

    def _item(self, status: str) -> Json:
        make = _reasoning if self.is_reasoning else _message
        return make(self._id, "".join(self._texts)) | {"status": status}

    def _where(self) -> Json:
        return {"item_id": self._id, "output_index": self._output_index, "content_index": 0}

    def _part(self, text: str) -> Json:
        return _reasoning_part(text) if self.is_reasoning else _text_part(text)

    def _logprobs(self) -> Json:
        return {} if self.is_reasoning else {"logprobs": []}


class CallItem:
    """A function call. It is known only when its text is complete, so its arguments come in one piece."""

    def __init__(self, call: ToolCall, *, output_index: int) -> None:
        self.done = _call(new_id("fc"), call)
        self._output_index = output_index

    def events(self) -> Iterator[Named]:
        at: Json = {"output_index": self._output_index}
        arguments: Json = {"arguments": self.done["arguments"]}
        where = {"item_id": self.done["id"], **at}
        started = {**self.done, "arguments": "", "status": "in_progress"}
        yield "response.output_item.added", {**at, "item": started}
        yield "response.function_call_arguments.delta", {**where, "delta": self.done["arguments"]}
        yield "response.function_call_arguments.done", {**where, "name": self.done["name"], **arguments}
        yield "response.output_item.done", {**at, "item": self.done}


def new_id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"


def _message(item_id: str, text: str) -> Json:
    return {
        "id": item_id,
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [_text_part(text)],
    }


def _reasoning(item_id: str, text: str) -> Json:
    return {
        "id": item_id,
        "type": "reasoning",
        "summary": [],
        "status": "completed",
        "content": [_reasoning_part(text)],
    }


def _call(item_id: str, call: ToolCall) -> Json:
    return {
        "id": item_id,
        "type": "function_call",
        "status": "completed",
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
    }


def _text_part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _reasoning_part(text: str) -> Json:
    return {"type": "reasoning_text", "text": text}
