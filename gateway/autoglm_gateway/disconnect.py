"""Work that ends when its caller goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from starlette.types import Receive


async def run_while_connected(work: Coroutine[Any, Any, None], receive: Receive) -> None:
    """Run `work`, with the body read before; cancel it within a turn of the loop when the peer closes."""
    job = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_until_disconnect(receive))
    try:
        await asyncio.wait((job, watcher), return_when=asyncio.FIRST_COMPLETED)
        if not job.done():
            job.cancel()
            await asyncio.wait((job,))
        if not job.cancelled():
            job.result()
    finally:
        watcher.cancel()
        job.cancel()


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
