"""`autoglm train`: run or resume one stage of a recipe, or all of them."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from autoglm_backend.models.config import CheckpointError
from autoglm_training import history
from autoglm_training.config.recipes import EXIT_DEPTHS, RECIPES, TEXT, DecoderStage, Objective, Recipe
from autoglm_training.decoder_stage import train_text
from autoglm_training.exits.options import seed, whole
from autoglm_training.joint_stage import heard_file, train_joint
from autoglm_training.loop import PRECISIONS, Session
from autoglm_training.progress import open_board
from autoglm_training.screen_stage import train_screens
from autoglm_training.speech.ctc_stage import CTC_FILE, train_ctc
from autoglm_training.speech.heard import TOKENS_FILE
from autoglm_training.speech.token_stage import train_tokens
from autoglm_training.teacher import Teacher
from autoglm_training.tokenizer import load_tokenizer, save_tokenizer_json, train_tokenizer
from autoglm_training.tokenizer_corpus import tokenizer_characters, tokenizer_texts
from autoglm_training.vision_stage import train_crops

STAGES = {
    "crops": ("crops",),
    "screens": ("screens",),
    "vision": ("crops", "screens"),
    "ctc": ("ctc",),
    "tokens": ("tokens",),
    "speech": ("ctc", "tokens"),
    "text": ("text",),
    "joint": ("joint",),
    "decoder": ("text", "joint"),
    "all": ("crops", "screens", "ctc", "tokens", "text", "joint"),
}
FILES = {
    "crops": "vision_crops.pt",
    "screens": "vision_screens.pt",
    "ctc": CTC_FILE,
    "tokens": TOKENS_FILE,
    "text": "decoder_text.pt",
    "joint": "decoder.pt",
}
SPEECH_STAGES = frozenset(STAGES["speech"])
SCHEDULE = ("steps", "peak_lr", "depth_weights")
OBJECTIVE = ("alpha", "beta", "gamma", "temperature", "layer_dropout", "rounds_weights")


def make_tokenizer(recipe: Recipe, path: Path) -> None:
    """Train the run's tokenizer where it has none yet. Raises OSError."""
    if not path.exists():
        tokenizer = train_tokenizer(tokenizer_texts(recipe.seed), tokenizer_characters(), TEXT.vocab_size)
        save_tokenizer_json(tokenizer, path)


def changed(
    recipe: Recipe, stages: Sequence[str], schedule: Mapping[str, object], objective: Mapping[str, object]
) -> Recipe:
    """The recipe with another `schedule` (steps, peak_lr, depth_weights) for `stages`, another objective for decoder
    stages. Raises ValueError."""
    decoders = [name for name in stages if isinstance(getattr(recipe, name), DecoderStage)]
    named = [*objective, *(name for name in ("depth_weights",) if name in schedule)]
    if named and not decoders:
        options = ", ".join("--" + name.replace("_", "-") for name in named)
        raise ValueError(f"{options}: only for the stages text and joint, not {', '.join(stages)}")
    for name in stages:
        stage = getattr(recipe, name)
        if name in decoders:
            stage = replace(stage, objective=replace(stage.objective, **objective))  # type: ignore[arg-type]
        fitting = {key: value for key, value in schedule.items() if name in decoders or key != "depth_weights"}
        recipe = replace(recipe, **{name: replace(stage, **fitting)})
    return recipe


def check_teacher(recipe: Recipe, stages: Sequence[str], teacher_dir: Path | None) -> None:
    """Raises ValueError for a teacher that nobody listens to, or a KL term that has nobody to listen to."""
    decoder_stages = [stage for stage in (getattr(recipe, name) for name in stages) if isinstance(stage, DecoderStage)]
    listens = any(stage.objective.beta for stage in decoder_stages)
    if teacher_dir is not None and not listens:
        raise ValueError("--teacher changes nothing while beta is 0 (its weight in text and joint): give --beta too")
    if listens and teacher_dir is None:
        raise ValueError("--beta is the weight of a teacher: give --teacher too")


def check_files(stages: Sequence[str], session: Session, speech_dir: Path | None) -> None:
    """Refuse before the first step what would be refused after hours. Raises OSError."""
    for stage in stages:
        folder = session.run_dir
        if stage in SPEECH_STAGES:
            assert speech_dir is not None
            folder = speech_dir
        session.may_write(folder / FILES[stage])
    if "joint" in stages and "tokens" not in stages and speech_dir is not None:
        heard_file(speech_dir)


def check_device(name: str) -> None:
    """Raises ValueError for a device that this machine, or this build of torch, does not have."""
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # builds without CUDA assert
        raise ValueError(f"--device {name} cannot be used here: {str(error).splitlines()[0]}") from error


