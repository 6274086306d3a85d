"""What operators and clients ask before they send work: models, health, metrics, version."""

from __future__ import annotations

from importlib.metadata import version

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from autoglm_gateway.json_response import JsonResponse
from autoglm_gateway.metrics import Metrics
from autoglm_gateway.openai_chat import model_card, model_list
from autoglm_gateway.openapi import document
from autoglm_gateway.service import ChatService
from autoglm_protocol.errors import UnavailableError


class StatusRoutes:
    def __init__(self, service: ChatService, metrics: Metrics) -> None:
        self._service = service
        self._metrics = metrics

    async def models(self, request: Request) -> Response:
        return JsonResponse(model_list(self._service.model_names))

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
        return Response(self._metrics.page(), media_type=CONTENT_TYPE_LATEST)

    async def openapi(self, request: Request) -> Response:
        return JsonResponse(document())

    async def version(self, request: Request) -> Response:
        return JsonResponse({"version": version("autoglm-triton")})
