"""A stream folded into one reply, with the times that a user feels."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from autoglm_client.events import ClientEvent, Finished, Started, TextDelta
from autoglm_protocol.actions import Action, ActionError, parse_action, split_reply
from autoglm_protocol.events import FinishReason, TokenLayers, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionReply:
    """A whole answer. `action` is None when the text is no action; `autoglm_protocol.actions.parse_action` says why."""

    text: str
    """The answer as the model wrote it, tags included."""
    thought: str | None
    action_text: str
    action: Action | None
    finish_reason: FinishReason
    usage: Usage
    dynamic_graph: Mapping[str, Any] | None
    first_token_s: float | None
    """From sending the request to the first text; None for an empty answer."""
    duration_s: float
    token_layers: tuple[TokenLayers, ...] = ()
    """Every token with the layers it needed, when `return_token_layers=True` asked for them."""

    @property
    def tokens_per_s(self) -> float | None:
        """Generated tokens over the whole time, the wait for the first included; None for an empty answer.

        A rate after the first token cannot be known here: a message carries any number of tokens, the first one too.
        """
        if self.usage.completion_tokens == 0 or self.duration_s <= 0:
            return None
        return self.usage.completion_tokens / self.duration_s

    def to_json(self) -> dict[str, Any]:
        action = None if self.action is None else {"name": self.action.name, **self.action.arguments}
        layers = {"token_layers": [token.to_json() for token in self.token_layers]} if self.token_layers else {}
        return {
            "thought": self.thought,
            "action": action,
            "text": self.text,
            "finish_reason": self.finish_reason.value,
            "usage": asdict(self.usage),
            "dynamic_graph": None if self.dynamic_graph is None else dict(self.dynamic_graph),
            "first_token_s": None if self.first_token_s is None else round(self.first_token_s, 3),
            "duration_s": round(self.duration_s, 3),
            **layers,
        }


@dataclass(slots=True, kw_only=True)
class ReplyBuilder:
    """Make it when the request is sent, `add` every event, take `reply` after Finished."""

    clock: Callable[[], float] = time.monotonic
    _start_s: float = field(init=False)
    _first_token_s: float | None = field(init=False, default=None)
    _text: list[str] = field(init=False, default_factory=list[str])
    _token_layers: list[TokenLayers] = field(init=False, default_factory=list[TokenLayers])
    _reasoning: list[str] = field(init=False, default_factory=list[str])
    _finished: Finished | None = field(init=False, default=None)
    _end_s: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self._start_s = self.clock()

    def add(self, event: ClientEvent) -> None:
        if isinstance(event, Finished):
            self._finished, self._end_s = event, self.clock()
            return
        if isinstance(event, Started):
            return
        if self._first_token_s is None:
            self._first_token_s = self.clock() - self._start_s
        if isinstance(event, TextDelta):
            self._text.append(event.text)
            self._token_layers.extend(event.token_layers)
        else:
            self._reasoning.append(event.text)

    @property
    def reply(self) -> ActionReply:
        assert self._finished is not None, "the stream is not over"
        text = "".join(self._text)
        parts = split_reply(text)
        thought = "".join(self._reasoning).strip() if self._reasoning else parts.thought
        return ActionReply(
            text=text,
            thought=thought,
            action_text=parts.action_text,
            action=_action(parts.action_text),
            finish_reason=self._finished.finish_reason,
            usage=self._finished.usage,
            dynamic_graph=self._finished.dynamic_graph,
            first_token_s=self._first_token_s,
            duration_s=self._end_s - self._start_s,
            token_layers=tuple(self._token_layers),
        )


def _action(text: str) -> Action | None:
    try:
        return parse_action(text)
    except ActionError:
        return None
