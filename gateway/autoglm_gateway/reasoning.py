"""Splits `<think>thought</think>rest` into thought and rest while the text is still coming.

Nothing but the two tags is removed: text == "<think>" + thought + "</think>" + rest, however the text was cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

_OPEN, _CLOSE = "<think>", "</think>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    reasoning: str
    content: str

    def __add__(self, later: Split) -> Split:
        return Split(reasoning=self.reasoning + later.reasoning, content=self.content + later.content)


class _State(Enum):
    BEFORE = auto()
    THINKING = auto()
    ANSWERING = auto()


class ReasoningSplitter:
    """One choice's text in, thought and rest out. Text that does not begin with <think> is all rest."""

    def __init__(self) -> None:
        self._state = _State.BEFORE
        self.held: str = ""
        """Read, and neither thought nor rest yet."""

    def feed(self, text: str) -> Split:
        """What is certain by now; a tag that may still be completed is held back."""
        text = self.held + text
        self.held = ""
        reasoning = ""
        if self._state is _State.BEFORE:
            start = text.lstrip()
            if start.startswith(_OPEN):
                self._state, text = _State.THINKING, start[len(_OPEN) :]
            elif _OPEN.startswith(start):
                self.held = text
                return Split(reasoning="", content="")
            else:
                self._state = _State.ANSWERING
        if self._state is _State.THINKING:
            reasoning, tag, text = text.partition(_CLOSE)
            if tag:
                self._state = _State.ANSWERING
            else:
                keep = _overlap(reasoning)
                self.held = reasoning[len(reasoning) - keep :]
                reasoning = reasoning[: len(reasoning) - keep]
        return Split(reasoning=reasoning, content=text)

    def finish(self) -> Split:
        """What was held back, when no more text comes."""
        held, self.held = self.held, ""
        if self._state is _State.THINKING:
            return Split(reasoning=held, content="")
        return Split(reasoning="", content=held)


def _overlap(text: str) -> int:
    """Length of the longest end of `text` that begins the closing tag."""
    return next((n for n in range(min(len(_CLOSE) - 1, len(text)), 0, -1) if text.endswith(_CLOSE[:n])), 0)
