"""What operators and clients ask before they send work: models, health, metrics, version."""

from __future__ import annotations

import math
import time
from importlib.metadata import version

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from autoglm_gateway.docs_page import CONTENT_SECURITY_POLICY, docs_html
from autoglm_gateway.json_response import JsonResponse
from autoglm_gateway.metrics import Metrics
from autoglm_gateway.openai_chat import model_card, model_list
from autoglm_gateway.openapi import document
from autoglm_gateway.phone_tools import definitions
from autoglm_gateway.service import ChatService, says_no_store
from autoglm_protocol.errors import UnavailableError

PAGE_AGE_S = 0.5
"""Inference gateways read the page every 50 ms and call it stale after 2 s; writing it takes most of a millisecond."""


class StatusRoutes:
    def __init__(self, service: ChatService, metrics: Metrics) -> None:
        self._service = service
        self._metrics = metrics
        self._page = b""
        self._page_made_s = -math.inf

    async def models(self, request: Request) -> Response:
        return JsonResponse(model_list(self._service.model_names))

    async def phone_actions(self, request: Request) -> Response:
        return JsonResponse({"object": "list", "data": definitions()})

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        self._service.check_model(name)
        return JsonResponse(model_card(name))

    async def live(self, request: Request) -> Response:
        return JsonResponse({"status": "live"})

    async def ready(self, request: Request) -> Response:
        if not await self._service.ready():
            raise UnavailableError("the server is not ready", code="not_ready")
        return JsonResponse({"status": "ready"})

    async def metrics(self, request: Request) -> Response:
        """A page that is at most PAGE_AGE_S old, or new for `cache-control: no-cache`."""
        now_s = time.monotonic()
        if now_s - self._page_made_s > PAGE_AGE_S or says_no_store(request.headers.get("cache-control")):
            self._page, self._page_made_s = self._metrics.page(), now_s
        return Response(self._page, media_type=CONTENT_TYPE_LATEST)

    async def openapi(self, request: Request) -> Response:
        return JsonResponse(document())

    async def docs(self, request: Request) -> Response:
        return HTMLResponse(docs_html(document()), headers={"content-security-policy": CONTENT_SECURITY_POLICY})

    async def version(self, request: Request) -> Response:
        return JsonResponse({"version": version("autoglm-triton")})
