"""A child process that cannot outlive its parent: its output is read line by line, its whole group ends with it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

TAIL_LINES = 40
_CHUNK_BYTES = 65536
_BOUND = Path(__file__).with_name("bound.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """What to start. Standard output and error go to `log_path` together."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    log_path: Path


class Child:
    """One running child; made by `start`. `exited` is done with its exit status, negative for a signal."""

    def __init__(self, spec: ChildSpec, process: Process, output: int, on_line: Callable[[str], None]) -> None:
        self.name = spec.name
        self._process = process
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._reader = asyncio.create_task(self._read(os.fdopen(output, "rb", buffering=0), spec.log_path, on_line))
        self.exited = asyncio.create_task(self._wait())

    @classmethod
    async def start(cls, spec: ChildSpec, on_line: Callable[[str], None]) -> Child:
        """Starts `spec` in a process group of its own, so that Ctrl-C in a terminal reaches the parent alone."""
        # not asyncio's PIPE: its wait() lasts until every grandchild has closed the pipe too
        read_end, write_end = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-IS", str(_BOUND), str(os.getpid())),
                *spec.command,
                env=spec.environment,
                stdin=DEVNULL,
                stdout=write_end,
                stderr=STDOUT,
                start_new_session=True,
            )
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        return cls(spec, process, read_end, on_line)

    @property
    def last_lines(self) -> tuple[str, ...]:
        return tuple(self._tail)

    def terminate(self) -> None:
        """Asks the child to end; its own children are its business."""
        if self._process.returncode is None:
            self._process.terminate()

    def kill(self) -> None:
        """Ends the child and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    async def stop(self, *, grace_s: float) -> None:
        """Terminates the child, waits up to `grace_s`, then kills what is left of its group."""
        self.terminate()
        await asyncio.wait({self.exited}, timeout=grace_s)
        self.kill()
        await self.exited

    async def _wait(self) -> int:
        status = await self._process.wait()
        self.kill()  # whatever it left behind holds the pipe open
        await self._reader
        return status

    async def _read(self, output: BinaryIO, log_path: Path, on_line: Callable[[str], None]) -> None:
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), output
        )
        pending = b""
        with contextlib.closing(transport), log_path.open("ab", buffering=0) as log:
            while chunk := await reader.read(_CHUNK_BYTES):
                log.write(chunk)
                *lines, pending = (pending + chunk).split(b"\n")
                if len(pending) > _CHUNK_BYTES:
                    lines, pending = [*lines, pending], b""
                for line in lines:
                    self._take(line, on_line)
        if pending:
            self._take(pending, on_line)

    def _take(self, line: bytes, on_line: Callable[[str], None]) -> None:
        text = line.decode("utf-8", "replace").rstrip("\r")
        self._tail.append(text)
        on_line(text)
