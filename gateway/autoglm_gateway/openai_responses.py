"""Events to OpenAI's Responses answers: one `response` object, or its stream of named events."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from autoglm_gateway import sse
from autoglm_gateway.answer_text import AnswerReader
from autoglm_gateway.draft import ChatDraft
from autoglm_gateway.openai_chat import error_body
from autoglm_gateway.reasoning import Split
from autoglm_gateway.responses_items import CallItem, Json, Named, OpenItem, new_id
from autoglm_gateway.token_spans import TokenSpans, logprob_entries
from autoglm_protocol.chat import ToolCall
from autoglm_protocol.errors import AutoglmError
from autoglm_protocol.events import Completion, Finished, FinishReason, Started, StreamEvent, TokenDelta, Usage


class ResponsesFormat:
    def whole(self, draft: ChatDraft, completion: Completion) -> Json:
        """What the stream of the same answer would end with."""
        choice = completion.choices[0]
        text = TokenDelta(text=choice.text, token_ids=(), logprobs=tuple(choice.logprobs))
        end = Finished(
            finish_reason=choice.finish_reason, usage=completion.usage, dynamic_graph=completion.dynamic_graph
        )
        building = ResponseEvents(draft)
        *_, (_, last) = [*building.events(text), *building.events(end)]
        return last["response"]

    def stream(self, draft: ChatDraft, started: Started) -> ResponseEvents:
        return ResponseEvents(draft)


class ResponseEvents:
    """Output items one after the other: the thought when it was asked for, the message, then the calls."""

    def __init__(self, draft: ChatDraft) -> None:
        self._head = _head(draft)
        self._reader = AnswerReader(draft)
        self._tokens = TokenSpans() if draft.sampling.logprobs else None
        self._sequence = 0
        self._done: list[Json] = []
        self._open: OpenItem | None = None

    def first(self) -> bytes:
        running: Json = {**self._head, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
        return b"".join(
            self._encode(name, {"response": running}) for name in ("response.created", "response.in_progress")
        )

    def of(self, event: StreamEvent) -> bytes:
        return b"".join(self._encode(name, data) for name, data in self.events(event))

    def failed(self, error: AutoglmError) -> bytes:
        """In three places: where the reference has it, where OpenAI's API sends it and its SDK looks for it (without
        that a loop over the stream just ends), and in the response, which clients wait for as the last event."""
        told = {"code": error.code, "message": error.message, "param": error.param}
        output = self._done if self._open is None else [*self._done, self._open.item("incomplete")]
        response = {**self._head, "status": "failed", "output": output, "usage": None, "incomplete_details": None}
        return self._encode("error", {**told, **error_body(error)}) + self._encode(
            "response.failed", {"response": {**response, "error": {"code": error.code, "message": error.message}}}
        )

    def end(self) -> bytes:
        return b""

    def events(self, event: StreamEvent) -> Iterator[Named]:
        """What one event of the backend becomes; a Finished ends with the complete response."""
        if isinstance(event, TokenDelta):
            if self._tokens is not None:
                self._tokens.feed(event.text, event.logprobs or ())
            yield from self._texts(self._reader.feed(event.text), self._reader.held)
        elif isinstance(event, Finished):
            held = self._reader.held
            rest, calls = self._reader.finish()
            # What is not a call may stand inside of it: the message of a phone's finish.
            at = held.rfind(rest.content)
            yield from self._texts(rest, None if at < 0 else held[at + len(rest.content) :])
            cut_off = event.finish_reason is FinishReason.LENGTH and not calls
            if not calls and (self._open is None or (self._open.is_reasoning and not cut_off)):
                yield from self._turn_to(is_reasoning=False)
            yield from self._close("incomplete" if cut_off else "completed")
            yield from self._calls(calls)
            response = _completed(self._head, self._done, event.finish_reason, event.usage, event.dynamic_graph)
            yield f"response.{response['status']}", {"response": response}

    def _texts(self, split: Split, behind: str | None) -> Iterator[Named]:
        """`behind`: the text after `split.content` so far; None where that is not a piece of the text."""
        for is_reasoning, text in ((True, split.reasoning), (False, split.content)):
            if text:
                yield from self._turn_to(is_reasoning=is_reasoning)
                assert self._open is not None
                yield self._open.delta(text, [] if is_reasoning else self._logprobs(text, behind))

    def _logprobs(self, text: str, behind: str | None) -> list[Json]:
        if self._tokens is None or behind is None:
            return []
        return logprob_entries(self._tokens.take(text, behind))

    def _turn_to(self, *, is_reasoning: bool) -> Iterator[Named]:
        if self._open is not None and self._open.is_reasoning == is_reasoning:
            return
        yield from self._close()
        self._open = OpenItem(is_reasoning=is_reasoning, output_index=len(self._done))
        yield from self._open.opening()

    def _close(self, status: str = "completed") -> Iterator[Named]:
        if self._open is not None:
            yield from self._open.closing(status)
            self._done.append(self._open.item(status))
            self._open = None

    def _calls(self, calls: tuple[ToolCall, ...]) -> Iterator[Named]:
        for call in calls:
            item = CallItem(call, output_index=len(self._done))
            yield from item.events()
            self._done.append(item.done)

    def _encode(self, name: str, data: Json) -> bytes:
        number, self._sequence = self._sequence, self._sequence + 1
        return sse.encode({"type": name, "sequence_number": number, **data}, event=name)


def _head(draft: ChatDraft) -> Json:
    sampling = draft.sampling
    return {
        "id": new_id("resp"),
        "object": "response",
        "background": False,
        "completed_at": None,
        "conversation": None,
        "created_at": int(time.time()),
        "model": draft.model,
        "error": None,
        "max_output_tokens": sampling.max_tokens,
        "previous_response_id": None,
        "service_tier": "default",
        "store": False,
        "temperature": sampling.temperature,
        "top_logprobs": sampling.top_logprobs,
        "top_p": sampling.top_p,
        "truncation": "disabled",
        **draft.echo,
    }


def _completed(head: Json, items: list[Json], reason: FinishReason, usage: Usage, graph: Mapping[str, Any]) -> Json:
    cut_off = reason is FinishReason.LENGTH
    return {
        **head,
        "completed_at": None if cut_off else int(time.time()),
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
