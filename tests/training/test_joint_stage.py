"""The joint stage: interrupted and resumed, it ends in the very weights of an uninterrupted run, screens included."""

from __future__ import annotations

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
from autoglm_training.config.recipes import TINY_CPU, VISION, JointStage
from autoglm_training.decoder_model import TrainableDecoder
from autoglm_training.draws import draw_number
from autoglm_training.joint_stage import ScreenPool, draw_fresh, train_joint
from autoglm_training.loop import Session
from autoglm_training.tokenizer import NUM_NUMBERS

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
        train_joint(replace(RECIPE, joint=replace(STAGE, steps=steps)), session, speech_dir=folder / "none")
    return torch.load(folder / "decoder.pt", weights_only=False)["modules"]["model"]


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    shutil.copy(TOKENIZER, whole / "tokenizer.json")
    stage_file(whole / "vision_screens.pt", encoder=VisionEncoder(VISION))
    stage_file(whole / "decoder_text.pt", model=TrainableDecoder(range(NUM_NUMBERS)))
    shutil.copytree(whole, parts)
    expected, resumed = trained(whole, (3,)), trained(parts, (1, 3))
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)


def test_old_screens_are_seen_again_wherever_the_pool_was_begun() -> None:
    """A pool that has just been resumed draws again what it no longer holds."""
    vision = VisionEncoder(VISION).eval()
    draw = partial(draw_fresh, 1)
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
    draw = partial(draw_fresh, count)
    pool = ScreenPool(VisionEncoder(VISION).eval(), draw, 9, 2, Session(run_dir=Path()))
    for number in range(6):
        pool.take(random.Random(number), number, draw_number(draw, 9, number), count)
    assert len(pool._seen) <= 1 + 2 // count
