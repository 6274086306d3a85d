"""The other endpoints that generate: completions, multimodal completions, responses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from tests.gateway.processes import MODEL, Gateway, running_gateway
from tests.gateway.wire import b64, mp3, png, post, refusal, usage_of, wav

from autoglm_gateway.fake_backend import FakeKnobs

TEXT = FakeKnobs().fake_text
MULTIMODAL = "/v1/multimodal/completions"


@pytest.fixture
def client(gateway: Gateway):
    with openai.OpenAI(base_url=gateway.v1, api_key="EMPTY", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def breaker() -> Iterator[Gateway]:
    """Every answer fails behind its third token."""
    with running_gateway("--fake", "--fake-fail-at-token", "3") as gateway:
        yield gateway


@pytest.mark.parametrize("prompt", ["Hi", ["Hi"]])
def test_a_completion_has_text_and_usage(client: openai.OpenAI, prompt: Any):
    answer = client.completions.create(model=MODEL, prompt=prompt, max_tokens=4)

    assert answer.object == "text_completion"
    assert TEXT.startswith(answer.choices[0].text)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4


def test_a_streamed_completion_says_the_same(client: openai.OpenAI):
    chunks = list(
        client.completions.create(model=MODEL, prompt="Hi", stream=True, stream_options={"include_usage": True})
    )

    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == TEXT
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].usage is not None
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_continuous_usage_of_a_completion_rises_with_every_chunk(client: openai.OpenAI):
    """Check 5."""
    options: Any = {"include_usage": True, "continuous_usage_stats": True}
    chunks = client.completions.create(model=MODEL, prompt="Hi", max_tokens=3, stream=True, stream_options=options)

    assert [chunk.usage and chunk.usage.completion_tokens for chunk in chunks] == [1, 2, 3, 3, 3]


def test_completion_logprobs_count_characters(client: openai.OpenAI):
    logprobs = client.completions.create(model=MODEL, prompt="Hi", max_tokens=3, logprobs=1).choices[0].logprobs

    assert logprobs is not None
    assert logprobs.tokens is not None
    assert logprobs.text_offset == [0, len(logprobs.tokens[0]), len(logprobs.tokens[0] + logprobs.tokens[1])]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "prompt"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "echo": True}, "echo"),
        ({"prompt": "a", "best_of": 3}, "best_of"),
        ({"prompt": "a", "logprobs": 21}, "logprobs"),
        ({"prompt": "a", "logprobs": -1}, "logprobs"),
        ({"prompt": "a", "logprobs": "5"}, "logprobs"),
        ({"prompt": "a", "return_reasoning": True}, "return_reasoning"),
    ],
)
def test_a_bad_completion_is_refused_by_field(gateway: Gateway, fields: dict[str, Any], param: str):
    assert refusal(post(gateway, {"model": MODEL, **fields}, "/v1/completions"), 400)["param"] == param


@pytest.mark.parametrize(
    ("media", "tokens"),
    [
        ({"image": b64(png())}, "image_tokens"),
        ({"image": f"data:image/png;base64,{b64(png())}"}, "image_tokens"),
        ({"images": [b64(png()), b64(png())]}, "image_tokens"),
        ({"audio": b64(wav())}, "audio_tokens"),
        ({"audio": b64(mp3()), "audio_format": "mp3"}, "audio_tokens"),
    ],
)
def test_one_plain_body_carries_media(gateway: Gateway, media: dict[str, Any], tokens: str):
    body = {"model": MODEL, "prompt": "Open Bluetooth", "system": "Be brief.", **media}

    assert usage_of(post(gateway, body, MULTIMODAL))["prompt_tokens_details"][tokens] > 0


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "prompt"),
        ({"image": "no base64!"}, "image"),
        ({"prompt": "a", "image": ""}, "image"),
        ({"images": [b64(png()), 5]}, "images[1]"),
        ({"images": [b64(b"text")]}, "images[0]"),
        ({"audio": b64(b"a text file")}, "audio"),
        ({"audio": 5}, "audio"),
        ({"prompt": "a", "depth": 7}, "depth"),
    ],
)
def test_a_bad_plain_body_is_refused_by_field(gateway: Gateway, fields: dict[str, Any], param: str):
    assert refusal(post(gateway, {"model": MODEL, **fields}, MULTIMODAL), 400)["param"] == param


def test_a_response_has_text_and_usage(client: openai.OpenAI):
    response = client.responses.create(model=MODEL, input="Hi", instructions="Be brief.")

    assert response.output_text == TEXT
    assert response.status == "completed"
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens


def test_a_response_that_is_cut_off_says_so(client: openai.OpenAI):
    response = client.responses.create(model=MODEL, input="Hi", max_output_tokens=2)

    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert [(item.type, getattr(item, "status", None)) for item in response.output] == [("message", "incomplete")]


def test_a_response_that_is_cut_off_in_its_thought_has_no_message(client: openai.OpenAI):
    extra = {"return_reasoning": True}
    response = client.responses.create(model=MODEL, input="Hi", max_output_tokens=4, extra_body=extra)

    assert [(item.type, getattr(item, "status", None)) for item in response.output] == [("reasoning", "incomplete")]


def test_a_response_takes_pictures_in_its_input(client: openai.OpenAI):
    picture = {"type": "input_image", "image_url": f"data:image/png;base64,{b64(png())}", "detail": "auto"}
    item = {"role": "user", "content": [picture, {"type": "input_text", "text": "Open Bluetooth"}]}
    with_picture = client.responses.create(model=MODEL, input=[item])  # type: ignore[list-item]
    without = client.responses.create(model=MODEL, input="Open Bluetooth")

    assert with_picture.usage is not None
    assert without.usage is not None
    assert with_picture.usage.input_tokens > without.usage.input_tokens


@pytest.mark.parametrize("split", [False, True])
def test_a_streamed_response_says_the_same_as_the_whole_one(client: openai.OpenAI, split: bool):
    extra = {"return_reasoning": split}
    whole = client.responses.create(model=MODEL, input="Hi", extra_body=extra)
    events = list(client.responses.create(model=MODEL, input="Hi", stream=True, extra_body=extra))

    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [events[0].type, events[1].type, events[-1].type] == [
        "response.created",
        "response.in_progress",
        "response.completed",
    ]
    deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert deltas == whole.output_text
    assert events[-1].response.output_text == whole.output_text  # type: ignore[union-attr]
    assert [item.type for item in whole.output] == (["reasoning", "message"] if split else ["message"])


def test_a_streamed_response_that_fails_says_so_wherever_clients_look(breaker: Gateway):
    """Check 29: flat as in OpenAI's reference, nested as its API sends it, and as the last state of the response."""
    body = {"model": MODEL, "input": "Hi", "stream": True}
    lines = post(breaker, body, "/v1/responses").text.strip().splitlines()
    error, failed = (json.loads(line.removeprefix("data: ")) for line in (lines[-4], lines[-1]))

    assert (lines[-5], lines[-2]) == ("event: error", "event: response.failed")
    assert error["code"] == error["error"]["code"] == failed["response"]["error"]["code"] == "internal_error"
    assert failed["sequence_number"] == error["sequence_number"] + 1
    assert failed["response"]["status"] == "failed"
    assert [item["status"] for item in failed["response"]["output"]] == ["incomplete"]


