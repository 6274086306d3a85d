"""A request's `tools` and `tool_choice`: which calls the model may make, and whether it must."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from autoglm_gateway import phone_tools
from autoglm_gateway.json_fields import JsonFields
from autoglm_protocol.actions import ACTION_SPECS
from autoglm_protocol.errors import InvalidRequestError
from autoglm_protocol.grammar import Grammar
from autoglm_protocol.sampling import SamplingParams

PHONE_ACTIONS = "phone_actions"
"""`{"type": "phone_actions"}` offers every action but finish, which is then the answer's text."""
MAX_TOOLS = 128
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    actions: tuple[str, ...] = ()
    """Phone actions that may be called, in their own words: "Long Press"."""
    functions: tuple[Mapping[str, Any], ...] = ()
    """Other function tools, as they were given."""
    is_forced: bool = False
    """The answer must be a call."""
    parallel: bool = True

    def grammar(self) -> Grammar | None:
        """What forces a call; None where the model is free. Raises InvalidRequestError."""
        if not self.is_forced:
            return None
        if self.actions and self.functions:
            raise InvalidRequestError(
                "tool_choice can force a phone action or another function, not one of both", param="tool_choice"
            )
        if self.actions:
            return Grammar.of_actions(self.actions)
        return Grammar.of_schema({"anyOf": [_call_schema(function) for function in self.functions]})


def read_tools(fields: JsonFields, *, is_flat: bool = False) -> Tools | None:
    """None where no tool may be called. Raises InvalidRequestError naming the field.

    `is_flat`: a function's name stands beside its `type`, as /v1/responses has it, and not in `function`.
    """
    parallel = fields.flag("parallel_tool_calls", True)
    offered = _offered(fields, is_flat=is_flat)
    choice: Any = fields.raw.get("tool_choice")
    if offered is None:
        if choice not in (None, "none", "auto"):
            raise InvalidRequestError("tool_choice is only allowed with tools", param="tool_choice")
        return None
    if choice == "none":
        return None
    return replace(_chosen(offered, fields), parallel=parallel)


def forced(sampling: SamplingParams, tools: Tools) -> SamplingParams:
    """With the grammar that a forced call needs. Raises InvalidRequestError."""
    grammar = tools.grammar()
    if grammar is None:
        return sampling
    if sampling.grammar is not None:
        raise InvalidRequestError("a forced tool call and an output format exclude each other", param="tool_choice")
    return replace(sampling, grammar=replace(grammar, param="tool_choice"))


def _offered(fields: JsonFields, *, is_flat: bool) -> Tools | None:
    items = fields.items("tools")
    if items is None:
        return None
    if not 1 <= len(items) <= MAX_TOOLS:
        raise InvalidRequestError(f"tools holds {len(items)} entries, must hold 1 to {MAX_TOOLS}", param="tools")
    actions: dict[str, None] = {}
    functions: dict[str, Mapping[str, Any]] = {}
    for index, item in enumerate(items):
        tool = JsonFields(item, f"tools[{index}]")
        kind = tool.required_text("type")
        if kind == PHONE_ACTIONS:
            actions |= dict.fromkeys(spec.name for spec in ACTION_SPECS)
            continue
        if kind != "function":
            where = tool.where("type")
            raise InvalidRequestError(f"{where} is {kind!r}, must be function or {PHONE_ACTIONS}", param=where)
        function = _checked(tool if is_flat else _function(tool))
        spec = phone_tools.spec_of(function.raw)
        if spec is not None:
            actions[spec.name] = None
            continue
        name = function.required_text("name")
        if name in functions:
            where = function.where("name")
            raise InvalidRequestError(f"{where} is {name!r} for the second time", param=where)
        functions[name] = _nested(tool.raw) if is_flat else tool.raw
    return Tools(actions=tuple(actions), functions=tuple(functions.values()))


def _function(tool: JsonFields) -> JsonFields:
    function = tool.section("function")
    if function is None:
        where = tool.where("function")
        raise InvalidRequestError(f"{where} is missing", code="missing_required_parameter", param=where)
    return function


def _checked(function: JsonFields) -> JsonFields:
    if not _NAME.fullmatch(function.required_text("name")):
        raise InvalidRequestError(
            f"{function.where('name')} must be 1 to 64 letters, digits, _ or -", param=function.where("name")
        )
    function.text("description")
    function.section("parameters")
    return function


def _nested(tool: Mapping[str, Any]) -> dict[str, Any]:
    """A flat function tool as chat has it, which is what chat templates know."""
    function = {name: value for name, value in tool.items() if name != "type" and value is not None}
    return {"type": "function", "function": function}


def _chosen(offered: Tools, fields: JsonFields) -> Tools:
    choice: Any = fields.raw.get("tool_choice")
    if choice in (None, "auto"):
        return offered
    if choice == "required":
        return replace(offered, is_forced=True)
    if not isinstance(choice, dict):
        raise InvalidRequestError(
            "tool_choice must be none, auto, required or an object that names a function", param="tool_choice"
        )
    named = JsonFields(cast("Any", choice), "tool_choice")
    if named.text("type") != "allowed_tools":
        return replace(_only(offered, [named]), is_forced=True)
    allowed = named.section("allowed_tools") or named  # chat has an object of its own for it
    mode = allowed.required_text("mode")
    if mode not in ("auto", "required"):
        raise InvalidRequestError(f"{allowed.where('mode')} must be auto or required", param=allowed.where("mode"))
    listed = allowed.items("tools")
    if not listed:
        raise InvalidRequestError(f"{allowed.where('tools')} is missing", param=allowed.where("tools"))
    tools = [JsonFields(tool, allowed.where(f"tools[{index}]")) for index, tool in enumerate(listed)]
    return replace(_only(offered, tools), is_forced=mode == "required")


def _only(offered: Tools, named: Sequence[JsonFields]) -> Tools:
    """Those of the tools that are named."""
    names: set[str] = set()
    offered_names = {phone_tools.tool_name(action) for action in offered.actions}
    offered_names |= {tool["function"]["name"] for tool in offered.functions}
    for tool in named:
        function = tool.section("function") or tool
        name = function.required_text("name")
        if name not in offered_names:
            where = function.where("name")
            raise InvalidRequestError(f"{where} is {name[:64]!r}, which tools does not offer", param="tool_choice")
        names.add(name)
    return Tools(
        actions=tuple(action for action in offered.actions if phone_tools.tool_name(action) in names),
        functions=tuple(tool for tool in offered.functions if tool["function"]["name"] in names),
    )


def _call_schema(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = tool["function"]
    parameters = function.get("parameters") or {"type": "object"}
    return {
        "type": "object",
        "properties": {"name": {"const": function["name"]}, "arguments": parameters},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }
