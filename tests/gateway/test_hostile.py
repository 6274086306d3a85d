"""Callers that are broken or mean: they lose their connection, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.responses import Response
from tests.gateway.processes import MODEL, Gateway, running_gateway
from tests.gateway.wire import b64, chat_body, image_part, png, post, refusal
from uvicorn.server import ServerState

from autoglm_gateway import http_protocol
from autoglm_gateway.draft import ChatDraft
from autoglm_gateway.openai_schema import parse_chat
from autoglm_protocol.errors import InvalidRequestError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    ["messages", "temperature", "stop", "n", "seed", "stream", "stream_options", "depth", "logit_bias", "tools",
     "response_format", "chat_template_kwargs", "max_tokens", "priority", "logprobs", "top_logprobs", "model"]
)  # fmt: skip
PARTS = st.dictionaries(st.sampled_from(["type", "text", "image_url", "input_audio", "audio_url"]), JSON)
MESSAGES = st.lists(st.fixed_dictionaries({"role": JSON | st.just("user"), "content": st.lists(PARTS) | JSON}))


def raw(gateway: Gateway, data: bytes) -> bytes:
    host, port = gateway.http.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as caller:
        caller.sendall(data)
        return caller.recv(65536)


def test_a_malformed_request_line_gets_openais_shape(gateway: Gateway):
    head, _, body = raw(gateway, b"NONSENSE\r\n\r\n").partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 400")
    assert json.loads(body)["error"]["code"] == "invalid_http"


def test_endless_headers_are_cut_off(gateway: Gateway):
    answer = raw(gateway, b"GET /health HTTP/1.1\r\n" + b"".join(b"x-%d: %s\r\n" % (i, b"a" * 900) for i in range(80)))

    assert answer.startswith(b"HTTP/1.1 400")


async def test_a_connection_that_sends_no_request_is_closed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(http_protocol, "HEAD_TIMEOUT_S", 0.05)
    config = uvicorn.Config(Response(), http=http_protocol.BoundedHttpProtocol, ws="none", log_config=None)
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: http_protocol.BoundedHttpProtocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    async with server:
        for head in (b"", b"GET / HTTP/1.1\r\nx: "):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(head)
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()


def test_a_caller_that_stops_reading_loses_its_place():
    text = "long text " * 20_000
    with running_gateway(
        "--fake", "--stall-s", "1", environment={"AUTOGLM_GATEWAY_FAKE_TEXT": text[:120_000]}
    ) as gateway:
        host, port = gateway.http.split(":")
        with socket.socket() as caller:
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            caller.connect((host, int(port)))
            body = json.dumps(chat_body(stream=True)).encode()
            caller.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body
            )
            assert caller.recv(10)
            gateway.wait_for_metric("autoglm_gateway_requests_cancelled_total", 1, timeout_s=10)
        gateway.wait_for_metric("vllm:num_requests_running", 0)


def test_all_bodies_together_are_bounded():
    arguments = ("--max-bodies-bytes", "1000", "--fake-ttft-s", "3600", "--drain-s", "0.1")
    with running_gateway("--fake", *arguments) as gateway:
        url = f"{gateway.v1}/chat/completions"
        with httpx.stream("POST", url, json=chat_body("a" * 600, stream=True)):
            assert refusal(post(gateway, chat_body("a" * 600)), 429)["code"] == "server_is_overloaded"
        gateway.wait_for_metric("vllm:num_requests_running", 0)
        with httpx.stream("POST", url, json=chat_body("a" * 600, stream=True)) as response:
            assert response.status_code == 200


def test_health_answers_while_large_pictures_are_handled(gateway: Gateway):
    """Check 35: 20 requests with a picture of 5 MB each, and the time that the server needs for probes meanwhile."""
    picture = png(8, 8)[:-12] + b"\x00\x50\x00\x00tEXt" + bytes(0x500000) + bytes(4) + png(8, 8)[-12:]
    body = json.dumps(chat_body([image_part(picture)])).encode()
    url = f"{gateway.v1}/chat/completions"
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(httpx.post(url, content=body, timeout=60).status_code))
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    slowest_ms = 0
    while any(thread.is_alive() for thread in threads):
        for path in ("/health/live", "/health/ready", "/health"):
            response = httpx.get(f"http://{gateway.http}{path}")
            assert response.status_code == 200
            slowest_ms = max(slowest_ms, int(response.headers["openai-processing-ms"]))
    for thread in threads:
        thread.join()

    assert statuses == [200] * 20
    assert slowest_ms < 50


@given(st.dictionaries(FIELDS, JSON | MESSAGES))
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_any_json_is_a_request_or_a_refusal(fields: dict[str, Any]):
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], **fields}
    with contextlib.suppress(InvalidRequestError):
        assert isinstance(parse_chat(body, features=frozenset()), ChatDraft)


@given(st.binary(max_size=200), st.sampled_from(["", "image/png", "image/jpeg", "image/webp"]))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_in_a_picture_break_the_server(gateway: Gateway, data: bytes, media_type: str):
    url = f"data:{media_type};base64,{b64(data)}"

    assert post(gateway, chat_body([{"type": "image_url", "image_url": {"url": url}}])).status_code in (200, 400)


@given(st.integers(0, 200), st.binary(min_size=1, max_size=4))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_damage_to_a_picture_breaks_the_server(gateway: Gateway, at: int, damage: bytes):
    data = png()
    damaged = data[:at] + damage + data[at + len(damage) :]

    assert post(gateway, chat_body([image_part(damaged)])).status_code in (200, 400)


def test_memory_and_descriptors_do_not_grow_with_requests():
    """Check 40, in short: a soak of answered and refused pictures."""

    def resources(gateway: Gateway) -> tuple[int, int]:
        process = Path(f"/proc/{gateway.process.pid}")
        pages = int((process / "statm").read_text().split()[1])
        return pages, len(list((process / "fd").iterdir()))

    async def load(gateway: Gateway, rounds: int) -> None:
        bodies = [chat_body([image_part(png(200, 200))]), chat_body([image_part(b"no")]), chat_body(temperature=9)]
        async with httpx.AsyncClient() as client:
            for _ in range(rounds):
                await asyncio.gather(*(client.post(f"{gateway.v1}/chat/completions", json=body) for body in bodies * 4))

    with running_gateway("--fake") as gateway:
        asyncio.run(load(gateway, 30))
        gateway.wait_for_metric("vllm:num_requests_running", 0)
        pages, files = resources(gateway)
        asyncio.run(load(gateway, 60))
        gateway.wait_for_metric("vllm:num_requests_running", 0)
        more_pages, more_files = resources(gateway)

    assert more_pages <= pages * 1.05
    assert more_files <= files + 2
