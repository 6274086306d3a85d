"""Tools on /v1/responses through OpenAI's SDK: calls as output items, their events, and results as input items."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai.types.responses import Response, ResponseFunctionToolCall
from tests.gateway.processes import MODEL, Gateway, running_gateway
from tests.gateway.wire import b64, png

from autoglm_gateway.responses_schema import parse_response
from autoglm_protocol.chat import Role

PHONE: Any = [{"type": "phone_actions"}]
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER: Any = {"type": "function", "name": "weather", "description": "of a city", "parameters": CITY, "strict": True}
SAYS = 'I look.<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>'
CALL: Any = {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city":"Rome"}'}
TAP: Any = {"type": "function_call", "call_id": "call_2", "name": "tap", "arguments": '{"element":[1,2]}'}


@pytest.fixture(scope="module")
def forecaster() -> Iterator[openai.OpenAI]:
    """Calls the function `weather`."""
    with (
        running_gateway("--fake", "--fake-text", SAYS) as gateway,
        openai.OpenAI(base_url=gateway.v1, api_key="none") as client,
    ):
        yield client


@pytest.fixture(scope="module")
def phone(gateway: Gateway) -> Iterator[openai.OpenAI]:
    """Taps."""
    with openai.OpenAI(base_url=gateway.v1, api_key="none") as client:
        yield client


def calls_of(response: Response) -> list[ResponseFunctionToolCall]:
    return [item for item in response.output if isinstance(item, ResponseFunctionToolCall)]


def parsed(*items: Any) -> Any:
    return parse_response({"model": MODEL, "input": list(items)}, features=frozenset()).messages


def test_a_call_is_an_output_item_of_its_own(forecaster: openai.OpenAI) -> None:
    response = forecaster.responses.create(model=MODEL, input="Will it rain in Rome?", tools=[WEATHER])
    assert [item.type for item in response.output] == ["message", "function_call"]
    assert response.output_text == "I look."
    (call,) = calls_of(response)
    assert (call.name, json.loads(call.arguments), call.status) == ("weather", {"city": "Rome"}, "completed")
    assert call.call_id.startswith("call_")
    assert call.id is not None
    assert call.id.startswith("fc_")


def test_the_sdks_stream_helper_assembles_the_call(forecaster: openai.OpenAI) -> None:
    with forecaster.responses.stream(model=MODEL, input="Rain?", tools=[WEATHER]) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [event.type for event in events][-5:] == [
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [item.type for item in final.output] == ["message", "function_call"]
    assert json.loads(calls_of(final)[0].arguments) == {"city": "Rome"}  # type: ignore[arg-type]


def test_a_phone_action_is_a_call_behind_its_thought(phone: openai.OpenAI) -> None:
    extra = {"return_reasoning": True}
    response = phone.responses.create(model=MODEL, input="Open Bluetooth", tools=PHONE, extra_body=extra)
    assert [item.type for item in response.output] == ["reasoning", "function_call"]
    assert (calls_of(response)[0].name, json.loads(calls_of(response)[0].arguments)) == ("tap", {"element": [499, 312]})


def test_a_streamed_action_says_the_same_as_a_whole_one(phone: openai.OpenAI) -> None:
    whole = phone.responses.create(model=MODEL, input="Open Bluetooth", tools=PHONE)
    events = list(phone.responses.create(model=MODEL, input="Open Bluetooth", tools=PHONE, stream=True))
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == whole.output_text
    assert [(call.name, call.arguments) for call in calls_of(last.response)] == [
        (call.name, call.arguments) for call in calls_of(whole)
    ]


def test_tool_choice_none_leaves_the_text_as_it_is(phone: openai.OpenAI) -> None:
    response = phone.responses.create(model=MODEL, input="Open Bluetooth", tools=PHONE, tool_choice="none")
    assert "do(action=" in response.output_text
    assert not calls_of(response)


def test_allowed_tools_narrow_the_offer(phone: openai.OpenAI) -> None:
    choice: Any = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "home"}]}
    assert not calls_of(phone.responses.create(model=MODEL, input="Hi", tools=PHONE, tool_choice=choice))


def test_the_response_repeats_what_was_asked(phone: openai.OpenAI) -> None:
    response = phone.responses.create(
        model=MODEL, input="Hi", instructions="Be brief.", tools=[WEATHER], metadata={"run": "1"}
    )
    assert (response.instructions, response.metadata, response.tool_choice) == ("Be brief.", {"run": "1"}, "auto")
    assert response.tools[0].to_dict() == WEATHER


def test_the_loop_of_an_agent_goes_on_with_the_results(forecaster: openai.OpenAI) -> None:
    history: list[Any] = [{"role": "user", "content": "Will it rain in Rome?"}]
    first = forecaster.responses.create(model=MODEL, input=history, tools=[WEATHER])
    history += [item.model_dump() for item in first.output]
    history.append({"type": "function_call_output", "call_id": calls_of(first)[0].call_id, "output": "rain"})
    second = forecaster.responses.create(model=MODEL, input=history, tools=[WEATHER])
    assert second.status == "completed"
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens


def test_items_of_one_answer_are_one_turn() -> None:
    thought = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]}
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]}
    result = {"type": "function_call_output", "call_id": "call_1", "output": "rain"}
    asked, answer, told = parsed({"role": "user", "content": "Rain?"}, thought, said, CALL, result)
    assert asked.role is Role.USER
    assert answer.role is Role.ASSISTANT
    assert [part.text for part in answer.parts] == ["<think>Hm.</think>", "I look."]
    assert [(call.id, call.name) for call in answer.tool_calls] == [("call_1", "weather")]
    assert (told.role, told.tool_call_id, told.parts[0].text) == (Role.TOOL, "call_1", "rain")


def test_what_became_of_an_action_may_be_a_screenshot() -> None:
    picture = {"type": "input_image", "image_url": f"data:image/png;base64,{b64(png())}"}
    acted, seen = parsed(TAP, {"type": "function_call_output", "call_id": "call_2", "output": [picture]})
    assert acted.parts[0].text == '<answer>do(action="Tap", element=[1,2])</answer>'
    assert seen.role is Role.USER
    assert seen.parts[0].url == picture["image_url"]


def test_the_listed_actions_are_offered_flat_too(gateway: Gateway, phone: openai.OpenAI) -> None:
    listed = httpx.get(f"{gateway.v1}/phone_actions").json()["data"]
    flat: Any = [{"type": "function", **tool["function"]} for tool in listed]
    assert calls_of(phone.responses.create(model=MODEL, input="Open Bluetooth", tools=flat))[0].name == "tap"
