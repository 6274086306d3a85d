"""The servers that benchmarks start end with them, however they end."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
WAITS = """
import signal, servers
with servers.gateway("--fake") as server:
    print(server.pid, flush=True)
    signal.pause()
"""


def test_a_benchmark_that_is_ended_ends_its_server() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WAITS], cwd=BENCHMARKS, stdout=subprocess.PIPE, text=True
    ) as benchmark:
        assert benchmark.stdout is not None
        server = int(benchmark.stdout.readline())
        end = os.pidfd_open(server)  # readable once the process has ended

        benchmark.send_signal(signal.SIGTERM)

        assert benchmark.wait(30) == 128 + signal.SIGTERM
        assert select.select([end], [], [], 30)[0], "the gateway still runs"
