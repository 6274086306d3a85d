"""What a stream yields: deltas of text or reasoning, then one Finished. A failure is raised, never yielded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autoglm_protocol.events import FinishReason, TokenLayers, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The plan of the answer before its first token, only when `return_token_layers=True` asked for it."""

    dynamic_graph: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDelta:
    """New text of the answer, tags included. It is empty only where `token_layers` is not."""

    text: str
    token_layers: tuple[TokenLayers, ...] = ()
    """The tokens of this message with the layers each needed, when `return_token_layers=True` asked for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningDelta:
    """New text of the thought, sent apart from the answer only when `return_reasoning=True` asked for it."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The last event of every complete stream."""

    finish_reason: FinishReason
    usage: Usage
    dynamic_graph: Mapping[str, Any] | None
    """The execution plan that the server ran; None from a server that reports none."""


ClientEvent = Started | TextDelta | ReasoningDelta | Finished
