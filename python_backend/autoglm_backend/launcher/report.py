"""What the launcher prints: a line for each step with the seconds since the start, and the closing lines of a start."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import TextIO


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Writes to `out` and `errors` at once, so that a pipe sees a line when it happens."""

    out: TextIO = field(default_factory=lambda: sys.stdout)
    errors: TextIO = field(default_factory=lambda: sys.stderr)
    started_s: float = field(default_factory=time.monotonic)

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started_s

    def step(self, text: str) -> None:
        self.line(f"[INFO] {self.elapsed_s:5.1f} s  {text}")

    def line(self, text: str) -> None:
        print(text, file=self.out, flush=True)

    def serving(self, *, load_s: float, dynamic_graph: bool, host: str, port: int) -> None:
        """The lines that published guides to this model show."""
        graph = "enabled" if dynamic_graph else "disabled (ENABLE_DYNAMIC_GRAPH=False)"
        address = f"[{host}]" if ":" in host else host
        self.line(f"[INFO] Model loaded in {load_s:.1f} seconds.")
        self.line(f"[INFO] Dynamic computation graph engine {graph}")
        self.line(f"[INFO] Server listening on http://{address}:{port}")
        self.line("[INFO] OpenAI-compatible endpoint enabled at /v1/chat/completions")

    def died(self, message: str, last_lines: tuple[str, ...]) -> None:
        lines = [f"{message}; its last lines:", *last_lines] if last_lines else [f"{message} and wrote nothing."]
        self.refused("\n    ".join(lines))

    def refused(self, message: str) -> None:
        print(f"[ERROR] {message}", file=self.errors, flush=True)
