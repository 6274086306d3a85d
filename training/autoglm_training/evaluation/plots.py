"""The page's picture: right answers and agreement by depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from autoglm_training.files import write_atomically

COLOURS = {"text": "#1b6ca8", "screen": "#d1495b", "speech": "#3c8d53", "screen+speech": "#8d5fb0", "all": "#444444"}


def draw(figures: Mapping[str, Any], depths: Sequence[int], path: Path) -> None:
    """Right answers by depth, and agreement with full depth by depth, as a PNG. Raises OSError."""
    figure = Figure(figsize=(10, 3.8), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    right, agree = figure.subplots(1, 2)
    totals = [r for r in figures["rows"] if r["language"] == "both"]
    for modality, colour in COLOURS.items():
        points = {r["depth"]: r["right"] for r in totals if (r["modality"], r["family"]) == (modality, "all")}
        if points:
            right.plot(depths, [100 * points[d] for d in depths], "o-", color=colour, label=modality)
        same = {r["depth"]: r["agree"] for r in figures["agreement"] if r["modality"] == modality}
        if same:
            agree.plot(depths, [100 * same[d] for d in depths], "o-", color=colour, label=modality)
    taps = {r["depth"]: r for r in totals if (r["modality"], r["family"]) == ("screen", "all taps")}
    if taps:
        right.plot(depths, [100 * taps[d]["right"] for d in depths], "s--", color="#e8a33d", label="taps")
        chance = taps[depths[-1]]["chance"]
        if chance is not None:
            right.axhline(100 * chance, color="#e8a33d", lw=0.8, ls=":", label="taps, chance")
    for axes, title in ((right, "right answers, %"), (agree, "same action as full depth, %")):
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("decoder layers")
        axes.set_xticks(depths)
        axes.grid(alpha=0.3)
        axes.set_ylim(0, 135)
        axes.set_yticks(range(0, 101, 20))
        if axes.lines:
            axes.legend(fontsize=8, loc="upper center", ncols=3)
    write_atomically(path, lambda partial: figure.savefig(partial, format="png"))
