"""Right or wrong: answers against their tasks, and figures by modality, family, language and depth."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autoglm_protocol.actions import ActionError, parse_action, same_action
from autoglm_training.evaluation.by_family import BY_FAMILY, RELATIONAL
from autoglm_training.evaluation.held_out import Sample
from autoglm_training.generate import generate
from autoglm_training.loading import LoadedCheckpoint
from autoglm_training.world.tasks import Task

DIRECT_COMMANDS = ("launch", "back", "home", "type", "swipe", "wait", "finish", "identity")
DIRECT, RELATIONS = "direct commands", "relational and chart tasks"
_REPLY = re.compile(r"^<think>(?P<think>.*?)</think><answer>(?P<action>.*)$", re.DOTALL)

Row = Mapping[str, Any]


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
    """(a valid action between its tags, the right one): a tap must fall inside the target, all else be equal.

    Valid is what the protocol's parser, the server's own, accepts.
    """
    match = _REPLY.match(reply)
    if match is None:
        return False, False
    try:
        action = parse_action(match["action"])
    except ActionError:
        return False, False
    wanted = parse_action(task.action)
    if task.target_box is None:
        return True, action == wanted
    if action.name != wanted.name or action.point is None:
        return True, False
    (x, y), (x0, y0, x1, y1) = action.point, task.target_box
    return True, x0 <= x <= x1 and y0 <= y <= y1


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


def _groups(sample: Sample) -> list[str]:
    """The families that a sample counts for: its own, and the totals."""
    task = sample.task
    if sample.modality == BY_FAMILY:  # a mix of our making: what it holds together says nothing
        return [task.family, RELATIONS] if task.family in RELATIONAL else [task.family]
    totals = ["all", "all taps" if task.target_box else "all others"]
    if task.family.split("_")[0] in DIRECT_COMMANDS:
        totals.append(DIRECT)
    if sample.clip is not None:
        totals += [f"{total}, {sample.clip}" for total in totals if total in ("all", DIRECT)]
    return [task.family, *totals]


def group_rows(graded: Iterable[Graded]) -> list[dict[str, object]]:
    """One figure row per (modality, family, language, depth), with totals per modality such as "all"."""
    groups: dict[tuple[str, str, str, int], list[Graded]] = {}
    for item in graded:
        for family in _groups(item.sample):
            for language in (item.sample.task.language, "both"):
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
    """Per modality and depth, the share of requests whose action is full depth's; none where full depth is not there.

    "all" leaves out the tasks by family, which are no mix that anyone sends.
    """
    full = {id(item.sample): item.reply for item in graded if item.depth == num_layers}
    groups: dict[tuple[str, int], list[bool]] = {}
    for item in graded if full else ():
        same = same_action(item.reply, full[id(item.sample)])
        for modality in (item.sample.modality, *(("all",) if item.sample.modality != BY_FAMILY else ())):
            groups.setdefault((modality, item.depth), []).append(same)
    return [
        {"modality": modality, "depth": depth, "n": len(same), "agree": round(sum(same) / len(same), 4)}
        for (modality, depth), same in sorted(groups.items())
    ]


def markdown_table(rows: Sequence[Row], depths: Sequence[int]) -> str:
    """Families by depth, both languages together: right answers in per cent."""
    head = "| modality | family | n | format | " + " | ".join(f"depth {depth}" for depth in depths) + " | chance |"
    lines = [head, "|" + "---|" * (len(depths) + 5)]
    found = {(r["modality"], r["family"], r["depth"]): r for r in rows if r["language"] == "both"}
    for modality, family in sorted({(str(m), str(f)) for m, f, _ in found}):
        per_depth = [found[modality, family, depth] for depth in depths]
        valid, chance = min(float(r["valid"]) for r in per_depth), per_depth[-1]["chance"]
        cells = " | ".join(f"{100 * float(r['right']):.0f} %" for r in per_depth)
        chance_cell = "" if chance is None else f"{100 * float(chance):.1f} %"
        lines.append(f"| {modality} | {family} | {per_depth[0]['n']} | {100 * valid:.0f} % | {cells} | {chance_cell} |")
    return "\n".join(lines)
