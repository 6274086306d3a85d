"""How many CPUs this process may use, and what it got of them. Linux's own counters; other systems have none."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def usable_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """CPUs that this process may use at once: its affinity, and its container's quota (cgroup v2)."""
    cpus = len(os.sched_getaffinity(0))
    limit = cgroup / "cpu.max"
    if limit.is_file():
        quota, period = limit.read_text().split()
        if quota != "max":
            cpus = min(cpus, max(1, int(quota) // int(period)))
    return cpus


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuUse:
    """Of a stretch of time."""

    waiting: float
    """Threads of this process, on average, that were ready to run and had no CPU."""
    idle: float
    """CPUs of this machine, on average, that nobody used."""


class CpuMeter:
    """The CPU use since the last reading. Reading takes some 10 us a thread."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._stat = proc / "stat"
        self._tasks = proc / "self" / "task"
        self._read_at_s = time.monotonic()
        self._idle_s, self._waited_s_by_task = self._counters()

    def read(self) -> CpuUse | None:
        """None where the kernel does not tell."""
        read_at_s = time.monotonic()
        idle_s, waited_s_by_task = self._counters()
        elapsed_s = read_at_s - self._read_at_s
        # A thread that is new has waited since it began; one that ended no longer counts.
        waited_s = sum(waited_s - self._waited_s_by_task.get(task, 0.0) for task, waited_s in waited_s_by_task.items())
        idle_before_s, self._idle_s = self._idle_s, idle_s
        self._read_at_s, self._waited_s_by_task = read_at_s, waited_s_by_task
        if idle_s is None or idle_before_s is None or elapsed_s <= 0:
            return None
        return CpuUse(waiting=waited_s / elapsed_s, idle=(idle_s - idle_before_s) / elapsed_s)

    def _counters(self) -> tuple[float | None, dict[str, float]]:
        """Seconds that CPUs were idle, and that each thread waited for one."""
        try:
            idle, waiting_for_disks = self._stat.read_bytes().split(maxsplit=6)[4:6]
            tasks = os.listdir(self._tasks)
        except (OSError, ValueError):
            return None, {}
        waited_s: dict[str, float] = {}
        for task in tasks:
            try:
                waited_s[task] = int((self._tasks / task / "schedstat").read_bytes().split()[1]) / 1e9
            except (OSError, IndexError, ValueError):  # it has ended, or the kernel keeps no such count
                continue
        return (int(idle) + int(waiting_for_disks)) / _TICKS_PER_S, waited_s
