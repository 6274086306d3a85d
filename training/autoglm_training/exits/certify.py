"""Learn-then-Test with a fixed sequence: which thresholds may be promised. Plain arithmetic, no tensors.

Candidates are ordered beforehand from the safest on. Each is tested on the same requests: "its risk is above delta" is
rejected when so few mismatches would be seen with probability at most epsilon (exact binomial). Testing stops at the
first that is not rejected, so with probability at least 1 - epsilon every accepted candidate keeps risk <= delta,
whatever the risk's shape (Angelopoulos et al., 2110.01052).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Candidate = TypeVar("Candidate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A candidate on the calibration requests. mean_layers: per generated token."""

    num_mismatches: int
    mean_layers: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted(Generic[Candidate]):
    candidate: Candidate
    measured: Measured
    p_value: float


def binomial_p_value(num_mismatches: int, num_requests: int, delta: float) -> float:
    """P(at most `num_mismatches` of `num_requests`) when each fails with probability `delta`, exactly.

    Raises:
        ValueError: numbers that cannot be.
    """
    if not 0 <= num_mismatches <= num_requests or not 0 < delta < 1:
        raise ValueError(f"{num_mismatches} of {num_requests} at {delta} cannot be")
    log_total = math.lgamma(num_requests + 1)
    terms = (
        log_total
        - math.lgamma(k + 1)
        - math.lgamma(num_requests - k + 1)
        + k * math.log(delta)
        + (num_requests - k) * math.log1p(-delta)
        for k in range(num_mismatches + 1)
    )
    return min(1.0, math.fsum(math.exp(term) for term in terms))


def requests_needed(delta: float, epsilon: float) -> int:
    """Fewest requests that can certify anything: all of them without a mismatch."""
    count = max(1, math.ceil(math.log(epsilon) / math.log1p(-delta)))
    # Where the ratio is a whole number, its rounding may fall short of what the test itself finds.
    return count if binomial_p_value(0, count, delta) <= epsilon else count + 1


def fixed_sequence(
    candidates: Sequence[Candidate],
    measure: Callable[[Candidate], Measured],
    *,
    num_requests: int,
    delta: float,
    epsilon: float,
) -> Accepted[Candidate] | None:
    """The last candidate accepted before the first that is not; None when not even the first is."""
    accepted: Accepted[Candidate] | None = None
    for candidate in candidates:
        measured = measure(candidate)
        p_value = binomial_p_value(measured.num_mismatches, num_requests, delta)
        if p_value > epsilon:
            break
        accepted = Accepted(candidate=candidate, measured=measured, p_value=p_value)
    return accepted
