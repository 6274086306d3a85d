"""What a run says about itself: running means, tokens a second, time left; a bar, a file of figures, curves as PNG."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Protocol, TextIO

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from autoglm_training.files import save_text

BAR_WIDTH = 24
CURVES = ("_loss", "_acc", "near")
"""Which figures are drawn, by a part of their name; one panel each."""


class Meter:
    """Running means of named figures since they were last taken, and how many tokens were seen."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._weights: dict[str, float] = {}
        self.tokens = 0

    def add(self, name: str, value: float, weight: float = 1.0) -> None:
        self._sums[name] = self._sums.get(name, 0.0) + value * weight
        self._weights[name] = self._weights.get(name, 0.0) + weight

    def take(self) -> dict[str, float]:
        """The means since the last call."""
        means = {name: total / max(self._weights[name], 1e-9) for name, total in self._sums.items()}
        self._sums.clear()
        self._weights.clear()
        return means


class Board(Protocol):
    """TensorBoard's SummaryWriter, as far as it is used."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None: ...


def open_board(folder: Path | None) -> Board | None:
    """A TensorBoard writer; None where none is wanted. Raises ValueError when TensorBoard is not installed."""
    if folder is None:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError("--tensorboard needs the package: pip install tensorboard") from error
    return SummaryWriter(str(folder))


class Progress:
    """One stage's progress. A terminal sees a bar that moves, a log file a line now and then."""

    def __init__(
        self, name: str, first: int, steps: int, folder: Path, board: Board | None = None, out: TextIO | None = None
    ) -> None:
        self._name, self._first, self._steps = name, first, steps
        self._path, self._board = folder / f"{name}.jsonl", board
        keep_lines(self._path, first)
        self._out = out or sys.stdout
        self._began = self._last = time.monotonic()
        self._tokens_before = 0

    def bar(self, step: int, meter: Meter) -> None:
        """Move the bar; says nothing where nobody looks."""
        if self._out.isatty():
            filled = BAR_WIDTH * step // max(1, self._steps)
            shown = "#" * filled + "." * (BAR_WIDTH - filled)
            self._out.write(f"\r{self._name} [{shown}] {step}/{self._steps} {self._pace(step, meter)} ")
            self._out.flush()

    def line(self, step: int, meter: Meter) -> None:
        """One line of figures, kept in the stage's file too."""
        now = time.monotonic()
        pace, seconds = self._pace(step, meter), now - self._last
        means = meter.take()
        shown = " ".join(f"{name} {mean:.3f}" for name, mean in means.items())
        start = "\r" if self._out.isatty() else ""
        text = f"{start}{self._name} step {step}/{self._steps} +{seconds:.1f}s {pace} {shown}"
        print(text, file=self._out, flush=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **{name: round(mean, 5) for name, mean in means.items()}}) + "\n")
        for name, mean in means.items():
            if self._board is not None:
                self._board.add_scalar(f"{self._name}/{name}", mean, step)
        self._last, self._tokens_before = now, meter.tokens

    def draw(self) -> None:
        """The curves so far, beside the figures. Raises OSError."""
        if self._path.exists():
            draw_curves(self._path, self._path.with_suffix(".png"))

    def _pace(self, step: int, meter: Meter) -> str:
        now = time.monotonic()
        rate = (meter.tokens - self._tokens_before) / max(now - self._last, 1e-9)
        left_s = (now - self._began) / max(1, step - self._first) * (self._steps - step)
        return f"{rate:,.0f} tokens/s, {clock(left_s)} left"


def keep_lines(figures: Path, last: int) -> None:
    """Drop the figures of steps after `last`: a run that was killed had gone on after its last saved state."""
    if figures.exists():
        lines = figures.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= last]
        if len(kept) < len(lines):
            save_text("".join(kept), figures)


def clock(seconds: float) -> str:
    """Hours, minutes and seconds, as short as they may be."""
    whole = round(max(0.0, seconds))
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def draw_curves(figures: Path, path: Path) -> None:
    """The figures of a stage's file over its steps. Raises OSError."""
    lines = [json.loads(line) for line in figures.read_text(encoding="utf-8").splitlines()]
    figure = Figure(figsize=(4.2 * len(CURVES), 3.2), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    names = sorted({name for line in lines for name in line})
    for axes, part in zip(figure.subplots(1, len(CURVES)), CURVES, strict=True):
        for name in (name for name in names if part in name):
            points = [(line["step"], line[name]) for line in lines if name in line]
            axes.plot(*zip(*points, strict=True), label=name, lw=1)
        axes.set_title(part.strip("_"), fontsize=9)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=6)
    figure.savefig(path)
