"""Who may start: a bound on running requests and on those that wait, decided before any media is touched."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from autoglm_gateway.option import option
from autoglm_protocol.errors import OverloadedError

_MAX_RETRY_AFTER_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionLimits:
    max_running: int = option(128, "requests sent to the backend at once")
    max_waiting: int = option(512, "requests that may wait for a place; further ones get 429")
    max_wait_s: float = option(60.0, "a request that waits longer gets 429")

    def __post_init__(self) -> None:
        if self.max_running < 1 or self.max_waiting < 0 or self.max_wait_s <= 0:
            raise ValueError("--max-running must be at least 1, --max-waiting at least 0, --max-wait-s above 0")


class Admission:
    """Places for running requests. Waiters start by priority (lower first), then by arrival."""

    def __init__(self, limits: AdmissionLimits) -> None:
        self._limits = limits
        self._running = 0
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._mean_service_s = 1.0

    @property
    def running(self) -> int:
        return self._running

    @property
    def waiting(self) -> int:
        return len(self._waiters)

    @asynccontextmanager
    async def place(self, *, priority: int = 0) -> AsyncGenerator[None, None]:
        """Hold a place for the body of the block. Raises OverloadedError at once when the queue is full."""
        await self._enter(priority)
        started_s = time.monotonic()
        try:
            yield
        finally:
            self._mean_service_s += 0.1 * (time.monotonic() - started_s - self._mean_service_s)
            self._leave()

    async def _enter(self, priority: int) -> None:
        if self._running < self._limits.max_running:
            self._running += 1
            return
        waiting = self.waiting
        if waiting >= self._limits.max_waiting:
            raise OverloadedError(
                f"{self._running} requests run and {waiting} wait, which is the limit",
                retry_after_s=self._retry_after_s(waiting),
            )
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (priority, next(self._order), waiter)
        heapq.heappush(self._waiters, entry)
        try:
            # Not wait_for: before Python 3.12 it may swallow a cancellation that meets the result.
            await asyncio.wait((waiter,), timeout=self._limits.max_wait_s)
        except asyncio.CancelledError:
            if waiter.done():
                self._leave()  # the place was handed over in the turn in which the caller went away
            else:
                self._forget(entry)
            raise
        if not waiter.done():
            self._forget(entry)
            raise OverloadedError(
                f"no place became free within {self._limits.max_wait_s:g} s",
                retry_after_s=self._retry_after_s(waiting),
            )

    def _forget(self, entry: tuple[int, int, asyncio.Future[None]]) -> None:
        self._waiters.remove(entry)
        heapq.heapify(self._waiters)

    def _leave(self) -> None:
        if self._waiters:
            _, _, waiter = heapq.heappop(self._waiters)
            waiter.set_result(None)  # the place passes on, so _running stays
            return
        self._running -= 1

    def _retry_after_s(self, waiting: int) -> float:
        estimate_s = self._mean_service_s * (waiting + 1) / self._limits.max_running
        return min(max(estimate_s, 1.0), _MAX_RETRY_AFTER_S)
