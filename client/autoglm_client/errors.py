"""Failures as a caller of this package meets them: the tree of `autoglm_protocol.errors`, and two kinds of our own.

What the server refused keeps its sentence, code and field. What never reached the server, or broke on the way back, is
an UnavailableError too, because the cure is the same: try again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from autoglm_protocol.errors import ERROR_CLASSES, AutoglmError, InternalError, InvalidRequestError, OverloadedError
from autoglm_protocol.errors import UnavailableError as UnavailableError


class ConnectionFailedError(UnavailableError):
    """Nobody answered at the address."""

    default_code = "connection_failed"


class StreamBrokenError(UnavailableError):
    """The answer ended early, or was not what the protocol says."""

    default_code = "stream_broken"


def error_from_response(status: int, body: bytes, headers: Mapping[str, str]) -> AutoglmError:
    """The error that an HTTP answer stands for; `status` decides the class, the body gives the words."""
    found = next((c for c in ERROR_CLASSES if c.http_status == status), None)
    if found is None:
        found = InvalidRequestError if 400 <= status < 500 else InternalError
    try:
        detail = as_object(as_object(json.loads(body)).get("error"))
    except ValueError:  # a proxy's page, say
        detail = {}
    return _build(found, detail, f"the server answered with HTTP status {status}", headers.get("retry-after"))


def error_from_event(detail: Mapping[str, Any]) -> AutoglmError:
    """The error inside a stream that had begun; without a status, its code and type decide the class."""
    found = next((c for c in ERROR_CLASSES if c.default_code == detail.get("code")), None)
    if found is None:
        found = next((c for c in ERROR_CLASSES if c.type == detail.get("type")), InternalError)
    return _build(found, detail, "the server broke the answer off", None)


def as_object(value: Any) -> dict[str, Any]:
    """`value` when it is a JSON object, an empty one otherwise."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _build(
    found: type[AutoglmError], detail: Mapping[str, Any], otherwise: str, retry_after: str | None
) -> AutoglmError:
    message, code, param = detail.get("message"), detail.get("code"), detail.get("param")
    error = found(
        str(message) if message else otherwise,
        code=str(code) if code else None,
        param=str(param) if param else None,
    )
    if isinstance(error, OverloadedError) and retry_after is not None and retry_after.isdigit():
        error.retry_after_s = float(retry_after)
    return error
