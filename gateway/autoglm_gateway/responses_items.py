"""The output items of a response (thought, message, function calls) and the events that build them up."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

from autoglm_protocol.chat import ToolCall

Json = dict[str, Any]
Named = tuple[str, Json]
"""An event's type, and what is in it beside type and number."""


class OpenItem:
    """A thought or a message whose text is still coming."""

    def __init__(self, *, is_reasoning: bool, output_index: int) -> None:
        self.is_reasoning = is_reasoning
        self._id = new_id("rs" if is_reasoning else "msg")
        self._output_index = output_index
        self._word = "reasoning_text" if is_reasoning else "output_text"
        self._texts: list[str] = []
        self._tokens: list[Json] = []

    def opening(self) -> Iterator[Named]:
        empty: Json = {**self.item("in_progress"), "content": []}
        yield "response.output_item.added", {"output_index": self._output_index, "item": empty}
        yield "response.content_part.added", {**self._where(), "part": self._part("")}

    def delta(self, text: str, logprobs: list[Json]) -> Named:
        """`logprobs`: OpenAI's entries of the text's tokens; a thought has none."""
        self._texts.append(text)
        self._tokens += logprobs
        return f"response.{self._word}.delta", {**self._where(), "delta": text, **self._logprobs(logprobs)}

    def closing(self, status: str) -> Iterator[Named]:
        """`status`: "completed", or "incomplete" where the answer was cut off inside of it."""
        text = "".join(self._texts)
        yield f"response.{self._word}.done", {**self._where(), "text": text, **self._logprobs(self._tokens)}
        yield "response.content_part.done", {**self._where(), "part": self._part(text)}
        yield "response.output_item.done", {"output_index": self._output_index, "item": self.item(status)}

    def item(self, status: str) -> Json:
        """With the text so far."""
        item: Json = {"id": self._id, "status": status, "content": [self._part("".join(self._texts))]}
        if self.is_reasoning:
            return {**item, "type": "reasoning", "summary": []}
        return {**item, "type": "message", "role": "assistant"}

    def _where(self) -> Json:
        return {"item_id": self._id, "output_index": self._output_index, "content_index": 0}

    def _part(self, text: str) -> Json:
        if self.is_reasoning:
            return {"type": "reasoning_text", "text": text}
        return {"type": "output_text", "text": text, "annotations": [], **self._logprobs(self._tokens)}

    def _logprobs(self, tokens: list[Json]) -> Json:
        return {} if self.is_reasoning else {"logprobs": [*tokens]}


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


def _call(item_id: str, call: ToolCall) -> Json:
    return {
        "id": item_id,
        "type": "function_call",
        "status": "completed",
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
    }
