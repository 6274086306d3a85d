"""`autoglm train`: run or resume one stage of a recipe, or all of them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer

from autoglm_backend.models.config import CheckpointError
from autoglm_training.config.recipes import RECIPES, TEXT, DecoderStage, Objective, Recipe
from autoglm_training.decoder_stage import train_text
from autoglm_training.joint_stage import train_joint
from autoglm_training.loop import PRECISIONS, Session
from autoglm_training.progress import open_board
from autoglm_training.screen_stage import train_screens
from autoglm_training.teacher import Teacher
from autoglm_training.tokenizer import train_tokenizer
from autoglm_training.tokenizer_corpus import tokenizer_characters, tokenizer_texts
from autoglm_training.vision_stage import train_crops

STAGES = {
    "crops": ("crops",),
    "screens": ("screens",),
    "vision": ("crops", "screens"),
    "text": ("text",),
    "joint": ("joint",),
    "decoder": ("text", "joint"),
    "all": ("crops", "screens", "text", "joint"),
}


def make_tokenizer(recipe: Recipe, path: Path) -> None:
    """Train the run's tokenizer where it has none yet."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        tokenizer = train_tokenizer(tokenizer_texts(recipe.seed), tokenizer_characters(), TEXT.vocab_size)
        tokenizer.save(str(path))


def changed(
    recipe: Recipe,
    stages: Sequence[str],
    steps: int | None,
    objective: dict[str, object],
    peak_lr: float | None = None,
) -> Recipe:
    """The recipe with other steps and peak for `stages`, another objective for decoder stages. Raises ValueError."""
    for name in stages:
        stage = getattr(recipe, name)
        if steps is not None:
            stage = replace(stage, steps=steps)
        if peak_lr is not None:
            stage = replace(stage, peak_lr=peak_lr)
        if isinstance(stage, DecoderStage):
            stage = replace(stage, objective=replace(stage.objective, **objective))  # type: ignore[arg-type]
        recipe = replace(recipe, **{name: stage})
    return recipe


def run(recipe: Recipe, stages: Sequence[str], session: Session, speech_dir: Path, teacher_dir: Path | None) -> None:
    """The stages in order, as Python. Raises OSError, CheckpointError or ValueError."""
    tokenizer_path = session.run_dir / "tokenizer.json"
    make_tokenizer(recipe, tokenizer_path)
    teacher = None
    if teacher_dir is not None:
        teacher = Teacher(teacher_dir, Tokenizer.from_file(str(tokenizer_path)), session.device)
    for stage in stages:
        if stage == "crops":
            train_crops(recipe, session)
        elif stage == "screens":
            train_screens(recipe, session)
        elif stage == "text":
            train_text(recipe, session, teacher)
        else:
            train_joint(recipe, session, speech_dir, teacher)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="autoglm train", description=__doc__)
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="tiny-cpu")
    parser.add_argument("--stage", choices=tuple(STAGES), default="all")
    parser.add_argument("--run-dir", type=Path, help="default: runs/ and the recipe's name")
    parser.add_argument("--speech-dir", type=Path, default=Path("runs/speech"), help="clips of the speech stages")
    parser.add_argument("--resume", action="store_true", help="go on from the last saved state")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1, help="processes that draw training data")
    parser.add_argument("--steps", type=int, help="steps of the stage, instead of the recipe's")
    parser.add_argument("--peak-lr", type=float, help="highest learning rate of the stage, instead of the recipe's")
    parser.add_argument("--seed", type=int, help="instead of the recipe's")
    parser.add_argument("--device", help="instead of the recipe's")
    parser.add_argument("--precision", choices=tuple(PRECISIONS), help="instead of the recipe's")
    parser.add_argument("--tensorboard", type=Path, help="folder for TensorBoard (needs the package tensorboard)")
    objective = parser.add_argument_group("objective of the decoder stages")
    objective.add_argument("--teacher", type=Path, help="a larger checkpoint with the same tokenizer")
    for name in ("alpha", "beta", "gamma", "temperature", "layer-dropout"):
        objective.add_argument(f"--{name}", type=float, help=f"instead of the recipe's; see `{Objective.__name__}`")
    objective.add_argument("--rounds-weights", action="store_true", default=None, help="train on int8 weights")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    try:
        recipe, stages = RECIPES[args.recipe], STAGES[args.stage]
        names = ("alpha", "beta", "gamma", "temperature", "layer_dropout", "rounds_weights")
        given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
        recipe = changed(recipe, stages, args.steps, given, args.peak_lr)
        recipe = recipe if args.seed is None else replace(recipe, seed=args.seed)
        session = Session(
            run_dir=args.run_dir or Path("runs") / recipe.name,
            resume=args.resume,
            device=args.device or recipe.device,
            precision=args.precision or recipe.precision,
            workers=args.workers,
            board=open_board(args.tensorboard),
        )
        run(recipe, stages, session, args.speech_dir, args.teacher)
    except (CheckpointError, ValueError, OSError) as error:
        print(f"autoglm train: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
