"""Reading a request body within a size and a time, and JSON out of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import Any, cast

import orjson
from starlette.requests import Request

from autoglm_gateway.deadline import within
from autoglm_gateway.turns import Turns
from autoglm_protocol.errors import DeadlineError, InvalidRequestError, PayloadTooLargeError, RequestCancelledError

MAX_JSON_DEPTH = 128
"""What walks over a body by recursion, here and behind, can go some hundred levels deep."""


async def read_json(request: Request, turns: Turns, *, max_bytes: int, timeout_s: float) -> Any:
    """Raises PayloadTooLargeError, DeadlineError, InvalidRequestError or RequestCancelledError."""
    body = await _read_in_time(request, max_bytes=max_bytes, timeout_s=timeout_s)
    try:
        value = await turns.run(partial(orjson.loads, body), len(body))
    except orjson.JSONDecodeError as error:
        raise InvalidRequestError(f"the request body is not valid JSON: {error}", code="invalid_json") from error
    brackets = await turns.run(lambda: body.count(b"[") + body.count(b"{"), len(body))
    if brackets > MAX_JSON_DEPTH and _is_too_deep(value):
        raise InvalidRequestError(
            f"the request body is nested more than {MAX_JSON_DEPTH} levels deep", code="invalid_json"
        )
    return value


def _is_too_deep(value: Any) -> bool:
    level: list[Any] = [value]
    for _ in range(MAX_JSON_DEPTH + 1):
        level = [child for item in level for child in _children(item)]
    return bool(level)


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return cast("dict[str, Any]", value).values()
    return cast("list[Any]", value) if isinstance(value, list) else ()


async def read_body(request: Request, *, max_bytes: int, timeout_s: float) -> bytes:
    """Raises as `read_json`."""
    return bytes(await _read_in_time(request, max_bytes=max_bytes, timeout_s=timeout_s))


async def _read_in_time(request: Request, *, max_bytes: int, timeout_s: float) -> bytearray:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    try:
        return await within(_read(request, max_bytes), timeout_s)
    except asyncio.TimeoutError:
        raise DeadlineError(f"the request body did not arrive within {timeout_s:g} s", code="body_timeout") from None


async def _read(request: Request, max_bytes: int) -> bytearray:
    body = bytearray()
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise RequestCancelledError("the caller went away before the body was complete")
        chunk = message.get("body", b"")
        if len(body) + len(chunk) > max_bytes:
            raise _too_large(max_bytes)
        body += chunk
        if not message.get("more_body", False):
            return body


def _too_large(max_bytes: int) -> PayloadTooLargeError:
    return PayloadTooLargeError(f"the request body is larger than {max_bytes} bytes")
