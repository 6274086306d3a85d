"""The liveness probe of Triton's pods, against a real Triton and the models on it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.e2e.raw_triton import eventually
from tests.e2e.stack import Stack, free_ports, running_stack
from tests.helm.chart import FOLDER
from tests.tiny_checkpoint import write_checkpoint

pytestmark = pytest.mark.triton


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    stack: Stack
    http_port: int
    state: Path

    def look(self) -> str:
        """What the probe complains of."""
        ports = (str(self.http_port), str(self.stack.triton_metrics_port))
        command = [sys.executable, "-IS", str(FOLDER / "files/probe/answers.py"), "20", str(self.state), *ports]
        return subprocess.run(command, capture_output=True, text=True, check=False).stderr

    def tokens(self) -> float:
        return self.stack.metric("autoglm_tokens_total")

    def settled(self) -> float:
        """Tokens made so far, as the last look has them: the next one must ask."""
        self.state.unlink(missing_ok=True)
        assert self.look() == ""
        return self.tokens()


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Probed]:
    folder = tmp_path_factory.mktemp("probed")
    (http_port,) = free_ports(1)
    options = ("--triton-http-port", str(http_port), "--drain-s", "1")
    with running_stack(write_checkpoint(folder / "tiny"), folder, options) as stack:
        yield Probed(stack=stack, http_port=http_port, state=folder / "tokens")


def test_a_server_that_nobody_asks_makes_the_probe_its_token(triton: Probed):
    made = triton.settled()

    assert triton.look() == ""
    assert eventually(lambda: triton.tokens() == made + 1, within_s=10)


def test_a_decoder_that_stands_still_is_found(triton: Probed):
    triton.settled()
    decoder = _decoder(triton.stack.triton_metrics_port)
    os.kill(decoder, signal.SIGSTOP)
    try:
        assert "no token was made" in triton.look()
    finally:
        os.kill(decoder, signal.SIGKILL)


def _decoder(metrics_port: int) -> int:
    """The decoder's process below the Triton with that port."""
    (server,) = [pid for pid in _processes() if f"--metrics-port={metrics_port}" in _arguments(pid)[1:]]
    below = subprocess.check_output(["pgrep", "-P", str(server)], text=True).split()
    (decoder,) = [int(pid) for pid in below if any("/text_decoder/" in word for word in _arguments(int(pid)))]
    return decoder


def _processes() -> list[int]:
    return [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]


def _arguments(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []  # over meanwhile
