"""The phone actions as OpenAI function tools, and calls of them as actions.

An action `do(action="Long Press", element=[x,y])` is the function `long_press` with the argument `element`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import orjson

from autoglm_protocol.actions import (
    ACTION_SPECS,
    COORDINATE_MAX,
    FINISH_SPEC,
    Action,
    ActionError,
    ActionSpec,
    ArgumentKind,
    format_action,
    parse_action,
)

Json = dict[str, Any]


def tool_name(action_name: str) -> str:
    return action_name.lower().replace(" ", "_")


_SPECS = {tool_name(spec.name): spec for spec in (*ACTION_SPECS, FINISH_SPEC)}


def definitions() -> list[Json]:
    """Every phone action, and `finish`, as an entry of a request's `tools`."""
    return [
        {
            "type": "function",
            "function": {"name": name, "description": spec.meaning, "parameters": _parameters(spec)},
        }
        for name, spec in _SPECS.items()
    ]


def spec_of(function: Mapping[str, Any]) -> ActionSpec | None:
    """The action that a function tool stands for: same name, and arguments of the same names. None for any other."""
    spec = _SPECS.get(str(function.get("name")))
    if spec is None:
        return None
    parameters: Any = function.get("parameters")
    properties: Any = parameters.get("properties", {}) if isinstance(parameters, dict) else {}  # pyright: ignore
    given = set(cast("Mapping[str, Any]", properties)) if isinstance(properties, dict) else set[str]()
    needed = {argument.name for argument in spec.arguments if argument.required}
    return spec if needed <= given <= {argument.name for argument in spec.arguments} else None


def call_arguments(action: Action) -> str:
    """The arguments of an action's call, as JSON text."""
    return orjson.dumps(dict(action.arguments)).decode()


def action_text(name: str, arguments: str) -> str | None:
    """What the model had written when it made this call; None for a call that is no phone action."""
    spec = _SPECS.get(name)
    if spec is None:
        return None
    try:
        given: Any = orjson.loads(arguments or "{}")
        if not isinstance(given, dict):
            return None
        text = format_action(Action(name=spec.name, arguments=cast("Json", given)))
        parse_action(text)
    except (orjson.JSONDecodeError, ActionError):
        return None
    return text


def _parameters(spec: ActionSpec) -> Json:
    kinds: dict[ArgumentKind, Json] = {
        ArgumentKind.TEXT: {"type": "string"},
        ArgumentKind.POINT: {
            "type": "array",
            "items": {"type": "integer", "minimum": 0, "maximum": COORDINATE_MAX},
            "minItems": 2,
            "maxItems": 2,
        },
    }
    return {
        "type": "object",
        "properties": {a.name: {**kinds[a.kind], "description": a.meaning} for a in spec.arguments},
        "required": [a.name for a in spec.arguments if a.required],
        "additionalProperties": False,
    }
