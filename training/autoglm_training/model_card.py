"""The checkpoint's README.md: what it is, what it can do (measured), what it cannot."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoglm_training import history
from autoglm_training.evaluation.grading import markdown_table
from autoglm_training.files import save_text


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecord:
    """How the weights came to be. hours: wall clock of all calls on `machine`."""

    commands: tuple[str, ...]
    commit: str
    seed: str
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

Again: `{again}`

## How it was made
| | |
|---|---|
| command | {commands} |
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


def write_card(directory: Path, table: str, again: str, record: TrainingRecord, limits: tuple[str, ...] = ()) -> None:
    """Write README.md into the checkpoint. again: the command that gave the table. Raises OSError."""
    text = CARD.format(
        table=table,
        again=again,
        commands="<br>".join(f"`{command}`" for command in record.commands),
        commit=record.commit,
        seed=record.seed,
        hours=record.hours,
        machine=record.machine,
        stages=record.stages,
        limits="".join(textwrap.fill(f"- {limit}", WIDTH, subsequent_indent="  ") + "\n" for limit in limits),
    )
    save_text(text, directory / "README.md")


def training_record(
    run_dir: Path | None,
    *,
    command: str | None,
    commit: str | None,
    seed: str | None,
    hours: float | None,
    machine: str,
    stages: str | None,
) -> TrainingRecord:
    """What the run's history says; what is given here counts instead. Raises OSError, or ValueError naming a gap."""
    told = None if run_dir is None else history.read(run_dir)
    if told is None:
        wanted = {"--command": command, "--commit": commit, "--seed": seed, "--hours": hours, "--stages": stages}
        missing = [option for option, value in wanted.items() if value is None]
        if missing:
            where = "there is no --run-dir" if run_dir is None else f"{run_dir} has no {history.HISTORY}"
            raise ValueError(f"{where}, so {', '.join(missing)} must be given")
        told = history.Record(commands=(), commits=(), seeds=(), hours=0.0, stages=())
    return TrainingRecord(
        commands=told.commands if command is None else (command,),
        commit=", ".join(told.commits) if commit is None else commit,
        seed=", ".join(map(str, told.seeds)) if seed is None else seed,
        hours=told.hours if hours is None else hours,
        machine=machine,
        stages=", ".join(told.stages) if stages is None else stages,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Write a checkpoint's card from the figures of its evaluation."""
    parser = argparse.ArgumentParser(prog="python -m autoglm_training.model_card", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/autoglm-phone-tiny"))
    parser.add_argument("--figures", type=Path, required=True, help="file of `autoglm evaluate --figures`")
    parser.add_argument("--run-dir", type=Path, help="its history.jsonl tells what is not given below")
    parser.add_argument("--command")
    parser.add_argument("--commit")
    parser.add_argument("--seed")
    parser.add_argument("--hours", type=float)
    parser.add_argument("--machine", required=True)
    parser.add_argument("--stages")
    parser.add_argument("--limit", action="append", default=[], help="one more line under Limits")
    args = parser.parse_args(argv)
    try:
        record = training_record(
            args.run_dir,
            command=args.command,
            commit=args.commit,
            seed=args.seed,
            hours=args.hours,
            machine=args.machine,
            stages=args.stages,
        )
        figures = json.loads(args.figures.read_text(encoding="utf-8"))
        table = markdown_table(figures["rows"], sorted({row["depth"] for row in figures["rows"]}))
        again = figures["made"]["rows"]["command"]
        write_card(args.checkpoint, table, again, record, tuple(args.limit))
    except KeyError as error:
        print(f"model_card: {args.figures} has no {error}", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f"model_card: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
