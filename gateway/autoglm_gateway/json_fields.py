"""Typed access to a JSON object from outside: every complaint names the field by its dotted path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from autoglm_protocol.errors import InvalidRequestError
from autoglm_protocol.json_types import json_type, whole_number

_WORDS: dict[type, str] = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    list: "an array",
    dict: "an object",
}


class JsonFields:
    """One JSON object and where it stands. null counts as absent, as OpenAI clients mean it."""

    def __init__(self, raw: Any, path: str = "") -> None:
        if not isinstance(raw, dict):
            where = path or "the request body"
            message = f"{where} must be an object, not {json_type(raw)}"
            raise InvalidRequestError(message, code="invalid_type", param=path or None)
        self.raw = cast("Mapping[str, Any]", raw)
        self.path = path

    def where(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def text(self, name: str) -> str | None:
        return self._typed(name, str)

    def required_text(self, name: str) -> str:
        value = self.text(name)
        if value is None:
            raise InvalidRequestError(
                f"{self.where(name)} is missing", code="missing_required_parameter", param=self.where(name)
            )
        return value

    def flag(self, name: str, default: bool) -> bool:
        value = self._typed(name, bool)
        return default if value is None else value

    def integer(self, name: str) -> int | None:
        return self._typed(name, int)

    def items(self, name: str) -> list[Any] | None:
        return self._typed(name, list)

    def section(self, name: str) -> JsonFields | None:
        value = self.raw.get(name)
        return None if value is None else JsonFields(value, self.where(name))

    def wrong_type(self, name: str, expected: str, value: Any, *, hint: str = "") -> InvalidRequestError:
        message = f"{self.where(name)} must be {expected}, not {json_type(value)}{hint}"
        return InvalidRequestError(message, code="invalid_type", param=self.where(name))

    def _typed(self, name: str, kind: type[Any]) -> Any:
        value = self.raw.get(name)
        if value is None:
            return None
        found = whole_number(value) if kind is int else value
        if not isinstance(found, kind):
            raise self.wrong_type(name, _WORDS[kind], value)
        return found
