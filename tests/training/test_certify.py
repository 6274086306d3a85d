"""The promise's arithmetic: exact binomial p-values, and a fixed sequence that stops where it must."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import pytest

from autoglm_training.exits.certify import Measured, binomial_p_value, fixed_sequence, requests_needed


@pytest.mark.parametrize(("mismatches", "requests"), [(0, 1), (3, 40), (7, 250), (40, 40)])
def test_p_value_is_the_exact_binomial_tail(mismatches: int, requests: int) -> None:
    delta = Fraction(1, 50)
    tail = sum(
        (comb(requests, k) * delta**k * (1 - delta) ** (requests - k) for k in range(mismatches + 1)), Fraction()
    )
    assert binomial_p_value(mismatches, requests, 0.02) == pytest.approx(float(tail), rel=1e-9)


def test_149_requests_without_a_mismatch_are_the_fewest() -> None:
    assert requests_needed(0.02, 0.05) == 149
    assert binomial_p_value(0, 149, 0.02) <= 0.05 < binomial_p_value(0, 148, 0.02)


@pytest.mark.parametrize("fails", [1, 2, 3, 5, 7, 10])
def test_the_fewest_requests_pass_the_test_where_the_ratio_is_whole(fails: int) -> None:
    # epsilon is exactly what `fails` requests leave, up to the rounding of a power
    for delta in (0.5, 0.25, 0.1, 0.02):
        needed = requests_needed(delta, (1 - delta) ** fails)
        assert needed in (fails, fails + 1)
        assert binomial_p_value(0, needed, delta) <= (1 - delta) ** fails


def test_more_mismatches_than_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="5 of 4"):
        binomial_p_value(5, 4, 0.02)


def test_the_sequence_stops_at_the_first_candidate_that_fails() -> None:
    # the last one would pass again, and must not be reached
    mismatches = {"closed": 0, "careful": 1, "bold": 30, "lucky": 0}
    asked: list[str] = []

    def measure(name: str) -> Measured:
        asked.append(name)
        return Measured(num_mismatches=mismatches[name], mean_layers=10.0)

    accepted = fixed_sequence(tuple(mismatches), measure, num_requests=400, delta=0.02, epsilon=0.05)
    assert accepted is not None
    assert accepted.candidate == "careful"
    assert asked == ["closed", "careful", "bold"]


def test_nothing_is_accepted_from_too_few_requests() -> None:
    safe = Measured(num_mismatches=0, mean_layers=24.0)
    assert fixed_sequence(("closed",), lambda _: safe, num_requests=148, delta=0.02, epsilon=0.05) is None
