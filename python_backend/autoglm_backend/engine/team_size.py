"""How many threads share a product: as many as there are CPUs for, now.

A product ends when its last thread ends. Where another program holds one of two CPUs, Linux leaves both threads of a
team on the other, and each of a step's hundred products then waits until the scheduler takes turns: 16 times slower
where the other program had the lowest priority. A team that leaves it that CPU loses a quarter (docs/log.md).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from autoglm_backend.cpus import CpuUse

WAITING_TO_SHRINK = 0.35
"""Threads that wait for a CPU, on average. Two on one CPU wait 0.5 each; short visits of others come to less."""
IDLE_TO_GROW = 0.8
"""CPUs. A team that was too small leaves at least this much of one unused."""
READ_EVERY_S = 0.1
"""The kernel counts idle time in hundredths of a second."""


class TeamSize:
    """Between 1 and `most`, fitted to the machine's load as steps go by. Not thread-safe.

    read: the CPU use since the last call, None when unknown. resize: told of every change, in the thread of `turn`.
    """

    def __init__(
        self,
        most: int,
        *,
        read: Callable[[], CpuUse | None],
        resize: Callable[[int], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = most
        self._read = read
        self._resize = resize
        self._clock = clock
        self._read_at_s = clock()
        self.size = most

    def turn(self) -> None:
        """Call before every step."""
        now_s = self._clock()
        if self._most == 1 or now_s - self._read_at_s < READ_EVERY_S:
            return
        self._read_at_s = now_s
        use = self._read()
        size = self.size if use is None else self._fitting(use)
        if size != self.size:
            self.size = size
            self._resize(size)

    def _fitting(self, use: CpuUse) -> int:
        if use.waiting >= WAITING_TO_SHRINK:
            return max(1, self.size - max(1, round(use.waiting)))
        if use.idle >= IDLE_TO_GROW:
            return min(self._most, self.size + max(1, int(use.idle)))
        return self.size
