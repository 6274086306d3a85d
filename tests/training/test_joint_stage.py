"""The joint stage: interrupted and resumed, it ends in the very weights of an uninterrupted run, screens included."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from autoglm_backend.models.vision import VisionEncoder
from autoglm_training.checkpoint import save_atomically
from autoglm_training.config.recipes import TINY_CPU, VISION, JointStage, Objective
from autoglm_training.decoder_model import TrainableDecoder
from autoglm_training.draws import draw_number
from autoglm_training.export import export_checkpoint
from autoglm_training.joint_stage import ScreenPool, draw_fresh, train_joint
from autoglm_training.loop import Session
from autoglm_training.teacher import Teacher
from autoglm_training.tokenizer import NUM_NUMBERS, load_tokenizer

TOKENIZER = Path("checkpoints/autoglm-phone-tiny/tokenizer.json")
STAGE = JointStage(
    steps=3,
    peak_lr=1e-3,
    final_lr=1e-3,
    warmup_steps=1,
    text_tokens=96,
    grown=True,
    screens=2,
    fresh_screens=1,
    branches=2,
    pool_screens=3,
)
RECIPE = replace(TINY_CPU, joint=STAGE)


def stage_file(path: Path, **modules: nn.Module) -> None:
    states = {name: module.state_dict() for name, module in modules.items()}
    save_atomically({"modules": states, "progress": {"step": 0}}, path)


def trained(folder: Path, stops: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Weights after the steps of `stops`, each reached in a run of its own."""
    for steps in stops:
        session = Session(run_dir=folder, resume=True)
        train_joint(replace(RECIPE, joint=replace(STAGE, steps=steps)), session, speech_dir=None)
    return torch.load(folder / "decoder.pt", weights_only=False)["modules"]["model"]


def begun(folder: Path) -> Path:
    """A run whose other stages are done (random weights)."""
    torch.manual_seed(0)
    folder.mkdir()
    shutil.copy(TOKENIZER, folder / "tokenizer.json")
    stage_file(folder / "vision_screens.pt", encoder=VisionEncoder(VISION))
    stage_file(folder / "decoder_text.pt", model=TrainableDecoder(range(NUM_NUMBERS)))
    return folder


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, parts = begun(tmp_path / "whole"), tmp_path / "parts"
    shutil.copytree(whole, parts)
    expected, resumed = trained(whole, (3,)), trained(parts, (1, 3))
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)


@pytest.fixture(scope="module")
def teacher_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another random checkpoint with the student's tokenizer."""
    torch.manual_seed(9)
    directory = tmp_path_factory.mktemp("teacher") / "checkpoint"
    model = TrainableDecoder(range(NUM_NUMBERS))
    tokenizer = load_tokenizer(TOKENIZER)
    export_checkpoint(directory, tokenizer, model.decoder, model.exits, VisionEncoder(VISION), None)
    return directory


def one_step(folder: Path, objective: Objective, teacher_dir: Path | None = None) -> dict[str, float]:
    """The figures of a single joint step."""
    begun(folder)
    teacher = None if teacher_dir is None else Teacher(teacher_dir, load_tokenizer(TOKENIZER))
    recipe = replace(RECIPE, joint=replace(STAGE, steps=1, objective=objective), precision="fp32")
    train_joint(recipe, Session(run_dir=folder, precision="fp32"), None, teacher)
    return json.loads((folder / "joint.jsonl").read_text(encoding="utf-8"))


def test_a_teacher_and_rounded_weights_both_count_in_a_step(tmp_path: Path, teacher_dir: Path) -> None:
    """Text and screens alike: what the teacher says is learnt, and the forward pass runs on int8 weights."""
    both = one_step(tmp_path / "both", Objective(beta=1.0, rounds_weights=True), teacher_dir)
    exact = one_step(tmp_path / "exact", Objective(beta=1.0), teacher_dir)
    untaught = one_step(tmp_path / "untaught", Objective(rounds_weights=True))
    for modality in "ts":
        assert both[f"{modality}6_told_loss"] > 0
        assert both[f"{modality}6_loss"] == untaught[f"{modality}6_loss"], "the first pass is the same, taught or not"
        assert both[f"{modality}6_loss"] != exact[f"{modality}6_loss"], "rounded weights answer a little differently"
    assert both["norm"] != pytest.approx(untaught["norm"], rel=1e-3), "the teacher is in the gradients"


def test_spoken_commands_that_are_missing_have_to_be_left_out_on_purpose(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="--stage speech first, or train --without-speech"):
        train_joint(RECIPE, Session(run_dir=begun(tmp_path / "run")), tmp_path / "none")


def test_old_screens_are_seen_again_wherever_the_pool_was_begun() -> None:
    """A pool that has just been resumed draws again what it no longer holds."""
    vision = VisionEncoder(VISION).eval()
    draw = partial(draw_fresh, 1, None)
    session = Session(run_dir=Path())
    pools = [ScreenPool(vision, draw, 9, 3, session) for _ in range(2)]
    taken = []
    for pool, first in zip(pools, (0, 3), strict=True):
        for number in range(first, 4):
            taken.append(pool.take(random.Random(number), number, draw_number(draw, 9, number), 3))
    assert [seen.screen for seen in taken[3]] == [seen.screen for seen in taken[4]]
    assert len(taken[0]) == 1, "the first draw has no earlier ones"


@pytest.mark.parametrize("count", [1, 2])
def test_the_pool_forgets_screens_that_are_too_old(count: int) -> None:
    draw = partial(draw_fresh, count, None)
    pool = ScreenPool(VisionEncoder(VISION).eval(), draw, 9, 2, Session(run_dir=Path()))
    for number in range(6):
        pool.take(random.Random(number), number, draw_number(draw, 9, number), count)
    assert len(pool._seen) <= 1 + 2 // count
