"""Real servers for benchmarks: `autoglm serve` on free ports, ended at the end of the block. No benchmark by itself."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

_READY = "OpenAI-compatible endpoint enabled"
_STOP_TIMEOUT_S = 60.0


@contextlib.contextmanager
def serving(
    checkpoint: Path, options: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    """The URL of a server that is ready. `environment` goes on top of this process's.

    Raises RuntimeError with the server's log when it does not start.
    """
    http, grpc, triton, metrics = _free_ports(4)
    command = [sys.executable, "-m", "autoglm_backend.launcher", "--checkpoint", str(checkpoint), *options]
    command += ["--port", str(http), "--grpc-port", str(grpc)]
    command += ["--triton-grpc-port", str(triton), "--triton-metrics-port", str(metrics)]
    # A file, not a pipe: nobody reads along while the benchmark runs.
    with tempfile.NamedTemporaryFile("w+", prefix="autoglm-bench-", suffix=".log") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})}
        )
        try:
            while not _says(log.name, _READY):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)
                    raise RuntimeError("the server did not start:\n" + Path(log.name).read_text(encoding="utf-8"))
            yield f"http://127.0.0.1:{http}"
        finally:
            process.terminate()
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _says(path: str, words: str) -> bool:
    return words in Path(path).read_text(encoding="utf-8")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
