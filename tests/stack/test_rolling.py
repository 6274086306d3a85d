"""Tritons and gateways that come and go under load, all of them real processes; the model behind is scripted.

The rolling restart itself is in tests/gateway/test_replicas.py.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from tests.gateway.processes import Gateway, Triton, free_port, running_gateway, running_triton
from tests.gateway.wire import chat_body, post, refusal, stream_lines
from tritonclient.grpc import service_pb2, service_pb2_grpc

from autoglm_gateway.replica import FAILURES_TO_OPEN, OPEN_S

pytestmark = pytest.mark.triton
pb: Any = service_pb2
RETRIES = "autoglm_gateway_retries_total"


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    with running_triton(tmp_path_factory.mktemp("triton")) as triton:
        yield triton


class Unreachable(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Says that it is ready, and turns every request away as a proxy without its server does."""

    def __init__(self) -> None:
        self.count = 0

    def ModelReady(self, request: Any, context: grpc.ServicerContext) -> Any:
        return pb.ModelReadyResponse(ready=True)

    def ModelConfig(self, request: Any, context: grpc.ServicerContext) -> Any:
        return pb.ModelConfigResponse()

    def ModelStreamInfer(self, request_iterator: Any, context: grpc.ServicerContext) -> Any:
        self.count += 1
        context.abort(grpc.StatusCode.UNAVAILABLE, "no upstream")


@contextlib.contextmanager
def unreachable() -> Iterator[tuple[Unreachable, str]]:
    servicer = Unreachable()
    server = grpc.server(futures.ThreadPoolExecutor(4))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield servicer, f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def test_a_triton_that_is_killed_costs_no_request_and_none_left_is_an_honest_503(
    triton: Triton, tmp_path: Path
) -> None:
    """Check 39."""
    port = free_port()
    with contextlib.ExitStack() as held:
        other = held.enter_context(running_triton(tmp_path, grpc_port=port))
        # No health check comes to the gateway's help: it must find out by itself.
        options = ("--check-every-s", "3600", "--balancing", "round_robin", "--triton-metrics", "")
        gateway = held.enter_context(running_gateway("--triton-grpc", f"{other.grpc},{triton.grpc}", *options))
        gateway.wait_until_ready(20)
        other.process.kill()
        other.process.wait()
        answers = [stream_lines(gateway, chat_body("say ok"))[-1] for _ in range(6)]
        assert answers == ["[DONE]"] * 6
        assert gateway.metric(RETRIES) == 1
    with running_gateway("--triton-grpc", f"127.0.0.1:{port}", "--triton-metrics", "") as gateway:
        response = post(gateway, chat_body("say ok", stream=True))
        assert refusal(response, 503)["code"] == "backend_unavailable"
        assert int(response.headers["retry-after"]) >= 1
        with running_triton(tmp_path, grpc_port=port):
            gateway.wait_until_ready(20)
            assert post(gateway, chat_body("say ok")).status_code == 200


def test_the_breaker_spares_a_server_that_says_it_is_ready_and_is_not(triton: Triton) -> None:
    # Without the watch for servers that hang: it would not use this one again before it has answered a probe.
    options = ("--check-every-s", "0.02", "--balancing", "round_robin", "--triton-metrics", "", "--hang-after-s", "0")
    with (
        unreachable() as (servicer, address),
        running_gateway("--triton-grpc", f"{address},{triton.grpc}", *options) as gateway,
    ):
        gateway.wait_until_ready(20)
        began_s = time.monotonic()
        for _ in range(FAILURES_TO_OPEN):
            wait_until_shown_up(gateway, address)
            for _ in range(2):  # round robin: one of the two goes there first
                assert post(gateway, chat_body("say ok")).status_code == 200
        answers = [post(gateway, chat_body("say ok")).status_code for _ in range(12)]
        half_open = int((time.monotonic() - began_s) / OPEN_S)

        assert answers == [200] * 12
        assert FAILURES_TO_OPEN <= servicer.count <= FAILURES_TO_OPEN + half_open


def wait_until_shown_up(gateway: Gateway, address: str) -> None:
    gateway.wait_for_metric(f'autoglm_gateway_replica_up{{triton="{address}"}}', 1.0, timeout_s=10)


def test_a_gateway_that_stops_finishes_what_it_can_and_says_so_to_the_rest(triton: Triton) -> None:
    """Check 36."""
    ended: dict[str, list[str]] = {}
    begun = threading.Barrier(3)

    def read(gateway: Gateway, text: str) -> None:
        body = chat_body(text, stream=True)
        with httpx.stream("POST", f"{gateway.v1}/chat/completions", json=body, timeout=60) as response:
            lines = response.iter_lines()
            next(lines)
            begun.wait(30)
            ended[text] = [line for line in lines if line]

    with running_gateway("--triton-grpc", triton.grpc, "--triton-metrics", "", "--drain-s", "6") as gateway:
        gateway.wait_until_ready(20)
        threads = [threading.Thread(target=read, args=(gateway, text)) for text in ("load 2000", "stall")]
        for thread in threads:
            thread.start()
        begun.wait(30)
        gateway.process.send_signal(signal.SIGTERM)
        gateway.wait_for_log(message="draining")
        refusal(httpx.get(f"http://{gateway.http}/health/ready"), 503)
        for thread in threads:
            thread.join()
        assert gateway.process.wait(20) == 0

    assert '"finish_reason":"stop"' in ended["load 2000"][-2]
    assert ended["load 2000"][-1] == ended["stall"][-1] == "data: [DONE]"
    assert '"code":"server_is_shutting_down"' in ended["stall"][-2]
