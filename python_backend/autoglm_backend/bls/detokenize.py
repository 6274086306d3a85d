"""Token ids to text, as they come: whole characters only, stop strings across token borders, no special token ever.

Each token costs the work of its own bytes, however long the answer is. The concatenated text equals a decode of all
tokens at once, less a character that was never completed.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass

from autoglm_backend.preprocess.tokenizer import TokenTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What some tokens became. `num_tokens` of them count: fewer than were given when a stop string ended them."""

    text: str
    chars: tuple[int, ...]
    """How many characters of `text` each of the tokens that count made certain."""
    stopped: bool

    @property
    def num_tokens(self) -> int:
        return len(self.chars)


class Detokenizer:
    """One choice's answer. Feed tokens until `stopped`, then `finish`."""

    def __init__(
        self,
        table: TokenTable,
        *,
        stop: Sequence[str] = (),
        include_stop: bool = False,
        min_tokens: int = 0,
        think_ids: tuple[int, int] | None = None,
        starts_in_thought: bool = False,
    ) -> None:
        # min_tokens: tokens before which stop strings are not looked for. think_ids: ids of <think> and </think>.
        self.num_tokens = 0
        self.reasoning_tokens = 0
        self.stopped = False
        self._table = table
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._matchers = [StopMatcher(text) for text in stop]
        self._include_stop = include_stop
        self._min_tokens = min_tokens
        self._think_ids = think_ids
        self._in_thought = starts_in_thought
        self._held = ""
        """Text that may be the beginning of a stop string."""

    def feed(self, token_ids: Sequence[int]) -> Piece:
        """The new text of these tokens, as far as it is certain."""
        text: list[str] = []
        for token in token_ids:
            self._count(token)
            text.append(self._guard(self._utf8.decode(self._table.visible_bytes(token))))
            if self.stopped:
                break
        return Piece(text="".join(text), chars=tuple(map(len, text)), stopped=self.stopped)

    def finish(self) -> str:
        """The text still held back; bytes of a character that never came to its end are dropped."""
        held, self._held = self._held, ""
        return held

    def _count(self, token: int) -> None:
        self.num_tokens += 1
        if self._think_ids is None:
            return
        opening, closing = self._think_ids
        if self._in_thought:
            self._in_thought = token != closing
            self.reasoning_tokens += token != closing
        else:
            self._in_thought = token == opening

    def _guard(self, text: str) -> str:
        """Pass text through the stop strings: returns what surely precedes any of them."""
        if not self._matchers or self.num_tokens <= self._min_tokens:
            return text
        text = self._held + text
        for index in range(len(self._held), len(text)):
            lengths = [m.length for m in self._matchers if m.advance(text[index])]
            if lengths:
                # several may end here; the longest began first
                self.stopped, self._held = True, ""
                return text[: index + 1] if self._include_stop else text[: index + 1 - max(lengths)]
        num_held = max(m.num_matched for m in self._matchers)
        certain = len(text) - num_held
        self._held = text[certain:]
        return text[:certain]


class StopMatcher:
    """Finds one string in a stream of characters in constant amortised time each (Knuth, Morris and Pratt)."""

    def __init__(self, text: str) -> None:
        assert text
        self.length = len(text)
        self.num_matched = 0
        self._text = text
        self._fallback = _borders(text)

    def advance(self, character: str) -> bool:
        """Whether the string ends with this character."""
        matched = self.num_matched
        while matched and (matched == self.length or self._text[matched] != character):
            matched = self._fallback[matched - 1]
        matched += self._text[matched] == character
        self.num_matched = matched
        return matched == self.length


def _borders(text: str) -> list[int]:
    """For each prefix, the length of its longest proper prefix that is also its suffix."""
    borders = [0] * len(text)
    length = 0
    for index in range(1, len(text)):
        while length and text[length] != text[index]:
            length = borders[length - 1]
        length += text[length] == text[index]
        borders[index] = length
    return borders
