"""The endpoints that generate: each reads its own body into a ChatDraft and answers in its own format."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from autoglm_gateway.answer import Answer, Format
from autoglm_gateway.completions_schema import parse_completion, parse_multimodal
from autoglm_gateway.draft import ChatDraft
from autoglm_gateway.http_body import read_json
from autoglm_gateway.openai_chat import ChatFormat
from autoglm_gateway.openai_completions import CompletionFormat
from autoglm_gateway.openai_responses import ResponsesFormat
from autoglm_gateway.openai_schema import parse_chat
from autoglm_gateway.responses_schema import parse_response
from autoglm_gateway.service import ChatService
from autoglm_protocol.errors import InvalidRequestError


class GenerateRoutes:
    def __init__(self, service: ChatService, *, max_body_bytes: int, body_timeout_s: float) -> None:
        self._service = service
        self._max_body_bytes = max_body_bytes
        self._body_timeout_s = body_timeout_s

    async def chat_completions(self, request: Request) -> Response:
        return await self._answer(request, parse_chat, ChatFormat())

    async def completions(self, request: Request) -> Response:
        return await self._answer(request, parse_completion, CompletionFormat())

    async def multimodal_completions(self, request: Request) -> Response:
        return await self._answer(request, parse_multimodal, CompletionFormat())

    async def responses(self, request: Request) -> Response:
        return await self._answer(request, parse_response, ResponsesFormat())

    async def transcriptions(self, request: Request) -> Response:
        raise InvalidRequestError(
            "this model follows spoken commands but was not trained to write them down; "
            "send the sound as input_audio to /v1/chat/completions",
            code="unsupported_endpoint",
        )

    async def _answer(self, request: Request, parse: Callable[..., ChatDraft], format: Format) -> Response:
        body: Any = await read_json(request, max_bytes=self._max_body_bytes, timeout_s=self._body_timeout_s)
        draft = parse(body, features=self._service.backend.features)
        return Answer(self._service, draft, request, format)
