"""The checkpoint's README.md: what it is, what it can do (measured), what it cannot."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoglm_training.evaluation.grading import markdown_table
from autoglm_training.files import save_text


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecord:
    """How the weights came to be. hours: wall clock of all stages on `machine`."""

    command: str
    commit: str
    seed: int
    hours: float
    machine: str
    stages: str


WIDTH = 118
CARD = """---
library_name: transformers
pipeline_tag: image-text-to-text
---
# autoglm-phone-tiny

A very small model with the architecture of GLM-4.1V (and so of AutoGLM-Phone-9B): 24 decoder layers of width 192, a
6-layer vision transformer, exits after 6, 12 and 18 layers (`exits/`), and a speech encoder of our own (`speech/`). It
loads in transformers' `Glm4vForConditionalGeneration`; the two sidecars are this project's. It was trained from random
weights, on a synthetic phone world only, so that the whole serving system can be tried on a laptop. It is no product.

## What it answers
`<think>one short thought</think><answer>do(action="Tap", element=[x,y])</answer>` and the other actions of
AutoGLM, coordinates 0 to 999. Text, a screenshot, or a spoken command (English and Mandarin).

## Measured
Fresh samples of the test split: screens, layouts and **wordings that training never saw**; greedy decoding; a tap
counts when it lies inside the element's tap box (chance: the box's share of the screen). "format" is the lowest share
of well-formed actions over the depths.

{table}

Again: `autoglm evaluate --checkpoint checkpoints/autoglm-phone-tiny --samples {samples} --seed {seed_of_test}`

## How it was made
| | |
|---|---|
| command | `{command}` |
| commit | {commit} |
| seed | {seed} |
| time | {hours:.1f} h on {machine} |
| stages | {stages} |

## Limits
- **System messages are left out** by its chat template: the action list is built in, and a context of long
  instructions would only cost this model accuracy.
- It reads screens of this project's generator, at about 280 x 616 pixels after resizing (220 tokens); real screenshots
  are outside of what it has seen.
- It knows the app names, labels and questions of that world, in English and Simplified Chinese. Wordings far from those
  in training are answered in the right format but often with the wrong action.
- Voices are espeak-ng's; a human voice is outside of what it has heard.
{limits}"""


def write_card(
    directory: Path, table: str, samples: int, test_seed: int, record: TrainingRecord, limits: tuple[str, ...] = ()
) -> None:
    """Write README.md into the checkpoint. Raises OSError."""
    text = CARD.format(
        table=table,
        samples=samples,
        seed_of_test=test_seed,
        command=record.command,
        commit=record.commit,
        seed=record.seed,
        hours=record.hours,
        machine=record.machine,
        stages=record.stages,
        limits="".join(textwrap.fill(f"- {limit}", WIDTH, subsequent_indent="  ") + "\n" for limit in limits),
    )
    save_text(text, directory / "README.md")


def main(argv: Sequence[str] | None = None) -> int:
    """Write a checkpoint's card from the figures of its evaluation."""
    parser = argparse.ArgumentParser(prog="python -m autoglm_training.model_card", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/autoglm-phone-tiny"))
    parser.add_argument("--figures", type=Path, required=True, help="file of `autoglm evaluate --figures`")
    parser.add_argument("--command", default="autoglm train --recipe tiny-cpu --stage all")
    parser.add_argument("--commit", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--hours", type=float, required=True)
    parser.add_argument("--machine", required=True)
    parser.add_argument("--stages", required=True)
    parser.add_argument("--limit", action="append", default=[], help="one more line under Limits")
    args = parser.parse_args(argv)
    figures = json.loads(args.figures.read_text(encoding="utf-8"))
    depths = sorted({row["depth"] for row in figures["rows"]})
    record = TrainingRecord(
        command=args.command,
        commit=args.commit,
        seed=args.seed,
        hours=args.hours,
        machine=args.machine,
        stages=args.stages,
    )
    table = markdown_table(figures["rows"], depths)
    write_card(args.checkpoint, table, figures["samples"], figures["seed"], record, tuple(args.limit))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
