"""`autoglm evaluate`: fresh held-out samples, greedy answers at every depth, a table, then one JSON line."""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from autoglm_backend.models.certificate import load_certificate
from autoglm_backend.models.config import CheckpointError
from autoglm_backend.models.gates import load_gates
from autoglm_training.evaluation.episodes import Played, play_many, server
from autoglm_training.evaluation.grading import Graded, agreement_rows, answer_all, group_rows, markdown_table
from autoglm_training.evaluation.held_out import Sample, screen_samples, speech_samples, text_samples
from autoglm_training.evaluation.quality_page import write_page
from autoglm_training.evaluation.speech import WordErrors, word_errors
from autoglm_training.exits.calibrate import Answered, CertifiedRuns
from autoglm_training.exits.traffic import prompts, traffic
from autoglm_training.files import save_json
from autoglm_training.loading import LoadedCheckpoint, load_checkpoint
from autoglm_training.samples import RowBuilder

MODALITIES = ("text", "screen", "speech")
MAX_TOKENS = 64


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


def certified_figures(loaded: LoadedCheckpoint, count: int, seed: int) -> dict[str, object] | None:
    """The certificate held against mixed traffic of the test split; None without gates and certificate."""
    certificate = load_certificate(loaded.directory)
    if certificate is None or loaded.exits is None:
        return None
    gates = load_gates(loaded.directory, loaded.config.text.hidden_size, loaded.exits.depths)
    if gates is None:
        return None
    requests = Answered.of(loaded, prompts(traffic(loaded, "test", seed, count)), MAX_TOKENS)
    runs = CertifiedRuns(loaded, loaded.exits, gates, requests, MAX_TOKENS)
    measured = runs.measure(certificate.thresholds)
    return {
        "n": count,
        "mismatches": measured.num_mismatches,
        "delta": certificate.delta,
        "mean_layers": round(measured.mean_layers, 3),
        "num_layers": loaded.config.text.num_layers,
    }


def episode_figures(played: Sequence[Played]) -> dict[str, object]:
    """Success by kind and over all."""
    kinds: dict[str, list[bool]] = {}
    for item in played:
        for kind in (item.episode.kind, "all"):
            kinds.setdefault(kind, []).append(item.success)
    turns, right = sum(item.turns for item in played), sum(item.right_steps for item in played)
    by_kind = {kind: {"n": len(won), "success": round(sum(won) / len(won), 4)} for kind, won in sorted(kinds.items())}
    return {"by_kind": by_kind, "right_turns": round(right / turns, 4)}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="autoglm evaluate", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/autoglm-phone-tiny"))
    parser.add_argument("--samples", type=int, default=200, help="samples of each modality, 0 for none")
    parser.add_argument("--modalities", nargs="+", choices=MODALITIES, default=list(MODALITIES))
    parser.add_argument("--depths", nargs="+", type=int, help="all exits and full depth where not given")
    parser.add_argument("--traffic", type=int, default=0, help="mixed requests to hold the certificate against")
    parser.add_argument("--clips", type=int, default=0, help="spoken commands for the word error rate")
    parser.add_argument("--episodes", type=int, default=0, help="episodes to play through the server at --url")
    parser.add_argument("--url", help="a running server, such as http://127.0.0.1:8000")
    parser.add_argument("--model", default="autoglm-phone-tiny", help="its model's name")
    parser.add_argument("--figures", type=Path, help="add the figures to this file; what was measured before stays")
    parser.add_argument("--page", type=Path, help="also write this page (quality.md) and its plot from all figures")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--show-wrong", type=int, default=0, help="print this many wrong answers of each modality")
    args = parser.parse_args(argv)
    if args.page is not None and not args.samples and args.figures is None:
        parser.error("--page needs figures: measure some, or name their file with --figures")
    if args.episodes and not args.url:
        parser.error("--episodes needs --url: episodes are played through a running server")
    torch.set_num_threads(args.threads)
    try:
        _evaluate(args)
    except (CheckpointError, OSError) as error:
        print(f"autoglm evaluate: {error}", file=sys.stderr)
        return 1
    return 0


def _evaluate(args: argparse.Namespace) -> None:
    started = time.monotonic()
    loaded = load_checkpoint(args.checkpoint)
    depths = args.depths or all_depths(loaded)
    figures: dict[str, Any] = {}
    if args.figures is not None and args.figures.exists():
        figures = json.loads(args.figures.read_text(encoding="utf-8"))

    def keep(**measured: object) -> None:
        """At once: what took minutes must not go with what fails after it."""
        figures.update(measured)
        if args.figures is not None:
            save_json(figures, args.figures)

    if args.episodes:  # first, since only they need a server
        keep(episodes=episode_figures(play_many(server(args.url, args.model), args.episodes, args.seed + 3)))
    if args.samples:
        graded = evaluate(loaded, args.modalities, args.samples, depths, args.seed)
        _show_wrong(graded, args.modalities, depths[-1], args.show_wrong)
        agreement = agreement_rows(graded, depths[-1])
        keep(seed=args.seed, samples=args.samples, rows=group_rows(graded), agreement=agreement)
        print(markdown_table(figures["rows"], depths))
    if args.traffic:
        keep(certified=certified_figures(loaded, args.traffic, args.seed + 1))
    if args.clips:
        errors: list[WordErrors] = word_errors(loaded, args.clips, args.seed + 2)
        keep(word_errors={e.language: {"clips": e.num_clips, "rate": round(e.rate, 4)} for e in errors})
    if args.page is not None:
        write_page(args.page, figures, depths, args.checkpoint.name)
    print(json.dumps({**figures, "seconds": round(time.monotonic() - started, 1)}))


def _show_wrong(graded: Sequence[Graded], modalities: Sequence[str], depth: int, count: int) -> None:
    for modality in modalities:
        wrong = [g for g in graded if not g.right and g.sample.modality == modality and g.depth == depth]
        for item in wrong[:count]:
            task = item.sample.task
            print(f"{modality} {task.family}: {task.instruction} | {task.reply} {task.target_box} | {item.reply}")


if __name__ == "__main__":
    raise SystemExit(main())
