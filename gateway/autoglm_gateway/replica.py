"""One of several backends: whether it is healthy, how much it has to do, and its circuit breaker."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from autoglm_gateway.backend import Backend

FAILURES_TO_OPEN = 3
OPEN_S = 5.0


class Replica:
    """The breaker opens after FAILURES_TO_OPEN failures in a row and lets one request try again after OPEN_S."""

    def __init__(self, address: str, backend: Backend, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.address = address
        self.backend = backend
        self.is_healthy = False
        self.outstanding = 0
        self._clock = clock
        self._failures = 0
        self._open_until_s = 0.0

    @property
    def is_usable(self) -> bool:
        return self.is_healthy and self._clock() >= self._open_until_s

    async def check(self) -> None:
        self.is_healthy = await self.backend.ready()

    @contextmanager
    def request(self) -> Generator[None, None, None]:
        if self._failures >= FAILURES_TO_OPEN:
            self._open_until_s = self._clock() + OPEN_S  # half open: this one tries, the others stay away
        self.outstanding += 1
        try:
            yield
        finally:
            self.outstanding -= 1

    def succeeded(self) -> None:
        self._failures = 0
        self._open_until_s = 0.0

    def failed(self) -> None:
        """It could not be reached: no work goes there before the next good check."""
        self.is_healthy = False
        self._failures += 1
        if self._failures >= FAILURES_TO_OPEN:
            self._open_until_s = self._clock() + OPEN_S
