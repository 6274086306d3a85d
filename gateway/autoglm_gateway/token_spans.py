"""Which tokens wrote which part of an answer, for parts that are told apart after the text was put together."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from autoglm_protocol.events import TokenLogprob

_REPLACED = "\ufffd".encode()
"""What a decoder writes for bytes that are no UTF-8: no token has it in this place."""


class TokenSpans:
    """One choice's tokens, laid along its text byte by byte. Text may come later than its tokens, never sooner."""

    def __init__(self) -> None:
        self._tokens: deque[TokenLogprob] = deque()
        self._text = b""
        """From the first of `_tokens` on."""
        self._num_placed = 0
        """Bytes of the answer before `_text`."""
        self._placed: deque[tuple[int, int, TokenLogprob]] = deque()
        """First byte, and the one behind the last."""
        self._is_first_taken = False
        """The first of `_tokens` wrote part of what was taken already; the rest of it is held back."""

    def feed(self, text: str, tokens: Sequence[TokenLogprob]) -> None:
        self._text += text.encode()
        self._tokens.extend(tokens)
        while self._tokens and self._text:
            raw = self._tokens[0].raw
            if self._text.startswith(raw):
                self._place(len(raw))
            elif raw.startswith(self._text):
                return  # the rest of it is still held back, or a stop string's
            elif self._text.startswith(_REPLACED):
                self._place(len(_REPLACED))
            else:
                self._place(0)  # a special token, which is not shown

    def take(self, text: str, behind: str) -> list[TokenLogprob]:
        """The tokens that wrote `text`, which stood before `behind` at the end of everything fed; each only once."""
        end = self._num_placed + len(self._text) - len(behind.encode())
        start = end - len(text.encode())
        taken: list[TokenLogprob] = []
        while self._placed and self._placed[0][0] < end:
            _, last, token = self._placed.popleft()
            if last > start:
                taken.append(token)
        if self._tokens and self._num_placed < end and not self._is_first_taken:
            taken.append(self._tokens[0])
            self._is_first_taken = True
        return taken

    def _place(self, num_bytes: int) -> None:
        start, self._num_placed = self._num_placed, self._num_placed + num_bytes
        self._text = self._text[num_bytes:]
        token = self._tokens.popleft()
        if not self._is_first_taken:
            self._placed.append((start, self._num_placed, token))
        self._is_first_taken = False


def logprob_entries(tokens: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
    """OpenAI's words for them, in chat's `logprobs.content` and in an `output_text` part alike."""
    return [
        {
            "token": token.token,
            "logprob": token.logprob,
            "bytes": list(token.raw),
            "top_logprobs": [
                {"token": text, "logprob": logprob, "bytes": list(raw)} for _, text, raw, logprob in token.top
            ],
        }
        for token in tokens
    ]
