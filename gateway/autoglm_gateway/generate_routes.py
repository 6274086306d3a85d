"""The endpoints that generate: each reads its own body into a ChatDraft and answers in its own format."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import Response

from autoglm_gateway.answer import Answer, Format
from autoglm_gateway.completions_schema import parse_completion, parse_multimodal
from autoglm_gateway.draft import ChatDraft
from autoglm_gateway.http_body import read_body, read_json
from autoglm_gateway.multipart import MAX_FORM_OVERHEAD_BYTES, parse_form
from autoglm_gateway.openai_chat import ChatFormat
from autoglm_gateway.openai_completions import CompletionFormat
from autoglm_gateway.openai_responses import ResponsesFormat
from autoglm_gateway.openai_schema import parse_chat
from autoglm_gateway.responses_schema import parse_response
from autoglm_gateway.service import ChatService
from autoglm_gateway.tokenize_schema import DetokenizeFormat, TokenizeFormat, parse_detokenize, parse_tokenize
from autoglm_gateway.transcriptions import MAX_FILE_BYTES, TranscriptionFormat, parse_transcription
from autoglm_gateway.turns import Turns


class GenerateRoutes:
    def __init__(self, service: ChatService, turns: Turns, *, max_body_bytes: int, body_timeout_s: float) -> None:
        self._service = service
        self._turns = turns
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

    async def tokenize(self, request: Request) -> Response:
        return await self._answer(request, parse_tokenize, TokenizeFormat(), model_may_be_left_out=True)

    async def detokenize(self, request: Request) -> Response:
        return await self._answer(request, parse_detokenize, DetokenizeFormat(), model_may_be_left_out=True)

    async def transcriptions(self, request: Request) -> Response:
        limit = min(self._max_body_bytes, MAX_FILE_BYTES + MAX_FORM_OVERHEAD_BYTES)
        body = await read_body(request, max_bytes=limit, timeout_s=self._body_timeout_s)
        form = await asyncio.to_thread(parse_form, body, request.headers.get("content-type"))
        draft, response_format = parse_transcription(form)
        return Answer(self._service, draft, request, TranscriptionFormat(response_format))

    async def _answer(
        self,
        request: Request,
        parse: Callable[..., ChatDraft],
        format: Format,
        *,
        model_may_be_left_out: bool = False,
    ) -> Response:
        body: Any = await read_json(
            request, self._turns, max_bytes=self._max_body_bytes, timeout_s=self._body_timeout_s
        )
        if model_may_be_left_out and isinstance(body, dict):
            body = {"model": self._service.model_names[0], **cast("dict[str, Any]", body)}
        draft = parse(body, features=self._service.backend.features)
        return Answer(self._service, draft, request, format)
