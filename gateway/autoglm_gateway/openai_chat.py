"""Events to OpenAI's chat answers: `chat.completion` whole, `chat.completion.chunk` streamed.

An answer format is a pair of the two; openai_completions.py and openai_responses.py hold the others.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from autoglm_gateway import sse
from autoglm_gateway.draft import ChatDraft
from autoglm_gateway.reasoning import ReasoningSplitter, Split, split_reasoning
from autoglm_protocol.errors import AutoglmError
from autoglm_protocol.events import (
    ChoiceFinished,
    Completion,
    Finished,
    FinishReason,
    Started,
    StreamEvent,
    TokenDelta,
    TokenLogprob,
)

Json = dict[str, Any]


def completion_id() -> str:
    return f"chatcmpl-{uuid.uuid4().hex}"


class ChatFormat:
    def whole(self, draft: ChatDraft, completion: Completion) -> Json:
        return chat_completion(draft, completion)

    def stream(self, draft: ChatDraft, started: Started) -> ChatChunks:
        return ChatChunks(draft, started)


def chat_completion(draft: ChatDraft, completion: Completion) -> Json:
    choices: list[Json] = []
    for choice in completion.choices:
        message: Json = {"role": "assistant", "content": choice.text, "refusal": None}
        if draft.return_reasoning:
            split = split_reasoning(choice.text)
            message |= {"content": split.content, "reasoning_content": split.reasoning}
        choices.append(
            {
                "index": choice.index,
                "message": message,
                "logprobs": _logprobs(choice.logprobs) if draft.sampling.logprobs else None,
                "finish_reason": choice.finish_reason.value,
            }
        )
    return {
        "id": completion_id(),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": draft.model,
        "system_fingerprint": None,
        "choices": choices,
        "usage": completion.usage.to_openai(),
        "dynamic_graph": dict(completion.dynamic_graph),
    }


class ChatChunks:
    """The chunks of one streamed answer, each with the same id, time and model."""

    def __init__(self, draft: ChatDraft, started: Started) -> None:
        self._draft = draft
        self._head: Json = {
            "id": completion_id(),
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": draft.model,
            "system_fingerprint": None,
        }
        self._usage = started.usage
        self._splitters: dict[int, ReasoningSplitter] = {}
        if draft.return_reasoning:
            self._splitters = {index: ReasoningSplitter() for index in range(draft.sampling.n)}

    def first(self) -> bytes:
        roles = (self._chunk(index, {"role": "assistant", "content": ""}) for index in range(self._draft.sampling.n))
        return b"".join(map(sse.encode, roles))

    def of(self, event: StreamEvent) -> bytes:
        """Nothing while a character or a tag is still incomplete."""
        return b"".join(map(sse.encode, self._chunks(event)))

    def failed(self, error: AutoglmError) -> bytes:
        return sse.encode(error_body(error))

    def end(self) -> bytes:
        return sse.DONE

    def _chunks(self, event: StreamEvent) -> Iterator[Json]:
        if isinstance(event, TokenDelta):
            yield from self._delta(event)
        elif isinstance(event, ChoiceFinished):
            yield from self._finish_choice(event.index, event.finish_reason)
        elif isinstance(event, Finished):
            self._usage = event.usage
            graph = {"dynamic_graph": dict(event.dynamic_graph)}
            if self._draft.sampling.n == 1:
                yield from self._finish_choice(0, event.finish_reason, **graph)
            if self._draft.include_usage:
                yield {**self._head, "choices": [], "usage": event.usage.to_openai(), **graph}

    def _delta(self, event: TokenDelta) -> Iterator[Json]:
        if self._draft.continuous_usage:
            count = self._usage.completion_tokens + len(event.token_ids)
            self._usage = replace(self._usage, completion_tokens=count)
        splitter = self._splitters.get(event.index)
        delta = {"content": event.text} if splitter is None else _split_delta(splitter.feed(event.text))
        logprobs = _logprobs(event.logprobs) if event.logprobs else None
        if (event.text and delta) or logprobs or self._draft.continuous_usage:
            yield self._chunk(event.index, delta, logprobs=logprobs)

    def _finish_choice(self, index: int, reason: FinishReason, **extra: Any) -> Iterator[Json]:
        splitter = self._splitters.get(index)
        if splitter is not None:
            rest = _split_delta(splitter.finish())
            if rest:
                yield self._chunk(index, rest)
        yield self._chunk(index, {}, finish_reason=reason.value, **extra)

    def _chunk(
        self, index: int, delta: Json, *, logprobs: Json | None = None, finish_reason: str | None = None, **extra: Any
    ) -> Json:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        chunk = {**self._head, "choices": [choice], **extra}
        if self._draft.continuous_usage:
            chunk["usage"] = self._usage.to_openai()
        elif self._draft.include_usage:
            chunk["usage"] = None
        return chunk


def error_body(error: AutoglmError) -> Json:
    return {
        "error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code},
    }


def model_list(names: tuple[str, ...]) -> Json:
    return {"object": "list", "data": [model_card(name) for name in names]}


def model_card(name: str) -> Json:
    return {"id": name, "object": "model", "created": 0, "owned_by": "autoglm"}


def _split_delta(split: Split) -> Json:
    delta: Json = {}
    if split.reasoning:
        delta["reasoning_content"] = split.reasoning
    if split.content:
        delta["content"] = split.content
    return delta


def _logprobs(entries: tuple[TokenLogprob, ...] | list[TokenLogprob]) -> Json:
    content: list[Mapping[str, Any]] = [
        {
            "token": entry.token,
            "logprob": entry.logprob,
            "bytes": list(entry.raw),
            "top_logprobs": [
                {"token": token, "logprob": logprob, "bytes": list(raw)} for _, token, raw, logprob in entry.top
            ],
        }
        for entry in entries
    ]
    return {"content": content, "refusal": None}
