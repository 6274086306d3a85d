"""The process: both servers in one event loop, from binding the ports to the drain."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
from collections.abc import Generator
from functools import partial
from pathlib import Path

import uvicorn
from prometheus_client import disable_created_metrics

from autoglm_gateway.admission import Admission
from autoglm_gateway.api_keys import ApiKeys
from autoglm_gateway.app import create_app
from autoglm_gateway.backend import Backend
from autoglm_gateway.balancing import Balancing
from autoglm_gateway.discovery import Discovery
from autoglm_gateway.fake_backend import FakeBackend
from autoglm_gateway.grpc_server import GrpcServer
from autoglm_gateway.http_protocol import BoundedHttpProtocol
from autoglm_gateway.media import MediaReader
from autoglm_gateway.metrics import Metrics
from autoglm_gateway.quotas import Quotas
from autoglm_gateway.redis_link import RedisLink
from autoglm_gateway.replica_set import ReplicaSet
from autoglm_gateway.response_cache import ResponseCache
from autoglm_gateway.service import ChatService
from autoglm_gateway.settings import Settings
from autoglm_gateway.shared_quotas import SharedQuotas
from autoglm_gateway.tracing import Tracing
from autoglm_gateway.triton_backend import TritonBackend
from autoglm_gateway.triton_scrape import TritonScraper
from autoglm_gateway.turns import Turns

_log = logging.getLogger(__name__)
_BACKLOG = 2048
_KEEP_ALIVE_S = 75  # longer than the usual 60 s of load balancers, so that they close first


class PortTakenError(OSError):
    """A port cannot be listened on; the message is one sentence for the operator."""


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain; a second signal ends the process at once.

    Raises PortTakenError, and ValueError for an API key file that cannot be used.
    """
    disable_created_metrics()  # a second series for each counter and histogram, which nobody asks for
    metrics = Metrics(settings.served_model_names[0])
    tracing = Tracing(settings.otlp_endpoint)
    turns = Turns()
    backend = _backend(settings, metrics, tracing, turns)
    scraper = TritonScraper(() if settings.fake else settings.triton_metrics, every_s=settings.scrape_every_s)
    metrics.registry.register(scraper)
    metrics.kv_cache_usage.set_function(lambda: scraper.kv_usage)
    keys = None if settings.api_keys_file is None else ApiKeys(Path(settings.api_keys_file))
    link = None if settings.redis.redis is None else RedisLink(settings.redis, metrics)
    quotas = Quotas() if link is None else SharedQuotas(link, local=Quotas())
    media = MediaReader(settings.media, turns)
    service = ChatService(
        model_names=settings.served_model_names,
        backend=backend,
        admission=Admission(settings.admission),
        media=media,
        metrics=metrics,
        quotas=quotas,
        cache=ResponseCache(settings.cache, metrics, link=link),
        tracing=tracing,
        log_prompts=settings.log_prompts,
    )
    http_socket = _bind(settings.host, settings.port)
    server = _HttpServer(
        uvicorn.Config(
            create_app(settings, service, metrics, keys=keys, quotas=quotas, tracing=tracing, turns=turns),
            http=BoundedHttpProtocol,
            ws="none",
            loop="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            backlog=_BACKLOG,
            **settings.tls.uvicorn_options(),
        )
    )
    grpc_server = GrpcServer(service, metrics, tracing, keys=keys, max_message_bytes=settings.max_body_bytes)
    try:
        await grpc_server.start(settings.host, settings.grpc_port, settings.tls.grpc_credentials())
    except OSError as error:
        raise PortTakenError(str(error)) from error
    scraper.start()
    stall_watch = asyncio.ensure_future(service.cut_off_stalled(settings.stall_s))
    stopping = _signalled()
    http = asyncio.ensure_future(server.serve(sockets=[http_socket]))
    await server.listening.wait()
    gc.collect()
    gc.freeze()  # what is there by now stays: a full collection would walk over it, and hold everybody up
    _log.info("listening", extra={"http": _address(http_socket), "grpc": f"{settings.host}:{grpc_server.port}"})
    try:
        await asyncio.wait((http, asyncio.ensure_future(stopping.wait())), return_when=asyncio.FIRST_COMPLETED)
        _log.info("draining", extra={"drain_s": settings.drain_s})
        await grpc_server.stop_taking_work()
        await service.drain(settings.drain_s)
    finally:
        await grpc_server.stop()
        server.should_exit = True
        await http
        stall_watch.cancel()
        await scraper.stop()
        await media.close()
        await backend.close()
        if link is not None:
            if isinstance(quotas, SharedQuotas):
                await quotas.settled()
            await link.close()
        await asyncio.to_thread(tracing.close)
    _log.info("stopped")


def _backend(settings: Settings, metrics: Metrics, tracing: Tracing, turns: Turns) -> Backend:
    if settings.fake:
        return FakeBackend(settings.fake_knobs)
    replicas = ReplicaSet(
        Discovery(settings.triton_grpc),
        partial(TritonBackend, tracing=tracing, turns=turns),
        balancing=Balancing(settings.balancing),
        check_every_s=settings.check_every_s,
        hang_limits=settings.hang,
    )
    metrics.registry.register(replicas)
    replicas.start()
    return replicas


class _HttpServer(uvicorn.Server):
    """uvicorn, with the signals left to us and an event for "now it listens"."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol by name: asyncio turns Nagle's algorithm off only then, and with it a small write waits 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise PortTakenError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"{host}:{port}"


def _signalled() -> asyncio.Event:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()

    def stop() -> None:
        stopping.set()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    return stopping
