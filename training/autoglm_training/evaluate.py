"""`autoglm evaluate`: fresh held-out samples, greedy answers at every depth, a table, then one JSON line."""

from __future__ import annotations

import argparse
import json
import random
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from autoglm_backend.models.config import CheckpointError
from autoglm_protocol.errors import AutoglmError
from autoglm_training.evaluation.by_family import family_samples
from autoglm_training.evaluation.certified import certified_figures, checked_certificate
from autoglm_training.evaluation.episodes import episode_figures, play_many, server
from autoglm_training.evaluation.figures import Figures
from autoglm_training.evaluation.grading import Graded, agreement_rows, answer_all, group_rows, markdown_table
from autoglm_training.evaluation.held_out import (
    MODALITIES,
    SPOKEN_SCREEN,
    Sample,
    screen_samples,
    speech_samples,
    spoken_screen_samples,
    text_samples,
)
from autoglm_training.evaluation.quality_page import DEVELOPMENT_SEED, PAGE_SEED, write_page
from autoglm_training.evaluation.speech import word_errors
from autoglm_training.loading import LoadedCheckpoint, load_checkpoint
from autoglm_training.samples import RowBuilder
from autoglm_training.speech.synth import SynthesisError


def seed_for(part: str, seed: int) -> int:
    """A seed of its own for every part, so that each gives the same samples with the others and without them."""
    return random.Random(f"{seed}/{part}").getrandbits(48)


def draw_samples(
    loaded: LoadedCheckpoint, modalities: Sequence[str], count: int, per_family: int, seed: int
) -> list[Sample]:
    """`count` fresh samples of each modality, and `per_family` of each family of screen tasks beside the screens."""
    builder = RowBuilder(loaded.tokenizer)

    def rng(part: str) -> random.Random:
        return random.Random(seed_for(part, seed))

    samples: list[Sample] = []
    if "text" in modalities:
        samples += text_samples(builder, rng("text"), count)
    if "screen" in modalities:
        samples += screen_samples(builder, loaded, rng("screen"), count)
        samples += family_samples(builder, loaded, rng("families"), per_family)
    if "speech" in modalities:
        samples += speech_samples(builder, loaded, rng("speech"), count)
    if SPOKEN_SCREEN in modalities:
        samples += spoken_screen_samples(builder, loaded, rng(SPOKEN_SCREEN), count)
    return samples


def all_depths(loaded: LoadedCheckpoint) -> list[int]:
    """The exits' depths and full depth."""
    return [*(loaded.exits.depths if loaded.exits is not None else ()), loaded.decoder.config.num_layers]


def _from(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least}")
        return int(text)

    return number


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="autoglm evaluate", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/autoglm-phone-tiny"))
    parser.add_argument("--samples", type=_from(0), default=200, help="samples of each modality, 0 for none")
    parser.add_argument("--per-family", type=_from(0), default=20, help="of each rarer family of screen tasks, besides")
    parser.add_argument(
        "--modalities", nargs="+", choices=MODALITIES, help="all that the checkpoint has where not given"
    )
    parser.add_argument("--depths", nargs="+", type=_from(1), help="all exits and full depth where not given")
    parser.add_argument(
        "--traffic", type=_from(0), default=0, help="mixed requests to hold certificate and router against"
    )
    parser.add_argument("--clips", type=_from(0), default=0, help="spoken commands for the word error rate")
    parser.add_argument("--episodes", type=_from(0), default=0, help="episodes to play through the server at --url")
    parser.add_argument("--url", help="a running server, such as http://127.0.0.1:8000")
    parser.add_argument("--model", default="autoglm-phone-tiny", help="its model's name")
    parser.add_argument("--figures", type=Path, help="add the figures to this file; what was measured before stays")
    parser.add_argument("--page", type=Path, help="also write this page (quality.md) and its plot from all figures")
    parser.add_argument(
        "--seed",
        type=_from(0),
        help=f"of the samples; {DEVELOPMENT_SEED}, with --page {PAGE_SEED}: a page wants samples that nobody looked at",
    )
    parser.add_argument("--threads", type=_from(1), default=2)
    parser.add_argument("--show-wrong", type=_from(0), default=0, help="print this many wrong answers of each modality")
    args = parser.parse_args(argv)
    if args.seed is None:
        args.seed = DEVELOPMENT_SEED if args.page is None else PAGE_SEED
    if args.page is not None and not args.samples and args.figures is None:
        parser.error("--page needs figures: measure some, or name their file with --figures")
    if args.episodes and not args.url:
        parser.error("--episodes needs --url: episodes are played through a running server")
    torch.set_num_threads(args.threads)
    try:
        _evaluate(args)
    except (CheckpointError, AutoglmError, SynthesisError, ValueError, OSError) as error:
        print(f"autoglm evaluate: {error}", file=sys.stderr)
        return 1
    return 0


