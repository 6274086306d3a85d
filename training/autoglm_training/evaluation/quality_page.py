"""One page about a checkpoint's quality: aims against figures, tables, a plot, and the commands that gave them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autoglm_training.evaluation.by_family import BY_FAMILY, RELATIONAL
from autoglm_training.evaluation.certified_section import certified_aims, certified_section
from autoglm_training.evaluation.figures import PARTS
from autoglm_training.evaluation.grading import DIRECT, DIRECT_COMMANDS, RELATIONS, markdown_table
from autoglm_training.evaluation.held_out import MODALITIES
from autoglm_training.evaluation.plots import draw
from autoglm_training.evaluation.shares import Share
from autoglm_training.files import save_text

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
DEVELOPMENT_SEED, PAGE_SEED = 1, 12
"""The first is the one that is looked at while developing; the second only the next page uses."""
LOOKED_AT = (DEVELOPMENT_SEED, 11)
"""Seeds of earlier measurements, which later trainings went on from."""

Values = Mapping[str, Any]


def write_page(path: Path, figures: Values) -> None:
    """Rewrite what stands between the page's marks, and its plot beside it; the rest of the page is people's.

    `figures` are `Figures.values` with rows, those of full depth among them. Raises OSError where the page or the plot
    cannot be written.
    """
    depths = sorted({row["depth"] for row in figures["rows"]})
    plot = path.with_name("quality.png")
    draw(figures, depths, plot)
    text = path.read_text(encoding="utf-8") if path.exists() else f"# Quality of the checkpoint\n\n{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    measured = "\n\n".join(section for section in _sections(figures, depths, plot.name) if section)
    save_text(f"{before}{BEGIN}\n{measured}\n{END}{after}", path)


def _sections(figures: Values, depths: Sequence[int], plot: str) -> list[str]:
    rows: list[Values] = figures["rows"]
    mixed = [row for row in rows if row["modality"] != BY_FAMILY]
    by_family = [row for row in rows if row["modality"] == BY_FAMILY]
    return [
        _about(figures),
        _aims(figures, depths),
        f"![right answers and agreement by depth]({plot})",
        certified_section(figures.get("certified")),
        _agreement(figures["agreement"], depths),
        _languages(mixed, depths),
        _word_errors(figures.get("word_errors") or ()),
        _episodes(figures.get("episodes")),
        f"## Screens, {figures['per_family']} of each family\n\nEvery task on a screen of its own.\n\n"
        + markdown_table(by_family, depths)
        if by_family
        else "",
        "## By task family\n\n" + markdown_table(mixed, depths),
        _repeat(figures["made"]),
    ]


def _about(figures: Values) -> str:
    seed = figures["seed"]
    looked = (
        f"This page shows seed {seed} again."
        if seed in LOOKED_AT
        else f"This page's seed is {seed}, which is none of those."
    )
    return (
        f"Checkpoint `{figures['checkpoint']}`, SHA-256 `{figures['checkpoint_sha256'][:16]}` (over all files that "
        f"decide an answer, as in its certificate). {figures['samples']} fresh samples of the test split for each "
        "modality: screens, layouts, wordings and voices that training never saw, one task a screen, text commands of "
        "every family in turn; greedy answers; intervals are Wilson's, 95 %.\n\n"
        "The test split was looked at while the model was developed: sessions before this page measured with seeds "
        f"{' and '.join(map(str, LOOKED_AT))} (and 2 to 4 for traffic, clips and episodes, which took other samples "
        f"then) after their trainings and went on from what they saw. {looked}"
    )


def _aims(figures: Values, depths: Sequence[int]) -> str:
    rows, first, full = figures["rows"], depths[0], depths[-1]
    lines = ["| what | aim | measured | 95 % interval | n |", "|---|---|---|---|---|"]

    def add(what: str, aim: str, share: Share | None) -> None:
        shown = "not measured | | 0" if share is None else f"{share} | {share.between} | {share.total}"
        lines.append(f"| {what} | {aim} | {shown} |")

    valid = [_share([row], "valid") for row in _picked(rows, family="all", depth=full)]
    worst = min((share for share in valid if share), key=lambda share: share.value, default=None)
    add("valid action, worst modality", "99 %", worst)
    commands = f"text commands ({', '.join(DIRECT_COMMANDS)})"
    for depth, aim in ((full, "98 %"), (first, "95 %")):
        if depth == full or first != full:
            where = "" if depth == full else f", depth {depth}"
            add(f"{commands}{where}", aim, _right(rows, "text", DIRECT, depth))
            add(f"all text, small talk and refusals too{where}", "", _right(rows, "text", "all", depth))
    add("tap inside the right element", "90 %", _right(rows, "screen", "all taps", full))
    add("relational and chart tasks", "70 %", _right(rows, BY_FAMILY, RELATIONS, full))
    for part in RELATIONAL:
        add(f"of them: {part}", "", _right(rows, BY_FAMILY, part, full))
    add("spoken commands (the same families)", "85 %", _right(rows, "speech", DIRECT, full))
    for clip in ("quiet", "noisy"):
        add(f"of them: {clip} clips", "", _right(rows, "speech", f"{DIRECT}, {clip}", full))
    add("a screenshot, the instruction spoken", "", _right(rows, "screen+speech", "all", full))
    played = figures["episodes"]["by_kind"]["all"] if figures.get("episodes") else None
    won = None if played is None else Share(round(played["success"] * played["n"]), played["n"])
    add("episodes of up to four steps, the final `finish` counted", "80 %", won)
    return "\n".join([*lines, *certified_aims(figures.get("certified"))])


def _picked(rows: Sequence[Values], **wanted: object) -> list[Values]:
    return [r for r in rows if r["language"] == "both" and all(r[name] == value for name, value in wanted.items())]


def _share(found: Sequence[Values], what: str) -> Share | None:
    total = sum(row["n"] for row in found)
    return Share(sum(round(row[what] * row["n"]) for row in found), total) if total else None


def _right(rows: Sequence[Values], modality: str, family: str, depth: int) -> Share | None:
    return _share(_picked(rows, modality=modality, family=family, depth=depth), "right")


def _agreement(rows: Sequence[Values], depths: Sequence[int]) -> str:
    head = "| modality | n | " + " | ".join(f"depth {depth}" for depth in depths) + " |"
    lines = [head, "|" + "---|" * (len(depths) + 2)]
    found = {(row["modality"], row["depth"]): row for row in rows}
    for modality in (*MODALITIES, BY_FAMILY, "all"):
        if (modality, depths[-1]) in found:
            cells = " | ".join(f"{100 * found[modality, depth]['agree']:.1f} %" for depth in depths)
            lines.append(f"| {modality} | {found[modality, depths[-1]]['n']} | {cells} |")
    return "## Same action as full depth\n\n" + "\n".join(lines)


def _languages(rows: Sequence[Values], depths: Sequence[int]) -> str:
    shown = sorted({depths[0], depths[-1]})
    head = "| modality | language | n | " + " | ".join(f"depth {depth}" for depth in shown) + " | 95 % interval |"
    lines = [head, "|" + "---|" * (len(shown) + 4)]
    found = {(r["modality"], r["language"], r["depth"]): r for r in rows if r["family"] == "all"}
    for modality in MODALITIES:
        for language in ("en", "zh", "both"):
            shares = [
                _share([found[modality, language, d]], "right") for d in shown if (modality, language, d) in found
            ]
            if shares and shares[-1] is not None:
                cells = " | ".join(str(share) for share in shares)
                lines.append(f"| {modality} | {language} | {shares[-1].total} | {cells} | {shares[-1].between} |")
    return "## By modality and language\n\nThe interval is full depth's.\n\n" + "\n".join(lines)


def _word_errors(rows: Sequence[Values]) -> str:
    if not rows:
        return ""
    lines = ["| language | clips | n | word error rate |", "|---|---|---|---|"]
    lines += [f"| {r['language']} | {r['clip']} | {r['clips']} | {100 * r['rate']:.1f} % |" for r in rows]
    about = (
        "What the speech encoder itself spells (every Chinese character is a word). Noisy clips have a room, a band, "
        "noise of 10 to 40 dB, another tempo or gain, as in training (`speech/augment.py`)."
    )
    return f"## Hearing\n\n{about}\n\n" + "\n".join(lines)


def _episodes(episodes: Values | None) -> str:
    if episodes is None:
        return ""
    lines = ["| kind | n | succeeded | right turns | turns |", "|---|---|---|---|---|"]
    for kind, row in episodes["by_kind"].items():
        right = f"{100 * row['right_turns']:.1f} %"
        lines.append(f"| {kind} | {row['n']} | {100 * row['success']:.1f} % | {right} | {row['turns']} |")
    return "## Episodes by kind\n\n" + "\n".join(lines)


def _repeat(made: Mapping[str, Mapping[str, str | None]]) -> str:
    """The commands behind the parts, each with the commit of the code that ran it."""
    lines = [
        f"{made[part]['command']}  # {part}, code at {made[part]['commit'] or 'no commit known'}"
        for part in PARTS
        if part in made
    ]
    return "## Again\n\n```bash\n" + "\n".join(lines) + "\n```"
