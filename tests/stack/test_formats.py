"""Answer formats on real Triton with the default checkpoint: what is promised parses."""

from __future__ import annotations

import json

import httpx
import pytest
from tests.stack.conftest import MODEL, Server, image_part

from autoglm_protocol.actions import parse_action, split_reply

pytestmark = pytest.mark.triton

SCHEMA = {
    "type": "object",
    "properties": {
        "app": {"enum": ["Settings", "Camera", "Shop"]},
        "points": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 999}, "maxItems": 2},
    },
    "required": ["app", "points"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "plan", "strict": True, "schema": SCHEMA}}


@pytest.mark.parametrize("exit_mode", ["lossless", "fixed"])
def test_an_answer_follows_its_schema(server: Server, exit_mode: str) -> None:
    """Check 24."""
    answer = server.chat("Open the camera", response_format=FORMAT, exit=exit_mode, max_tokens=150).json()
    choice = answer["choices"][0]
    assert choice["finish_reason"] == "stop"
    value = json.loads(choice["message"]["content"])
    assert value["app"] in SCHEMA["properties"]["app"]["enum"]
    assert all(0 <= number <= 999 for number in value["points"])


@pytest.mark.parametrize("thinking", [True, False])
def test_hot_answers_in_the_action_format_parse(server: Server, thinking: bool) -> None:
    content = [image_part("shop.png"), {"type": "text", "text": "Tap the cheapest item"}]
    fields = {"response_format": {"type": "autoglm_action"}, "enable_thinking": thinking, "max_reasoning_tokens": 20}
    answer = server.chat(content, temperature=2.0, seed=7, n=4, max_tokens=200, **fields).json()
    complete = [choice for choice in answer["choices"] if choice["finish_reason"] == "stop"]
    assert complete
    for choice in complete:
        parse_action(split_reply(choice["message"]["content"]).action_text)


def test_the_decoder_refuses_a_grammar_by_the_callers_field(server: Server) -> None:
    """Check 24."""
    response = server.chat("Hi", guided_regex="(?=look)ahead")
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "guided_regex"
    assert response.elapsed.total_seconds() < 1


def test_no_character_is_cut_in_a_stream(server: Server) -> None:
    """Check 27: each of these characters is several tokens."""
    text = "点😀é"
    tokens = httpx.post(f"{server.http_url}/tokenize", json={"prompt": text}).json()["tokens"]
    assert len(tokens) > len(text)
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "guided_choice": [text], "stream": True}
    response = httpx.post(f"{server.http_url}/v1/chat/completions", json=body, timeout=60)
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: {")]
    deltas = [choice["delta"].get("content", "") for line in lines for choice in json.loads(line)["choices"]]
    assert "".join(deltas) == text
    assert not any("\ufffd" in delta for delta in deltas)


def test_a_bad_word_is_left_out(server: Server) -> None:
    plain = server.chat("Open the camera").json()["choices"][0]["message"]["content"]
    assert "Camera" in plain
    changed = server.chat("Open the camera", bad_words=["Camera"]).json()["choices"][0]["message"]["content"]
    assert "Camera" not in changed
