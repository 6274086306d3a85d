"""Files written beside and moved into place: a kill or a full disk never spoils the last good one."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """`write` a file beside `path`, flush it to the disk, move it into place. After an error `path` is as before.

    Raises:
        OSError: naming the file and the reason: the disk is full, or the folder may not be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        write(partial)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    # On a full disk safetensors raises an error of its own and torch.save a RuntimeError.
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise OSError(f"{path} was not written and is as before: {reason}") from error
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to fill; when the block ends without an error it stands at `folder`, all at once.

    A kill leaves the old folder or the new one whole, never a mixture. The old one's files are gone then: the caller
    takes along what shall stay. Raises OSError.
    """
    folder = folder.resolve()
    fresh = folder.with_name(f".{folder.name}.partial")
    if fresh.exists():  # left by a run that was killed
        shutil.rmtree(fresh)
    fresh.mkdir(parents=True)
    try:
        yield fresh
        if folder.exists():
            _exchange(fresh, folder)
        else:
            fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _exchange(left: Path, right: Path) -> None:
    """Swap two folders in one step; where the file system has no such step, in two renames. Raises OSError."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is not None:
        if renameat2(_AT_FDCWD, os.fsencode(left), _AT_FDCWD, os.fsencode(right), _RENAME_EXCHANGE) == 0:
            return
        code = ctypes.get_errno()
        if code not in (errno.EINVAL, errno.ENOSYS, errno.EXDEV):
            raise OSError(code, os.strerror(code), str(right))
    # A kill between the two renames leaves the old folder whole beside, under this name.
    old = right.with_name(f".{right.name}.old")
    if old.exists():
        shutil.rmtree(old)
    right.rename(old)
    left.rename(right)
    old.rename(left)


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """A safetensors file, readable by everyone. Raises OSError."""

    def write(partial: Path) -> None:
        save_file(tensors, partial, metadata={"format": "pt"})
        partial.chmod(0o644)  # safetensors writes files that only their owner may read

    write_atomically(path, write)


def save_json(value: object, path: Path) -> None:
    """A JSON file with one field a line. Raises OSError."""
    save_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", path)


def save_text(text: str, path: Path) -> None:
    """A UTF-8 file. Raises OSError."""

    def write(partial: Path) -> None:
        partial.write_text(text, encoding="utf-8")

    write_atomically(path, write)
