"""`autoglm evaluate`: fresh held-out samples, greedy answers at every depth, a table, then one JSON line."""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from autoglm_backend.preprocess.audio import log_mel
from autoglm_backend.preprocess.image import preprocess_image
from autoglm_training.generate import generate
from autoglm_training.loading import LoadedCheckpoint, load_checkpoint
from autoglm_training.samples import Row, RowBuilder, first_turn
from autoglm_training.speech.synth import random_voice, synthesise
from autoglm_training.world.instructions import TEXT_FAMILIES, Task, parse_action, screen_tasks, text_task
from autoglm_training.world.screens import make_screen, render

TASKS_PER_SCREEN = 4
MODALITIES = ("text", "screen", "speech")
PHONE_SCALE = 27 / 7
"""Screens are drawn at 1080 pixels' width and go through the server's own preprocessing."""
DIRECT_COMMANDS = ("launch", "back", "home", "type", "swipe", "wait", "finish", "identity")
_REPLY = re.compile(r"^<think>(?P<think>.*?)</think><answer>(?P<action>.*)$", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    task: Task
    modality: str
    row: Row
    media: tuple[tuple[int, Tensor], ...]


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


def text_samples(builder: RowBuilder, rng: random.Random, count: int) -> list[Sample]:
    """Text-only commands, every family in turn."""
    samples = []
    for index in range(count):
        task = text_task(rng, "test", family=TEXT_FAMILIES[index % len(TEXT_FAMILIES)])
        row = Row()
        builder.add_text(row, "[gMASK]<sop><|user|>\n" + first_turn(rng, task) + "<|assistant|>\n")
        samples.append(Sample(task=task, modality="text", row=row, media=()))
    return samples


@torch.no_grad()
def screen_samples(builder: RowBuilder, loaded: LoadedCheckpoint, rng: random.Random, count: int) -> list[Sample]:
    """Instructions on screenshots of held-out screens."""
    samples: list[Sample] = []
    while len(samples) < count:
        screen = make_screen(rng, "test")
        patches = preprocess_image(render(screen, PHONE_SCALE).image.convert("RGB"), loaded.image_config)
        embeddings = loaded.vision(torch.from_numpy(patches.patches_PK), [patches.grid])
        for task in screen_tasks(rng, screen, "test", TASKS_PER_SCREEN):
            row = Row()
            builder.add_text(row, "[gMASK]<sop><|user|>\n")
            builder.add_image(row, (patches.grid[0] // 2, patches.grid[1] // 2))
            builder.add_text(row, first_turn(rng, task) + "<|assistant|>\n")
            samples.append(Sample(task=task, modality="screen", row=row, media=((builder.image, embeddings),)))
    return samples[:count]


@torch.no_grad()
def speech_samples(builder: RowBuilder, loaded: LoadedCheckpoint, rng: random.Random, count: int) -> list[Sample]:
    """Spoken commands without a screen, in held-out voices."""
    assert loaded.speech is not None
    samples: list[Sample] = []
    while len(samples) < count:
        task = text_task(rng, "test")
        if not task.speakable:
            continue
        mel = log_mel(synthesise(task.instruction, random_voice(rng, "test")) / 32768.0, loaded.speech.config.num_mels)
        embeddings = loaded.speech(torch.from_numpy(mel)[None])[0]
        row = Row()
        builder.add_text(row, "[gMASK]<sop><|user|>\n")
        builder.add_audio(row, len(embeddings))
        builder.add_text(row, "<|assistant|>\n")
        samples.append(Sample(task=task, modality="speech", row=row, media=((builder.audio, embeddings),)))
    return samples


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


def evaluate(
    loaded: LoadedCheckpoint, modalities: Sequence[str], count: int, depths: Sequence[int], seed: int
) -> list[Graded]:
    """Answers to `count` fresh samples of each modality at every depth."""
    builder, rng = RowBuilder(loaded.tokenizer), random.Random(seed)
    samples: list[Sample] = []
    if "text" in modalities:
        samples += text_samples(builder, rng, count)
    if "screen" in modalities:
        samples += screen_samples(builder, loaded, rng, count)
    if "speech" in modalities and loaded.speech is not None:
        samples += speech_samples(builder, loaded, rng, count)
    return [item for depth in depths for item in answer_all(loaded, samples, depth)]


def all_depths(loaded: LoadedCheckpoint) -> list[int]:
    """The exits' depths and full depth."""
    return [*(loaded.exits.depths if loaded.exits is not None else ()), loaded.decoder.config.num_layers]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="autoglm evaluate", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/autoglm-phone-tiny"))
    parser.add_argument("--samples", type=int, default=200, help="samples of each modality")
    parser.add_argument("--modalities", nargs="+", choices=MODALITIES, default=list(MODALITIES))
    parser.add_argument("--depths", nargs="+", type=int, help="all exits and full depth where not given")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--show-wrong", type=int, default=0, help="print this many wrong answers of each modality")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    started = time.monotonic()
    loaded = load_checkpoint(args.checkpoint)
    depths = args.depths or all_depths(loaded)
    graded = evaluate(loaded, args.modalities, args.samples, depths, args.seed)
    for modality in args.modalities:
        wrong = [g for g in graded if not g.right and g.sample.modality == modality and g.depth == depths[-1]]
        for item in wrong[: args.show_wrong]:
            task = item.sample.task
            print(f"{modality} {task.family}: {task.instruction} | {task.reply} {task.target_box} | {item.reply}")
    rows = group_rows(graded)
    print(markdown_table(rows, depths))
    print(json.dumps({"seed": args.seed, "seconds": round(time.monotonic() - started, 1), "rows": rows}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