def _evaluate(args: argparse.Namespace) -> None:
    started = time.monotonic()
    loaded = load_checkpoint(args.checkpoint)
    depths, modalities = _depths(args, loaded), _modalities(args, loaded)
    figures = Figures.open(args.checkpoint, args.figures, lambda text: print(text, file=sys.stderr))
    if args.page is not None and not args.samples and "rows" not in figures.values:
        raise ValueError(f"--page needs figures, {args.figures} has no rows: measure them with --samples")
    if args.traffic:
        checked_certificate(loaded)  # before minutes of other parts
    if args.episodes:  # first, since only they need a server
        played = play_many(server(args.url, args.model), args.episodes, seed_for("episodes", args.seed))
        command = _command(
            args, f"--samples 0 --episodes {args.episodes} --url {args.url} --model {shlex.quote(args.model)}"
        )
        figures.keep("episodes", command, episodes=episode_figures(played))
    if args.samples:
        samples = draw_samples(loaded, modalities, args.samples, args.per_family, args.seed)
        graded = [item for depth in depths for item in answer_all(loaded, samples, depth)]
        _show_wrong(graded, depths[-1], args.show_wrong)
        full = loaded.config.text.num_layers
        asked = f"--samples {args.samples} --per-family {args.per_family}"
        asked += f" --modalities {' '.join(modalities)}" if args.modalities else ""
        asked += f" --depths {' '.join(map(str, depths))}" if args.depths else ""
        figures.keep(
            "rows",
            _command(args, asked),
            rows=group_rows(graded),
            agreement=agreement_rows(graded, full),
            seed=args.seed,
            samples=args.samples,
            per_family=args.per_family,
        )
        print(markdown_table(figures.values["rows"], depths))
    if args.traffic:
        certified = certified_figures(loaded, args.traffic, seed_for("traffic", args.seed), args.threads)
        figures.keep("certified", _command(args, f"--samples 0 --traffic {args.traffic}"), certified=certified)
    if args.clips:
        errors = word_errors(loaded, args.clips, seed_for("clips", args.seed))
        rows = [
            {"language": e.language, "clip": e.clip, "clips": e.num_clips, "rate": round(e.rate, 4)} for e in errors
        ]
        figures.keep("word_errors", _command(args, f"--samples 0 --clips {args.clips}"), word_errors=rows)
    if args.page is not None:
        if loaded.config.text.num_layers not in {row["depth"] for row in figures.values["rows"]}:
            raise ValueError(f"--page needs full depth, {args.figures} has rows of other depths only")
        write_page(args.page, figures.values)
    print(json.dumps({**figures.values, "seconds": round(time.monotonic() - started, 1)}))


def _depths(args: argparse.Namespace, loaded: LoadedCheckpoint) -> list[int]:
    known = all_depths(loaded)
    depths = sorted(set(args.depths or known))
    unknown = [str(depth) for depth in depths if depth not in known]
    if unknown:
        raise ValueError(f"--depths {' '.join(unknown)}: no exit of {args.checkpoint}, it has {_listed(known)}")
    if args.page is not None and args.samples and known[-1] not in depths:
        raise ValueError(f"--page needs full depth, --depths leaves out {known[-1]}")
    return depths


def _modalities(args: argparse.Namespace, loaded: LoadedCheckpoint) -> list[str]:
    spoken = {"speech", SPOKEN_SCREEN}
    if args.modalities is None:
        return [m for m in MODALITIES if loaded.speech is not None or m not in spoken]
    if loaded.speech is None and spoken & set(args.modalities):
        raise ValueError(f"--modalities {' '.join(args.modalities)}: {args.checkpoint} has no speech encoder")
    return [m for m in MODALITIES if m in args.modalities]


def _listed(depths: Sequence[int]) -> str:
    return ", ".join(map(str, depths))


def _command(args: argparse.Namespace, what: str) -> str:
    """What to type for the same figures; a folder of this machine is of no use to anyone else."""
    checkpoint = args.checkpoint.name if args.checkpoint.is_absolute() else str(args.checkpoint)
    return f"autoglm evaluate --checkpoint {shlex.quote(checkpoint)} {what} --seed {args.seed}"


def _show_wrong(graded: Sequence[Graded], depth: int, count: int) -> None:
    shown: dict[str, int] = {}
    for item in graded:
        modality, task = item.sample.modality, item.sample.task
        if not item.right and item.depth == depth and shown.get(modality, 0) < count:
            shown[modality] = shown.get(modality, 0) + 1
            print(f"{modality} {task.family}: {task.instruction} | {task.reply} {task.target_box} | {item.reply}")


if __name__ == "__main__":
    raise SystemExit(main())
