"""Whether Triton and the gateway answer yet. False means not yet; only the caller knows how long to wait."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from http.client import HTTPException

POLL_S = 0.05
PROBE_TIMEOUT_S = 2.0
STREAMS_GAUGE = "autoglm_streams"
"""Requests that the phone model is answering (doorways/phone.py)."""


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


async def triton_is_idle(host: str, metrics_port: int) -> bool:
    """Whether no request is being answered; true of a Triton that listens no more, not of one that is slow to say."""
    host = _reachable(host)
    try:
        page = await asyncio.to_thread(_read, f"http://{f'[{host}]' if ':' in host else host}:{metrics_port}/metrics")
    except HTTPException:
        return False
    except OSError as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        return isinstance(reason, ConnectionRefusedError)
    counts = [line.rsplit(" ", 1)[1] for line in page.splitlines() if line.split("{")[0].split(" ")[0] == STREAMS_GAUGE]
    return not any(float(count) for count in counts)


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _answers_200(url: str) -> bool:
    try:
        with _opener().open(url, timeout=PROBE_TIMEOUT_S) as response:
            return response.status == 200
    except OSError:  # refused, timed out, or an HTTP error status
        return False


def _read(url: str) -> str:
    """The page's text. Raises OSError or HTTPException."""
    with _opener().open(url, timeout=PROBE_TIMEOUT_S) as response:
        return response.read().decode()


def _opener() -> urllib.request.OpenerDirector:
    # no proxy: the address is this machine's
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


async def _accepts(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), PROBE_TIMEOUT_S)
    except (OSError, asyncio.TimeoutError):
        return False
    writer.close()
    return True
