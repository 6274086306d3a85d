"""Files of a checkpoint, written beside and moved into place: a kill or a full disk never spoils the last good one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """`write` a file beside `path`, flush it to the disk, move it into place. After an error `path` is as before.

    Raises:
        OSError: the disk is full, or the folder may not be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        write(partial)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


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
