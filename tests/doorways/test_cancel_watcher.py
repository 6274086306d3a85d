from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from autoglm_backend.doorways.cancel_watcher import CancelWatcher


@pytest.fixture
def watcher() -> Iterator[CancelWatcher]:
    watcher = CancelWatcher(period_s=0.01)
    yield watcher
    watcher.stop()


def test_a_cancelled_request_is_told_again_until_its_watch_ends(watcher: CancelWatcher) -> None:
    told = threading.Semaphore(0)
    watch = watcher.watch(lambda: True, told.release)
    for _ in range(3):
        assert told.acquire(timeout=10)
    watch.end()


def test_nothing_is_asked_after_the_end(watcher: CancelWatcher) -> None:
    asked, ended, late = threading.Semaphore(0), threading.Event(), []

    def is_cancelled() -> bool:
        asked.release()
        late.extend([1] if ended.is_set() else [])
        return False

    watch = watcher.watch(is_cancelled, lambda: None)
    assert asked.acquire(timeout=10)
    watch.end()
    ended.set()
    other = threading.Semaphore(0)
    watcher.watch(lambda: other.release() or False, lambda: None)
    for _ in range(3):  # rounds in which the ended watch would have been asked
        assert other.acquire(timeout=10)
    assert late == []


def test_a_broken_question_ends_its_watch_only(watcher: CancelWatcher) -> None:
    told = threading.Event()

    def broken() -> bool:
        raise RuntimeError("gone")

    watcher.watch(broken, lambda: None)
    watcher.watch(lambda: True, told.set)
    assert told.wait(10)
