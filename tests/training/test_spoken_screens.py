"""Instructions about a screen that are spoken: what was heard stands where the typed sentence would."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from autoglm_backend.models.speech import SpeechEncoder
from autoglm_training.config.recipes import SPEECH
from autoglm_training.draws import draw_number
from autoglm_training.joint_stage import draw_fresh
from autoglm_training.samples import RowBuilder
from autoglm_training.screen_rows import screen_row
from autoglm_training.speech import ears
from autoglm_training.speech.ears import Ears
from autoglm_training.speech.synth import SynthesisError, Voice
from autoglm_training.tokenizer import load_tokenizer
from autoglm_training.world.instructions import screen_tasks
from autoglm_training.world.screens import make_screen

BUILDER = RowBuilder(load_tokenizer(Path("checkpoints/autoglm-phone-tiny/tokenizer.json")))
PIECES = 4


@pytest.fixture
def random_ears(monkeypatch: pytest.MonkeyPatch) -> Ears:
    """An untrained encoder of four pieces that hears hisses."""

    def hiss(text: str, voice: Voice) -> NDArray[np.int16]:
        return np.random.default_rng(len(text)).integers(-9_000, 9_000, 6_000 + 200 * len(text), dtype=np.int16)

    monkeypatch.setattr(ears, "synthesise", hiss)
    torch.manual_seed(0)
    encoder = SpeechEncoder(replace(SPEECH, num_pieces=PIECES, piece_token_ids=tuple(range(100, 100 + PIECES))))
    return Ears(encoder.eval().requires_grad_(False), torch.tensor([10, *range(100, 100 + PIECES)]))


def test_a_spoken_branch_holds_what_was_heard_between_the_marks_of_audio() -> None:
    rng = random.Random(1)
    screen = make_screen(rng, "train", template="settings")
    task = screen_tasks(rng, screen, "train", 1)[0]
    row = screen_row(BUILDER, rng, screen, "train", 3, [(task, (101, 102))])
    first, last = BUILDER.encode("<|begin_of_audio|>")[0], BUILDER.encode("<|end_of_audio|>")[0]
    start = row.ids.index(first)
    assert row.ids[start : start + 4] == [first, 101, 102, last]
    assert set(row.segments[start : start + 4]) == {3}, "the spoken one is the last of the three branches"
    assert row.ids.count(first) == 1
    spoken_reply = [token for token, segment, target in zip(row.ids, row.segments, row.targets, strict=True)
                    if segment == 3 and target == token]  # fmt: skip
    assert BUILDER.tokenizer.decode(spoken_reply, skip_special_tokens=False).startswith(task.reply)


def test_fresh_screens_come_with_a_task_that_was_said(random_ears: Ears) -> None:
    samples = [sample for number in range(6) for sample in draw_fresh(1, random_ears, random.Random(number))]
    spoken = [said for sample in samples for said in sample.spoken]
    assert len(spoken) >= 4
    assert all(task.speakable and heard and set(heard) <= {10, 100, 101, 102, 103} for task, heard in spoken)


def test_the_same_draw_hears_the_same(random_ears: Ears) -> None:
    draw = partial(draw_fresh, 2, random_ears)
    first, second = ([sample.spoken for sample in draw_number(draw, 5, 3)] for _ in range(2))
    assert first == second


def test_without_ears_nothing_is_spoken() -> None:
    assert [sample.spoken for sample in draw_fresh(2, None, random.Random(0))] == [(), ()]


def test_a_machine_without_a_voice_is_named_before_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def silent(text: str, voice: Voice) -> NDArray[np.int16]:
        raise SynthesisError("espeak-ng is not installed")

    encoder = SpeechEncoder(SPEECH)
    monkeypatch.setattr(ears, "piece_encoder", lambda folder, tokenizer: (encoder, torch.tensor([10])))
    monkeypatch.setattr(ears, "synthesise", silent)
    with pytest.raises(SynthesisError, match="espeak-ng is not installed"):
        Ears.open(tmp_path, BUILDER.tokenizer)
