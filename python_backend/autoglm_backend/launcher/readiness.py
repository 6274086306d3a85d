"""Whether Triton and the gateway answer yet. False means not yet; only the caller knows how long to wait."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Awaitable, Callable

POLL_S = 0.05
PROBE_TIMEOUT_S = 2.0


async def until(is_ready: Callable[[], Awaitable[bool]], *, every_s: float, waiting: Callable[[], None]) -> None:
    """Returns once `is_ready`; calls `waiting` each `every_s` meanwhile."""
    loop = asyncio.get_running_loop()
    said_s = loop.time()
    while not await is_ready():
        if loop.time() - said_s >= every_s:
            said_s = loop.time()
            waiting()
        await asyncio.sleep(POLL_S)


async def triton_is_ready(host: str, port: int) -> bool:
    """Whether every model is loaded (ServerReady under --strict-readiness)."""
    # a gRPC channel backs off for seconds after a refused connection; a socket does not
    host = _reachable(host)
    if not await _accepts(host, port):
        return False
    # imported late: half a second that Triton needs for its own start
    from tritonclient.grpc.aio import InferenceServerClient
    from tritonclient.utils import InferenceServerException

    client = InferenceServerClient(f"{host}:{port}")
    try:
        return bool(await client.is_server_ready(client_timeout=PROBE_TIMEOUT_S))
    except InferenceServerException:
        return False
    finally:
        await client.close()


async def gateway_is_ready(host: str, port: int) -> bool:
    """Whether GET /health/ready answers 200."""
    host = _reachable(host)
    return await asyncio.to_thread(_answers_200, f"http://{f'[{host}]' if ':' in host else host}:{port}/health/ready")


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _answers_200(url: str) -> bool:
    # no proxy: the address is this machine's
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=PROBE_TIMEOUT_S) as response:
            return response.status == 200
    except OSError:  # refused, timed out, or an HTTP error status
        return False


async def _accepts(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), PROBE_TIMEOUT_S)
    except (OSError, asyncio.TimeoutError):
        return False
    writer.close()
    return True
