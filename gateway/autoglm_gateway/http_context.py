"""What every HTTP request gets: an id that is echoed, a line in the log, and a place in http_requests_total."""

from __future__ import annotations

import logging
import re
import time
import uuid

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from autoglm_gateway.metrics import Metrics

_log = logging.getLogger("autoglm_gateway.access")
_VALID_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_CLIENT_GONE = 499


class RequestContext:
    """ASGI middleware. Puts `request_id` (echoed) and `unique_id` (for Triton) into the scope's state."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_s = time.monotonic()
        request_id, unique_id = _ids(scope)
        scope.setdefault("state", {}).update(request_id=request_id, unique_id=unique_id)
        status = _CLIENT_GONE

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers["openai-processing-ms"] = str(round((time.monotonic() - started_s) * 1e3))
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            # The endpoint's name, not the path: a caller must not be able to make new label values.
            handler = getattr(scope.get("endpoint"), "__name__", "unmatched")
            method = scope["method"] if scope["method"] in ("GET", "POST", "HEAD", "OPTIONS") else "other"
            self._metrics.http_requests.labels(handler, method, str(status)).inc()
            _log.info(
                "request",
                extra={
                    "request_id": request_id,
                    "method": scope["method"],
                    "path": scope["path"][:200],
                    "status": status,
                    "duration_ms": round((time.monotonic() - started_s) * 1e3, 1),
                },
            )


def _ids(scope: Scope) -> tuple[str, str]:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given = value.decode("latin-1")
            if _VALID_ID.fullmatch(given):
                # A caller may send the same id twice; the backend cancels by id and must not confuse the two.
                return given, f"{given}.{uuid.uuid4().hex[:12]}"
            break
    own = uuid.uuid4().hex
    return own, own
