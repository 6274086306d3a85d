"""The folder of one run: models, backends and logs. Removed at exit; what a killed run left is swept by the next."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = "autoglm-run-"
SHARED_MEMORY = Path("/dev/shm")


@contextlib.contextmanager
def run_folder(parent: Path | None = None) -> Iterator[Path]:
    """A fresh folder, locked while it is in use. Its name is the prefix of the run's shared memory segments."""
    parent = Path(tempfile.gettempdir()) if parent is None else parent
    sweep(parent)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
    finally:
        _remove(folder)
        os.close(lock)


def sweep(parent: Path) -> None:
    """Removes the folders and segments of runs that are over: nobody holds their lock any more."""
    for folder in parent.glob(f"{PREFIX}*"):
        try:
            lock = os.open(folder / "lock", os.O_RDWR)
        except OSError:  # being made or removed this very moment, or another user's
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            _remove(folder)
        finally:
            os.close(lock)


def _remove(folder: Path) -> None:
    for segment in SHARED_MEMORY.glob(f"{folder.name}*"):
        segment.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
