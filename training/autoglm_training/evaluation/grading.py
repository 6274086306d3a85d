"""Right or wrong: answers against their tasks, and figures by modality, family, language and depth."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autoglm_protocol.actions import same_action
from autoglm_training.evaluation.held_out import Sample
from autoglm_training.generate import generate
from autoglm_training.loading import LoadedCheckpoint
from autoglm_training.world.instructions import Task, parse_action

DIRECT_COMMANDS = ("launch", "back", "home", "type", "swipe", "wait", "finish", "identity")
_REPLY = re.compile(r"^<think>(?P<think>.*?)</think><answer>(?P<action>.*)$", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Graded:
    """One answer. chance: area of the target box as a share of the screen, None where nothing is tapped."""

    sample: Sample
    depth: int
    reply: str
    valid: bool
    right: bool
    chance: float | None


def grade(task: Task, reply: str) -> tuple[bool, bool]:
    """(answers in the action format, does the right thing): a tap must fall inside the target, all else be equal."""
    match = _REPLY.match(reply)
    if match is None:
        return False, False
    try:
        action = parse_action(match["action"])
    except ValueError:
        return False, False
    wanted = parse_action(task.action)
    if task.target_box is None:
        return True, action == wanted
    point = action.get("element")
    if action.get("action") != wanted.get("action") or not isinstance(point, list) or len(point) != 2:
        return True, False
    x0, y0, x1, y1 = task.target_box
    inside = all(isinstance(value, int) for value in point) and x0 <= point[0] <= x1 and y0 <= point[1] <= y1
    return True, inside


def answer_all(loaded: LoadedCheckpoint, samples: Sequence[Sample], depth: int, batch_size: int = 48) -> list[Graded]:
    """Greedy answers of every sample at one depth."""
    ordered = sorted(samples, key=lambda sample: len(sample.row.ids))
    graded: list[Graded] = []
    for start in range(0, len(ordered), batch_size):
        batch = ordered[start : start + batch_size]
        answers = generate(
            loaded.decoder, loaded.exits, [s.row for s in batch], [s.media for s in batch], depth, loaded.eos_ids
        )
        for sample, ids in zip(batch, answers, strict=True):
            reply = loaded.tokenizer.decode(ids, skip_special_tokens=False)
            valid, right = grade(sample.task, reply)
            graded.append(
                Graded(sample=sample, depth=depth, reply=reply, valid=valid, right=right, chance=_chance(sample.task))
            )
    return graded


def _chance(task: Task) -> float | None:
    if task.target_box is None:
        return None
    x0, y0, x1, y1 = task.target_box
    return (x1 - x0) * (y1 - y0) / 1e6


def group_rows(graded: Iterable[Graded]) -> list[dict[str, object]]:
    """One figure row per (modality, family, language, depth), with totals per modality under family "all"."""
    groups: dict[tuple[str, str, str, int], list[Graded]] = {}
    for item in graded:
        task = item.sample.task
        families = [task.family, "all", "all taps" if task.target_box else "all others"]
        if task.family.split("_")[0] in DIRECT_COMMANDS:
            families.append("direct commands")
        for family in families:
            for language in (task.language, "both"):
                groups.setdefault((item.sample.modality, family, language, item.depth), []).append(item)
    rows: list[dict[str, object]] = []
    for (modality, family, language, depth), items in sorted(groups.items()):
        chances = [item.chance for item in items if item.chance is not None]
        rows.append(
            {
                "modality": modality,
                "family": family,
                "language": language,
                "depth": depth,
                "n": len(items),
                "valid": round(sum(item.valid for item in items) / len(items), 4),
                "right": round(sum(item.right for item in items) / len(items), 4),
                "chance": round(sum(chances) / len(chances), 4) if chances else None,
            }
        )
    return rows


def agreement_rows(graded: Sequence[Graded], num_layers: int) -> list[dict[str, object]]:
    """Per modality and depth, the share of requests whose action is full depth's."""
    full = {id(item.sample): item.reply for item in graded if item.depth == num_layers}
    groups: dict[tuple[str, int], list[bool]] = {}
    for item in graded:
        same = same_action(item.reply, full[id(item.sample)])
        for modality in (item.sample.modality, "all"):
            groups.setdefault((modality, item.depth), []).append(same)
    return [
        {"modality": modality, "depth": depth, "n": len(same), "agree": round(sum(same) / len(same), 4)}
        for (modality, depth), same in sorted(groups.items())
    ]


def markdown_table(rows: Sequence[dict[str, object]], depths: Sequence[int]) -> str:
    """Families by depth, both languages together: right answers in per cent."""
    head = "| modality | family | n | format | " + " | ".join(f"depth {depth}" for depth in depths) + " | chance |"
    lines = [head, "|" + "---|" * (len(depths) + 5)]
    found = {(r["modality"], r["family"], r["depth"]): r for r in rows if r["language"] == "both"}
    for modality, family in sorted({(str(m), str(f)) for m, f, _ in found}):
        per_depth = [found[modality, family, depth] for depth in depths]
        valid, chance = min(float(str(r["valid"])) for r in per_depth), per_depth[-1]["chance"]
        cells = " | ".join(f"{100 * float(str(r['right'])):.0f} %" for r in per_depth)
        chance_cell = "" if chance is None else f"{100 * float(str(chance)):.1f} %"
        lines.append(f"| {modality} | {family} | {per_depth[0]['n']} | {100 * valid:.0f} % | {cells} | {chance_cell} |")
    return "\n".join(lines)