def test_the_sdk_raises_for_a_streamed_response_that_fails(breaker: Gateway):
    """Check 29."""
    with openai.OpenAI(base_url=breaker.v1, api_key="EMPTY") as client:
        stream = client.responses.create(model=MODEL, input="Hi", stream=True)
        with pytest.raises(openai.APIError, match="failed"):
            list(stream)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"type": "web_search_call"}]}, "input[0].type"),
        ({"input": [{"type": "function_call", "call_id": "a"}]}, "input[0].name"),
        ({"input": [{"type": "function_call_output", "call_id": "a"}]}, "input[0].output"),
        ({"input": [{"type": "reasoning", "summary": []}]}, "input"),
        ({"input": "a", "previous_response_id": "resp_1"}, "previous_response_id"),
        ({"input": "a", "max_output_tokens": 0}, "max_output_tokens"),
        ({"input": "a", "max_output_tokens": 1 << 21}, "max_output_tokens"),
        ({"input": "a", "reasoning": {"effort": "nonne"}}, "reasoning.effort"),
        ({"input": "a", "stream_options": "all"}, "stream_options"),
        ({"input": "a", "tools": {}}, "tools"),
        ({"input": "a", "truncation": "auto"}, "truncation"),
        ({"input": "a", "text": {"format": {"type": "json_schema"}}}, "text.format.schema"),
        ({"input": "a", "tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"input": "a", "tools": [{"type": "function"}]}, "tools[0].name"),
        ({"input": "a", "include": ["reasoning.encrypted_content", "thoughts"]}, "include[1]"),
        ({"input": "a", "top_logprobs": 21}, "top_logprobs"),
        ({"input": "a", "logprobs": True}, "logprobs"),
        ({"input": "a", "max_tool_calls": 0}, "max_tool_calls"),
        ({"input": "a", "metadata": "mine"}, "metadata"),
        ({"input": "a", "text": {"verbosity": "low"}}, "text.verbosity"),
        ({"input": "a", "background": True}, "background"),
        ({"input": "a", "context_management": [{"type": "compaction"}]}, "context_management"),
        ({"input": "a", "n": 2}, "n"),
    ],
)
def test_a_bad_response_request_is_refused_by_field(gateway: Gateway, fields: dict[str, Any], param: str):
    assert refusal(post(gateway, {"model": MODEL, **fields}, "/v1/responses"), 400)["param"] == param
