"""Real servers for benchmarks, on free ports and ended at the end of the block. No benchmark by itself."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1] / "model_repository"
_READY = "OpenAI-compatible endpoint enabled"
_TRITON_READY = "Triton serves gRPC on"
_GATEWAY_READY = '"message":"listening"'
_STOP_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A server that is ready. `address` is a URL, of a Triton alone host:port."""

    address: str
    pid: int


@contextlib.contextmanager
def serving(
    checkpoint: Path, options: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    """The URL of an `autoglm serve`. `environment` goes on top of this process's.

    Raises RuntimeError with the server's log when it does not start.
    """
    with served(checkpoint, options, environment) as server:
        yield server.address


@contextlib.contextmanager
def served(
    checkpoint: Path, options: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """As `serving`, with the launcher's process: gateway, Triton and the models' processes descend from it."""
    http, grpc, triton_grpc, metrics = _free_ports(4)
    command = _launcher(checkpoint, triton_grpc, metrics, options)
    command += ["--port", str(http), "--grpc-port", str(grpc)]
    with _started(command, _READY, environment) as (process, _):
        yield Running(address=f"http://127.0.0.1:{http}", pid=process.pid)


@contextlib.contextmanager
def triton(checkpoint: Path, options: Sequence[str] = (), *, repository: Path = REPOSITORY) -> Iterator[Running]:
    """A Triton without a gateway."""
    grpc, metrics = _free_ports(2)
    command = _launcher(checkpoint, grpc, metrics, options)
    command += ["--only", "triton", "--device", "cpu", "--model-repository", str(repository)]
    with _started(command, _TRITON_READY) as (process, _):
        yield Running(address=f"127.0.0.1:{grpc}", pid=process.pid)


@contextlib.contextmanager
def paced_triton(checkpoint: Path) -> Iterator[Running]:
    """A Triton whose decoder only keeps time (paced_decoder.py); everything in front of it is real."""
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder) / "repository"
        shutil.copytree(REPOSITORY, repository, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(Path(__file__).with_name("paced_decoder.py"), repository / "text_decoder" / "1" / "model.py")
        with triton(checkpoint, repository=repository) as server:
            yield server


@contextlib.contextmanager
def gateway(*options: str) -> Iterator[Running]:
    """The gateway alone."""
    command = [sys.executable, "-m", "autoglm_gateway", "--port", "0", "--grpc-port", "0", *options]
    with _started(command, _GATEWAY_READY) as (process, log):
        line = next(line for line in log.read_text(encoding="utf-8").splitlines() if _GATEWAY_READY in line)
        yield Running(address=f"http://{json.loads(line)['http']}", pid=process.pid)


def _launcher(checkpoint: Path, triton_grpc: int, metrics: int, options: Sequence[str]) -> list[str]:
    command = [sys.executable, "-m", "autoglm_backend.launcher", "--checkpoint", str(checkpoint), *options]
    return [*command, "--triton-grpc-port", str(triton_grpc), "--triton-metrics-port", str(metrics)]


@contextlib.contextmanager
def _started(
    command: Sequence[str], ready: str, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The process and its log, once that says `ready`."""
    # Whoever ends a benchmark early ends its servers with it.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # A file, not a pipe: nobody reads along while the benchmark runs.
    with tempfile.NamedTemporaryFile("w+", prefix="autoglm-bench-", suffix=".log") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})}
        )
        try:
            while not _says(log.name, ready):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)
                    raise RuntimeError("the server did not start:\n" + Path(log.name).read_text(encoding="utf-8"))
            yield process, Path(log.name)
        finally:
            process.terminate()
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            signal.signal(signal.SIGTERM, before)


def _says(path: str, words: str) -> bool:
    return words in Path(path).read_text(encoding="utf-8")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
