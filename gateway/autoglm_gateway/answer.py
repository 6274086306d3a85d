"""Answering a parsed request over HTTP, whole or streamed, in whichever format its endpoint speaks."""

from __future__ import annotations

from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from autoglm_gateway import sse
from autoglm_gateway.disconnect import run_while_connected
from autoglm_gateway.draft import ChatDraft
from autoglm_gateway.http_context import origin_of
from autoglm_gateway.json_response import JsonResponse
from autoglm_gateway.service import ChatService, ChatStream
from autoglm_protocol.errors import AutoglmError
from autoglm_protocol.events import Completion, Failed, Started, StreamEvent, fold


class StreamFormat(Protocol):
    """The server-sent events of one answer."""

    def first(self) -> bytes: ...

    def of(self, event: StreamEvent) -> bytes: ...

    def failed(self, error: AutoglmError) -> bytes:
        """In place of everything that was still to come."""
        ...

    def end(self) -> bytes:
        """After a Finished."""
        ...


class Format(Protocol):
    def whole(self, draft: ChatDraft, completion: Completion) -> dict[str, Any] | str:
        """JSON, or plain text."""
        ...

    def stream(self, draft: ChatDraft, started: Started) -> StreamFormat: ...


class Answer(Response):
    """Opens the request and answers it; a refusal before the first event is raised, so that it gets its own status."""

    def __init__(self, service: ChatService, draft: ChatDraft, request: Request, format: Format) -> None:
        super().__init__()
        self._service = service
        self._draft = draft
        self._origin = origin_of(request)
        self._format = format

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await run_while_connected(self._answer(scope, receive, send), receive)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._service.open(self._draft, self._origin) as stream:
            if self._draft.stream:
                await self._stream(stream, send)
                return
            completion = await fold(aiter(stream))
        body = self._format.whole(self._draft, completion)
        response = PlainTextResponse(body) if isinstance(body, str) else JsonResponse(body)
        await response(scope, receive, send)

    async def _stream(self, stream: ChatStream, send: Send) -> None:
        format = self._format.stream(self._draft, stream.started)
        await send({"type": "http.response.start", "status": 200, "headers": list(sse.HEADERS)})
        await _send(send, format.first())
        last = b""
        async for event in stream:
            if isinstance(event, Failed):
                last = format.failed(event.error)
                break
            body = format.of(event)
            if body:
                await _send(send, body)
        else:
            last = format.end()
        await _send(send, last, more=False)


async def _send(send: Send, body: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})
