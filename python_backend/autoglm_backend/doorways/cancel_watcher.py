"""One thread that asks, some ten times a second, whether the callers of live requests went away."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

PERIOD_S = 0.1
_REST = 3.0
"""Rest at least this many times as long as a round of questions took: each is a round trip to the server process."""

_log = logging.getLogger(__name__)


class Watch:
    """One request under watch."""

    def __init__(self, is_cancelled: Callable[[], bool], on_cancel: Callable[[], None]) -> None:
        self._is_cancelled = is_cancelled
        self._on_cancel = on_cancel
        self._lock = threading.Lock()
        self._is_ended = False
        self._was_cancelled = False

    def end(self) -> None:
        """No question is asked after this returns, so the sender behind it may be closed."""
        with self._lock:
            self._is_ended = True

    @property
    def is_ended(self) -> bool:
        return self._is_ended

    def poll(self) -> None:
        with self._lock:
            if self._is_ended:
                return
            self._was_cancelled = self._was_cancelled or self._is_cancelled()
        if self._was_cancelled:
            # until the request has ended: the first word may come before the decoder knows the request
            self._on_cancel()


class CancelWatcher:
    def __init__(self, *, period_s: float = PERIOD_S) -> None:
        self._period_s = period_s
        self._watches: list[Watch] = []
        self._wake = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="cancel-watcher", daemon=True)
        self._thread.start()

    def watch(self, is_cancelled: Callable[[], bool], on_cancel: Callable[[], None]) -> Watch:
        """Call `on_cancel`, in the watcher's thread, every period from when `is_cancelled` until the watch's end."""
        watch = Watch(is_cancelled, on_cancel)
        with self._wake:
            self._watches.append(watch)
            self._wake.notify()
        return watch

    def stop(self) -> None:
        with self._wake:
            self._stopping.set()
            self._wake.notify()
        self._thread.join()

    @staticmethod
    def _poll(watches: Sequence[Watch]) -> None:
        for watch in watches:
            try:
                watch.poll()
            except Exception:
                _log.exception("a request could not be watched")
                watch.end()

    def _loop(self) -> None:
        while not self._stopping.is_set():
            with self._wake:
                self._watches = [watch for watch in self._watches if not watch.is_ended]
                self._wake.wait_for(lambda: self._watches or self._stopping.is_set())
                watches = tuple(self._watches)
            started_s = time.monotonic()
            self._poll(watches)
            spent_s = time.monotonic() - started_s
            del watches  # nothing of a finished request is held while waiting for the next one
            self._stopping.wait(max(self._period_s, _REST * spent_s))
