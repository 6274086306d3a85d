"""What every HTTP request gets: an id that is echoed, a line in the log, and a place in http_requests_total."""

from __future__ import annotations

import logging
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from autoglm_gateway.metrics import Metrics
from autoglm_gateway.request_ids import request_ids
from autoglm_gateway.service import Origin, says_no_store
from autoglm_gateway.tracing import Tracing

_log = logging.getLogger("autoglm_gateway.access")
_CLIENT_GONE = 499
_PROBED = ("/health", "/metrics")


class RequestContext:
    """ASGI middleware. Puts the RequestIds as `ids` into the scope's state."""

    def __init__(self, app: ASGIApp, metrics: Metrics, tracing: Tracing) -> None:
        self._app = app
        self._tracing = tracing
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_s = time.monotonic()
        ids = request_ids(Headers(scope=scope).get("x-request-id"))
        scope.setdefault("state", {})["ids"] = ids
        status = _CLIENT_GONE

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = ids.request_id
                headers["openai-processing-ms"] = str(round((time.monotonic() - started_s) * 1e3))
            await send(message)

        try:
            with self._tracing.request(f"{scope['method']} {scope['path'][:200]}", Headers(scope=scope)) as span:
                await self._app(scope, receive, send_with_id)
                span.set_attributes({"http.response.status_code": status, "request.id": ids.request_id})
        finally:
            # The endpoint's name, not the path: a caller must not be able to make new label values.
            handler = getattr(scope.get("endpoint"), "__name__", "unmatched")
            method = scope["method"] if scope["method"] in ("GET", "POST", "HEAD", "OPTIONS") else "other"
            self._metrics.http_requests.labels(handler, method, str(status)).inc()
            caller = scope["state"].get("caller")
            # Probes and scrapes come twenty times a second: a line for each would bury the others.
            _log.log(
                logging.DEBUG if status < 400 and scope["path"].startswith(_PROBED) else logging.INFO,
                "request",
                extra={
                    "request_id": ids.request_id,
                    "method": scope["method"],
                    "path": scope["path"][:200],
                    "status": status,
                    **({} if caller is None else {"key": caller.name}),
                    "duration_ms": round((time.monotonic() - started_s) * 1e3, 1),
                },
            )


def origin_of(request: Request) -> Origin:
    return Origin(
        request_id=request.state.ids.unique_id,
        caller=getattr(request.state, "caller", None),
        no_store=says_no_store(request.headers.get("cache-control")),
    )
