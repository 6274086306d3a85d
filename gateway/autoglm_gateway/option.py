"""How a settings field says its flag and its help text beside its default."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def option(default: Any, help: str, *, flag: str | None = None) -> Any:
    """A dataclass field that `settings.parse_settings` turns into a flag and an environment variable."""
    return field(default=default, metadata={"help": help, "flag": flag})
