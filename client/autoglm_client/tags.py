"""Text of a model as people read it: the thought and the answer without their tags, while it streams."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

_TAGS = ("<think>", "</think>", "<answer>", "</answer>")


class Section(Enum):
    THOUGHT = "thought"
    ANSWER = "answer"


@dataclass(slots=True)
class TagFilter:
    """Incremental: `feed` returns pieces of text with the section they belong to; half a tag waits for its rest."""

    _section: Section = Section.ANSWER
    _held: str = ""

    def feed(self, text: str) -> list[tuple[Section, str]]:
        pieces: list[tuple[Section, str]] = []
        rest = self._held + text
        while (start := rest.find("<")) >= 0:
            self._emit(pieces, rest[:start])
            rest = rest[start:]
            tag = next((t for t in _TAGS if rest.startswith(t)), None)
            if tag is not None:
                self._section = Section.THOUGHT if tag == "<think>" else Section.ANSWER
                rest = rest[len(tag) :]
            elif any(t.startswith(rest) for t in _TAGS):
                self._held = rest
                return pieces
            else:
                self._emit(pieces, "<")
                rest = rest[1:]
        self._emit(pieces, rest)
        self._held = ""
        return pieces

    def end(self) -> list[tuple[Section, str]]:
        """What was held back and turned out to be no tag."""
        held, self._held = self._held, ""
        return [(self._section, held)] if held else []

    def _emit(self, pieces: list[tuple[Section, str]], text: str) -> None:
        if not text:
            return
        if pieces and pieces[-1][0] is self._section:
            text = pieces.pop()[1] + text
        pieces.append((self._section, text))
