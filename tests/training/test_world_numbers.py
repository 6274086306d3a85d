"""Written numbers, and where a picture shows them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_training.world.numbers import NUMBER_CLASSES, number_class, written_number
from autoglm_training.world.screens import make_screen, render


@pytest.mark.parametrize(("text", "value"), [("$12.90", 12.9), ("¥8", 8.0), ("€0.5", 0.5), ("120", 120.0)])
def test_prices_and_plain_numbers_are_numbers(text: str, value: float) -> None:
    assert written_number(text) == value


@pytest.mark.parametrize("text", ["7:30", "3.4 km", "Room 12", "12345", "$", "1.2.3", ""])
def test_times_distances_and_labels_are_not(text: str) -> None:
    assert written_number(text) is None


@given(st.floats(0, 5000), st.floats(0, 5000))
def test_a_larger_number_never_has_a_smaller_class(first: float, second: float) -> None:
    low, high = sorted((first, second))
    assert 1 <= number_class(low) <= number_class(high) <= NUMBER_CLASSES


def test_prices_are_marked_where_they_are_drawn() -> None:
    screen = make_screen(random.Random(3), "train", template="shop", language="en")
    shown = set(render(screen).number_token_ids.ravel().tolist()) - {0}
    assert {number_class(e.price) for e in screen.elements if e.price is not None} <= shown
