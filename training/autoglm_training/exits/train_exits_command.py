"""`autoglm train-exits`: exit heads for a frozen GLM-4.1V checkpoint, from prompts that it answers itself."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from autoglm_backend.models.certificate import CERTIFICATE_JSON
from autoglm_backend.models.config import CheckpointError, TextConfig, load_model_config
from autoglm_training.exits.files import save_draft_vocabulary, save_exits
from autoglm_training.exits.heads import ExitTraining, default_depths, draft_vocabulary, train_exits
from autoglm_training.exits.options import add_common_arguments, share, whole
from autoglm_training.exits.prompts import DataError, read_prompts
from autoglm_training.loading import load_checkpoint

DEFAULTS = ExitTraining(depths=())


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="autoglm train-exits", description=__doc__)
    add_common_arguments(parser)
    parser.add_argument("--data", type=Path, required=True, help="prompts, one JSON object a line")
    parser.add_argument("--depths", type=whole, nargs="+", help="default: the checkpoint's exits, else quarters")
    parser.add_argument("--adapter-size", type=whole, default=DEFAULTS.adapter_size)
    parser.add_argument("--epochs", type=whole, default=DEFAULTS.epochs)
    parser.add_argument("--draft-coverage", type=share, help="also trim the draft vocabulary to this share of tokens")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    try:
        _train(args)
    except (CheckpointError, DataError, ValueError, OSError) as error:
        print(f"autoglm train-exits: {error}", file=sys.stderr)
        return 1
    return 0


def _train(args: argparse.Namespace) -> None:
    asked = _asked_depths(args, load_model_config(args.checkpoint).text)
    loaded = load_checkpoint(args.checkpoint, device=args.device, dtype=getattr(torch, args.dtype))
    prompts = read_prompts(args.data, loaded, skip_bad=args.bad_lines == "skip", say=_warn)
    known = loaded.exits.depths if loaded.exits is not None else None
    config = ExitTraining(
        depths=asked or known or default_depths(loaded.config.text.num_layers),
        adapter_size=args.adapter_size,
        epochs=args.epochs,
        max_tokens=args.max_tokens,
        seed=args.seed,
    )
    result = train_exits(loaded, prompts, config, _say)
    # Depths by class of request were measured on other heads: they do not survive new ones.
    save_exits(args.checkpoint, result.heads, args.adapter_size)
    if (args.checkpoint / "exits" / CERTIFICATE_JSON).exists():
        _warn("the certificate here was made for other exits and is refused: `autoglm calibrate` makes a new one")
    for depth in result.heads.depths:
        print(f"exit {depth}: agrees with full depth on {result.before[depth]:.4f} -> {result.after[depth]:.4f}")
    if args.draft_coverage is not None:
        kept = draft_vocabulary(result.answers, loaded.eos_ids, args.draft_coverage)
        save_draft_vocabulary(args.checkpoint, kept)
        print(f"draft vocabulary: {len(kept)} of {loaded.config.text.vocab_size} tokens")


def _asked_depths(args: argparse.Namespace, text: TextConfig) -> tuple[int, ...]:
    """Depths as asked, none for the default. Raises ValueError."""
    depths = sorted(args.depths or ())
    for depth in depths:
        if depths.count(depth) > 1:
            raise ValueError(f"--depths names {depth} twice")
    if depths and depths[-1] >= text.num_layers:
        raise ValueError(f"--depths names {depths[-1]}, an exit must lie between 1 and {text.num_layers - 1} layers")
    if text.num_layers < 2:
        raise ValueError(f"{args.checkpoint}: a decoder of one layer has no place for an exit")
    return tuple(depths)


def _say(text: str) -> None:
    print(text, flush=True)


def _warn(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
