"""An answer on the terminal as it comes: the thought dim, the action plain, tags hidden."""

from __future__ import annotations

import os
from typing import TextIO

from autoglm_client.events import ClientEvent, ReasoningDelta, TextDelta
from autoglm_client.tags import Section, TagFilter

_DIM, _NORMAL = "\x1b[2m", "\x1b[0m"


def can_colour(out: TextIO) -> bool:
    """A terminal whose user did not say NO_COLOR (https://no-color.org)."""
    return out.isatty() and not os.environ.get("NO_COLOR")


class AnswerPrinter:
    """`show` every event, then `end`, also after a failure: it leaves a new line in the normal colour."""

    def __init__(self, out: TextIO, *, is_raw: bool = False) -> None:
        self._out = out
        self._is_raw = is_raw
        self._has_colour = can_colour(out)
        self._filter = TagFilter()
        self._section: Section | None = None

    def show(self, event: ClientEvent) -> None:
        if isinstance(event, ReasoningDelta):
            self._write(Section.THOUGHT, event.text)
        elif isinstance(event, TextDelta):
            pieces = [(Section.ANSWER, event.text)] if self._is_raw else self._filter.feed(event.text)
            for section, text in pieces:
                self._write(section, text)
        self._out.flush()

    def end(self) -> None:
        for section, text in self._filter.end():
            self._write(section, text)
        if self._section is not None:
            self._out.write(f"{self._colour(Section.ANSWER)}\n")
        self._out.flush()

    def dim(self, line: str) -> None:
        """A line of ours, not of the model."""
        self._out.write(f"{self._colour(Section.THOUGHT)}{line}{self._colour(Section.ANSWER)}\n")
        self._out.flush()

    def _write(self, section: Section, text: str) -> None:
        if section is not self._section:
            if self._section is not None:
                self._out.write("\n")
            self._out.write(self._colour(section))
            self._section = section
        self._out.write(text)

    def _colour(self, section: Section) -> str:
        if not self._has_colour:
            return ""
        return _DIM if section is Section.THOUGHT else _NORMAL
