"""What clients ask an answer to look like: OpenAI's, vLLM's and our own words for one grammar."""

from __future__ import annotations

import json
from typing import Any

import pytest

from autoglm_gateway.completions_schema import parse_completion
from autoglm_gateway.grpc_requests import draft_from
from autoglm_gateway.openai_schema import parse_chat
from autoglm_gateway.responses_schema import parse_response
from autoglm_protocol.errors import InvalidRequestError
from autoglm_protocol.grammar import Grammar, GrammarKind
from autoglm_protocol.grpc import autoglm_pb2 as pb

FEATURES = frozenset(("n", "logprobs", "grammar"))
SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}}
OF_SCHEMA = {"type": "json_schema", "json_schema": {"name": "point", "strict": True, "schema": SCHEMA}}


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **fields}


@pytest.mark.parametrize(
    ("fields", "kind", "value", "param"),
    [
        ({"response_format": {"type": "json_object"}}, "json_object", "", "response_format"),
        ({"response_format": OF_SCHEMA}, "json_schema", json.dumps(SCHEMA), "response_format.json_schema.schema"),
        ({"response_format": {"type": "autoglm_action"}}, "autoglm_action", "", "response_format"),
        ({"guided_json": SCHEMA}, "json_schema", json.dumps(SCHEMA), "guided_json"),
        ({"guided_json": json.dumps(SCHEMA)}, "json_schema", json.dumps(SCHEMA), "guided_json"),
        ({"guided_regex": "a+"}, "regex", "a+", "guided_regex"),
        ({"guided_choice": ["a", "是"]}, "choice", '["a", "是"]', "guided_choice"),
        ({"guided_grammar": 'start: "a"'}, "lark", 'start: "a"', "guided_grammar"),
        ({"structured_outputs": {"json": SCHEMA}}, "json_schema", json.dumps(SCHEMA), "structured_outputs.json"),
        ({"structured_outputs": {"regex": "a", "json": None}}, "regex", "a", "structured_outputs.regex"),
        ({"structured_outputs": {"json_object": True}}, "json_object", "", "structured_outputs.json_object"),
        ({"grammar": {"kind": "regex", "value": "a"}}, "regex", "a", "grammar"),
    ],
)
def test_every_spelling_becomes_one_grammar(fields: dict[str, Any], kind: str, value: str, param: str) -> None:
    grammar = parse_chat(chat(**fields), features=FEATURES).sampling.grammar
    assert grammar == Grammar(kind=GrammarKind(kind), value=value)
    assert grammar is not None
    assert grammar.param == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {}}, "response_format.type"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format.json_schema.schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": []}}},
            "response_format.json_schema.schema",
        ),
        ({"guided_json": "{"}, "guided_json"),
        ({"guided_choice": []}, "guided_choice"),
        ({"guided_choice": [1]}, "guided_choice"),
        ({"guided_regex": 1}, "guided_regex"),
        ({"structured_outputs": {"structural_tag": {}}}, "structured_outputs.structural_tag"),
        ({"guided_regex": "a", "response_format": {"type": "json_object"}}, "guided_regex"),
    ],
)
def test_a_refusal_names_the_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_chat(chat(**fields), features=FEATURES)
    assert caught.value.param == param


def test_plain_text_asks_for_no_grammar() -> None:
    assert parse_chat(chat(response_format={"type": "text"}), features=frozenset()).sampling.grammar is None


def test_a_backend_without_grammars_refuses_by_the_callers_field() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_chat(chat(guided_regex="a"), features=frozenset())
    assert (caught.value.param, caught.value.code) == ("guided_regex", "unsupported_parameter")


@pytest.mark.parametrize(
    ("fields", "splits"),
    [
        ({"response_format": OF_SCHEMA}, True),
        ({"response_format": OF_SCHEMA, "return_reasoning": False}, False),
        ({"response_format": {"type": "autoglm_action"}}, False),
        ({}, False),
    ],
)
def test_data_is_kept_apart_from_the_thought(fields: dict[str, Any], splits: bool) -> None:
    assert parse_chat(chat(**fields), features=FEATURES).return_reasoning is splits


def test_a_completion_in_a_format_does_not_think() -> None:
    body = {"model": "m", "prompt": "Hi", "guided_regex": "a"}
    assert not parse_completion(body, features=FEATURES).options.enable_thinking
    assert parse_completion({**body, "enable_thinking": True}, features=FEATURES).options.enable_thinking


def test_the_responses_api_asks_by_text_format() -> None:
    format = {"type": "json_schema", "name": "point", "schema": SCHEMA}
    grammar = parse_response({"model": "m", "input": "Hi", "text": {"format": format}}, features=FEATURES)
    assert grammar.sampling.grammar == Grammar.of_schema(SCHEMA)
    with pytest.raises(InvalidRequestError) as caught:
        parse_response({"model": "m", "input": "Hi", "text": {"format": {"type": "xml"}}}, features=FEATURES)
    assert caught.value.param == "text.format.type"


def test_grpc_carries_a_grammar() -> None:
    message = pb.Message(role=pb.ROLE_USER, parts=[pb.Part(text="Hi")])
    sampling = pb.Sampling(grammar=pb.Grammar(kind="regex", value="a"))
    draft = draft_from(pb.ChatRequest(messages=[message], sampling=sampling), features=FEATURES, stream=False)
    assert draft.sampling.grammar == Grammar(kind=GrammarKind.REGEX, value="a")
    assert draft.return_reasoning
