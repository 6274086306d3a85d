"""The W3C trace context of the request that the current task works on."""

from __future__ import annotations

import re
from contextvars import ContextVar

_VALID = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_traceparent: ContextVar[str | None] = ContextVar("traceparent", default=None)


def current_traceparent() -> str | None:
    return _traceparent.get()


def enter_trace(traceparent: str | None) -> None:
    """Remember a `traceparent` header for what this task does; anything malformed is left out, as W3C asks."""
    # Also set when there is none: a task may inherit the context of the connection's request before.
    _traceparent.set(traceparent if traceparent is not None and _VALID.fullmatch(traceparent) else None)
