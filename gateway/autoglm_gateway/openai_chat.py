"""Events to OpenAI's chat answers: `chat.completion` whole, `chat.completion.chunk` streamed.

An answer format is a pair of the two; openai_completions.py and openai_responses.py hold the others.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from autoglm_gateway import sse
from autoglm_gateway.draft import ChatDraft
from autoglm_gateway.reasoning import ReasoningSplitter, Split, split_reasoning
from autoglm_gateway.tool_calls import Reading, ToolCallSplitter, split_calls
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
        text, calls = (choice.text, ()) if draft.tools is None else split_calls(choice.text, draft.tools)
        message: Json = {"role": "assistant", "content": text, "refusal": None}
        if draft.return_reasoning:
            split = split_reasoning(text)
            message |= {"content": split.content, "reasoning_content": split.reasoning}
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
        self._splitters: dict[int, ReasoningSplitter] = {}
        if draft.return_reasoning:
            self._splitters = {index: ReasoningSplitter() for index in range(draft.sampling.n)}
        self._call_splitters: dict[int, ToolCallSplitter] = {}
        if draft.tools is not None:
            self._call_splitters = {index: ToolCallSplitter(draft.tools) for index in range(draft.sampling.n)}

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
        calls = self._call_splitters.get(event.index)
        text = event.text if calls is None else calls.feed(event.text)
        delta = self._text_delta(event.index, text)
        logprobs = _logprobs(event.logprobs) if event.logprobs else None
        layers = token_layers(event.token_layers)
        if (text and delta) or logprobs or layers or self._draft.continuous_usage:
            yield self._chunk(event.index, delta, logprobs=logprobs, choice=layers)

    def _finish_choice(self, index: int, reason: FinishReason, **extra: Any) -> Iterator[Json]:
        call_splitter = self._call_splitters.get(index)
        reading = Reading(calls=(), content="") if call_splitter is None else call_splitter.finish()
        if reading.content:
            yield self._chunk(index, self._text_delta(index, reading.content))
        splitter = self._splitters.get(index)
        if splitter is not None:
            rest = _split_delta(splitter.finish())
            if rest:
                yield self._chunk(index, rest)
        for position, call in enumerate(reading.calls):
            head = _call(replace(call, arguments=""))
            yield self._chunk(index, {"tool_calls": [{"index": position, **head}]})
            arguments = {"index": position, "function": {"arguments": call.arguments}}
            yield self._chunk(index, {"tool_calls": [arguments]})
        yield self._chunk(index, {}, finish_reason=_reason(reason, reading.calls), **extra)

    def _text_delta(self, index: int, text: str) -> Json:
        splitter = self._splitters.get(index)
        return {"content": text} if splitter is None else _split_delta(splitter.feed(text))

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
