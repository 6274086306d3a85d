"""The AutoGLM action grammar: one parser between model text and a typed action.

`<think>...</think><answer>do(action="Tap", element=[x,y])</answer>` or `finish(message="...")`; coordinates are 0-999
of the screenshot's width and height. Text from a model is data: it is parsed with `ast`, never evaluated.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, cast

COORDINATE_MAX = 999


class ArgumentKind(str, Enum):
    TEXT = "text"
    POINT = "point"
    """Two whole numbers from 0 to COORDINATE_MAX."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    name: str
    kind: ArgumentKind
    meaning: str
    required: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionSpec:
    """What `do(action=NAME, ...)`, or `finish(...)`, may hold, in the order in which it is written."""

    name: str
    meaning: str
    arguments: tuple[Argument, ...] = ()


def _text(name: str, meaning: str, *, required: bool = True) -> Argument:
    return Argument(name=name, kind=ArgumentKind.TEXT, meaning=meaning, required=required)


def _at(name: str, meaning: str) -> Argument:
    return Argument(name=name, kind=ArgumentKind.POINT, meaning=meaning)


_SENSITIVE = _text("message", "why the user should confirm this tap first", required=False)

ACTION_SPECS = (
    ActionSpec(name="Launch", meaning="Start an app.", arguments=(_text("app", "its name"),)),
    ActionSpec(name="Tap", meaning="Tap a point.", arguments=(_at("element", "where"), _SENSITIVE)),
    ActionSpec(name="Type", meaning="Type text into the focused field.", arguments=(_text("text", "what to type"),)),
    ActionSpec(name="Type_Name", meaning="Type a person's name.", arguments=(_text("text", "the name"),)),
    ActionSpec(name="Interact", meaning="Let the user choose between several options that fit."),
    ActionSpec(
        name="Swipe", meaning="Drag from one point to another.", arguments=(_at("start", "from"), _at("end", "to"))
    ),
    ActionSpec(name="Note", meaning="Remember this page for later.", arguments=(_text("message", "True"),)),
    ActionSpec(
        name="Call_API", meaning="Summarise or comment on remembered pages.", arguments=(_text("instruction", "how"),)
    ),
    ActionSpec(name="Long Press", meaning="Press a point for a while.", arguments=(_at("element", "where"),)),
    ActionSpec(name="Double Tap", meaning="Tap a point twice.", arguments=(_at("element", "where"),)),
    ActionSpec(
        name="Take_over",
        meaning="Let the user do a login or a verification.",
        arguments=(_text("message", "what to ask the user"),),
    ),
    ActionSpec(name="Back", meaning="Go back to the previous screen."),
    ActionSpec(name="Home", meaning="Go to the home screen."),
    ActionSpec(name="Wait", meaning="Wait for the page to load.", arguments=(_text("duration", "such as 2 seconds"),)),
)
FINISH_SPEC = ActionSpec(
    name="finish",
    meaning="The task is done, or cannot be done.",
    arguments=(_text("message", "what to tell the user"),),
)

ACTION_NAMES = tuple(spec.name for spec in ACTION_SPECS)

_POINTS = {
    spec.name: tuple(argument.name for argument in spec.arguments if argument.kind is ArgumentKind.POINT)
    for spec in ACTION_SPECS
}


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
        before, action_text = text.rsplit("</think>", 1)  # a thought may speak of the tag
        thought = before.replace("<think>", "").strip()
    action_text = action_text.replace("<answer>", "").replace("</answer>", "").strip()
    return Reply(thought=thought, action_text=action_text)


def same_action(a: str, b: str) -> bool:
    """Whether two whole answers ask for the same thing: equal actions, or equal text where neither is an action."""
    texts = split_reply(a).action_text, split_reply(b).action_text
    if texts[0] == texts[1]:
        return True
    try:
        return parse_action(texts[0]) == parse_action(texts[1])
    except ActionError:
        return False


def parse_action(text: str) -> Action:
    """Parse `do(...)` or `finish(...)`. Raises ActionError."""
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ActionError(f"not an action: {text[:80]!r}") from error
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.args:
        raise ActionError(f"not an action call: {text[:80]!r}")
    try:
        arguments = {k.arg: ast.literal_eval(k.value) for k in node.keywords if k.arg is not None}
    except (ValueError, TypeError, RecursionError) as error:
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


def format_action(action: Action) -> str:
    """The inverse of `parse_action`."""
    arguments = [f"{name}={_literal(value)}" for name, value in action.arguments.items()]
    if action.name == FINISH_SPEC.name:
        return f"finish({', '.join(arguments)})"
    return f"do({', '.join((f'action={_literal(action.name)}', *arguments))})"


def _literal(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)  # what JSON escapes is written as Python writes it
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_literal, cast('Sequence[Any]', value)))}]"
    return repr(value)


def _point(name: str, key: str, value: Any) -> tuple[int, int]:
    pair = tuple(cast("list[Any]", value)) if isinstance(value, list | tuple) else ()
    if len(pair) != 2 or not all(isinstance(v, int) and 0 <= v <= COORDINATE_MAX for v in pair):
        raise ActionError(f"{name} needs {key}=[x,y] with whole numbers from 0 to {COORDINATE_MAX}, got {value!r}")
    return int(pair[0]), int(pair[1])
