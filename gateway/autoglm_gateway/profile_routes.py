"""`POST /admin/profile`: PyTorch's profiler over the decoder's coming steps, for whoever operates the server."""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
import logging
from typing import Any, cast

import orjson
from starlette.requests import Request
from starlette.responses import Response

from autoglm_gateway.backend import Backend
from autoglm_gateway.http_body import read_body
from autoglm_protocol.errors import ForbiddenError, InvalidRequestError
from autoglm_protocol.profile import ProfileBounds

_MAX_BODY_BYTES = 4096
# A proxy or a browser in front: then the address says nothing of who asks.
_FOREIGN_HEADERS = ("forwarded", "x-forwarded-for", "x-real-ip", "via", "origin")
_log = logging.getLogger(__name__)


class ProfileRoutes:
    """has_keys: nobody comes here without an API key; otherwise only callers of this very machine are let in."""

    def __init__(self, backend: Backend, *, has_keys: bool, body_timeout_s: float) -> None:
        self._backend = backend
        self._has_keys = has_keys
        self._body_timeout_s = body_timeout_s

    async def profile(self, request: Request) -> Response:
        if not self._has_keys and not _is_local(request):
            raise ForbiddenError("profiles are for callers on the server's own machine, or with an API key")
        body = await read_body(request, max_bytes=_MAX_BODY_BYTES, timeout_s=self._body_timeout_s)
        bounds = _bounds(body)
        _log.info("profile begins", extra=bounds.to_json())
        profile = await self._backend.profile(bounds)
        _log.info("profile is over", extra={"triton": profile.server, "bytes": len(profile.trace_gzip)})
        headers = {"x-triton": profile.server, "vary": "accept-encoding", "cache-control": "no-store"}
        content = profile.trace_gzip
        if "gzip" in request.headers.get("accept-encoding", ""):
            headers["content-encoding"] = "gzip"
        else:
            content = await asyncio.to_thread(gzip.decompress, content)
        return Response(content, headers=headers, media_type="application/json")


def _is_local(request: Request) -> bool:
    if request.client is None or any(name in request.headers for name in _FOREIGN_HEADERS):
        return False
    try:
        return ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False


def _bounds(body: bytes) -> ProfileBounds:
    try:
        raw: Any = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError as error:
        raise InvalidRequestError(f"the request body is not valid JSON: {error}", code="invalid_json") from error
    if not isinstance(raw, dict):
        raise InvalidRequestError("the request body must be a JSON object", code="invalid_type")
    return ProfileBounds.from_json(cast("dict[str, Any]", raw))
