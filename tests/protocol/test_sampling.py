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


def test_json_holds_only_what_differs_and_reads_back() -> None:
    params = SamplingParams(temperature=0.0, stop=("a", "b"), logit_bias={5: -1.0}, seed=3)
    assert SamplingParams.from_json(params.to_json()) == params
    assert SamplingParams().to_json() == {}


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="beam_width"):
        SamplingParams.from_json({"beam_width": 4})


def test_one_stop_string_needs_no_list() -> None:
    assert SamplingParams.from_json({"stop": "END"}).stop == ("END",)


def test_at_most_four_stop_strings() -> None:
    with pytest.raises(InvalidRequestError, match="at most 4"):
        SamplingParams(stop=("a", "b", "c", "d", "e"))
