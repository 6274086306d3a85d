"""Events to OpenAI's legacy `text_completion`, whole and streamed."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from autoglm_gateway import sse
from autoglm_gateway.draft import ChatDraft
from autoglm_gateway.openai_chat import error_body, token_layers
from autoglm_protocol.errors import AutoglmError
from autoglm_protocol.events import (
    ChoiceFinished,
    Completion,
    Finished,
    Started,
    StreamEvent,
    TokenDelta,
    TokenLogprob,
)

Json = dict[str, Any]


class CompletionFormat:
    def whole(self, draft: ChatDraft, completion: Completion) -> Json:
        choices = [
            {
                "index": choice.index,
                "text": choice.text,
                "logprobs": _logprobs(choice.logprobs, 0) if draft.sampling.logprobs else None,
                "finish_reason": choice.finish_reason.value,
                **token_layers(choice.token_layers),
            }
            for choice in completion.choices
        ]
        return {
            **_head(draft),
            "choices": choices,
            "usage": completion.usage.to_openai(),
            "dynamic_graph": dict(completion.dynamic_graph),
        }

    def stream(self, draft: ChatDraft, started: Started) -> CompletionChunks:
        return CompletionChunks(draft, started)


class CompletionChunks:
    def __init__(self, draft: ChatDraft, started: Started) -> None:
        self._draft = draft
        self._head = _head(draft)
        self._usage = started.usage
        self._text_offsets = [0] * draft.sampling.n

    def first(self) -> bytes:
        return b""

    def of(self, event: StreamEvent) -> bytes:
        return b"".join(map(sse.encode, self._chunks(event)))

    def failed(self, error: AutoglmError) -> bytes:
        return sse.encode(error_body(error)) + sse.DONE

    def end(self) -> bytes:
        return sse.DONE

    def _chunks(self, event: StreamEvent) -> Iterator[Json]:
        if isinstance(event, TokenDelta):
            logprobs = _logprobs(event.logprobs, self._text_offsets[event.index]) if event.logprobs else None
            self._text_offsets[event.index] += len(event.text)
            layers = token_layers(event.token_layers)
            if self._draft.continuous_usage:
                count = self._usage.completion_tokens + len(event.token_ids)
                self._usage = replace(self._usage, completion_tokens=count)
            if event.text or logprobs or layers:
                yield self._chunk(event.index, text=event.text, logprobs=logprobs, finish_reason=None, **layers)
        elif isinstance(event, ChoiceFinished):
            yield self._chunk(event.index, text="", logprobs=None, finish_reason=event.finish_reason.value)
        elif isinstance(event, Finished):
            self._usage = event.usage
            graph = {"dynamic_graph": dict(event.dynamic_graph)}
            if self._draft.sampling.n == 1:
                yield self._chunk(0, text="", logprobs=None, finish_reason=event.finish_reason.value) | graph
            if self._draft.include_usage:
                yield {**self._head, "choices": [], "usage": event.usage.to_openai(), **graph}

    def _chunk(self, index: int, **choice: Any) -> Json:
        chunk = {**self._head, "choices": [{"index": index, **choice}]}
        if self._draft.continuous_usage:
            return chunk | {"usage": self._usage.to_openai()}
        return chunk | {"usage": None} if self._draft.include_usage else chunk


def _head(draft: ChatDraft) -> Json:
    return {
        "id": f"cmpl-{uuid.uuid4().hex}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": draft.model,
        "system_fingerprint": None,
    }


def _logprobs(entries: Sequence[TokenLogprob], offset: int) -> Json:
    offsets: list[int] = []
    for entry in entries:
        offsets.append(offset)
        offset += len(entry.token)
    return {
        "tokens": [entry.token for entry in entries],
        "token_logprobs": [entry.logprob for entry in entries],
        "top_logprobs": [{token: logprob for _, token, _, logprob in entry.top} for entry in entries],
        "text_offset": offsets,
    }
