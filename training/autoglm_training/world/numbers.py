"""Numbers as a screen writes them, on a scale of octaves: what a reader must tell to compare prices."""

from __future__ import annotations

import math
import re

NUMBER_CLASSES = 88
STEPS_PER_OCTAVE = 8
"""Numbers from 0 to 2,000 in steps of a tenth."""
_WRITTEN = re.compile(r"[$¥€]?(\d{1,4}(?:\.\d{1,2})?)")


def number_class(value: float) -> int:
    """1 to NUMBER_CLASSES for a number from 0 on."""
    return min(NUMBER_CLASSES, 1 + round(STEPS_PER_OCTAVE * math.log2(1 + value)))


def written_number(text: str) -> float | None:
    """The number that a whole text is, with a currency or without; None for any other text."""
    match = _WRITTEN.fullmatch(text)
    return float(match[1]) if match else None
