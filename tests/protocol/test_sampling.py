from __future__ import annotations

import pytest

from autoglm_protocol.errors import InvalidRequestError
from autoglm_protocol.sampling import SamplingParams


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 2.1),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("min_p", 1.5),
        ("frequency_penalty", 2.5),
        ("presence_penalty", -3.0),
        ("repetition_penalty", 0.0),
        ("max_tokens", 0),
        ("n", 0),
        ("n", 17),
        ("top_logprobs", 21),
        ("seed", 1 << 63),
    ],
)
def test_out_of_range_names_the_field_and_the_bound(field: str, value: float) -> None:
    with pytest.raises(InvalidRequestError, match=r"must be in") as refusal:
        SamplingParams(**{field: value})
    assert refusal.value.param == field


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", "hot"),
        ("temperature", True),
        ("max_tokens", 1.5),
        ("stop", [1]),
        ("logit_bias", [1]),
        ("n", None),
    ],
)
def test_a_wrong_type_names_the_field(field: str, value: object) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        SamplingParams.from_json({field: value})
    assert (refusal.value.code, refusal.value.param) == ("invalid_type", field)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("temperature", "0.5", "temperature must be a number, not a string"),
        ("temperature", True, "temperature must be a number, not a boolean"),
        ("n", None, "n must be an integer, not null"),
        ("n", 1.5, "n must be an integer, not a number"),
        ("logprobs", 1, "logprobs must be a boolean, not an integer"),
        ("stop", {}, "stop must be a string or an array of strings, not an object"),
        ("stop", ["a", None], "stop[1] must be a string, not null"),
        ("bad_words", "x", "bad_words must be an array of strings, not a string"),
        ("stop_token_ids", ["5"], "stop_token_ids[0] must be an integer, not a string"),
        ("logit_bias", [5], "logit_bias must be an object, not an array"),
        ("logit_bias", {"5": "x"}, "logit_bias.5 must be a number, not a string"),
        ("logit_bias", {"the": 1}, "logit_bias has the key 'the', must be a token id"),
        ("grammar", "x", "grammar must be an object with kind and value, not a string"),
        ("grammar", {"kind": "regex", "value": 5}, "grammar.value must be a string, not an integer"),
    ],
)
def test_a_wrong_type_is_told_in_jsons_words(field: str, value: object, message: str) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        SamplingParams.from_json({field: value})
    assert refusal.value.message == message


def test_an_integer_may_be_written_with_a_point() -> None:
    params = SamplingParams.from_json({"max_tokens": 100.0, "stop_token_ids": [5.0]})
    assert (params.max_tokens, params.stop_token_ids) == (100, (5,))


def test_an_integer_beyond_every_float_is_out_of_range() -> None:
    with pytest.raises(InvalidRequestError, match="must be in"):
        SamplingParams.from_json({"temperature": 10**400})


def test_json_holds_only_what_differs_and_reads_back() -> None:
    params = SamplingParams(temperature=0.0, stop=("a", "b"), logit_bias={5: -1.0}, seed=3)
    assert SamplingParams.from_json(params.to_json()) == params
    assert SamplingParams().to_json() == {}


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="beam_width"):
        SamplingParams.from_json({"beam_width": 4})


def test_one_stop_string_needs_no_list() -> None:
    assert SamplingParams.from_json({"stop": "END"}).stop == ("END",)


def test_some_token_must_be_allowed() -> None:
    with pytest.raises(InvalidRequestError, match="no token") as refusal:
        SamplingParams.from_json({"allowed_token_ids": []})
    assert refusal.value.param == "allowed_token_ids"


def test_at_most_four_stop_strings() -> None:
    with pytest.raises(InvalidRequestError, match="at most 4"):
        SamplingParams(stop=("a", "b", "c", "d", "e"))
