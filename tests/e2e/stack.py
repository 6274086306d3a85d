"""The whole server as users start it, on ports of its own, for tests."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

START_TIMEOUT_S = 180.0
READY_LINE = "OpenAI-compatible endpoint enabled"


@dataclass(frozen=True, kw_only=True)
class Stack:
    """A running server: gateway and Triton."""

    http_port: int
    grpc_port: int
    triton_grpc_port: int
    triton_metrics_port: int
    checkpoint: Path
    process: subprocess.Popen[str]
    """The launcher."""
    lines: list[str] = field(default_factory=list)
    """Everything that the launcher printed so far."""

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def triton_grpc(self) -> str:
        return f"127.0.0.1:{self.triton_grpc_port}"

    def metric(self, name: str, **labels: str) -> float:
        """The sum of Triton's series of that name with these labels; 0 where there is none."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.triton_metrics_port}/metrics") as response:
            page = response.read().decode()
        total = 0.0
        for found, value in re.findall(rf"^{name}(?:\{{(.*)\}})? (\S+)$", page, re.MULTILINE):
            if all(f'{key}="{text}"' in found for key, text in labels.items()):
                total += float(value)
        return total


@contextlib.contextmanager
def running_stack(
    checkpoint: Path, log_dir: Path, options: Sequence[str] = (), environment: Mapping[str, str] = os.environ
) -> Iterator[Stack]:
    """Start `autoglm serve`, wait until it serves, and end it as Ctrl-C would."""
    http, grpc, triton_grpc, triton_metrics = free_ports(4)
    command = [sys.executable, "-m", "autoglm_backend.launcher", "--checkpoint", str(checkpoint), "--device", "cpu"]
    command += ["--port", str(http), "--grpc-port", str(grpc), "--triton-grpc-port", str(triton_grpc)]
    command += ["--triton-metrics-port", str(triton_metrics), "--log-dir", str(log_dir), "--verbose", *options]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**environment}
    )
    stack = Stack(
        http_port=http,
        grpc_port=grpc,
        triton_grpc_port=triton_grpc,
        triton_metrics_port=triton_metrics,
        checkpoint=checkpoint,
        process=process,
    )
    is_ready = threading.Event()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            stack.lines.append(line.rstrip("\n"))
            if READY_LINE in line:
                is_ready.set()
        is_ready.set()  # over: the exit status tells

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        is_ready.wait(START_TIMEOUT_S)
        if process.poll() is not None or not any(READY_LINE in line for line in stack.lines):
            raise AssertionError("the server did not start:\n" + "\n".join(stack.lines[-40:]))
        yield stack
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join()
        if process.stdout is not None:
            process.stdout.close()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on at this moment."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
