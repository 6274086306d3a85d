"""The one way of a request through the gateway, shared by HTTP and gRPC: model, admission, media, backend, metrics."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass

from opentelemetry.trace import SpanKind

from autoglm_gateway.admission import Admission
from autoglm_gateway.api_keys import Caller
from autoglm_gateway.backend import Backend
from autoglm_gateway.draft import ChatDraft
from autoglm_gateway.media import MediaReader
from autoglm_gateway.metrics import Metrics, RequestMetrics
from autoglm_gateway.quotas import QuotaCounter
from autoglm_gateway.response_cache import ResponseCache
from autoglm_gateway.tracing import Tracing, mark_failed
from autoglm_protocol.chat import ChatRequest, TaskKind, TextPart
from autoglm_protocol.errors import AutoglmError, NotFoundError, RequestCancelledError, UnavailableError
from autoglm_protocol.events import Cancelled, Failed, Finished, Started, StreamEvent, TokenDelta

_log = logging.getLogger(__name__)
_ABORT_GRACE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Who sent a request, and under which id."""

    request_id: str
    """No other request has it: the backend cancels by it."""
    caller: Caller | None = None
    """None where no keys are required."""
    no_store: bool = False
    """Neither take the answer from the cache nor keep it there."""


def says_no_store(cache_control: str | None) -> bool:
    """Whether a Cache-Control header keeps the cache out of it."""
    return any(word.strip() in ("no-store", "no-cache") for word in (cache_control or "").lower().split(","))


class _Flight:
    """A request on its way: lets the drain end it with an error of its own choice."""

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self.abort_error: AutoglmError | None = None
        self.handed_over_s: float | None = None
        """Since when the caller has had an event and not asked for the next."""

    def cancel(self) -> None:
        self._task.cancel()

    def abort(self, error: AutoglmError) -> None:
        self.abort_error = error
        self._task.cancel()


class ChatStream:
    """A request that the backend has begun to answer: `started` is here, the rest comes by iterating.

    Iterating yields TokenDelta and ChoiceFinished, then exactly one terminal event. To be iterated once, by the task
    that opened it.
    """

    def __init__(
        self, started: Started, events: AsyncGenerator[StreamEvent, None], metrics: RequestMetrics, flight: _Flight
    ) -> None:
        self.started = started
        self.is_over = False
        self.total_tokens = started.usage.prompt_tokens
        self._events = events
        self._metrics = metrics
        self._flight = flight

    async def __aiter__(self) -> AsyncIterator[StreamEvent]:
        while not self.is_over:
            event = await self._next()
            self.is_over = isinstance(event, Finished | Failed | Cancelled)
            self._metrics.observe(event)
            if isinstance(event, TokenDelta):
                self.total_tokens += len(event.token_ids)
            self._flight.handed_over_s = time.monotonic()
            yield event
            self._flight.handed_over_s = None

    async def _next(self) -> StreamEvent:
        try:
            return await anext(self._events)
        except asyncio.CancelledError:
            if self._flight.abort_error is None:
                raise
            return Failed(error=self._flight.abort_error)


