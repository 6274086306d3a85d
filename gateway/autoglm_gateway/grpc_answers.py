"""Events to the messages of autoglm.proto."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from google.protobuf.struct_pb2 import Struct

from autoglm_gateway.answer_text import AnswerReader, read_answer
from autoglm_gateway.draft import ChatDraft
from autoglm_protocol.chat import ToolCall
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
    Usage,
)
from autoglm_protocol.grpc import autoglm_pb2 as pb

_FINISH_REASONS = {
    FinishReason.STOP: pb.FINISH_REASON_STOP,
    FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
}


def response_of(draft: ChatDraft, completion: Completion, *, response_id: str) -> pb.ChatResponse:
    choices: list[pb.Choice] = []
    for choice in completion.choices:
        split, calls = read_answer(choice.text, draft)
        choices.append(
            pb.Choice(
                index=choice.index,
                text=split.content,
                reasoning=split.reasoning,
                token_ids=choice.token_ids,
                finish_reason=_finish_reason(choice.finish_reason, calls),
                logprobs=_logprobs(choice.logprobs),
                token_layers=_token_layers(choice.token_layers),
                tool_calls=_tool_calls(calls),
            )
        )
    return pb.ChatResponse(
        id=response_id,
        model=draft.model,
        choices=choices,
        usage=_usage(completion.usage),
        dynamic_graph=_struct(completion.dynamic_graph),
    )


class EventMessages:
    """The messages of one streamed answer."""

    def __init__(self, draft: ChatDraft, *, response_id: str) -> None:
        self._draft = draft
        self._id = response_id
        self._readers = [AnswerReader(draft) for _ in range(draft.sampling.n)]
        self._first_calls: Sequence[ToolCall] = ()
        """Of choice 0, once it is complete."""

    def started(self, event: Started) -> pb.ChatEvent:
        return pb.ChatEvent(
            started=pb.Started(
                id=self._id,
                model=self._draft.model,
                usage=_usage(event.usage),
                dynamic_graph=_struct(event.dynamic_graph),
            )
        )

    def of(self, event: StreamEvent) -> Iterable[pb.ChatEvent]:
        if isinstance(event, TokenDelta):
            split = self._readers[event.index].feed(event.text)
            yield pb.ChatEvent(
                delta=pb.Delta(
                    index=event.index,
                    text=split.content,
                    reasoning=split.reasoning,
                    token_ids=event.token_ids,
                    logprobs=_logprobs(event.logprobs or ()),
                    token_layers=_token_layers(event.token_layers),
                )
            )
        elif isinstance(event, ChoiceFinished):
            calls, rest = self._rest(event.index)
            yield from rest
            if event.index == 0:
                self._first_calls = calls
            reason = _finish_reason(event.finish_reason, calls)
            yield pb.ChatEvent(choice_finished=pb.ChoiceFinished(index=event.index, finish_reason=reason))
        elif isinstance(event, Finished):
            if self._draft.sampling.n == 1:
                self._first_calls, rest = self._rest(0)
                yield from rest
            yield pb.ChatEvent(
                finished=pb.Finished(
                    finish_reason=_finish_reason(event.finish_reason, self._first_calls),
                    usage=_usage(event.usage),
                    dynamic_graph=_struct(event.dynamic_graph),
                )
            )

    def _rest(self, index: int) -> tuple[Sequence[ToolCall], Iterable[pb.ChatEvent]]:
        """A choice's calls, and what was held back of it as messages."""
        rest, calls = self._readers[index].finish()
        if not (rest.reasoning or rest.content or calls):
            return (), ()
        delta = pb.Delta(index=index, text=rest.content, reasoning=rest.reasoning, tool_calls=_tool_calls(calls))
        return calls, (pb.ChatEvent(delta=delta),)


def _finish_reason(reason: FinishReason, calls: Sequence[ToolCall]) -> pb.FinishReason:
    return pb.FINISH_REASON_TOOL_CALLS if calls and reason is FinishReason.STOP else _FINISH_REASONS[reason]


def _tool_calls(calls: Iterable[ToolCall]) -> list[pb.ToolCall]:
    return [pb.ToolCall(id=call.id, name=call.name, arguments=call.arguments) for call in calls]


def _usage(usage: Usage) -> pb.Usage:
    return pb.Usage(**usage.to_json())


def _struct(value: Mapping[str, Any]) -> Struct:
    struct = Struct()
    struct.update(value)
    return struct


def _token_layers(tokens: Iterable[TokenLayers]) -> list[pb.TokenLayers]:
    return [pb.TokenLayers(text=token.text, layers=token.layers) for token in tokens]


def _logprobs(entries: Iterable[TokenLogprob]) -> list[pb.TokenLogprob]:
    return [
        pb.TokenLogprob(
            token_id=entry.token_id,
            token=entry.raw,
            logprob=entry.logprob,
            top=[pb.TopLogprob(token_id=i, token=raw, logprob=logprob) for i, _, raw, logprob in entry.top],
        )
        for entry in entries
    ]
