"""The AutoGLM action grammar: one parser between model text and a typed action.

`<think>...</think><answer>do(action="Tap", element=[x,y])</answer>` or `finish(message="...")`; coordinates are 0-999
of the screenshot's width and height. Text from a model is data: it is parsed with `ast`, never evaluated.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

COORDINATE_MAX = 999

ACTION_NAMES = (
    "Launch",
    "Tap",
    "Type",
    "Type_Name",
    "Interact",
    "Swipe",
    "Note",
    "Call_API",
    "Long Press",
    "Double Tap",
    "Take_over",
    "Back",
    "Home",
    "Wait",
)

_POINTS = {"Tap": ("element",), "Long Press": ("element",), "Double Tap": ("element",), "Swipe": ("start", "end")}


class ActionError(ValueError):
    """Text that is no valid action; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """`name` is one of ACTION_NAMES, or "finish"; `arguments` hold the rest of the call, points as (x, y)."""

    name: str
    arguments: Mapping[str, Any]

    @property
    def point(self) -> tuple[int, int] | None:
        """Where a tap lands, 0-999; None for actions without one."""
        return self.arguments.get("element")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole answer: the thought (None when there is none) and the action's text."""

    thought: str | None
    action_text: str


def split_reply(text: str) -> Reply:
    """Thought and action text of a model's answer, tags removed; works on text with or without a final </answer>."""
    thought, action_text = None, text
    if "</think>" in text:
        before, action_text = text.split("</think>", 1)
        thought = before.replace("<think>", "").strip()
    action_text = action_text.replace("<answer>", "").replace("</answer>", "").strip()
    return Reply(thought=thought, action_text=action_text)


def parse_action(text: str) -> Action:
    """Parse `do(...)` or `finish(...)`. Raises ActionError."""
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise ActionError(f"not an action: {text[:80]!r}") from error
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.args:
        raise ActionError(f"not an action call: {text[:80]!r}")
    try:
        arguments = {k.arg: ast.literal_eval(k.value) for k in node.keywords if k.arg is not None}
    except ValueError as error:
        raise ActionError(f"arguments must be literals: {text[:80]!r}") from error
    if node.func.id == "finish":
        if not isinstance(arguments.get("message"), str):
            raise ActionError('finish needs message="..."')
        return Action(name="finish", arguments=arguments)
    if node.func.id != "do":
        raise ActionError(f"{node.func.id} is neither do nor finish")
    name = arguments.pop("action", None)
    if name not in ACTION_NAMES:
        raise ActionError(f"action {name!r} is not one of {', '.join(ACTION_NAMES)}")
    for key in _POINTS.get(name, ()):
        arguments[key] = _point(name, key, arguments.get(key))
    return Action(name=name, arguments=arguments)


def _point(name: str, key: str, value: Any) -> tuple[int, int]:
    pair = tuple(cast("list[Any]", value)) if isinstance(value, list | tuple) else ()
    if len(pair) != 2 or not all(isinstance(v, int) and 0 <= v <= COORDINATE_MAX for v in pair):
        raise ActionError(f"{name} needs {key}=[x,y] with whole numbers from 0 to {COORDINATE_MAX}, got {value!r}")
    return int(pair[0]), int(pair[1])
