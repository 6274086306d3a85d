"""Finds the calls in what the model writes, while it is still being written.

Phone models call with `<answer>do(action="Tap", element=[x,y])`, chat models with `<tool_call>` in GLM's or Hermes'
spelling, and a forced call of a function is a JSON object. Text before a call passes through as it comes.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from typing import Any, cast

import orjson

from autoglm_gateway import phone_tools
from autoglm_gateway.tools import Tools
from autoglm_protocol.actions import FINISH_SPEC, ActionError, parse_action, split_reply
from autoglm_protocol.chat import ToolCall

_THINK, _END_OF_THOUGHT = "<think>", "</think>"
_PHONE_MARKS = ("<answer>", "do(action=", "finish(message=")
_CALL_MARK = "<tool_call>"
_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_GLM_ARGUMENT = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    calls: tuple[ToolCall, ...]
    content: str
    """Text that is no call."""


class ToolCallSplitter:
    """One choice's text. Thoughts may speak of actions: nothing is looked for before </think>."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        forced_json = tools.is_forced and bool(tools.functions)
        self._marks = (
            *(_PHONE_MARKS if tools.actions else ()),
            *((_CALL_MARK,) if tools.functions else ()),
            *(("{",) if forced_json else ()),
        )
        self.held = ""
        """Read, and perhaps part of a call."""
        self._state = self._before

    def feed(self, text: str) -> str:
        """The text that is certainly no call."""
        self.held += text
        return self._state()

    def finish(self) -> Reading:
        """What the rest is, when no more text comes."""
        return read_calls(self.held, self._tools)

    def _before(self) -> str:
        start = self.held.lstrip()
        if start.startswith(_THINK):
            self._state = self._thinking
        elif _THINK.startswith(start):
            return ""
        else:
            self._state = self._answering
        return self._state()

    def _thinking(self) -> str:
        thought, tag, rest = self.held.partition(_END_OF_THOUGHT)
        if not tag:
            return self._pass_on(len(self.held) - _overlap(self.held, (_END_OF_THOUGHT,)))
        self.held = rest
        self._state = self._answering
        return thought + tag + self._answering()

    def _answering(self) -> str:
        found = [at for at in map(self.held.find, self._marks) if at >= 0]
        if not found:
            return self._pass_on(len(self.held) - _overlap(self.held, self._marks))
        self._state = self._calling
        return self._pass_on(min(found))

    def _calling(self) -> str:
        return ""

    def _pass_on(self, length: int) -> str:
        text, self.held = self.held[:length], self.held[length:]
        return text


def read_calls(text: str, tools: Tools) -> Reading:
    """Of text that begins where a call may begin."""
    if tools.actions:
        reading = _phone_call(text, tools)
        if reading is not None:
            return reading
    calls = _function_calls(text, tools) if tools.functions else []
    if not calls:
        return Reading(calls=(), content=text)
    content = "" if tools.is_forced else _CALL.sub("", text).strip()
    return Reading(calls=tuple(calls if tools.parallel else calls[:1]), content=content)


def _phone_call(text: str, tools: Tools) -> Reading | None:
    try:
        action = parse_action(split_reply(text.partition("</answer>")[0]).action_text)
    except ActionError:
        return None
    if action.name in tools.actions:
        call = _new_call(phone_tools.tool_name(action.name), phone_tools.call_arguments(action))
        return Reading(calls=(call,), content="")
    if action.name == FINISH_SPEC.name:
        return Reading(calls=(), content=action.arguments["message"])  # the end of the task, in plain words
    return None


def _function_calls(text: str, tools: Tools) -> list[ToolCall]:
    parameters: dict[str, Any] = {}
    for tool in tools.functions:
        parameters[tool["function"]["name"]] = tool["function"].get("parameters") or {}
    bodies = [text] if tools.is_forced else _CALL.findall(text)
    calls = (_json_call(body) or _glm_call(body, parameters) for body in bodies)
    return [call for call in calls if call is not None and call.name in parameters]


def _json_call(body: str) -> ToolCall | None:
    try:
        raw: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(raw, dict):
        return None
    call = cast("dict[str, Any]", raw)
    arguments = call.get("arguments", call.get("parameters", {}))
    if not isinstance(arguments, str):
        arguments = orjson.dumps(arguments).decode()
    return _new_call(str(call.get("name")), arguments)


def _glm_call(body: str, parameters: dict[str, Any]) -> ToolCall | None:
    name = body.partition("<arg_key>")[0].strip()
    properties: Any = parameters.get(name, {}).get("properties", {})
    arguments: dict[str, Any] = {}
    for key, value in _GLM_ARGUMENT.findall(body):
        is_text = properties.get(key.strip(), {}).get("type") == "string"
        arguments[key.strip()] = value if is_text else _value(value)
    return _new_call(name, orjson.dumps(arguments).decode())


def _new_call(name: str, arguments: str) -> ToolCall:
    return ToolCall(id=f"call_{uuid.uuid4().hex[:24]}", name=name, arguments=arguments)


def _value(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _overlap(text: str, marks: tuple[str, ...]) -> int:
    """Length of the longest end of `text` that begins a mark."""
    longest = max(map(len, marks), default=1) - 1
    endings = (n for n in range(min(longest, len(text)), 0, -1) if any(m.startswith(text[-n:]) for m in marks))
    return next(endings, 0)
