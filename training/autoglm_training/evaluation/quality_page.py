"""One page about a checkpoint's quality: targets against figures, a table, two plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from autoglm_training.evaluation.grading import markdown_table
from autoglm_training.files import save_text

COLOURS = {"text": "#1b6ca8", "screen": "#d1495b", "speech": "#3c8d53", "all": "#444444"}
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
RELATIONAL = ("tap_relation", "cheapest", "dearest", "chart", "chart_ask", "cheapest_ask")

Figures = Mapping[str, Any]
Share = tuple[float, int]
"""Of so many samples."""


def write_page(path: Path, figures: Figures, depths: Sequence[int], checkpoint: str) -> None:
    """Rewrite what stands between the page's marks, and its plots beside it; the rest of the page is people's.

    Raises:
        OSError: the page or a plot cannot be written.
    """
    plot = path.with_name("quality.png")
    draw(figures, depths, plot)
    text = path.read_text(encoding="utf-8") if path.exists() else f"# Quality of the checkpoint\n\n{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    measured = "\n\n".join(_sections(figures, depths, checkpoint, plot.name))
    save_text(f"{before}{BEGIN}\n{measured}\n{END}{after}", path)


def _sections(figures: Figures, depths: Sequence[int], checkpoint: str, plot: str) -> list[str]:
    sections = [
        f"Checkpoint `{checkpoint}`, {figures['samples']} fresh samples of the test split for each modality, seed "
        f"{figures['seed']}: screens, layouts and wordings that training never saw; greedy answers.",
        _targets(figures, depths),
        f"![right answers and agreement by depth]({plot})",
    ]
    if figures.get("word_errors"):
        heard = ", ".join(
            f"{k} {100 * v['rate']:.1f} % ({v['clips']} clips)" for k, v in figures["word_errors"].items()
        )
        sections.append(f"Word error rate of the speech encoder (every Chinese character is a word): {heard}.")
    sections.append("## By task family\n\n" + markdown_table(figures["rows"], depths))
    sections.append("## By language, full depth\n\n" + _languages(figures, depths[-1]))
    return sections


def _targets(figures: Figures, depths: Sequence[int]) -> str:
    rows, full = figures["rows"], depths[-1]
    lines = ["| what | aim | measured | n |", "|---|---|---|---|"]

    def add(what: str, aim: str, share: Share | None) -> None:
        shown = "not measured | 0" if share is None else f"{100 * share[0]:.1f} % | {share[1]}"
        lines.append(f"| {what} | {aim} | {shown} |")

    valid = [(row["valid"], row["n"]) for row in _picked(rows, family="all", depth=full)]
    add("valid action, worst modality", "99 %", min(valid, default=None))
    add("text commands", "98 %", _share(rows, "text", ("direct commands",), full))
    add(f"text commands, depth {depths[0]}", "95 %", _share(rows, "text", ("direct commands",), depths[0]))
    add("tap inside the right element", "90 %", _share(rows, "screen", ("all taps",), full))
    add("relational and chart tasks", "70 %", _share(rows, "screen", RELATIONAL, full))
    add("spoken commands", "85 %", _share(rows, "speech", ("direct commands",), full))
    episodes = figures["episodes"]["by_kind"]["all"] if figures.get("episodes") else None
    add("episodes of up to four steps", "80 %", (episodes["success"], episodes["n"]) if episodes else None)
    if certified := figures.get("certified"):
        changed = (certified["mismatches"] / certified["n"], certified["n"])
        add("certified exits: changed actions", f"at most {100 * certified['delta']:.0f} %", changed)
        aim = f"at most {0.6 * certified['num_layers']:.1f}"
        lines.append(f"| certified exits: layers a token | {aim} | {certified['mean_layers']:.1f} | {certified['n']} |")
    return "\n".join(lines)


def _picked(rows: Sequence[Figures], **wanted: object) -> list[Figures]:
    return [r for r in rows if r["language"] == "both" and all(r[name] == value for name, value in wanted.items())]


def _share(rows: Sequence[Figures], modality: str, families: Sequence[str], depth: int) -> Share | None:
    found = [r for f in families for r in _picked(rows, modality=modality, family=f, depth=depth)]
    total = sum(r["n"] for r in found)
    return (sum(r["right"] * r["n"] for r in found) / total, total) if total else None


def _languages(figures: Figures, depth: int) -> str:
    lines = ["| modality | language | n | right |", "|---|---|---|---|"]
    for row in figures["rows"]:
        if row["family"] == "all" and row["depth"] == depth and row["language"] != "both":
            lines.append(f"| {row['modality']} | {row['language']} | {row['n']} | {100 * row['right']:.0f} % |")
    return "\n".join(lines)


def draw(figures: Figures, depths: Sequence[int], path: Path) -> None:
    """Right answers by depth, and agreement with full depth by depth, as a PNG. Raises OSError."""
    figure = Figure(figsize=(10, 3.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    right, agree = figure.subplots(1, 2)
    for modality, colour in COLOURS.items():
        points = {r["depth"]: r["right"] for r in _picked(figures["rows"], modality=modality, family="all")}
        if points:
            right.plot(depths, [100 * points[d] for d in depths], "o-", color=colour, label=modality)
        same = {r["depth"]: r["agree"] for r in figures["agreement"] if r["modality"] == modality}
        if same:
            agree.plot(depths, [100 * same[d] for d in depths], "o-", color=colour, label=modality)
    taps = {r["depth"]: r for r in _picked(figures["rows"], modality="screen", family="all taps")}
    if taps:
        right.plot(depths, [100 * taps[d]["right"] for d in depths], "s--", color="#e8a33d", label="taps")
        right.axhline(100 * taps[depths[-1]]["chance"], color="#e8a33d", lw=0.8, ls=":", label="taps, chance")
    for axes, title in ((right, "right answers, %"), (agree, "same action as full depth, %")):
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("decoder layers")
        axes.set_xticks(depths)
        axes.grid(alpha=0.3)
        axes.set_ylim(0, 128)
        axes.set_yticks(range(0, 101, 20))
        axes.legend(fontsize=8, loc="upper center", ncols=3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
