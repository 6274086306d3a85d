"""/tokenize and /detokenize in vLLM's shape."""

from __future__ import annotations

from typing import Any

import pytest
from tests.gateway.processes import MODEL, Gateway
from tests.gateway.wire import Json, chat_body, image_part, png, post, refusal, text_part


def test_a_prompt_goes_to_tokens_and_back(gateway: Gateway) -> None:
    counted = post(gateway, {"prompt": "打开 WiFi"}, "/tokenize").json()
    assert set(counted) == {"count", "max_model_len", "tokens", "token_strs"}
    assert counted["token_strs"] is None
    assert counted["count"] == len(counted["tokens"])
    assert post(gateway, {"model": MODEL, "tokens": counted["tokens"]}, "/detokenize").json() == {"prompt": "打开 WiFi"}


def test_tokens_are_spelled_when_asked(gateway: Gateway) -> None:
    assert post(gateway, {"prompt": "Hi", "return_token_strs": True}, "/tokenize").json()["token_strs"] == ["H", "i"]
    spelled = post(gateway, chat_body("Hi", return_token_strs=True), "/tokenize").json()
    assert len(spelled["token_strs"]) == spelled["count"]


def test_a_conversation_is_counted_with_its_pictures(gateway: Gateway) -> None:
    text = post(gateway, chat_body([text_part("a")]), "/tokenize").json()["count"]
    assert post(gateway, chat_body([image_part(png()), text_part("a")]), "/tokenize").json()["count"] > text


def test_counting_is_no_generation(gateway: Gateway) -> None:
    before = gateway.metric("vllm:generation_tokens_total")
    post(gateway, {"prompt": "a"}, "/tokenize")
    assert gateway.metric("vllm:generation_tokens_total") == before


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": 1}, "prompt"),
        ("/tokenize", {"prompt": "a", "return_token_strs": 1}, "return_token_strs"),
        ("/tokenize", {"prompt": "a", "add_special_tokens": "yes"}, "add_special_tokens"),
        ("/tokenize", {"messages": []}, "messages"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": ["a"]}, "tokens[0]"),
        ("/detokenize", {"tokens": [-1]}, "tokens[0]"),
        ("/detokenize", {"tokens": [True]}, "tokens[0]"),
    ],
)
def test_a_bad_request_is_refused_by_field(gateway: Gateway, path: str, fields: Json, param: str) -> None:
    assert refusal(post(gateway, fields, path), 400)["param"] == param


def test_an_unknown_model_is_not_found(gateway: Gateway) -> None:
    body: Any = {"model": "gpt-4", "prompt": "a"}
    assert refusal(post(gateway, body, "/tokenize"), 404)["code"] == "model_not_found"
