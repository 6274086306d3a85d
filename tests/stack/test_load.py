"""Many streams at once, clients that vanish, and gauges that come back to zero."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import pytest
from tests.stack.conftest import MODEL, Server

pytestmark = pytest.mark.triton


def body(text: str, **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], "temperature": 0, **fields}


def until(condition: Any, limit_s: float) -> float:
    """Seconds until the condition holds; each look is a request, so this waits on answers and not on a clock."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < limit_s, f"not within {limit_s} s"
    return time.monotonic() - began


def test_32_concurrent_streams_finish(server: Server) -> None:
    async def one(client: httpx.AsyncClient, number: int) -> str:
        last = ""
        request = body(f"Open app number {number}", stream=True, max_tokens=40)
        async with client.stream("POST", f"{server.http_url}/v1/chat/completions", json=request) as answer:
            assert answer.status_code == 200
            async for line in answer.aiter_lines():
                last = line or last
        return last

    async def run() -> list[str]:
        async with httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=None)) as client:
            return await asyncio.gather(*(one(client, number) for number in range(32)))

    assert asyncio.run(run()) == ["data: [DONE]"] * 32
    until(lambda: server.gauge("autoglm_requests_running") == 0, 5.0)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_disconnects_frees_its_slot_within_a_second(server: Server, stream: bool) -> None:
    async def run() -> None:
        request = body("Tell me everything", stream=stream, max_tokens=12000, ignore_eos=True)
        async with httpx.AsyncClient(timeout=120) as client:
            task = asyncio.ensure_future(client.post(f"{server.http_url}/v1/chat/completions", json=request))
            await asyncio.to_thread(until, lambda: server.gauge("autoglm_requests_running") == 1, 20.0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    cancelled = server.gauge("autoglm_requests_total")
    asyncio.run(run())
    # The decoder refreshes its gauges a few times a second: the bound holds for the slot, plus one refresh.
    assert until(lambda: server.gauge("autoglm_requests_running") == 0, 10.0) < 1.5
    until(lambda: server.gauge("autoglm_requests_total") == cancelled + 1, 5.0)


def test_gauges_return_to_zero(server: Server) -> None:
    def idle() -> bool:
        metrics = httpx.get(f"{server.http_url}/metrics").text.splitlines()
        values = [line.rsplit(" ", 1)[1] for line in metrics if line.startswith("vllm:num_requests_")]
        return bool(values) and all(float(value) == 0 for value in values)

    until(idle, 5.0)
    until(lambda: server.gauge("autoglm_requests_running") == server.gauge("autoglm_requests_waiting") == 0, 5.0)
    until(lambda: server.gauge("autoglm_kv_usage_ratio") == 0, 5.0)
