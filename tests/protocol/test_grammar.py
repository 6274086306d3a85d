"""Grammars as values: their JSON, and what is refused before any compiler sees it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from autoglm_protocol.errors import InvalidRequestError
from autoglm_protocol.grammar import MAX_GRAMMAR_BYTES, Grammar, GrammarKind
from autoglm_protocol.sampling import SamplingParams

GRAMMARS = [
    Grammar(kind=GrammarKind.JSON_OBJECT),
    Grammar.of_schema({"type": "object", "properties": {"Zahl ß": {"type": "integer"}}}),
    Grammar(kind=GrammarKind.REGEX, value="[0-9]+", param="guided_regex"),
    Grammar.of_choices(["yes", "否"]),
    Grammar(kind=GrammarKind.LARK, value='start: "a"'),
    Grammar(kind=GrammarKind.AUTOGLM_ACTION),
]


@pytest.mark.parametrize("grammar", GRAMMARS, ids=lambda grammar: grammar.kind.value)
def test_it_travels_as_json_inside_the_sampling_parameters(grammar: Grammar) -> None:
    wire = json.dumps(SamplingParams(grammar=grammar).to_json())
    back = SamplingParams.from_json(json.loads(wire)).grammar
    assert back == grammar
    assert back is not None
    assert back.param == grammar.param


@pytest.mark.parametrize(
    "raw",
    [
        "json",
        {"kind": "yaml"},
        {"kind": "regex"},
        {"kind": "regex", "value": 7},
        {"kind": "regex", "value": "a", "flags": "i"},
        {"kind": "json_object", "value": "{}"},
        {"kind": "json_schema", "value": "{"},
        {"kind": "json_schema", "value": "7"},
        {"kind": "json_schema", "value": "[" * 60_000},
        {"kind": "choice", "value": "[]"},
        {"kind": "choice", "value": '["a", 1]'},
        {"kind": "choice", "value": '["a", ""]'},
        {"kind": "choice", "value": json.dumps(["x"] * 1025)},
        {"kind": "lark", "value": "x" * (MAX_GRAMMAR_BYTES + 1)},
    ],
)
def test_what_is_no_grammar_is_refused(raw: Any) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        SamplingParams.from_json({"grammar": raw})
    assert caught.value.param == "grammar"


def test_a_refusal_names_the_callers_own_field() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        Grammar(kind=GrammarKind.CHOICE, value="[]", param="guided_choice")
    assert caught.value.param == "guided_choice"
