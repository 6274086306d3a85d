"""JSON files of a checkpoint, read so that every error names the file and the field."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class CheckpointError(ValueError):
    """A checkpoint directory that cannot be served; the message names the file and what is wrong with it."""


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON file of a checkpoint. Raises CheckpointError naming the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object")
    return value


class JsonTable:
    """A JSON object of a checkpoint whose fields are read with the file and the field in every error."""

    def __init__(self, raw: Mapping[str, Any], path: Path, prefix: str = "") -> None:
        self._raw, self._path, self._prefix = raw, path, prefix

    def get(self, name: str) -> Any:
        return self._raw.get(name)

    def table(self, name: str) -> JsonTable:
        value = self._present(name)
        if not isinstance(value, dict):
            raise self.error(name, "must be a JSON object")
        return JsonTable(value, self._path, f"{self._prefix}{name}.")

    def whole(self, name: str) -> int:
        value = self._present(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self.error(name, f"is {value!r}, must be a whole number")
        return value

    def whole_numbers(self, name: str) -> tuple[int, ...]:
        """Of a list, or of one number."""
        value = self._present(name)
        listed = value if isinstance(value, list) else [value]
        if not listed or not all(isinstance(item, int) and not isinstance(item, bool) for item in listed):
            raise self.error(name, f"is {value!r}, must be a list of whole numbers")
        return tuple(listed)

    def number(self, name: str) -> float:
        value = self._present(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
            raise self.error(name, f"is {value!r}, must be a number above 0")
        return float(value)

    def error(self, name: str, complaint: str) -> CheckpointError:
        return CheckpointError(f"{self._path}: {self._prefix}{name} {complaint}")

    def _present(self, name: str) -> Any:
        value = self._raw.get(name)
        if value is None:
            raise self.error(name, "is missing")
        return value
