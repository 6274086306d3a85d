"""Takes the decoder's events off the engine's thread: one writer thread sends them, all tokens that have come at once.

The engine never waits for a message, and messages never outrun what the relay in front can pass on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from typing import Protocol

from autoglm_backend.cpus import usable_cpus
from autoglm_protocol.events import Cancelled, Failed, Finished, StreamEvent, TokenDelta


class Outlet(Protocol):
    """Where one stream's events go; `send` and `is_ready` are called in the writer's thread."""

    def send(self, event: StreamEvent, /) -> None: ...

    def is_ready(self) -> bool:
        """Whether the message before was taken; until then events wait, and tokens merge."""
        ...

    def is_urgent(self, event: StreamEvent, /) -> bool:
        """Whether somebody waits for this very event, such as a first or last one. Called in any thread."""
        ...


MAX_MESSAGES_PER_S = 1500.0
"""Over all streams; Triton's relay stops at about 2,800 messages a second, however many cores there are."""
MESSAGES_PER_CORE_S = 250.0
"""With many streams. Each message costs the BLS model, Triton and the gateway 0.4 ms of a core and more."""
EASY_MESSAGES_PER_CORE_S = 25.0
"""With few: a decoder whose one thread is off its core has the other wait."""
EASY_PAUSE_S = 0.12
"""But no stream waits longer for the sake of that: eight messages a second still read like one flow of text."""

_log = logging.getLogger(__name__)


class EventWriter:
    def __init__(self, *, max_messages_per_s: float | None = None) -> None:
        # None: what this machine's cores can spare.
        cores = usable_cpus()
        self._interval_s = 1.0 / (max_messages_per_s or min(MAX_MESSAGES_PER_S, MESSAGES_PER_CORE_S * cores))
        self._easy_interval_s = max(self._interval_s, 1.0 / (EASY_MESSAGES_PER_CORE_S * cores))
        self._due: dict[Outlet, list[StreamEvent]] = {}
        self._is_urgent = False
        self._wake = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="event-writer", daemon=True)
        self._thread.start()

    def put(self, outlet: Outlet, event: StreamEvent) -> None:
        """Have the event sent soon, in order, in the writer's thread. Never blocks. A stream's deltas may be merged."""
        is_urgent = outlet.is_urgent(event)
        with self._wake:
            if not self._due or is_urgent:
                self._wake.notify()
            self._due.setdefault(outlet, []).append(event)
            self._is_urgent = self._is_urgent or is_urgent

    def stop(self) -> None:
        """Send what is due and end the thread."""
        with self._wake:
            self._stopping.set()
            self._wake.notify()
        self._thread.join()

    def _loop(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._due or self._stopping.is_set())
                due, self._due = self._due, {}
                self._is_urgent = False
            if not due:
                return
            started_s = time.monotonic()
            num_sent = sum(self._send_ready(outlet, events) for outlet, events in due.items())
            spent_s = time.monotonic() - started_s
            due = None  # nothing of a finished stream is held while waiting for the next event
            # With nothing sent, somebody has not yet taken a message: a look at shared memory, again in a moment.
            least_s = max(num_sent, 1) * self._interval_s
            self._stopping.wait(max(0.0, least_s - spent_s))
            easy_s = min(num_sent * self._easy_interval_s, EASY_PAUSE_S)
            if easy_s > least_s:
                with self._wake:
                    self._wake.wait_for(lambda: self._is_urgent or self._stopping.is_set(), easy_s - least_s)

    def _send_ready(self, outlet: Outlet, events: list[StreamEvent]) -> int:
        """Send what the stream's reader is ready for, all at the end; the rest is due again. Returns messages sent."""
        merged = merge_deltas(events)
        num_sent = 0
        try:
            while num_sent < len(merged) and (self._stopping.is_set() or outlet.is_ready()):
                outlet.send(merged[num_sent])
                num_sent += 1
        except Exception:
            # one stream's trouble must not end all others'
            _log.exception("a message could not be sent")
            return len(merged)
        if num_sent < len(merged):
            with self._wake:
                self._due[outlet] = [*merged[num_sent:], *self._due.get(outlet, ())]
                self._is_urgent = self._is_urgent or any(outlet.is_urgent(event) for event in merged[num_sent:])
        return num_sent


def merge_deltas(events: Iterable[StreamEvent]) -> list[StreamEvent]:
    """The same events with all deltas of a choice in one, in the place of its first; terminal events stay last."""
    merged: list[StreamEvent] = []
    at: dict[int, int] = {}
    for event in events:
        if not isinstance(event, TokenDelta):
            merged.append(event)
            continue
        place = at.setdefault(event.index, len(merged))
        if place == len(merged):
            merged.append(event)
        else:
            first = merged[place]
            assert isinstance(first, TokenDelta)
            merged[place] = _joined(first, event)
    return merged


def is_terminal(event: StreamEvent) -> bool:
    return isinstance(event, Finished | Cancelled | Failed)


def _joined(first: TokenDelta, second: TokenDelta) -> TokenDelta:
    logprobs = None
    if first.logprobs is not None or second.logprobs is not None:
        logprobs = (*(first.logprobs or ()), *(second.logprobs or ()))
    return TokenDelta(
        text=first.text + second.text,
        token_ids=first.token_ids + second.token_ids,
        index=first.index,
        logprobs=logprobs,
        layers=_both(first.layers, second.layers),
        chars=_both(first.chars, second.chars),
    )


def _both(first: tuple[int, ...] | None, second: tuple[int, ...] | None) -> tuple[int, ...] | None:
    return None if first is None or second is None else first + second
