"""Heavy work of the event loop, a piece at a time: between two pieces everybody else has a turn.

Reading a picture of some megabytes out of JSON and base64 takes milliseconds that no thread can take over (Python's
global lock is held throughout). Twenty that arrive together would hold probes and streams up for all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")
LIGHT_BYTES = 64 << 10
"""Work on so much takes well under a millisecond and waits for nobody."""


class Turns:
    """One per event loop, shared by all that work on request bodies."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def run(self, work: Callable[[], _T], num_bytes: int) -> _T:
        """The result of `work`, which goes over `num_bytes`; first come, first served."""
        if num_bytes <= LIGHT_BYTES:
            return work()
        async with self._lock:
            result = work()
            await asyncio.sleep(0)
            return result
