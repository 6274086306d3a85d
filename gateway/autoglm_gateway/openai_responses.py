"""Events to OpenAI's Responses answers: one `response` object, or its stream of named events."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from autoglm_gateway import sse
from autoglm_gateway.draft import ChatDraft
from autoglm_gateway.reasoning import ReasoningSplitter, Split, split_reasoning
from autoglm_protocol.errors import AutoglmError
from autoglm_protocol.events import Completion, Finished, FinishReason, Started, StreamEvent, TokenDelta, Usage

Json = dict[str, Any]


class ResponsesFormat:
    def whole(self, draft: ChatDraft, completion: Completion) -> Json:
        choice = completion.choices[0]
        split = split_reasoning(choice.text) if draft.return_reasoning else Split(reasoning="", content=choice.text)
        items = [_message_item(_new_id("msg"), split.content)]
        if split.reasoning:
            items.insert(0, _reasoning_item(_new_id("rs"), split.reasoning))
        head = _head(draft)
        return _completed(head, items, choice.finish_reason, completion.usage, completion.dynamic_graph)

    def stream(self, draft: ChatDraft, started: Started) -> ResponseEvents:
        return ResponseEvents(draft)


class ResponseEvents:
    """Output items one after the other: the thought when it was asked for, then the message."""

    def __init__(self, draft: ChatDraft) -> None:
        self._head = _head(draft)
        self._splitter = ReasoningSplitter() if draft.return_reasoning else None
        self._sequence = 0
        self._done: list[Json] = []
        self._open: _OpenItem | None = None

    def first(self) -> bytes:
        running: Json = {**self._head, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
        return b"".join(
            self._encode(name, {"response": running}) for name in ("response.created", "response.in_progress")
        )

    def of(self, event: StreamEvent) -> bytes:
        return b"".join(self._encode(name, data) for name, data in self._events(event))

    def failed(self, error: AutoglmError) -> bytes:
        return self._encode("error", {"code": error.code, "message": error.message, "param": error.param})

    def end(self) -> bytes:
        return b""

    def _events(self, event: StreamEvent) -> Iterator[tuple[str, Json]]:
        if isinstance(event, TokenDelta):
            split = (
                Split(reasoning="", content=event.text) if self._splitter is None else self._splitter.feed(event.text)
            )
            yield from self._texts(split)
        elif isinstance(event, Finished):
            if self._splitter is not None:
                yield from self._texts(self._splitter.finish())
            if self._open is None or self._open.is_reasoning:
                yield from self._turn_to(is_reasoning=False)
            yield from self._close()
            response = _completed(self._head, self._done, event.finish_reason, event.usage, event.dynamic_graph)
            yield f"response.{response['status']}", {"response": response}

    def _texts(self, split: Split) -> Iterator[tuple[str, Json]]:
        for is_reasoning, text in ((True, split.reasoning), (False, split.content)):
            if text:
                yield from self._turn_to(is_reasoning=is_reasoning)
                assert self._open is not None
                yield self._open.delta(text)

    def _turn_to(self, *, is_reasoning: bool) -> Iterator[tuple[str, Json]]:
        if self._open is not None and self._open.is_reasoning == is_reasoning:
            return
        yield from self._close()
        self._open = _OpenItem(is_reasoning=is_reasoning, output_index=len(self._done))
        yield from self._open.opening()

    def _close(self) -> Iterator[tuple[str, Json]]:
        if self._open is not None:
            yield from self._open.closing()
            self._done.append(self._open.item("completed"))
            self._open = None

    def _encode(self, name: str, data: Json) -> bytes:
        number, self._sequence = self._sequence, self._sequence + 1
        return sse.encode({"type": name, "sequence_number": number, **data}, event=name)


class _OpenItem:
    """An output item whose text is still coming."""

    def __init__(self, *, is_reasoning: bool, output_index: int) -> None:
        self.is_reasoning = is_reasoning
        self._id = _new_id("rs" if is_reasoning else "msg")
        self._output_index = output_index
        self._word = "reasoning_text" if is_reasoning else "output_text"
        self._texts: list[str] = []

    def opening(self) -> Iterator[tuple[str, Json]]:
        empty: Json = {**self.item("in_progress"), "content": []}
        yield "response.output_item.added", {"output_index": self._output_index, "item": empty}
        yield "response.content_part.added", {**self._where(), "part": self._part("")}

    def delta(self, text: str) -> tuple[str, Json]:
        self._texts.append(text)
        return f"response.{self._word}.delta", {**self._where(), "delta": text, **self._logprobs()}

    def closing(self) -> Iterator[tuple[str, Json]]:
        text = "".join(self._texts)
        yield f"response.{self._word}.done", {**self._where(), "text": text, **self._logprobs()}
        yield "response.content_part.done", {**self._where(), "part": self._part(text)}
        yield "response.output_item.done", {"output_index": self._output_index, "item": self.item("completed")}

    def item(self, status: str) -> Json:
        make = _reasoning_item if self.is_reasoning else _message_item
        return make(self._id, "".join(self._texts)) | {"status": status}

    def _where(self) -> Json:
        return {"item_id": self._id, "output_index": self._output_index, "content_index": 0}

    def _part(self, text: str) -> Json:
        return _reasoning_part(text) if self.is_reasoning else _text_part(text)

    def _logprobs(self) -> Json:
        return {} if self.is_reasoning else {"logprobs": []}


def _head(draft: ChatDraft) -> Json:
    sampling = draft.sampling
    return {
        "id": _new_id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "model": draft.model,
        "error": None,
        "instructions": None,
        "max_output_tokens": sampling.max_tokens,
        "metadata": {},
        "parallel_tool_calls": False,
        "previous_response_id": None,
        "store": False,
        "temperature": sampling.temperature,
        "text": {"format": {"type": "text"}},
        "tool_choice": "none",
        "tools": [],
        "top_p": sampling.top_p,
        "truncation": "disabled",
    }


def _completed(head: Json, items: list[Json], reason: FinishReason, usage: Usage, graph: Mapping[str, Any]) -> Json:
    cut_off = reason is FinishReason.LENGTH
    return {
        **head,
        "status": "incomplete" if cut_off else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if cut_off else None,
        "output": items,
        "usage": {
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {
                "cached_tokens": usage.cached_tokens,
                "image_tokens": usage.image_tokens,
                "audio_tokens": usage.audio_tokens,
            },
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
            "total_tokens": usage.total_tokens,
        },
        "dynamic_graph": dict(graph),
    }


def _message_item(item_id: str, text: str) -> Json:
    return {
        "id": item_id,
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [_text_part(text)],
    }


def _reasoning_item(item_id: str, text: str) -> Json:
    return {
        "id": item_id,
        "type": "reasoning",
        "summary": [],
        "status": "completed",
        "content": [_reasoning_part(text)],
    }


def _text_part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _reasoning_part(text: str) -> Json:
    return {"type": "reasoning_text", "text": text}


def _new_id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"
