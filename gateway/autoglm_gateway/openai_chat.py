"""Events to OpenAI's chat answers: `chat.completion` whole, `chat.completion.chunk` streamed.

An answer format is a pair of the two; openai_completions.py and openai_responses.py hold the others.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from autoglm_gateway import sse
from autoglm_gateway.answer_text import AnswerReader, read_answer
from autoglm_gateway.draft import ChatDraft
from autoglm_gateway.reasoning import Split
from autoglm_gateway.token_spans import logprob_entries
from autoglm_protocol.chat import ToolCall
from autoglm_protocol.errors import AutoglmError
from autoglm_protocol.events import (
    ChoiceFinished,
    Completion,
    Finished,
    FinishReason,
    Started,
    StreamEvent,
    TokenDelta,
    TokenLayers,
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
        split, calls = read_answer(choice.text, draft)
        message: Json = {"role": "assistant", "content": split.content, "refusal": None}
        if draft.return_reasoning:
            message["reasoning_content"] = split.reasoning
        if calls:
            message |= {"content": message["content"] or None, "tool_calls": [_call(call) for call in calls]}
        choices.append(
            {
                "index": choice.index,
                "message": message,
                "logprobs": _logprobs(choice.logprobs) if draft.sampling.logprobs else None,
                "finish_reason": _reason(choice.finish_reason, calls),
                **token_layers(choice.token_layers),
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
        # Who asks for the depth of tokens gets the plan in front of them: layers mean little without their number.
        self._plan: Json = {"dynamic_graph": dict(started.dynamic_graph)} if draft.options.return_token_layers else {}
        self._readers = [AnswerReader(draft) for _ in range(draft.sampling.n)]

    def first(self) -> bytes:
        roles = (
            self._chunk(index, {"role": "assistant", "content": ""}, **self._plan)
            for index in range(self._draft.sampling.n)
        )
        return b"".join(map(sse.encode, roles))

    def of(self, event: StreamEvent) -> bytes:
        """Nothing while a character or a tag is still incomplete."""
        return b"".join(map(sse.encode, self._chunks(event)))

    def failed(self, error: AutoglmError) -> bytes:
        return sse.encode(error_body(error)) + sse.DONE

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
        split = self._readers[event.index].feed(event.text)
        logprobs = _logprobs(event.logprobs) if event.logprobs else None
        layers = token_layers(event.token_layers)
        if split.content or split.reasoning or logprobs or layers or self._draft.continuous_usage:
            yield self._chunk(event.index, self._delta_of(split), logprobs=logprobs, choice=layers)

    def _finish_choice(self, index: int, reason: FinishReason, **extra: Any) -> Iterator[Json]:
        rest, calls = self._readers[index].finish()
        if rest.content or rest.reasoning:
            yield self._chunk(index, self._delta_of(rest))
        for position, call in enumerate(calls):
            head = _call(replace(call, arguments=""))
            yield self._chunk(index, {"tool_calls": [{"index": position, **head}]})
            arguments = {"index": position, "function": {"arguments": call.arguments}}
            yield self._chunk(index, {"tool_calls": [arguments]})
        yield self._chunk(index, {}, finish_reason=_reason(reason, calls), **extra)

    def _delta_of(self, split: Split) -> Json:
        if not self._draft.return_reasoning:
            return {"content": split.content}
        named = {"reasoning_content": split.reasoning, "content": split.content}
        return {name: text for name, text in named.items() if text}

    def _chunk(
        self,
        index: int,
        delta: Json,
        *,
        logprobs: Json | None = None,
        finish_reason: str | None = None,
        choice: Json | None = None,
        **extra: Any,
    ) -> Json:
        known = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        chunk = {**self._head, "choices": [known | (choice or {})], **extra}
        if self._draft.continuous_usage:
            chunk["usage"] = self._usage.to_openai()
        elif self._draft.include_usage:
            chunk["usage"] = None
        return chunk


def token_layers(tokens: Sequence[TokenLayers]) -> Json:
    """The field `token_layers` of a choice, only where it was asked for."""
    return {"token_layers": [token.to_json() for token in tokens]} if tokens else {}


def error_body(error: AutoglmError) -> Json:
    return {
        "error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code},
    }


def model_list(names: tuple[str, ...]) -> Json:
    return {"object": "list", "data": [model_card(name) for name in names]}


def model_card(name: str) -> Json:
    return {"id": name, "object": "model", "created": 0, "owned_by": "autoglm"}


def _call(call: ToolCall) -> Json:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _reason(reason: FinishReason, calls: Sequence[ToolCall]) -> str:
    return "tool_calls" if calls and reason is FinishReason.STOP else reason.value


def _logprobs(entries: Sequence[TokenLogprob]) -> Json:
    return {"content": logprob_entries(entries), "refusal": None}
