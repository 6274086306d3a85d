"""What a request becomes: Started, TokenDelta*, then exactly one terminal event (Finished, Cancelled or Failed).

A delta carries every token since the last one, so load makes messages longer, not later. Streaming is the only path;
`fold` turns a stream into the non-streaming answer.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from autoglm_protocol.errors import AutoglmError, RequestCancelledError


class FinishReason(str, Enum):
    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Token counts. `image_tokens` and `audio_tokens` are part of `prompt_tokens`."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    image_tokens: int = 0
    audio_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def to_openai(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.total_tokens,
            "prompt_tokens_details": {
                "text_tokens": self.prompt_tokens - self.image_tokens - self.audio_tokens,
                "image_tokens": self.image_tokens,
                "audio_tokens": self.audio_tokens,
                "cached_tokens": self.cached_tokens,
            },
            "completion_tokens_details": {"reasoning_tokens": self.reasoning_tokens},
        }

    def to_json(self) -> dict[str, int]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    token_id: int
    token: str
    """Text of this token alone; bytes that are no UTF-8 by themselves show as U+FFFD, `raw` has them."""
    raw: bytes
    logprob: float
    top: tuple[tuple[int, str, bytes, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLayers:
    """One token: its share of the answer's text (empty inside a character of several tokens), and its layers."""

    text: str
    layers: int

    def to_json(self) -> dict[str, Any]:
        return {"text": self.text, "layers": self.layers}


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The request was admitted, planned and encoded; generation begins."""

    usage: Usage
    dynamic_graph: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenDelta:
    """New tokens of one choice. `text` may be empty while a character or a stop string is still incomplete."""

    text: str
    token_ids: tuple[int, ...]
    index: int = 0
    logprobs: tuple[TokenLogprob, ...] | None = None
    layers: tuple[int, ...] | None = None
    """Decoder layers that each token needed: the exit whose guess was kept, or the depth that chose it."""
    chars: tuple[int, ...] | None = None
    """How many characters of `text` became certain with each token; from the detokenizer, where `layers` is."""

    @property
    def token_layers(self) -> tuple[TokenLayers, ...]:
        """The text of each token with the layers it needed; empty where nobody asked for them."""
        if self.layers is None or self.chars is None:
            return ()
        starts = itertools.accumulate(self.chars, initial=0)
        pieces = (self.text[start : start + length] for start, length in zip(starts, self.chars, strict=False))
        return tuple(TokenLayers(text=text, layers=n) for text, n in zip(pieces, self.layers, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceFinished:
    """One of several choices is complete; the request goes on until all are."""

    index: int
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """Terminal. `finish_reason` is that of choice 0; other choices said theirs in ChoiceFinished."""

    finish_reason: FinishReason
    usage: Usage
    dynamic_graph: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    """Terminal: the caller went away, or wants no more tokens. Says what had been done until then."""

    usage: Usage = field(default_factory=Usage)
    dynamic_graph: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """Terminal."""

    error: AutoglmError


StreamEvent = Started | TokenDelta | ChoiceFinished | Finished | Cancelled | Failed
TerminalEvent = Finished | Cancelled | Failed


@dataclass(slots=True, kw_only=True)
class Choice:
    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list[int])
    logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])
    token_layers: list[TokenLayers] = field(default_factory=list[TokenLayers])
    finish_reason: FinishReason = FinishReason.STOP


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A whole stream folded into one answer."""

    choices: tuple[Choice, ...]
    usage: Usage
    dynamic_graph: Mapping[str, Any]


async def fold(events: AsyncIterator[StreamEvent]) -> Completion:
    """The non-streaming answer. Raises a Failed stream's error; RequestCancelledError is the caller's own doing."""
    choices: dict[int, Choice] = {}
    async for event in events:
        if isinstance(event, TokenDelta):
            choice = choices.setdefault(event.index, Choice(index=event.index))
            choice.text += event.text
            choice.token_ids.extend(event.token_ids)
            choice.logprobs.extend(event.logprobs or ())
            choice.token_layers.extend(event.token_layers)
        elif isinstance(event, ChoiceFinished):
            choices.setdefault(event.index, Choice(index=event.index)).finish_reason = event.finish_reason
        elif isinstance(event, Finished):
            choices.setdefault(0, Choice(index=0)).finish_reason = event.finish_reason
            ordered = tuple(choices[i] for i in sorted(choices))
            return Completion(choices=ordered, usage=event.usage, dynamic_graph=event.dynamic_graph)
        elif isinstance(event, Failed):
            raise event.error
        elif isinstance(event, Cancelled):
            raise RequestCancelledError("the request was cancelled")
    raise AssertionError("a stream ended without a terminal event")
