"""The gRPC door: autoglm.v1.AutoGLM over the same service as HTTP, with health.v1 and reflection."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from autoglm_gateway.api_keys import ApiKeys
from autoglm_gateway.grpc_answers import EventMessages, response_of
from autoglm_gateway.grpc_requests import draft_from
from autoglm_gateway.metrics import Metrics
from autoglm_gateway.openai_chat import completion_id
from autoglm_gateway.request_ids import request_ids
from autoglm_gateway.service import ChatService, Origin, says_no_store
from autoglm_gateway.tracing import Tracing
from autoglm_protocol.errors import AutoglmError, InternalError, OverloadedError
from autoglm_protocol.events import Failed, fold
from autoglm_protocol.grpc import autoglm_pb2 as pb
from autoglm_protocol.grpc import autoglm_pb2_grpc

_log = logging.getLogger("autoglm_gateway.access")
_SERVICE = pb.DESCRIPTOR.services_by_name["AutoGLM"].full_name
_HEALTH_EVERY_S = 1.0
_aio_health: Any = health.aio  # pyright: ignore # set at import, unseen by stubs


class GrpcServer:
    """`port` is the bound one. Raises OSError from `start` when the address cannot be had."""

    def __init__(
        self, service: ChatService, metrics: Metrics, tracing: Tracing, *, keys: ApiKeys | None, max_message_bytes: int
    ) -> None:
        self._service = service
        self._server = grpc.aio.server(
            options=(
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),  # otherwise two gateways would share a port without a word
            )
        )
        self._health: Any = _aio_health.HealthServicer()
        # generated code has no types
        autoglm_pb2_grpc.add_AutoGLMServicer_to_server(_Servicer(service, metrics, tracing, keys), self._server)  # pyright: ignore
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)  # pyright: ignore
        reflection.enable_server_reflection((_SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        self._health_task: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self, host: str, port: int, credentials: grpc.ServerCredentials | None) -> None:
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if credentials is None:
                self.port = self._server.add_insecure_port(address)
            else:
                self.port = self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address} for gRPC") from error
        await self._server.start()
        self._health_task = asyncio.ensure_future(self._report_health())

    async def stop_taking_work(self) -> None:
        """Health says NOT_SERVING from now on; the service itself refuses new requests."""
        if self._health_task is not None:
            self._health_task.cancel()
        await self._health.enter_graceful_shutdown()

    async def stop(self) -> None:
        await self._server.stop(grace=None)

    async def _report_health(self) -> None:
        while True:
            serving = await self._service.ready()
            status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
            for name in ("", _SERVICE):
                await self._health.set(name, status)
            await asyncio.sleep(_HEALTH_EVERY_S)


class _Servicer(autoglm_pb2_grpc.AutoGLMServicer):
    def __init__(self, service: ChatService, metrics: Metrics, tracing: Tracing, keys: ApiKeys | None) -> None:
        self._service = service
        self._metrics = metrics
        self._tracing = tracing
        self._keys = keys

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:
        async with self._call(context, "ListModels"):
            return pb.ListModelsResponse(names=self._service.model_names)

    async def Chat(self, request: pb.ChatRequest, context: Any) -> pb.ChatResponse:
        async with self._call(context, "Chat") as origin:
            draft = draft_from(request, features=self._service.backend.features, stream=False)
            async with self._service.open(draft, origin) as stream:
                completion = await fold(aiter(stream))
            return response_of(draft, completion, response_id=completion_id())

    # Not a generator: a cancelled call must unwind here and now, not when a generator is collected.
    async def ChatStream(self, request: pb.ChatRequest, context: Any) -> None:
        async with self._call(context, "ChatStream") as origin:
            draft = draft_from(request, features=self._service.backend.features, stream=True)
            messages = EventMessages(draft, response_id=completion_id())
            async with self._service.open(draft, origin) as stream:
                await context.write(messages.started(stream.started))
                async for event in stream:
                    if isinstance(event, Failed):
                        raise event.error
                    for message in messages.of(event):
                        await context.write(message)

    @asynccontextmanager
    async def _call(self, context: Any, method: str) -> AsyncGenerator[Origin, None]:
        """Where the call comes from; a refusal inside becomes a status, and every call a log line and a count."""
        started_s = time.monotonic()
        metadata: dict[str, str] = dict(context.invocation_metadata() or ())
        ids = request_ids(metadata.get("x-request-id"))
        echo = (("x-request-id", ids.request_id),)
        await context.send_initial_metadata(echo)
        code = grpc.StatusCode.OK
        try:
            caller = None if self._keys is None else self._keys.authenticate(metadata.get("authorization"))
            no_store = says_no_store(metadata.get("cache-control"))
            with self._tracing.request(f"{_SERVICE}/{method}", metadata) as span:
                span.set_attribute("request.id", ids.request_id)
                yield Origin(request_id=ids.unique_id, caller=caller, no_store=no_store)
        except AutoglmError as error:
            code = grpc.StatusCode[error.grpc_code]
            await context.abort(code, error.message, trailing_metadata=(*echo, *_error_metadata(error)))
        except asyncio.CancelledError:
            code = grpc.StatusCode.CANCELLED
            raise
        except Exception:
            code = grpc.StatusCode.INTERNAL
            _log.exception("unexpected failure", extra={"request_id": ids.request_id})
            error = InternalError("the server failed to handle the request")
            await context.abort(code, error.message, trailing_metadata=(*echo, *_error_metadata(error)))
        finally:
            self._metrics.grpc_requests.labels(method, code.name).inc()
            _log.info(
                "request",
                extra={
                    "request_id": ids.request_id,
                    "method": "gRPC",
                    "path": f"/{_SERVICE}/{method}",
                    "status": code.name,
                    "duration_ms": round((time.monotonic() - started_s) * 1e3, 1),
                },
            )


def _error_metadata(error: AutoglmError) -> tuple[tuple[str, str], ...]:
    metadata = [("error-code", error.code)]
    if error.param is not None:
        # Metadata values are ASCII; a field's name comes from the caller and may be anything.
        metadata.append(("error-param", error.param.encode("ascii", "backslashreplace").decode()))
    if isinstance(error, OverloadedError):
        metadata.append(("retry-after", str(math.ceil(error.retry_after_s))))
    return tuple(metadata)
