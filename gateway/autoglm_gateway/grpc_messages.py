"""Between the messages of autoglm.proto and the gateway's own types."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct

from autoglm_gateway.answer_format import answers_with_data
from autoglm_gateway.draft import ChatDraft, DraftMessage, DraftPart, MediaKind, MediaRef
from autoglm_gateway.openai_schema import check_features
from autoglm_gateway.reasoning import ReasoningSplitter, Split, split_reasoning
from autoglm_protocol.chat import ChatOptions, Role, TextPart
from autoglm_protocol.errors import InvalidRequestError
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
from autoglm_protocol.sampling import SamplingParams

_ROLES = {
    pb.ROLE_SYSTEM: Role.SYSTEM,
    pb.ROLE_USER: Role.USER,
    pb.ROLE_ASSISTANT: Role.ASSISTANT,
    pb.ROLE_TOOL: Role.TOOL,
}
_FINISH_REASONS = {
    FinishReason.STOP: pb.FINISH_REASON_STOP,
    FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
}


def draft_from(request: pb.ChatRequest, *, features: frozenset[str], stream: bool) -> ChatDraft:
    """Raises InvalidRequestError naming the field by its dotted path."""
    if not request.messages:
        raise InvalidRequestError("messages must hold at least one message", param="messages")
    sampling = _sampling(request.sampling)
    check_features(sampling, features)
    return ChatDraft(
        model=request.model,
        messages=tuple(_message(message, f"messages[{i}]") for i, message in enumerate(request.messages)),
        sampling=sampling,
        options=_options(request.options),
        return_reasoning=(
            request.options.return_reasoning
            if request.options.HasField("return_reasoning")
            else answers_with_data(sampling.grammar)
        ),
        stream=stream,
    )


def response_of(draft: ChatDraft, completion: Completion, *, response_id: str) -> pb.ChatResponse:
    choices: list[pb.Choice] = []
    for choice in completion.choices:
        split = split_reasoning(choice.text) if draft.return_reasoning else Split(reasoning="", content=choice.text)
        choices.append(
            pb.Choice(
                index=choice.index,
                text=split.content,
                reasoning=split.reasoning,
                token_ids=choice.token_ids,
                finish_reason=_FINISH_REASONS[choice.finish_reason],
                logprobs=_logprobs(choice.logprobs),
                token_layers=_token_layers(choice.token_layers),
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
        self._splitters: dict[int, ReasoningSplitter] = {}
        if draft.return_reasoning:
            self._splitters = {index: ReasoningSplitter() for index in range(draft.sampling.n)}

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
            splitter = self._splitters.get(event.index)
            split = Split(reasoning="", content=event.text) if splitter is None else splitter.feed(event.text)
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
            yield from self._held_back(event.index)
            reason = _FINISH_REASONS[event.finish_reason]
            yield pb.ChatEvent(choice_finished=pb.ChoiceFinished(index=event.index, finish_reason=reason))
        elif isinstance(event, Finished):
            yield from self._held_back(0)
            yield pb.ChatEvent(
                finished=pb.Finished(
                    finish_reason=_FINISH_REASONS[event.finish_reason],
                    usage=_usage(event.usage),
                    dynamic_graph=_struct(event.dynamic_graph),
                )
            )

    def _held_back(self, index: int) -> Iterable[pb.ChatEvent]:
        splitter = self._splitters.get(index)
        rest = Split(reasoning="", content="") if splitter is None else splitter.finish()
        if rest.reasoning or rest.content:
            yield pb.ChatEvent(delta=pb.Delta(index=index, text=rest.content, reasoning=rest.reasoning))


def _message(message: pb.Message, where: str) -> DraftMessage:
    role = _ROLES.get(message.role)
    if role is None:
        raise InvalidRequestError(f"{where}.role is missing or unknown", param=f"{where}.role")
    if not message.parts:
        raise InvalidRequestError(f"{where}.parts is empty", param=f"{where}.parts")
    parts = tuple(_part(part, role, f"{where}.parts[{i}]") for i, part in enumerate(message.parts))
    return DraftMessage(role=role, parts=parts)


def _part(part: pb.Part, role: Role, where: str) -> DraftPart:
    kind = part.WhichOneof("kind")
    if kind is None:
        raise InvalidRequestError(f"{where} is empty", param=where)
    if kind == "text":
        return TextPart(text=part.text)
    if role is not Role.USER:
        raise InvalidRequestError(f"{where} is a medium, which only user messages may hold", param=where)
    param = f"{where}.{kind}"
    media_kind = MediaKind.IMAGE if kind.startswith("image") else MediaKind.AUDIO
    if kind.endswith("_url"):
        return MediaRef(kind=media_kind, url=getattr(part, kind), param=param)
    return MediaRef(kind=media_kind, data=getattr(part, kind), param=param)


def _sampling(sampling: pb.Sampling) -> SamplingParams:
    given: dict[str, Any] = {}
    for descriptor, value in sampling.ListFields():
        if descriptor.name == "logit_bias":
            given[descriptor.name] = dict(value)
        elif descriptor.is_repeated:
            given[descriptor.name] = list(value)
        elif descriptor.name == "grammar":
            given[descriptor.name] = {"kind": value.kind, "value": value.value}
        else:
            given[descriptor.name] = value
    if given.get("top_k") == -1:
        given["top_k"] = 0
    return SamplingParams.from_json(given)


def _options(options: pb.Options) -> ChatOptions:
    given: dict[str, Any] = {}
    for descriptor, value in options.ListFields():
        if descriptor.name == "chat_template_kwargs":
            given[descriptor.name] = json_format.MessageToDict(value)
        elif descriptor.name != "return_reasoning":
            given[descriptor.name] = value
    for name in ("max_reasoning_tokens", "max_reasoning_steps"):
        if given.get(name, 0) < 0:
            raise InvalidRequestError(f"{name} is {given[name]}, must be at least 0", param=name)
    return ChatOptions(**given)


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
