"""One bound on the memory of all request bodies together, from their first byte to the end of the answer."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from autoglm_protocol.errors import OverloadedError


class BodyBudget:
    """ASGI middleware. The request whose body does not fit any more is refused with 429 while it is being read."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        held = 0

        async def counted() -> Message:
            nonlocal held
            message = await receive()
            if message["type"] == "http.request":
                size = len(message.get("body", b""))
                if self._held_bytes + size > self._max_bytes:
                    raise OverloadedError("the server holds as many request bodies as it has memory for")
                held += size
                self._held_bytes += size
            return message

        try:
            await self._app(scope, counted, send)
        finally:
            self._held_bytes -= held
