"""Disk and memory that the node tests take, asked for before anything is started."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

DISK_GB = 6
"""The image is there four times while it is made and loaded, and each pod writes a little."""
MEMORY_GB = 10
"""In a rollout up to four Triton pods are there, with four processes each."""


def room_missing(folder: Path) -> Sequence[str]:
    """What is too small, in words. Less memory would end in pods killed one after the other, and broken streams."""
    found: list[str] = []
    free_gb = shutil.disk_usage(folder).free / 1e9
    if free_gb < DISK_GB:
        found.append(f"{free_gb:.1f} GB of disk are free under {folder.parent}, {DISK_GB} GB are needed")
    available_gb = memory_available_gb()
    if available_gb < MEMORY_GB:
        found.append(f"{available_gb:.1f} GB of memory are available, {MEMORY_GB} GB are needed")
    return found


def memory_available_gb() -> float:
    lines = Path("/proc/meminfo").read_text().splitlines()
    (kibibytes,) = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return kibibytes * 1024 / 1e9