def run(
    recipe: Recipe, stages: Sequence[str], session: Session, speech_dir: Path | None, teacher_dir: Path | None
) -> None:
    """The stages in order, as Python. speech_dir: None trains no speech and no spoken commands.

    Raises OSError, CheckpointError or ValueError.
    """
    stages = [stage for stage in stages if speech_dir is not None or stage not in SPEECH_STAGES]
    check_device(session.device)
    check_teacher(recipe, stages, teacher_dir)
    check_files(stages, session, speech_dir)
    tokenizer_path = session.run_dir / "tokenizer.json"
    make_tokenizer(recipe, tokenizer_path)
    teacher = None
    if teacher_dir is not None:
        teacher = Teacher(teacher_dir, load_tokenizer(tokenizer_path), session.device)
    for stage in stages:
        if stage == "crops":
            train_crops(recipe, session)
        elif stage == "screens":
            train_screens(recipe, session)
        elif stage == "text":
            train_text(recipe, session, teacher)
        elif stage == "joint":
            train_joint(recipe, session, speech_dir, teacher)
        elif speech_dir is not None:
            train = train_ctc if stage == "ctc" else train_tokens
            train(recipe, session, speech_dir)


def above_zero(text: str) -> float:
    """For argparse: a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} must be a number above 0")
    return value


def shares(text: str) -> tuple[float, ...]:
    """One weight for each exit and for full depth, for an option. Raises argparse.ArgumentTypeError."""
    try:
        weights = tuple(float(part) for part in text.split(","))
    except ValueError:
        weights = ()
    if len(weights) != len(EXIT_DEPTHS) + 1 or min(weights) < 0 or not 0 < sum(weights) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} must be {len(EXIT_DEPTHS) + 1} numbers from 0 on, not all 0")
    return weights


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="autoglm train", description=__doc__)
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="tiny-cpu")
    parser.add_argument("--stage", choices=tuple(STAGES), default="all")
    parser.add_argument("--run-dir", type=Path, help="default: runs/ and the recipe's name")
    parser.add_argument("--speech-dir", type=Path, default=Path("runs/speech"), help="clips and speech stages")
    parser.add_argument("--without-speech", action="store_true", help="leave out speech and spoken commands")
    begin = parser.add_mutually_exclusive_group()
    begin.add_argument("--resume", action="store_true", help="go on from the last saved state")
    begin.add_argument("--restart", action="store_true", help="begin anew over the states that are there")
    parser.add_argument("--threads", type=whole, default=2)
    parser.add_argument("--workers", type=whole, default=1, help="processes that draw training data")
    parser.add_argument("--steps", type=whole, help="steps of the stage, instead of the recipe's")
    parser.add_argument("--peak-lr", type=above_zero, help="highest learning rate, instead of the recipe's")
    parser.add_argument(
        "--depth-weights",
        type=shares,
        metavar="W6,W12,W18,W24",
        help="how often a step of text or joint ends at each exit",
    )
    parser.add_argument("--seed", type=seed, help="instead of the recipe's")
    parser.add_argument("--device", help="instead of the recipe's")
    parser.add_argument("--precision", choices=tuple(PRECISIONS), help="instead of the recipe's")
    parser.add_argument("--tensorboard", type=Path, help="folder for TensorBoard (needs the package tensorboard)")
    objective = parser.add_argument_group("objective of the stages text and joint")
    objective.add_argument("--teacher", type=Path, help="a checkpoint with the same tokenizer; needs --beta")
    for name in ("alpha", "beta", "gamma", "temperature", "layer-dropout"):
        objective.add_argument(f"--{name}", type=float, help=f"instead of the recipe's; see `{Objective.__name__}`")
    objective.add_argument("--rounds-weights", action="store_true", default=None, help="train on int8 weights")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    args = arguments().parse_args(argv)
    torch.set_num_threads(args.threads)
    try:
        recipe, stages = RECIPES[args.recipe], STAGES[args.stage]
        if args.without_speech and SPEECH_STAGES.issuperset(stages):
            raise ValueError(f"--without-speech leaves nothing of --stage {args.stage}")
        given = {name: getattr(args, name) for name in OBJECTIVE if getattr(args, name) is not None}
        schedule = {name: getattr(args, name) for name in SCHEDULE if getattr(args, name) is not None}
        recipe = changed(recipe, stages, schedule, given)
        recipe = recipe if args.seed is None else replace(recipe, seed=args.seed)
        session = Session(
            run_dir=args.run_dir or Path("runs") / recipe.name,
            resume=args.resume,
            restart=args.restart,
            device=args.device or recipe.device,
            precision=args.precision or recipe.precision,
            workers=args.workers,
            board=open_board(args.tensorboard),
        )
        began, ended = time.monotonic(), "finished"
        try:
            run(recipe, stages, session, None if args.without_speech else args.speech_dir, args.teacher)
        except BaseException as error:
            ended = f"{type(error).__name__}: {error}"
            raise
        finally:
            if session.ran:
                history.append(argv, recipe, session, time.monotonic() - began, ended)
    except (CheckpointError, ValueError, OSError, torch.OutOfMemoryError) as error:
        print(f"autoglm train: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nautoglm train: interrupted; --resume goes on from the last saved state", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
