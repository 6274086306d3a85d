"""Which processes a server consists of, and which of them still run."""

from __future__ import annotations

from pathlib import Path


def descendants(pid: int) -> list[int]:
    """The processes that `pid` or one of its threads started, and theirs."""
    lists = (task.read_text() for task in Path(f"/proc/{pid}/task").glob("*/children"))
    pids = [int(word) for text in lists for word in text.split()]
    return pids + [below for child in pids for below in descendants(child)]


def runs(pid: int) -> bool:
    try:
        return "(zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
