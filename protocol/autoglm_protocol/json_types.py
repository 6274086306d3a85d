"""What JSON calls the types of its values: callers know these words, and not Python's."""

from __future__ import annotations

from typing import Any


def json_type(value: Any) -> str:
    """With its article, for the middle of a sentence: "a string", "an integer", "null"."""
    if value is None:
        return "null"
    if isinstance(value, bool):  # first, since bool is an int to Python
        return "a boolean"
    if isinstance(value, int):
        return "an integer"
    if isinstance(value, float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "an array" if isinstance(value, list | tuple) else "an object"


def whole_number(value: Any) -> int | None:
    """The integer that the value is, None for anything else. To JSON 5.0 is 5: clients built on protobuf write that."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    return int(value) if isinstance(value, float) and value.is_integer() else None
