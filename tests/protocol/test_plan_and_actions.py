from __future__ import annotations

from dataclasses import replace

import pytest

from autoglm_protocol.actions import (
    ACTION_NAMES,
    ACTION_SPECS,
    ActionError,
    format_action,
    parse_action,
    split_reply,
)
from autoglm_protocol.errors import InvalidRequestError
from autoglm_protocol.grammar import Grammar
from autoglm_protocol.plan import ExecutionPlan, ExitMode, parse_depth


@pytest.mark.parametrize(("value", "depth"), [(None, None), ("auto", None), ("full", 24), (6, 6), ("12", 12), (24, 24)])
def test_depth_words(value: object, depth: int | None) -> None:
    assert parse_depth(value, (6, 12, 18), 24) == depth


@pytest.mark.parametrize("value", [7, 0, -6, "deep", True, 6.0, [6]])
def test_another_depth_is_refused_with_the_exits_named(value: object) -> None:
    with pytest.raises(InvalidRequestError, match="6, 12, 18, 24") as refusal:
        parse_depth(value, (6, 12, 18), 24)
    assert refusal.value.param == "depth"


def test_log_lines_are_those_of_the_guides() -> None:
    plan = ExecutionPlan(
        enabled=True, run_vision=True, run_speech=False, num_layers=24, depth=24, exit_mode=ExitMode.FIXED, reason=""
    )
    assert plan.log_lines(has_images=True, has_audio=False) == (
        "[DYNAMIC GRAPH] Activating full inference path (24 layers)",
        "[DYNAMIC GRAPH] Loading ViT encoder for image processing",
        "[DYNAMIC GRAPH] Skipping speech encoder (no audio)",
    )
    narrow = replace(plan, attention_window=512)
    lines = narrow.log_lines(has_images=True, has_audio=False)
    assert lines[-1] == "[DYNAMIC GRAPH] Narrowing attention to the last 512 tokens"
    assert narrow.report(encoders_run=(), embedding_cache_hits=0)["attention_window"] == 512


def test_a_reply_splits_into_thought_and_action() -> None:
    reply = split_reply('<think>Bluetooth is third.</think><answer>do(action="Tap", element=[500,210])')
    assert reply.thought == "Bluetooth is third."
    assert parse_action(reply.action_text).point == (500, 210)


def test_an_action_is_parsed_not_run() -> None:
    with pytest.raises(ActionError, match="literals"):
        parse_action('do(action="Type", text=__import__("os").getcwd())')


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Hello",
        'do(action="Fly")',
        'do(action="Tap")',
        'do(action="Tap", element=[1000,5])',
        'do(action="Tap", element=[5])',
        'do(action="Swipe", start=[1,2])',
        "finish()",
        'go(action="Tap")',
        'do("Tap")',
        "finish(message={[]: 1})",
        f"finish(message={'[' * 100_000})",
        f"finish(message={'-' * 5_000}1)",
    ],
    ids=lambda text: text[:40],
)
def test_anything_else_is_no_action(text: str) -> None:
    with pytest.raises(ActionError):
        parse_action(text)


def test_finish_carries_its_message() -> None:
    assert parse_action('finish(message="It\'s on.")').arguments == {"message": "It's on."}


@pytest.mark.parametrize(
    "text",
    [
        'do(action="Tap", element=[3,4], message="a\\"b\\\\c\\n好\\u0000")',
        'do(action="Long Press", element=[0,999])',
        'do(action="Note", message=True)',
        'do(action="Back")',
        'finish(message="It\'s on.")',
    ],
)
def test_an_action_is_written_as_it_is_read(text: str) -> None:
    action = parse_action(text)
    assert parse_action(format_action(action)) == action


def test_every_action_is_specified_once() -> None:
    assert len(set(ACTION_NAMES)) == len(ACTION_SPECS)
    with pytest.raises(InvalidRequestError):
        Grammar.of_actions(["Fly"])
    assert Grammar.of_actions(["Tap", "finish"]).actions == ("Tap", "finish")