class ChatService:
    def __init__(
        self,
        *,
        model_names: tuple[str, ...],
        backend: Backend,
        admission: Admission,
        media: MediaReader,
        metrics: Metrics,
        quotas: QuotaCounter,
        cache: ResponseCache,
        tracing: Tracing,
        log_prompts: bool = False,
    ) -> None:
        self.model_names = model_names
        self.backend = backend
        self._admission = admission
        self._media = media
        self._metrics = metrics
        self._quotas = quotas
        self._cache = cache
        self._tracing = tracing
        self._log_prompts = log_prompts
        self._flights: set[_Flight] = set()
        self._num_streams = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = False
        metrics.running.set_function(lambda: self._num_streams)
        metrics.waiting.set_function(lambda: len(self._flights) - self._num_streams)

    async def ready(self) -> bool:
        return not self._draining and await self.backend.ready()

    def check_model(self, name: str) -> None:
        if name not in self.model_names:
            raise NotFoundError(f"the model {name[:200]!r} does not exist", code="model_not_found", param="model")

    @asynccontextmanager
    async def open(self, draft: ChatDraft, origin: Origin) -> AsyncGenerator[ChatStream, None]:
        """Send a request to the backend; leaving the block before the stream is over cancels it there.

        Raises AutoglmError when the request is refused or fails before its Started event.
        """
        if draft.ignored_fields:
            self._metrics.unknown_fields.inc(len(draft.ignored_fields))
            _log.info("unknown fields ignored", extra={"fields": [name[:64] for name in draft.ignored_fields[:16]]})
        metrics = RequestMetrics(self._metrics, generates=draft.task.kind is TaskKind.GENERATE)
        stream = None
        with self._flight() as flight:
            try:
                async with self._admitted(draft, origin.caller):
                    metrics.placed()
                    request = await self._complete(draft, origin)
                    if self._log_prompts:
                        _log_prompt(request)
                    source = self.backend.generate if origin.no_store else self._from_cache
                    with self._tracing.step("triton", SpanKind.CLIENT) as span:
                        async with aclosing(source(request)) as events:
                            stream = ChatStream(await _start(events), events, metrics, flight)
                            span.add_event("started")
                            is_free = draft.task.kind in (TaskKind.TOKENIZE, TaskKind.DETOKENIZE)
                            with self._running(stream, None if is_free else origin.caller):
                                yield stream
                        span.set_attribute("gen_ai.usage.total_tokens", stream.total_tokens)
            except AutoglmError as error:
                mark_failed(error.code)
                if stream is None:
                    self._metrics.failed(error)
                raise
            except asyncio.CancelledError:
                if stream is None and flight.abort_error is not None:
                    self._metrics.failed(flight.abort_error)
                    raise flight.abort_error from None
                if stream is None or not stream.is_over:
                    self._metrics.cancelled.inc()
                raise

    async def drain(self, timeout_s: float) -> None:
        """Refuse new requests, let the running ones finish, and end with an error event those that take too long."""
        self._draining = True
        if not await self._becomes_idle(timeout_s):
            _log.warning("requests cut off by the drain", extra={"count": len(self._flights)})
            for flight in tuple(self._flights):
                flight.abort(_shutting_down())
            await self._becomes_idle(_ABORT_GRACE_S)

    async def cut_off_stalled(self, stall_s: float) -> None:
        """For ever: cancel requests whose caller stopped reading. Without this they would hold their places."""
        while True:
            await asyncio.sleep(stall_s / 4)
            too_old_s = time.monotonic() - stall_s
            for flight in tuple(self._flights):
                if flight.handed_over_s is not None and flight.handed_over_s < too_old_s:
                    _log.warning("caller stopped reading")
                    flight.cancel()

    def _from_cache(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        return self._cache.generate(request, self.backend)

    @asynccontextmanager
    async def _admitted(self, draft: ChatDraft, caller: Caller | None) -> AsyncGenerator[None, None]:
        self.check_model(draft.model)
        if self._draining:
            raise _shutting_down()
        async with self._quotas.request(caller), AsyncExitStack() as held:
            with self._tracing.step("admission"):
                await held.enter_async_context(self._admission.place(priority=draft.options.priority))
            yield

    async def _complete(self, draft: ChatDraft, origin: Origin) -> ChatRequest:
        with self._tracing.step("media"):
            messages = await self._media.read(
                draft.messages, owner=None if origin.caller is None else origin.caller.name
            )
        return ChatRequest(
            request_id=origin.request_id,
            model=draft.model,
            messages=messages,
            sampling=draft.sampling,
            options=draft.options,
            task=draft.task,
        )

    @contextmanager
    def _running(self, stream: ChatStream, caller: Caller | None) -> Generator[None, None, None]:
        self._num_streams += 1
        try:
            yield
        finally:
            self._num_streams -= 1
            self._quotas.charge(caller, stream.total_tokens)

    async def _becomes_idle(self, timeout_s: float) -> bool:
        waiter = asyncio.ensure_future(self._idle.wait())
        await asyncio.wait((waiter,), timeout=timeout_s)
        waiter.cancel()
        return self._idle.is_set()

    @contextmanager
    def _flight(self) -> Generator[_Flight, None, None]:
        flight = _Flight()
        self._flights.add(flight)
        self._idle.clear()
        try:
            yield flight
        finally:
            self._flights.discard(flight)
            if not self._flights:
                self._idle.set()


def _log_prompt(request: ChatRequest) -> None:
    messages = [
        {
            "role": message.role.value,
            "content": [
                part.text if isinstance(part, TextPart) else f"<{type(part).__name__}: {len(part.data)} bytes>"
                for part in message.parts
            ],
        }
        for message in request.messages
    ]
    _log.info("prompt", extra={"request_id": request.request_id, "messages": messages})


async def _start(events: AsyncGenerator[StreamEvent, None]) -> Started:
    first = await anext(events)
    if isinstance(first, Failed):
        raise first.error
    if isinstance(first, Cancelled):
        raise RequestCancelledError("the request was cancelled")
    assert isinstance(first, Started), f"a stream began with {type(first).__name__}"
    return first


def _shutting_down() -> UnavailableError:
    return UnavailableError("the server is shutting down", code="server_is_shutting_down")
