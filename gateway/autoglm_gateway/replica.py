"""One of several backends: whether it is healthy, how much it has to do, and its circuit breaker."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Protocol

from autoglm_gateway.backend import Backend
from autoglm_gateway.hang_watch import HangLimits, HangWatch, Watched

FAILURES_TO_OPEN = 3
OPEN_S = 5.0


class Server(Backend, Watched, Protocol):
    """One of several that a gateway can do without."""


class Replica:
    """The breaker opens after FAILURES_TO_OPEN failures in a row and lets one request try again after OPEN_S."""

    def __init__(
        self,
        address: str,
        backend: Server,
        *,
        hang_limits: HangLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.address = address
        self.backend = backend
        self.watch = HangWatch(address, backend, hang_limits or HangLimits(), clock)
        self.is_healthy = False
        self.outstanding = 0
        self._clock = clock
        self._failures = 0
        self._open_until_s = 0.0

    @property
    def is_usable(self) -> bool:
        return self.is_healthy and not self.watch.in_doubt and self._clock() >= self._open_until_s

    async def check(self) -> None:
        self.is_healthy = await self.backend.ready()
        if self.is_healthy:
            await self.watch.look()

    async def close(self) -> None:
        await self.watch.close()
        await self.backend.close()

    @contextmanager
    def request(self) -> Generator[None, None, None]:
        if self._failures >= FAILURES_TO_OPEN:
            self._open_until_s = self._clock() + OPEN_S  # half open: this one tries, the others stay away
        self.outstanding += 1
        self.watch.asked()
        is_over = False
        try:
            yield
            is_over = True
        finally:
            self.outstanding -= 1
            if is_over and not self.outstanding:
                self.watch.rested()

    def succeeded(self) -> None:
        """An event came from it."""
        self.watch.heard()
        self._failures = 0
        self._open_until_s = 0.0

    def failed(self) -> None:
        """It could not be reached: no work goes there before the next good check."""
        self.is_healthy = False
        self.watch.suspect()
        self._failures += 1
        if self._failures >= FAILURES_TO_OPEN:
            self._open_until_s = self._clock() + OPEN_S
