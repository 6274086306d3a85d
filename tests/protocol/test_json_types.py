from __future__ import annotations

import math

import pytest

from autoglm_protocol.json_types import json_type, whole_number


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (None, "null"),
        (True, "a boolean"),
        (5, "an integer"),
        (0.5, "a number"),
        ("", "a string"),
        ([], "an array"),
        ((), "an array"),
        ({}, "an object"),
    ],
)
def test_a_type_has_jsons_name(value: object, word: str) -> None:
    assert json_type(value) == word


@pytest.mark.parametrize(
    ("value", "number"),
    [(5, 5), (5.0, 5), (-1.0, -1), (1.5, None), (math.inf, None), (math.nan, None), (True, None), ("5", None)],
)
def test_a_whole_number_may_be_written_with_a_point(value: object, number: int | None) -> None:
    assert whole_number(value) == number
