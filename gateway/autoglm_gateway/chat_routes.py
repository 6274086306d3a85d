"""POST /v1/chat/completions, whole and streamed."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from autoglm_gateway import sse
from autoglm_gateway.disconnect import run_while_connected
from autoglm_gateway.draft import ChatDraft
from autoglm_gateway.http_body import read_json
from autoglm_gateway.http_context import origin_of
from autoglm_gateway.json_response import JsonResponse
from autoglm_gateway.openai_chat import ChatChunks, chat_completion, error_body
from autoglm_gateway.openai_schema import parse_chat
from autoglm_gateway.service import ChatService, ChatStream
from autoglm_protocol.events import Failed, fold


class ChatRoutes:
    def __init__(self, service: ChatService, *, max_body_bytes: int, body_timeout_s: float) -> None:
        self._service = service
        self._max_body_bytes = max_body_bytes
        self._body_timeout_s = body_timeout_s

    async def chat_completions(self, request: Request) -> Response:
        body = await read_json(request, max_bytes=self._max_body_bytes, timeout_s=self._body_timeout_s)
        draft = parse_chat(body, features=self._service.backend.features)
        return ChatReply(self._service, draft, request)


class ChatReply(Response):
    """Opens the request and answers it; a refusal before the first event is raised, so that it gets its own status."""

    def __init__(self, service: ChatService, draft: ChatDraft, request: Request) -> None:
        super().__init__()
        self._service = service
        self._draft = draft
        self._origin = origin_of(request)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await run_while_connected(self._answer(scope, receive, send), receive)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._service.open(self._draft, self._origin) as stream:
            if self._draft.stream:
                await self._stream(stream, send)
                return
            completion = await fold(aiter(stream))
        await JsonResponse(chat_completion(self._draft, completion))(scope, receive, send)

    async def _stream(self, stream: ChatStream, send: Send) -> None:
        chunks = ChatChunks(self._draft, stream.started)
        await send({"type": "http.response.start", "status": 200, "headers": list(sse.HEADERS)})
        await _send(send, b"".join(sse.encode(chunk) for chunk in chunks.first()))
        last = sse.DONE
        async for event in stream:
            if isinstance(event, Failed):
                last = sse.encode(error_body(event.error))
                break
            body = b"".join(sse.encode(chunk) for chunk in chunks.of(event))
            if body:
                await _send(send, body)
        await _send(send, last, more=False)


async def _send(send: Send, body: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})
