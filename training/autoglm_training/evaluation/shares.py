"""Shares with their doubt: what a page says about "so many of so many"."""

from __future__ import annotations

import math
from dataclasses import dataclass

_Z_95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Share:
    """`count` of `total`; total is at least 1."""

    count: int
    total: int

    @property
    def value(self) -> float:
        return self.count / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval (Wilson 1927), ends in 0..1."""
        n, p, z2 = self.total, self.value, _Z_95**2
        middle = (p + z2 / (2 * n)) / (1 + z2 / n)
        half = _Z_95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
        return max(0.0, middle - half), min(1.0, middle + half)

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} %"

    @property
    def between(self) -> str:
        """The interval as text, such as "56.2 to 71.9 %"."""
        low, high = self.interval
        return f"{100 * low:.1f} to {100 * high:.1f} %"
