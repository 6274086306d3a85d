"""Starts Triton, then the gateway; ends both when a stop is asked for or when either ends by itself."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from autoglm_backend import status_lines
from autoglm_backend.launcher.child import Child, ChildSpec
from autoglm_backend.launcher.errors import ChildDied, LaunchError
from autoglm_backend.launcher.readiness import until
from autoglm_backend.launcher.report import Report
from autoglm_backend.status_lines import Loading, Notice, Refused

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PROGRESS_S = 5.0
KILL_AFTER_S = 10.0  # on top of the drain that each child allows itself
REPEAT_S = 0.5  # timeout(1) and process groups deliver one wish to stop twice
STREAMED = "[DYNAMIC GRAPH]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A child, how to tell that it serves, and what to say while it does not yet."""

    spec: ChildSpec
    is_ready: Callable[[], Awaitable[bool]]
    starting: str
    is_idle: Callable[[], Awaitable[bool]] | None = None
    """Whether it may be stopped without a loss; asked until it says so or the drain is over. None: it drains itself."""


class _StopAsked(Exception):
    """A signal asked for the end."""


class Supervisor:
    """Runs stages in order. `verbose` shows every line of the children, otherwise only those marked [DYNAMIC GRAPH]."""

    def __init__(self, report: Report, *, verbose: bool, drain_s: float = 30.0) -> None:
        self._drain_s = drain_s
        self._report = report
        self._verbose = verbose
        self._children: list[tuple[Child, Stage]] = []
        self._stop = asyncio.Event()
        self._stop_asked_s = 0.0
        self._killed_by: signal.Signals | None = None
        self._refused = asyncio.Event()
        self._refusal = ""

    async def run(self, stages: tuple[Stage, ...], announce: Callable[[], None]) -> int:
        """Starts the stages, calls `announce`, and returns the exit status once all children have ended.

        0 after one of STOP_SIGNALS, 128 + signal after a second one. Raises ChildDied if a child ended by itself, and
        LaunchError with the sentence of a model that refuses to start.
        """
        loop = asyncio.get_running_loop()
        for stop_signal in STOP_SIGNALS:
            loop.add_signal_handler(stop_signal, self._on_signal, stop_signal)
        try:
            for stage in stages:
                await self._start(stage)
            announce()
            await self._unless_ended(asyncio.Event().wait())
        except _StopAsked:
            self._report.step("Stopping: requests in flight may finish; a second signal ends them")
        finally:
            await self._end_children()
            for stop_signal in STOP_SIGNALS:
                loop.remove_signal_handler(stop_signal)
        if self._killed_by is not None:
            return 128 + self._killed_by
        self._report.step("Stopped")
        return 0

    async def _start(self, stage: Stage) -> None:
        self._report.step(stage.starting)
        self._children.append((await Child.start(stage.spec, self._line_printer(stage.spec.name)), stage))
        waiting = f"Waiting for {stage.spec.name}"
        ready = until(stage.is_ready, every_s=PROGRESS_S, waiting=lambda: self._report.step(waiting))
        await self._unless_ended(ready)

    async def _unless_ended(self, work: Awaitable[object]) -> None:
        """Awaits `work`. Raises _StopAsked, LaunchError or ChildDied when that comes first."""
        worker = asyncio.ensure_future(work)
        stop = asyncio.ensure_future(self._stop.wait())
        refused = asyncio.ensure_future(self._refused.wait())
        try:
            await asyncio.wait(
                {worker, stop, refused, *(child.exited for child, _ in self._children)},
                return_when=asyncio.FIRST_COMPLETED,
            )
            if self._stop.is_set():
                raise _StopAsked
            if self._refused.is_set():
                raise LaunchError(self._refusal)
            for child, _ in self._children:
                if child.exited.done():
                    raise ChildDied(child.name, child.exited.result(), child.last_lines)
            worker.result()
        finally:
            waits = (worker, stop, refused)
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _end_children(self) -> None:
        # the gateway before Triton: what it has accepted is still answered
        for child, stage in reversed(self._children):
            if stage.is_idle is not None and self._stop.is_set():
                await self._until_idle(child, stage.is_idle)
            await child.stop(grace_s=self._drain_s + KILL_AFTER_S)

    async def _until_idle(self, child: Child, is_idle: Callable[[], Awaitable[bool]]) -> None:
        """Triton 2.51 counts no work of decoupled models: told to stop, it unloads them under their streams."""
        idle = asyncio.ensure_future(until(is_idle, every_s=PROGRESS_S, waiting=lambda: None))
        await asyncio.wait({idle, child.exited}, timeout=self._drain_s, return_when=asyncio.FIRST_COMPLETED)
        idle.cancel()
        await asyncio.gather(idle, return_exceptions=True)

    def _on_signal(self, number: signal.Signals) -> None:
        now_s = asyncio.get_running_loop().time()
        if not self._stop.is_set():
            self._stop.set()
            self._stop_asked_s = now_s
            return
        if now_s - self._stop_asked_s < REPEAT_S:
            return
        self._killed_by = number
        for child, _ in self._children:
            child.kill()

    def _line_printer(self, name: str) -> Callable[[str], None]:
        def show(line: str) -> None:
            self._take_status(line)
            if self._verbose:
                self._report.line(f"{name} | {line}")
            elif STREAMED in line:
                self._report.line(line[line.index(STREAMED) :])

        return show

    def _take_status(self, line: str) -> None:
        status = status_lines.read(line)
        if isinstance(status, Loading):
            self._report.loading(status)
        elif isinstance(status, Notice):
            self._report.step(status.message)
        elif isinstance(status, Refused) and not self._refused.is_set():
            self._refusal = status.message
            self._refused.set()
