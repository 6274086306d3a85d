"""Programs that run beside a test and are ended with it."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

STOP_TIMEOUT_S = 20.0


@dataclass(slots=True, kw_only=True)
class Daemons:
    """Started programs in order; each writes FOLDER/NAME.log."""

    folder: Path
    running: list[tuple[str, subprocess.Popen[bytes]]] = field(default_factory=list)

    def start(self, name: str, *command: str | Path, environment: dict[str, str] | None = None) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                # a test run that is killed takes its programs along
                ["setpriv", "--pdeathsig", "TERM", "--", *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        self.running.append((name, process))

    def wait_until(self, is_ready: Callable[[], bool], *, what: str, timeout_s: float) -> None:
        """Asks until it is so. Raises RuntimeError with the end of the logs when a program ends or time runs out."""
        deadline_s = time.monotonic() + timeout_s
        while not is_ready():
            ended = [name for name, process in self.running if process.poll() is not None]
            if ended or time.monotonic() > deadline_s:
                names = ended or [self.running[-1][0]]
                ends = "\n".join(f"--- {name}\n{self.log_end(name)}" for name in names)
                raise RuntimeError(f"{what}: {'ended' if ended else 'not ready'}: {', '.join(names)}\n{ends}")
            time.sleep(0.1)  # the programs tell nobody that they are ready

    def log_end(self, name: str, characters: int = 3000) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-characters:]

    def stop(self, name: str) -> None:
        """Ends every program of that name."""
        for entry in [entry for entry in self.running if entry[0] == name]:
            self.running.remove(entry)
            _end(entry[1])

    def stop_all(self) -> None:
        while self.running:
            _end(self.running.pop()[1])


@contextlib.contextmanager
def daemons_in(folder: Path) -> Iterator[Daemons]:
    daemons = Daemons(folder=folder)
    try:
        yield daemons
    finally:
        daemons.stop_all()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_ports(count: int) -> Sequence[int]:
    """Ports of 127.0.0.1 that nobody holds now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def answers(client: httpx.Client, url: str) -> bool:
    """Whether a GET is answered with 200."""
    try:
        return client.get(url).status_code == 200
    except httpx.TransportError:
        return False
