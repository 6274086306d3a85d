"""`autoglm train-exits`: exit heads for a frozen GLM-4.1V checkpoint, from prompts that it answers itself."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from autoglm_backend.models.config import CheckpointError
from autoglm_training.exits.files import save_draft_vocabulary, save_exits
from autoglm_training.exits.heads import ExitTraining, default_depths, draft_vocabulary, train_exits
from autoglm_training.exits.prompts import DataError, read_prompts
from autoglm_training.loading import load_checkpoint

DTYPES = ("float32", "bfloat16", "float16")
DEFAULTS = ExitTraining(depths=())


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """What the commands over a checkpoint and a prompt file share."""
    parser.add_argument("--checkpoint", type=Path, required=True, help="any GLM-4.1V directory")
    parser.add_argument("--bad-lines", choices=("refuse", "skip"), default="refuse", help="unreadable lines of --data")
    parser.add_argument("--max-tokens", type=int, default=64, help="longest answer")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="precision of the backbone")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=20261121)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="autoglm train-exits", description=__doc__)
    add_common_arguments(parser)
    parser.add_argument("--data", type=Path, required=True, help="prompts, one JSON object a line")
    parser.add_argument("--depths", type=int, nargs="+", help="default: the checkpoint's exits, else quarters")
    parser.add_argument("--adapter-size", type=int, default=DEFAULTS.adapter_size)
    parser.add_argument("--epochs", type=int, default=DEFAULTS.epochs)
    parser.add_argument("--draft-coverage", type=float, help="also trim the draft vocabulary to this share of tokens")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    try:
        _train(args)
    except (CheckpointError, DataError, ValueError, OSError) as error:
        print(f"autoglm train-exits: {error}", file=sys.stderr)
        return 1
    return 0


def _train(args: argparse.Namespace) -> None:
    loaded = load_checkpoint(args.checkpoint, device=args.device, dtype=getattr(torch, args.dtype))
    prompts = read_prompts(args.data, loaded, skip_bad=args.bad_lines == "skip", say=_warn)
    known = loaded.exits.depths if loaded.exits is not None else None
    config = ExitTraining(
        depths=tuple(args.depths or known or default_depths(loaded.config.text.num_layers)),
        adapter_size=args.adapter_size,
        epochs=args.epochs,
        max_tokens=args.max_tokens,
        seed=args.seed,
    )
    result = train_exits(loaded, prompts, config, _say)
    # Depths by class of request were measured on other heads: they do not survive new ones.
    save_exits(args.checkpoint, result.heads, args.adapter_size)
    for depth in result.heads.depths:
        print(f"exit {depth}: agrees with full depth on {result.before[depth]:.4f} -> {result.after[depth]:.4f}")
    if args.draft_coverage is not None:
        kept = draft_vocabulary(result.answers, loaded.eos_ids, args.draft_coverage)
        save_draft_vocabulary(args.checkpoint, kept)
        print(f"draft vocabulary: {len(kept)} of {loaded.config.text.vocab_size} tokens")


def _say(text: str) -> None:
    print(text, flush=True)


def _warn(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
