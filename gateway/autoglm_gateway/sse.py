"""Server-sent events: the only place that spells them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would hold small chunks back
)
DONE = b"data: [DONE]\n\n"


def encode(data: Mapping[str, Any], *, event: str | None = None) -> bytes:
    body = b"data: " + orjson.dumps(data) + b"\n\n"
    return body if event is None else b"event: " + event.encode() + b"\n" + body
