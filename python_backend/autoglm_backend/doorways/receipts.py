"""How many messages of a stream its reader has taken: counters in memory that reader and writer share.

Triton 2.51's stub of the reading model hangs for good when three of its threads meet: one that was just woken for a
message holds that stream's lock and waits for Python's; one that delivers the stream's next message holds the lock of
all streams and waits for the first; one that opens another stream holds Python's lock and waits for the second
(`ResponseIterator::Next`, `ProcessBLSResponseDecoupled`, `GetResponseIterator`). So the decoder sends a stream's next
message only when the one before was taken, and nobody ever waits for the first lock.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Mapping
from pathlib import Path

from autoglm_backend.status_lines import RUN_FOLDER_VARIABLE
from autoglm_protocol.wire.decode import RECEIPT_SLOTS

_WORD = 8


class Receipts:
    """RECEIPT_SLOTS counters in a file that both processes map. A counter is written by one thread at a time."""

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.ftruncate(descriptor, RECEIPT_SLOTS * _WORD)
            self._memory = mmap.mmap(descriptor, RECEIPT_SLOTS * _WORD)
        finally:
            os.close(descriptor)
        self._counters = memoryview(self._memory).cast("Q")
        self._free = list(range(RECEIPT_SLOTS))
        self._lock = threading.Lock()

    @classmethod
    def of_this_run(cls, environment: Mapping[str, str] = os.environ) -> Receipts | None:
        """None outside a run of the launcher: streams then go out as fast as they come."""
        folder = environment.get(RUN_FOLDER_VARIABLE)
        return None if folder is None else cls(Path(folder) / "receipts")

    def taken(self, slot: int) -> int:
        """Messages that the reader of this slot's stream has taken."""
        return self._counters[slot]

    def lend(self) -> Receipt | None:
        """A counter at 0 for a new stream; None while all are lent."""
        with self._lock:
            if not self._free:
                return None
            slot = self._free.pop()
        self._counters[slot] = 0
        return Receipt(self, slot)

    def _note(self, slot: int) -> None:
        self._counters[slot] += 1

    def _give_back(self, slot: int) -> None:
        with self._lock:
            self._free.append(slot)


class Receipt:
    """The reader's side of one stream."""

    def __init__(self, receipts: Receipts, slot: int) -> None:
        self._receipts = receipts
        self.slot = slot

    def note(self) -> None:
        """One more message was taken."""
        self._receipts._note(self.slot)

    def give_back(self) -> None:
        """The stream is over."""
        self._receipts._give_back(self.slot)
