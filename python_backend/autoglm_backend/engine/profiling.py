"""PyTorch's profiler over a bounded number of engine steps, on demand.

The profiler belongs to the thread that starts it, so the engine's own thread starts and stops it between steps;
writing the trace out, which takes longer than a step, is another thread's work.
"""

from __future__ import annotations

import gzip
import json
import logging
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

import torch
from torch._C._autograd import _profiler_enabled
from torch.profiler import ProfilerActivity, profile, record_function

from autoglm_protocol.errors import AutoglmError, ConflictError, InternalError, UnavailableError
from autoglm_protocol.profile import ProfileBounds

Trace = bytes
"""A Chrome trace, gzipped JSON; its first key, "autoglm", holds how many steps it saw and in how many seconds."""
Tell = Callable[["Trace | AutoglmError"], None]

log = logging.getLogger(__name__)


def mark(name: str) -> AbstractContextManager[object]:
    """Show what runs inside as one bar of that name; without a profiler in this thread it does nothing."""
    return record_function(name) if _profiler_enabled() else nullcontext()


class _Phase(Enum):
    ASKED = auto()
    RUNNING = auto()
    WRITING = auto()


@dataclass(eq=False, slots=True, kw_only=True)
class _Job:
    bounds: ProfileBounds
    tell: Tell
    phase: _Phase = _Phase.ASKED
    began_s: float = 0.0
    num_steps: int = 0


class StepProfiler:
    """At most one profile at a time; without one, `turn` is a look at an attribute."""

    def __init__(self, *, on_cuda: bool = False) -> None:
        self._activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]
        self._on_cuda = on_cuda
        self._job: _Job | None = None
        self._lock = threading.Lock()
        self._profiler: profile | None = None
        self._writer: threading.Thread | None = None

    def ask(self, bounds: ProfileBounds, tell: Tell) -> None:
        """From any thread; `tell` hears the outcome once, in another thread. Raises ConflictError while one runs."""
        with self._lock:
            if self._job is not None:
                raise ConflictError("a profile is being taken already, wait until it is over", code="profile_running")
            self._job = _Job(bounds=bounds, tell=tell)

    @property
    def is_asked(self) -> bool:
        """Whether a profile waits for its start."""
        job = self._job
        return job is not None and job.phase is _Phase.ASKED

    @property
    def remaining_s(self) -> float | None:
        """Until the profile that runs is over; None without one."""
        job = self._job
        if job is None or job.phase is not _Phase.RUNNING:
            return None
        return max(0.0, job.began_s + job.bounds.seconds - time.monotonic())

    def turn(self, num_steps: int) -> None:
        """In the engine's thread, between steps: start or stop what is due. num_steps: how many ran since."""
        job = self._job
        if job is None or job.phase is _Phase.WRITING:
            return
        try:
            if job.phase is _Phase.ASKED:
                self._profiler = profile(activities=self._activities)
                self._profiler.start()
                job.began_s, job.phase = time.monotonic(), _Phase.RUNNING
                return
            job.num_steps += num_steps
            if job.num_steps >= job.bounds.steps or self.remaining_s == 0.0:
                self._stop(job)
        except Exception:
            # Whatever the profiler trips over, the engine goes on.
            log.exception("the profiler failed")
            self._end(job, InternalError("the profiler failed; the server's log says why"))

    def close(self) -> None:
        """In the engine's thread, at its end: give up a profile that waits or runs, await one that is written."""
        job = self._job
        if job is not None and job.phase is not _Phase.WRITING:
            if self._profiler is not None:
                self._profiler.stop()
            self._end(job, UnavailableError("the server is shutting down"))
        if self._writer is not None:
            self._writer.join()

    def _stop(self, job: _Job) -> None:
        profiler, self._profiler = self._profiler, None
        assert profiler is not None, "a profile that runs has a profiler"
        if self._on_cuda:
            torch.cuda.synchronize()
        profiler.stop()
        seconds = time.monotonic() - job.began_s
        job.phase = _Phase.WRITING
        self._writer = threading.Thread(target=self._write, args=(job, profiler, seconds), name="profile-writer")
        self._writer.start()

    def _write(self, job: _Job, profiler: profile, seconds: float) -> None:
        try:
            outcome: Trace | AutoglmError = _trace(profiler, job.num_steps, seconds)
        except Exception:
            log.exception("a profile could not be written")
            outcome = InternalError("the profile could not be written; the server's log says why")
        self._end(job, outcome)

    def _end(self, job: _Job, outcome: Trace | AutoglmError) -> None:
        self._profiler = None
        self._job = None
        job.tell(outcome)


def _trace(profiler: profile, num_steps: int, seconds: float) -> Trace:
    # The operators' table is the caller's work: here it would hold Python's lock for seconds.
    summary = {"steps": num_steps, "seconds": round(seconds, 3)}
    with tempfile.TemporaryDirectory(prefix="autoglm-profile-") as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        text = path.read_bytes().lstrip()
    assert text.startswith(b"{"), "a Chrome trace is a JSON object"
    # Put in front by hand: parsing and writing a hundred megabytes again would take longer than the profile.
    head = b'{"autoglm": ' + json.dumps(summary).encode() + b","
    return gzip.compress(head + text[1:], compresslevel=4)
