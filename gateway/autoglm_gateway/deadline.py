"""Waiting for something only so long."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def within(work: Coroutine[Any, Any, T], timeout_s: float) -> T:
    """The result of `work`; raises asyncio.TimeoutError and cancels it when it takes longer.

    Not asyncio.wait_for: before Python 3.12 that may swallow a cancellation which meets the result.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait((task,), timeout=timeout_s)
        if task.done():
            return task.result()
        raise asyncio.TimeoutError
    finally:
        task.cancel()
