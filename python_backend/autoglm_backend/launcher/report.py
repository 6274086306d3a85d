"""What the launcher prints: a line for each step with the seconds since the start, how loading goes, and the closing
lines of a start."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import TextIO

from autoglm_backend.status_lines import Loading

_BAR_CELLS = 24
_ERASE_LINE = "\r\x1b[2K"
_PLAIN_PERIOD_S = 5.0


@dataclass(slots=True, kw_only=True)
class Report:
    """Writes to `out` and `errors` at once, so that a pipe sees a line when it happens."""

    out: TextIO = field(default_factory=lambda: sys.stdout)
    errors: TextIO = field(default_factory=lambda: sys.stderr)
    started_s: float = field(default_factory=time.monotonic)
    _has_bar: bool = False
    _said_s: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started_s

    def step(self, text: str) -> None:
        self.line(f"[INFO] {self.elapsed_s:5.1f} s  {text}")

    def line(self, text: str) -> None:
        self._erase_bar()
        print(text, file=self.out, flush=True)

    def loading(self, status: Loading) -> None:
        """A bar on a terminal, a line every five seconds elsewhere, and on both a line once a model is loaded."""
        if status.tensors == status.of_tensors:
            self.step(f"Loaded {status.model}: {status.of_tensors} tensors, {status.of_bytes / 1e6:.1f} MB")
            return
        share = status.bytes / max(1, status.of_bytes)
        amount = (
            f"{status.tensors}/{status.of_tensors} tensors, {status.bytes / 1e6:.1f}/{status.of_bytes / 1e6:.1f} MB"
        )
        if self.out.isatty():
            cells = "#" * int(share * _BAR_CELLS)
            bar = f"Loading {status.model:<14} [{cells:.<{_BAR_CELLS}}] {share:4.0%}  {amount}"
            print(_ERASE_LINE + bar, end="", file=self.out, flush=True)
            self._has_bar = True
        elif self.elapsed_s - self._said_s.setdefault(status.model, self.elapsed_s) >= _PLAIN_PERIOD_S:
            self._said_s[status.model] = self.elapsed_s
            self.step(f"Loading {status.model}: {share:.0%}, {amount}")

    def serving(self, *, load_s: float, dynamic_graph: bool, host: str, port: int) -> None:
        """The lines that published guides to this model show."""
        graph = "enabled" if dynamic_graph else "disabled (ENABLE_DYNAMIC_GRAPH=False)"
        self.line(f"[INFO] Model loaded in {load_s:.1f} seconds.")
        self.line(f"[INFO] Dynamic computation graph engine {graph}")
        self.listening(host=host, port=port)

    def listening(self, *, host: str, port: int) -> None:
        address = f"[{host}]" if ":" in host else host
        self.line(f"[INFO] Server listening on http://{address}:{port}")
        self.line("[INFO] OpenAI-compatible endpoint enabled at /v1/chat/completions")

    def died(self, message: str, last_lines: tuple[str, ...]) -> None:
        lines = [f"{message}; its last lines:", *last_lines] if last_lines else [f"{message} and wrote nothing."]
        self.refused("\n    ".join(lines))

    def refused(self, message: str) -> None:
        self._erase_bar()
        print(f"[ERROR] {message}", file=self.errors, flush=True)

    def _erase_bar(self) -> None:
        if self._has_bar:
            print(_ERASE_LINE, end="", file=self.out, flush=True)
            self._has_bar = False
