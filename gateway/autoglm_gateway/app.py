"""The HTTP application as a value: routes, middleware, error handlers."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp

from autoglm_gateway.api_keys import ApiKeys
from autoglm_gateway.generate_routes import GenerateRoutes
from autoglm_gateway.http_auth import KeyRequired
from autoglm_gateway.http_budget import BodyBudget
from autoglm_gateway.http_context import RequestContext
from autoglm_gateway.http_errors import on_autoglm_error, on_bug, on_http_exception
from autoglm_gateway.metrics import Metrics
from autoglm_gateway.page_routes import page_routes
from autoglm_gateway.profile_routes import ProfileRoutes
from autoglm_gateway.quotas import QuotaCounter
from autoglm_gateway.service import ChatService
from autoglm_gateway.settings import Settings
from autoglm_gateway.status_routes import StatusRoutes
from autoglm_gateway.tracing import Tracing
from autoglm_gateway.turns import Turns
from autoglm_protocol.errors import AutoglmError


def create_app(
    settings: Settings,
    service: ChatService,
    metrics: Metrics,
    *,
    keys: ApiKeys | None,
    quotas: QuotaCounter,
    tracing: Tracing,
    turns: Turns,
) -> ASGIApp:
    generate = GenerateRoutes(
        service, turns, max_body_bytes=settings.max_body_bytes, body_timeout_s=settings.body_timeout_s
    )
    status = StatusRoutes(service, metrics)
    profile = ProfileRoutes(service.backend, has_keys=keys is not None, body_timeout_s=settings.body_timeout_s)
    starlette = Starlette(
        routes=[
            Route("/v1/chat/completions", generate.chat_completions, methods=["POST"]),
            Route("/v1/completions", generate.completions, methods=["POST"]),
            Route("/v1/multimodal/completions", generate.multimodal_completions, methods=["POST"]),
            Route("/v1/responses", generate.responses, methods=["POST"]),
            Route("/v1/audio/transcriptions", generate.transcriptions, methods=["POST"]),
            Route("/tokenize", generate.tokenize, methods=["POST"]),
            Route("/detokenize", generate.detokenize, methods=["POST"]),
            Route("/admin/profile", profile.profile, methods=["POST"]),
            Route("/v1/phone_actions", status.phone_actions),
            Route("/v1/models", status.models),
            Route("/v1/models/{name:path}", status.model),
            Route("/health", status.ready),
            Route("/health/ready", status.ready),
            Route("/health/live", status.live),
            Route("/metrics", status.metrics),
            Route("/version", status.version),
            Route("/openapi.json", status.openapi),
            Route("/docs", status.docs),
            *(page_routes() if settings.page else ()),
        ],
        exception_handlers={AutoglmError: on_autoglm_error, HTTPException: on_http_exception, Exception: on_bug},
    )
    # A redirect would name http and the inner address to a caller behind a proxy, in a body that is no error object.
    starlette.router.redirect_slashes = False
    app: ASGIApp = BodyBudget(starlette, settings.max_bodies_bytes)
    if keys is not None:
        app = KeyRequired(app, keys, quotas)
    # Around Starlette, not inside: its own answer to a bug must carry the request id too.
    return RequestContext(app, metrics, tracing)
