"""Answers to deterministic requests, kept for those who ask exactly the same again: LRU within a size, each for a time.

Two requests are the same if model input, sampling and options are equal byte for byte. A replay streams as the first
answer did, and says `"cached": true` in its dynamic_graph.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace

import orjson

from autoglm_gateway.backend import Backend
from autoglm_gateway.metrics import Metrics
from autoglm_gateway.option import option
from autoglm_protocol.chat import ChatRequest, TextPart
from autoglm_protocol.events import Finished, Started, StreamEvent, TokenDelta

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
    def __init__(self, limits: CacheLimits, metrics: Metrics, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
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
        key = _key(request)
        entry = self._look_up(key)
        if entry is not None:
            self._metrics.cache_hits.inc()
            return _replay(entry)
        self._metrics.cache_misses.inc()
        return self._recorded(key, backend.generate(request))

    async def _recorded(
        self, key: bytes, events: AsyncGenerator[StreamEvent, None]
    ) -> AsyncGenerator[StreamEvent, None]:
        seen: list[StreamEvent] = []
        async with aclosing(events):
            async for event in events:
                seen.append(event)
                if isinstance(event, Finished):
                    self._store(key, tuple(seen))
                yield event

    def _look_up(self, key: bytes) -> _Entry | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if self._clock() - entry.stored_s > self._limits.response_cache_ttl_s:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry

    def _store(self, key: bytes, events: tuple[StreamEvent, ...]) -> None:
        size_bytes = sum(_EVENT_BYTES + len(event.text) * 4 for event in events if isinstance(event, TokenDelta))
        if size_bytes > self._limits.response_cache_bytes:
            return
        if key in self._entries:
            self._drop(key)
        self._entries[key] = _Entry(events=events, size_bytes=size_bytes, stored_s=self._clock())
        self._size_bytes += size_bytes
        while self._size_bytes > self._limits.response_cache_bytes:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: bytes) -> None:
        self._size_bytes -= self._entries.pop(key).size_bytes


async def _replay(entry: _Entry) -> AsyncGenerator[StreamEvent, None]:
    for event in entry.events:
        if isinstance(event, Started | Finished):
            event = replace(event, dynamic_graph={**event.dynamic_graph, "cached": True})
        yield event


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
    settings = {"sampling": asdict(request.sampling), "options": asdict(request.options)}
    del settings["options"]["priority"]  # says when, not what
    add(orjson.dumps(settings, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS))
    return digest.digest()
