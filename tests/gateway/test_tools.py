"""Tools: the phone's actions as function calls, streamed and whole (check 25)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from openai import OpenAI
from tests.gateway.processes import MODEL, Gateway, running_gateway
from tests.gateway.wire import Json, chat_body, delta_text, post, refusal, stream_chunks

PHONE = [{"type": "phone_actions"}]
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
TAP = {"name": "tap", "arguments": {"element": [499, 312]}}


@pytest.fixture(scope="module")
def finisher() -> Iterator[Gateway]:
    with running_gateway("--fake", "--fake-text", '<think>Done.</think><answer>finish(message="It is on.")') as gateway:
        yield gateway


def calls_of(message: Json) -> list[Json]:
    return [
        {"name": call["function"]["name"], "arguments": json.loads(call["function"]["arguments"])}
        for call in message.get("tool_calls") or []
    ]


def test_an_action_becomes_a_call(gateway: Gateway) -> None:
    choice = post(gateway, chat_body(tools=PHONE)).json()["choices"][0]
    assert calls_of(choice["message"]) == [TAP]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"].startswith("<think>")
    assert "<answer>" not in choice["message"]["content"]
    assert choice["message"]["tool_calls"][0]["id"].startswith("call_")


def test_a_streamed_call_says_the_same(gateway: Gateway) -> None:
    """Check 25: the first delta has the id, and the arguments concatenate to JSON."""
    chunks = stream_chunks(gateway, chat_body(tools=PHONE))
    deltas = [call for chunk in chunks for choice in chunk["choices"] for call in choice["delta"].get("tool_calls", ())]
    assert deltas[0]["id"].startswith("call_")
    assert deltas[0]["function"]["name"] == "tap"
    assert json.loads("".join(delta["function"]["arguments"] for delta in deltas)) == TAP["arguments"]
    whole = post(gateway, chat_body(tools=PHONE)).json()["choices"][0]["message"]
    assert delta_text(chunks) == whole["content"]
    assert [c["finish_reason"] for chunk in chunks for c in chunk["choices"] if c["finish_reason"]] == ["tool_calls"]


def test_the_thought_is_split_off_a_call_when_asked(gateway: Gateway) -> None:
    message = post(gateway, chat_body(tools=PHONE, return_reasoning=True)).json()["choices"][0]["message"]
    assert message["content"] is None
    assert "settings page" in message["reasoning_content"]
    chunks = stream_chunks(gateway, chat_body(tools=PHONE, return_reasoning=True))
    assert delta_text(chunks, "reasoning_content") == message["reasoning_content"]
    assert delta_text(chunks) == ""


def test_tool_choice_none_leaves_the_text_as_it_is(gateway: Gateway) -> None:
    choice = post(gateway, chat_body(tools=PHONE, tool_choice="none")).json()["choices"][0]
    assert "<answer>do(" in choice["message"]["content"]
    assert choice["finish_reason"] == "stop"


def test_allowed_tools_narrow_the_offer(gateway: Gateway) -> None:
    home: Json = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "home"}}]}
    fields = {"tools": PHONE, "tool_choice": {"type": "allowed_tools", "allowed_tools": home}}
    assert "tool_calls" not in post(gateway, chat_body(**fields)).json()["choices"][0]["message"]


def test_an_action_that_is_not_offered_stays_text(gateway: Gateway) -> None:
    home = next(tool for tool in phone_actions(gateway) if tool["function"]["name"] == "home")
    message = post(gateway, chat_body(tools=[home])).json()["choices"][0]["message"]
    assert "tool_calls" not in message
    assert message["content"].endswith('<answer>do(action="Tap", element=[499,312])')


def phone_actions(gateway: Gateway) -> list[Json]:
    import httpx

    return httpx.get(f"{gateway.v1}/phone_actions").json()["data"]


def test_the_listed_definitions_are_ordinary_function_tools(gateway: Gateway) -> None:
    tools = phone_actions(gateway)
    assert {tool["function"]["name"] for tool in tools} >= {"tap", "long_press", "type", "launch", "finish"}
    message = post(gateway, chat_body(tools=tools)).json()["choices"][0]["message"]
    assert calls_of(message) == [TAP]


def test_finish_is_the_answers_text_unless_it_is_offered(finisher: Gateway) -> None:
    choice = post(finisher, chat_body(tools=PHONE)).json()["choices"][0]
    assert choice["message"]["content"] == "<think>Done.</think>It is on."
    assert choice["finish_reason"] == "stop"
    choice = post(finisher, chat_body(tools=phone_actions(finisher))).json()["choices"][0]
    assert calls_of(choice["message"]) == [{"name": "finish", "arguments": {"message": "It is on."}}]


def test_a_cut_off_action_is_text(gateway: Gateway) -> None:
    whole = post(gateway, chat_body()).json()
    limit = whole["usage"]["completion_tokens"] - 3
    choice = post(gateway, chat_body(tools=PHONE, max_tokens=limit)).json()["choices"][0]
    assert choice["finish_reason"] == "length"
    assert "tool_calls" not in choice["message"]
    assert whole["choices"][0]["message"]["content"].startswith(choice["message"]["content"])


def test_the_sdk_runs_a_loop_with_results(gateway: Gateway) -> None:
    with OpenAI(base_url=gateway.v1, api_key="none") as client:
        tools: Any = PHONE
        messages: list[Any] = [{"role": "user", "content": "Open Bluetooth"}]
        first = client.chat.completions.create(model=MODEL, messages=messages, tools=tools).choices[0].message
        assert first.tool_calls
        messages += [
            first.model_dump(exclude_none=True),
            {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "tapped"},
        ]
        second = client.chat.completions.create(model=MODEL, messages=messages, tools=tools)
        assert second.choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": []}, "tools"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {"name": "no spaces"}}]}, "tools[0].function.name"),
        ({"tools": [WEATHER, WEATHER]}, "tools[1].function.name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": PHONE, "tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": PHONE, "tool_choice": {"type": "function", "function": {"name": "weather"}}}, "tool_choice"),
        ({"tools": [*PHONE, WEATHER], "tool_choice": "required"}, "tool_choice"),
        ({"tools": PHONE, "parallel_tool_calls": "yes"}, "parallel_tool_calls"),
        ({"tools": PHONE, "tool_choice": {"type": "allowed_tools", "mode": "never"}}, "tool_choice.mode"),
        ({"tools": PHONE, "tool_choice": {"type": "allowed_tools", "mode": "auto"}}, "tool_choice.tools"),
    ],
)
def test_bad_tools_are_refused_by_field(gateway: Gateway, fields: Json, param: str) -> None:
    assert refusal(post(gateway, chat_body(**fields)), 400)["param"] == param


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/multimodal/completions"])
def test_endpoints_without_calls_refuse_tools(gateway: Gateway, path: str) -> None:
    body = {"model": MODEL, "prompt": "Hi", "tools": PHONE}
    assert refusal(post(gateway, body, path), 400)["param"] == "tools"
