"""Media that a caller sent and that cannot be used."""

from __future__ import annotations


class MediaError(ValueError):
    """`code` is stable and for programs, `message` for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
