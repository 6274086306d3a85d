"""The whole product as a newcomer starts it: launcher, real Triton, gateway, default checkpoint; once per session."""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
MODEL = "autoglm-phone-tiny"
LAST_LINE = "[INFO] OpenAI-compatible endpoint enabled at /v1/chat/completions"


@dataclass(frozen=True, kw_only=True)
class Server:
    http_url: str
    grpc_url: str
    triton_grpc_url: str
    triton_metrics_url: str
    lines: list[str]
    """What the launcher has printed so far."""

    def chat(self, content: Any, **fields: Any) -> httpx.Response:
        """One non-streaming request at temperature 0."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 80}
        return httpx.post(f"{self.http_url}/v1/chat/completions", json={**body, **fields}, timeout=120)

    def gauge(self, name: str) -> float:
        """A metric of Triton's, summed over its labels."""
        lines = httpx.get(self.triton_metrics_url).text.splitlines()
        values = [line.rsplit(" ", 1)[1] for line in lines if line.split("{")[0].split(" ")[0] == name]
        assert values, f"Triton exports no {name}"
        return sum(float(value) for value in values)


def image_part(name: str) -> dict[str, Any]:
    data = base64.b64encode((EXAMPLES / name).read_bytes()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


def audio_part(data: bytes, audio_format: str = "wav") -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode(), "format": audio_format}}


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for held in sockets:
        held.bind(("127.0.0.1", 0))
    ports = [held.getsockname()[1] for held in sockets]
    for held in sockets:
        held.close()
    return ports


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    http, grpc, triton, metrics = free_ports(4)
    command = [sys.executable, "-m", "autoglm_backend.launcher", "--port", str(http), "--grpc-port", str(grpc)]
    command += ["--triton-grpc-port", str(triton), "--triton-metrics-port", str(metrics), "--device", "cpu"]
    # A pipe of its own process group: a test run that is interrupted must not leave Triton behind.
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=dict(os.environ)
    )
    lines: list[str] = []
    ready = threading.Event()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if line.startswith(LAST_LINE):
                ready.set()
        ready.set()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        ready.wait(300)
        assert process.poll() is None, "\n".join(lines)
        assert LAST_LINE in lines, "\n".join(lines)
        yield Server(
            http_url=f"http://127.0.0.1:{http}",
            grpc_url=f"127.0.0.1:{grpc}",
            triton_grpc_url=f"127.0.0.1:{triton}",
            triton_metrics_url=f"http://127.0.0.1:{metrics}/metrics",
            lines=lines,
        )
    finally:
        process.terminate()
        status = process.wait(90)
        reader.join()
        assert process.stdout is not None
        process.stdout.close()
    assert status == 0, "\n".join(lines)
