"""Kubernetes objects as JSON; what is left out and what is null are the same there, and read as empty here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Object = dict[str, Any]


def part(item: Mapping[str, Any], *path: str) -> Object:
    """The map at that place."""
    found: Any = item
    for name in path:
        found = found.get(name) or {}
    return found


def parts(item: Mapping[str, Any], *path: str) -> list[Any]:
    """The list at that place."""
    return part(item, *path[:-1]).get(path[-1]) or []


def name_of(item: Mapping[str, Any]) -> str:
    return str(item["metadata"]["name"])


def labels_of(item: Mapping[str, Any]) -> dict[str, str]:
    return part(item, "metadata", "labels")
