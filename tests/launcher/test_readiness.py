"""Whether a Triton that is told to stop may be stopped: only its own word counts, or that nobody listens any more."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from autoglm_backend.launcher import readiness
from autoglm_backend.launcher.readiness import triton_is_idle


def is_idle(port: int) -> bool:
    return asyncio.run(triton_is_idle("127.0.0.1", port))


async def _answered(answer: bytes) -> bool:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        return await triton_is_idle("127.0.0.1", server.sockets[0].getsockname()[1])


def page(text: str) -> bytes:
    return f"HTTP/1.0 200 OK\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()


@contextmanager
def listening() -> Iterator[socket.socket]:
    """Connections are taken, and never answered."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.mark.parametrize(("text", "expected"), [("autoglm_streams 0\n", True), ("autoglm_streams 2\n", False)])
def test_the_gauge_says_whether_streams_are_under_way(text: str, expected: bool) -> None:
    assert asyncio.run(_answered(page(text))) is expected


def test_any_model_instances_stream_counts() -> None:
    text = 'autoglm_streams{model="a"} 0\nautoglm_streams{model="b"} 1\nother 0\n'
    assert not asyncio.run(_answered(page(text)))


def test_a_triton_that_listens_no_more_is_idle() -> None:
    with listening() as server:
        port = server.getsockname()[1]
    assert is_idle(port)


def test_a_triton_that_is_slow_to_say_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "PROBE_TIMEOUT_S", 0.05)
    with listening() as server:
        assert not is_idle(server.getsockname()[1])


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.0 500 Oops\r\n\r\n", page("autoglm_streams 0\n")[:-5]])
def test_a_broken_page_is_asked_for_again(answer: bytes) -> None:
    assert not asyncio.run(_answered(answer))
