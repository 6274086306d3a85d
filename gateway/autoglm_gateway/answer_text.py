"""One choice's text, told apart into thought, rest and calls as far as the request asks for it."""

from __future__ import annotations

from autoglm_gateway.draft import ChatDraft
from autoglm_gateway.reasoning import ReasoningSplitter, Split
from autoglm_gateway.tool_calls import ToolCallSplitter
from autoglm_protocol.chat import ToolCall


class AnswerReader:
    """Text in as it comes, what is certain of it out."""

    def __init__(self, draft: ChatDraft) -> None:
        self._calls = None if draft.tools is None else ToolCallSplitter(draft.tools)
        self._thoughts = ReasoningSplitter() if draft.return_reasoning else None

    @property
    def held(self) -> str:
        """The end of the text, of which nothing is certain yet."""
        thought = "" if self._thoughts is None else self._thoughts.held
        return thought + ("" if self._calls is None else self._calls.held)

    def feed(self, text: str) -> Split:
        """Nothing while a tag or the beginning of a call may still be completed."""
        if self._calls is not None:
            text = self._calls.feed(text)
        return Split(reasoning="", content=text) if self._thoughts is None else self._thoughts.feed(text)

    def finish(self) -> tuple[Split, tuple[ToolCall, ...]]:
        """What was held back, when no more text comes, and the calls."""
        rest, calls = "", ()
        if self._calls is not None:
            reading = self._calls.finish()
            rest, calls = reading.content, reading.calls
        if self._thoughts is None:
            return Split(reasoning="", content=rest), calls
        return self._thoughts.feed(rest) + self._thoughts.finish(), calls


def read_answer(text: str, draft: ChatDraft) -> tuple[Split, tuple[ToolCall, ...]]:
    """Of a whole text."""
    reader = AnswerReader(draft)
    first = reader.feed(text)
    last, calls = reader.finish()
    return first + last, calls
