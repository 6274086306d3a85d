"""What the encoder learns to hear: Latin letters, digits, the apostrophe, the space and Chinese characters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

BLANK = 0
"""CTC's empty symbol; characters count from 1."""
_LATIN = "abcdefghijklmnopqrstuvwxyz0123456789' "
_DROPPED = re.compile(r"[^a-z0-9' 一-鿿]+")
_BESIDE_HAN = re.compile(r"(?<=[一-鿿]) +| +(?=[一-鿿])")


def spoken_form(text: str) -> str:
    """`text` as it is heard: lower case, no punctuation, no space beside a Chinese character."""
    text = _DROPPED.sub(" ", text.lower().replace("&", " and "))
    return _BESIDE_HAN.sub("", " ".join(text.split()))


class Alphabet:
    """Characters and their CTC classes; class 0 is the blank."""

    def __init__(self, han: Iterable[str]) -> None:
        self.characters = _LATIN + "".join(sorted(set(han)))
        self._ids = {character: index for index, character in enumerate(self.characters, start=1)}

    @classmethod
    def of_texts(cls, texts: Iterable[str]) -> Alphabet:
        return cls({c for text in texts for c in spoken_form(text)} - set(_LATIN))

    def __len__(self) -> int:
        return len(self.characters) + 1

    def encode(self, text: str) -> list[int]:
        """Classes of the spoken form; characters outside the alphabet are left out."""
        return [self._ids[c] for c in spoken_form(text) if c in self._ids]

    def decode_greedy(self, classes: Sequence[int]) -> str:
        """The text of the best class per frame: repeats merged, blanks dropped."""
        kept = [c for i, c in enumerate(classes) if c != BLANK and (i == 0 or classes[i - 1] != c)]
        return "".join(self.characters[c - 1] for c in kept)


def edit_distance(left: Sequence[object], right: Sequence[object]) -> int:
    """Levenshtein distance."""
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, start=1):
        previous, row[0] = row[0], i
        for j, b in enumerate(right, start=1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (a != b))
    return row[-1]
