"""Bad input: a 4xx in OpenAI's shape that names the field."""

from __future__ import annotations

import socket
from typing import Any

import httpx
import pytest
from tests.gateway.processes import Gateway, running_gateway
from tests.gateway.wire import chat_body, image_part, png, post, refusal

from autoglm_gateway.openai_schema import parse_chat
from autoglm_protocol.errors import InvalidRequestError

CHAT = "/v1/chat/completions"


@pytest.mark.parametrize("body", [b"{", b"", b"[]", b'"text"', b"\xff\xfe", b'{"model": NaN}'])
def test_what_is_no_json_object_is_refused(gateway: Gateway, body: bytes):
    """Check 11."""
    refusal(httpx.post(f"http://{gateway.http}{CHAT}", content=body), 400)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": [1]}, "messages[0]"),
        ({"messages": [{"content": "Hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "robot", "content": "Hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "system", "content": [image_part(png())]}]}, "messages[0].content[0]"),
        ({"model": None}, "model"),
        ({"model": 5}, "model"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_p": 0}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": True}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"frequency_penalty": -2.5}, "frequency_penalty"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": [1]}, "stop"),
        ({"seed": 1 << 70}, "seed"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"depth": 7}, "depth"),
        ({"depth": [6]}, "depth"),
        ({"enable_thinking": "no"}, "enable_thinking"),
        ({"max_reasoning_steps": -1}, "max_reasoning_steps"),
        ({"chat_template_kwargs": []}, "chat_template_kwargs"),
        ({"priority": 1 << 40}, "priority"),
        ({"reasoning_effort": "nonne"}, "reasoning_effort"),
        ({"parallel_tool_calls": "yes"}, "parallel_tool_calls"),
    ],
)
def test_the_field_is_named(gateway: Gateway, fields: dict[str, Any], param: str):
    """Check 11."""
    assert refusal(post(gateway, {**chat_body(), **fields}), 400)["param"] == param


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"messages": {}}, "messages must be an array, not an object"),
        ({"messages": [None]}, "messages[0] must be an object, not null"),
        (
            {"messages": [{"role": "user", "content": 5}]},
            "messages[0].content must be a string or an array of parts, not an integer",
        ),
        ({"model": 5}, "model must be a string, not an integer"),
        ({"stream": "true"}, "stream must be a boolean, not a string"),
        ({"priority": 0.5}, "priority must be an integer, not a number"),
        ({"top_p": "0.5"}, "top_p must be a number, not a string"),
        ({"depth": [6]}, "depth must be a number of layers or a word, not an array"),
    ],
)
def test_a_wrong_type_is_told_in_jsons_words(gateway: Gateway, fields: dict[str, Any], message: str):
    """Check 11."""
    assert refusal(post(gateway, {**chat_body(), **fields}), 400)["message"] == message


def test_an_integer_may_be_written_with_a_point(gateway: Gateway):
    usage = post(gateway, chat_body(max_tokens=2.0, n=1.0, priority=0.0, depth=6.0)).json()["usage"]

    assert usage["completion_tokens"] == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("response_format", {"type": "json_object"}),
        ("moderation", {"model": "omni-moderation-latest"}),
        ("guided_regex", "[0-9]+"),
        ("functions", []),
        ("modalities", ["text", "audio"]),
        ("chat_template", "{{ messages }}"),
        ("best_of", 2),
    ],
)
def test_what_the_backend_cannot_do_is_refused_by_name(gateway: Gateway, name: str, value: Any):
    """Check 13."""
    error = refusal(post(gateway, chat_body(**{name: value})), 400)

    assert (error["param"], error["code"]) == (name, "unsupported_parameter")


@pytest.mark.parametrize(
    ("name", "value"),
    [("n", 2), ("logprobs", True), ("guided_regex", "a+")],
)
def test_what_this_backend_does_not_list_is_refused_by_name(name: str, value: Any):
    """Check 13."""
    with pytest.raises(InvalidRequestError) as refused:
        parse_chat(chat_body(**{name: value}), features=frozenset())

    assert (refused.value.param, refused.value.code) == (name, "unsupported_parameter")


def test_an_unknown_model_is_not_found(gateway: Gateway):
    """Check 9."""
    for response in (post(gateway, {**chat_body(), "model": "gpt-4"}), httpx.get(f"{gateway.v1}/models/gpt-4")):
        error = refusal(response, 404)
        assert (error["code"], error["param"]) == ("model_not_found", "model")


def test_a_prompt_beyond_the_context_is_refused_with_both_counts():
    """Check 8."""
    with running_gateway("--fake", "--fake-context-tokens", "10") as gateway:
        error = refusal(post(gateway, chat_body("a b c d e f g", max_tokens=5)), 400)
        assert error["code"] == "context_length_exceeded"
        assert "13" in error["message"]
        assert "10" in error["message"]


def test_an_unknown_route_and_a_wrong_method_have_the_same_shape(gateway: Gateway):
    """Check 10."""
    assert refusal(httpx.get(f"http://{gateway.http}/v1/nothing"), 404)["code"] == "not_found"
    assert refusal(httpx.get(f"http://{gateway.http}{CHAT}"), 405)["code"] == "method_not_allowed"


def test_a_slash_too_many_is_no_redirect(gateway: Gateway):
    assert refusal(post(gateway, chat_body(), f"{CHAT}/"), 404)["code"] == "not_found"


def test_a_body_above_the_limit_is_refused_by_its_header_and_by_its_length():
    """Check 34."""
    with running_gateway("--fake", "--max-body-bytes", "1000") as gateway:
        url = f"http://{gateway.http}{CHAT}"
        body = b'{"model": "autoglm-phone-9b", "messages": [{"role": "user", "content": "Hi"}]}'

        assert refusal(httpx.post(url, content=body.ljust(1001)), 413)["code"] == "content_too_large"
        assert refusal(httpx.post(url, content=iter([body.ljust(600), b" " * 600])), 413)
        assert httpx.post(url, content=body.ljust(1000)).status_code == 200


def test_a_body_that_does_not_come_is_given_up():
    """Check 34."""
    with running_gateway("--fake", "--body-timeout-s", "0.2") as gateway:
        host, port = gateway.http.split(":")
        with socket.create_connection((host, int(port)), timeout=10) as caller:
            caller.sendall(f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{{".encode())
            assert caller.recv(100).startswith(b"HTTP/1.1 408")
