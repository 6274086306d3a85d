"""What a pipeline tells the outside: log lines and counts."""

from __future__ import annotations

from typing import Protocol


class Observer(Protocol):
    """Called from many threads at once."""

    def log(self, line: str) -> None: ...

    def log_failure(self, line: str) -> None: ...

    def encoder_ran(self, encoder: str) -> None: ...

    def encoder_skipped(self, encoder: str) -> None: ...

    def exited_at(self, depth: int) -> None:
        """A request leaves the decoder at this depth, as planned or as the router chose."""
        ...

    def cache_hit(self) -> None: ...

    def ended(self, outcome: str) -> None:
        """A request is over: finished, cancelled, refused (the caller's doing) or failed (ours)."""
        ...
