"""Keys and quotas at the HTTP door: everything under /v1 needs a key, probes and metrics do not."""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from autoglm_gateway.api_keys import ApiKeys
from autoglm_gateway.http_errors import error_response
from autoglm_gateway.quotas import QuotaCounter
from autoglm_protocol.errors import AuthenticationError

_OPEN = ("/page/", "/health", "/metrics", "/version", "/openapi.json", "/docs")


class KeyRequired:
    """ASGI middleware. Puts the key's Caller into the scope's state and its x-ratelimit-* headers on the answer."""

    def __init__(self, app: ASGIApp, keys: ApiKeys, quotas: QuotaCounter) -> None:
        self._app = app
        self._keys = keys
        self._quotas = quotas

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == "/" or scope["path"].startswith(_OPEN):
            await self._app(scope, receive, send)
            return
        try:
            caller = self._keys.authenticate(Headers(scope=scope).get("authorization"))
        except AuthenticationError as error:
            await error_response(error, headers={"www-authenticate": "Bearer"})(scope, receive, send)
            return
        scope["state"]["caller"] = caller

        async def send_with_limits(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(await self._quotas.headers(caller))
            await send(message)

        await self._app(scope, receive, send_with_limits)
