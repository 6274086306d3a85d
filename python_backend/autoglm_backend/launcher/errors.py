"""What keeps the server from starting or running; the message is the one sentence that the user reads."""

from __future__ import annotations


class LaunchError(ValueError):
    """The server cannot start as asked: a taken port, a missing checkpoint, no Triton."""


class ChildDied(Exception):
    """Triton or the gateway ended by itself; carries the last lines it wrote."""

    def __init__(self, name: str, status: int, last_lines: tuple[str, ...]) -> None:
        ending = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        super().__init__(f"{name} {ending}")
        self.last_lines = last_lines
