"""Answers to deterministic requests, kept for those who ask exactly the same again: LRU within a size, each for a time.

Two requests are the same if model input, sampling and options are equal byte for byte. A replay streams as the first
answer did, and says `"cached": true` in its dynamic_graph.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace

import orjson

from autoglm_gateway.backend import Backend
from autoglm_gateway.metrics import Metrics
from autoglm_gateway.option import option
from autoglm_gateway.redis_link import RedisLink
from autoglm_gateway.stored_events import dump_events, load_events
from autoglm_protocol.chat import ChatRequest, ImagePart, TextPart
from autoglm_protocol.events import Finished, Started, StreamEvent, TokenDelta

_log = logging.getLogger(__name__)
_EVENT_BYTES = 300  # an event object with its fields, about


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheLimits:
    response_cache_bytes: int = option(0, "memory for answers to deterministic requests; 0 keeps none")
    response_cache_ttl_s: float = option(300.0, "how long such an answer is kept")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    events: tuple[StreamEvent, ...]
    size_bytes: int
    stored_s: float


class ResponseCache:
    """`link`: where several gateways share their answers, beside this one's own memory."""

    def __init__(
        self,
        limits: CacheLimits,
        metrics: Metrics,
        *,
        link: RedisLink | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._link = link
        self._metrics = metrics
        self._clock = clock
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._size_bytes = 0

    @property
    def is_on(self) -> bool:
        return self._limits.response_cache_bytes > 0

    def generate(self, request: ChatRequest, backend: Backend) -> AsyncGenerator[StreamEvent, None]:
        """As Backend.generate: from here when the answer is known, else from `backend`."""
        if not self.is_on or not request.sampling.is_deterministic:
            return backend.generate(request)
        return self._answer(request, backend)

    async def _answer(self, request: ChatRequest, backend: Backend) -> AsyncGenerator[StreamEvent, None]:
        # Hashing a picture takes milliseconds, which a thread can spend beside the event loop.
        has_media = request.images or request.audios
        key = await asyncio.to_thread(_key, request) if has_media else _key(request)
        entry = self._look_up(key)
        known = await self._shared(key) if entry is None else entry.events
        if known is not None:
            self._metrics.cache_hits.inc()
            for event in known:
                yield _as_cached(event)
            return
        self._metrics.cache_misses.inc()
        seen: list[StreamEvent] = []
        async with aclosing(backend.generate(request)) as events:
            async for event in events:
                seen.append(event)
                if isinstance(event, Finished):
                    await self._keep(key, tuple(seen))
                yield event

    async def _shared(self, key: bytes) -> tuple[StreamEvent, ...] | None:
        link = self._link
        if link is None:
            return None
        data = await link.ask(lambda client: client.get(link.key("answer", key.hex())))
        try:
            return None if data is None else load_events(data)
        except ValueError:
            _log.warning("an answer in Redis cannot be read")
            return None

    async def _keep(self, key: bytes, events: tuple[StreamEvent, ...]) -> None:
        link = self._link
        if self._store(key, events) and link is not None:
            ttl_ms = max(1, int(self._limits.response_cache_ttl_s * 1e3))
            data = dump_events(events)
            await link.ask(lambda client: client.set(link.key("answer", key.hex()), data, px=ttl_ms))

    def _look_up(self, key: bytes) -> _Entry | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if self._clock() - entry.stored_s > self._limits.response_cache_ttl_s:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry

    def _store(self, key: bytes, events: tuple[StreamEvent, ...]) -> bool:
        """False for an answer that is too large to keep."""
        size_bytes = sum(_EVENT_BYTES + len(event.text) * 4 for event in events if isinstance(event, TokenDelta))
        if size_bytes > self._limits.response_cache_bytes:
            return False
        if key in self._entries:
            self._drop(key)
        self._entries[key] = _Entry(events=events, size_bytes=size_bytes, stored_s=self._clock())
        self._size_bytes += size_bytes
        while self._size_bytes > self._limits.response_cache_bytes:
            self._drop(next(iter(self._entries)))
        return True

    def _drop(self, key: bytes) -> None:
        self._size_bytes -= self._entries.pop(key).size_bytes


def _as_cached(event: StreamEvent) -> StreamEvent:
    if isinstance(event, Started | Finished):
        return replace(event, dynamic_graph={**event.dynamic_graph, "cached": True})
    return event


def _key(request: ChatRequest) -> bytes:
    digest = hashlib.sha256()

    def add(data: bytes) -> None:
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)

    for message in request.messages:
        add(message.role.value.encode())
        add(str(len(message.parts)).encode())
        for part in message.parts:
            add(type(part).__name__.encode())
            add(part.text.encode() if isinstance(part, TextPart) else part.data)
            if isinstance(part, ImagePart):
                add(repr(part.detail).encode())
        add(orjson.dumps([*map(asdict, message.tool_calls), message.tool_call_id]))
    settings = {name: asdict(getattr(request, name)) for name in ("sampling", "options", "task")}
    del settings["options"]["priority"]  # says when, not what
    add(orjson.dumps(settings, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS))
    return digest.digest()
