"""Embeddings of pictures and clips by content: phone agents send the same screenshot again in later turns.

Least recently used entries leave when the bytes run out. Threads that ask for the same item at once compute it once.
"""

from __future__ import annotations

import mmap
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedMedia:
    """An encoded picture or clip."""

    embeddings_MD: NDArray[np.float32]
    """float32, read-only."""
    grid: tuple[int, int] | None
    """Rows and columns of a picture in merged tokens, None for a clip."""

    @property
    def num_tokens(self) -> int:
        return len(self.embeddings_MD)


class EmbeddingCache:
    """`max_bytes` bounds the embeddings held; 0 keeps nothing, and still computes concurrent requests once."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self.num_hits = 0
        self._entries: OrderedDict[bytes, EmbeddedMedia] = OrderedDict()
        self._pending: dict[bytes, Future[EmbeddedMedia]] = {}
        self._lock = threading.Lock()

    def get(self, key: bytes) -> EmbeddedMedia | None:
        """The entry, now the most recently used; counted as a hit."""
        with self._lock:
            return self._get(key)

    def get_or_compute(self, key: bytes, compute: Callable[[], EmbeddedMedia]) -> tuple[EmbeddedMedia, bool]:
        """The entry, and whether it was there or on its way.

        `compute` runs in this thread; its error reaches all who wait.
        """
        with self._lock:
            found = self._get(key)
            if found is not None:
                return found, True
            future = self._pending.get(key)
            is_mine = future is None
            if future is None:
                future = self._pending[key] = Future()
            else:
                self.num_hits += 1
        if not is_mine:
            return future.result(), True
        try:
            media = compute()
        except BaseException as error:
            with self._lock:
                del self._pending[key]
            future.set_exception(error)
            raise
        media.embeddings_MD.setflags(write=False)
        with self._lock:
            del self._pending[key]
            self._put(key, media)
        future.set_result(media)
        return media, False

    def _get(self, key: bytes) -> EmbeddedMedia | None:
        media = self._entries.get(key)
        if media is not None:
            self._entries.move_to_end(key)
            self.num_hits += 1
        return media

    def _put(self, key: bytes, media: EmbeddedMedia) -> None:
        if media.embeddings_MD.nbytes > self.max_bytes:
            return
        self._entries[key] = replace(media, embeddings_MD=_outside_the_heap(media.embeddings_MD))
        self.num_bytes += media.embeddings_MD.nbytes
        while self.num_bytes > self.max_bytes:
            _, evicted = self._entries.popitem(last=False)
            self.num_bytes -= evicted.embeddings_MD.nbytes


def _outside_the_heap(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """A read-only copy in pages of its own, which the system gets back when it is dropped.

    What stays for long between what comes and goes, such as decoded pictures, keeps every thread's heap from shrinking.
    """
    pages = mmap.mmap(-1, max(array.nbytes, 1))
    copy = np.frombuffer(pages, dtype=array.dtype, count=array.size).reshape(array.shape)
    copy[...] = array
    copy.setflags(write=False)
    return copy
