"""Every HTTP error body in OpenAI's shape, whoever raised it."""

from __future__ import annotations

import math

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from autoglm_gateway.openai_chat import error_body
from autoglm_protocol.errors import AutoglmError, InternalError, OverloadedError, UnavailableError

_UNAVAILABLE_RETRY_S = 1


def error_response(error: AutoglmError, *, headers: dict[str, str] | None = None) -> Response:
    headers = dict(headers or {})
    if isinstance(error, OverloadedError):
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
    elif isinstance(error, UnavailableError):
        headers["retry-after"] = str(_UNAVAILABLE_RETRY_S)
    return Response(
        orjson.dumps(error_body(error)),
        status_code=error.http_status,
        headers=headers,
        media_type="application/json",
    )


async def on_autoglm_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, AutoglmError)
    return error_response(error)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """What the router itself raises: 404 and 405."""
    assert isinstance(error, HTTPException)
    message = {
        404: f"there is no {request.url.path[:200]}",
        405: f"{request.url.path[:200]} does not take {request.method}",
    }.get(error.status_code, error.detail)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code)
    body = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}
    return Response(
        orjson.dumps(body), status_code=error.status_code, headers=error.headers, media_type="application/json"
    )


async def on_bug(request: Request, error: Exception) -> Response:
    """Anything else is ours; the traceback goes to the log, not to the caller."""
    return error_response(InternalError("the server failed to handle the request"))
