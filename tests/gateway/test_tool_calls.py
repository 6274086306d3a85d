"""How calls are read out of a model's text, without a server."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_gateway.answer_text import read_answer
from autoglm_gateway.draft import ChatDraft
from autoglm_gateway.tool_calls import ToolCallSplitter
from autoglm_gateway.tools import Tools
from autoglm_protocol.chat import ToolCall

PHONE = Tools(actions=("Tap", "Type"))
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
    },
}
FUNCTIONS = Tools(functions=(WEATHER,))
GLM = (
    "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>12</arg_value>"
    "<arg_key>days</arg_key><arg_value>3</arg_value></tool_call>"
)
HERMES = '<tool_call>{"name": "weather", "arguments": {"city": "12", "days": 3}}</tool_call>'


def split_calls(text: str, tools: Tools) -> tuple[str, tuple[ToolCall, ...]]:
    split, calls = read_answer(text, ChatDraft(model="m", messages=(), tools=tools))
    return split.content, calls


@given(cuts=st.lists(st.integers(0, 90), max_size=6))
def test_however_the_text_is_cut_the_call_and_the_rest_are_the_same(cuts: list[int]) -> None:
    text = '<think>I say do(action="Tap").</think>So: <answer>do(action="Tap", element=[1,2])</answer>'
    splitter = ToolCallSplitter(PHONE)
    edges = [0, *sorted(cuts), len(text)]
    before = "".join(splitter.feed(text[a:b]) for a, b in itertools.pairwise(edges))
    rest = splitter.finish()
    assert before == '<think>I say do(action="Tap").</think>So: '
    assert [(call.name, json.loads(call.arguments)) for call in rest.calls] == [("tap", {"element": [1, 2]})]


@given(st.text(alphabet='<>think/answer do(="T', max_size=40))
def test_text_without_a_call_passes_whole(text: str) -> None:
    before_and_rest, calls = split_calls(text, PHONE)
    assert (before_and_rest, calls) == (text, ())


@pytest.mark.parametrize("text", [GLM, HERMES])
def test_both_spellings_of_a_function_call_are_read(text: str) -> None:
    content, calls = split_calls(f"<think>Hm.</think>{text}", FUNCTIONS)
    assert content == "<think>Hm.</think>"
    assert [(call.name, json.loads(call.arguments)) for call in calls] == [("weather", {"city": "12", "days": 3})]


def test_parallel_calls_come_in_order_and_one_alone_when_asked() -> None:
    _, calls = split_calls(GLM + HERMES, FUNCTIONS)
    assert [call.name for call in calls] == ["weather", "weather"]
    assert calls[0].id != calls[1].id
    _, calls = split_calls(GLM + HERMES, Tools(functions=(WEATHER,), parallel=False))
    assert len(calls) == 1


def test_a_forced_call_is_the_json_alone() -> None:
    content, calls = split_calls('{"name":"weather","arguments":{}}', Tools(functions=(WEATHER,), is_forced=True))
    assert content == ""
    assert [(call.name, call.arguments) for call in calls] == [("weather", "{}")]


def test_a_call_of_what_was_not_offered_is_text() -> None:
    text = '<tool_call>{"name": "other", "arguments": {}}</tool_call>'
    assert split_calls(text, FUNCTIONS) == (text, ())
