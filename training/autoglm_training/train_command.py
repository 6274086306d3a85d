"""`autoglm train`: run or resume one stage of a recipe."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from autoglm_training.config.recipes import RECIPES, TEXT, Recipe
from autoglm_training.decoder_stage import train_text, with_steps
from autoglm_training.joint_stage import train_joint
from autoglm_training.screen_stage import train_screens
from autoglm_training.tokenizer import train_tokenizer
from autoglm_training.tokenizer_corpus import tokenizer_characters, tokenizer_texts
from autoglm_training.vision_stage import train_crops


def make_tokenizer(recipe: Recipe, path: Path) -> None:
    """Train the run's tokenizer where it has none yet."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        tokenizer = train_tokenizer(tokenizer_texts(recipe.seed), tokenizer_characters(), TEXT.vocab_size)
        tokenizer.save(str(path))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="autoglm train", description=__doc__)
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="tiny-cpu")
    parser.add_argument(
        "--stage", choices=("crops", "screens", "vision", "text", "joint", "decoder", "all"), default="all"
    )
    parser.add_argument("--run-dir", type=Path, default=Path("runs/tiny-cpu"))
    parser.add_argument("--speech-dir", type=Path, default=Path("runs/speech"), help="clips of the speech stages")
    parser.add_argument("--resume", action="store_true", help="go on from the last saved state")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, help="steps of the stage, instead of the recipe's")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    recipe = RECIPES[args.recipe]
    make_tokenizer(recipe, args.run_dir / "tokenizer.json")
    if args.stage in ("crops", "vision", "all"):
        crops = replace(recipe.crops, steps=args.steps) if args.steps else recipe.crops
        train_crops(replace(recipe, crops=crops), args.run_dir, args.resume)
    if args.stage in ("screens", "vision", "all"):
        screens = replace(recipe.screens, steps=args.steps) if args.steps else recipe.screens
        train_screens(replace(recipe, screens=screens), args.run_dir, args.resume)
    if args.stage in ("text", "decoder", "all"):
        train_text(replace(recipe, text=with_steps(recipe.text, args.steps)), args.run_dir, args.resume)
    if args.stage in ("joint", "decoder", "all"):
        joint = replace(recipe.joint, steps=args.steps) if args.steps else recipe.joint
        train_joint(replace(recipe, joint=joint), args.run_dir, args.speech_dir, args.resume)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
