"""Held-out samples of the default checkpoint's modalities: what stands in a prompt, and what the encoder hears."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from autoglm_backend.preprocess.chat_template import load_chat_template
from autoglm_protocol.chat import AudioPart, ChatOptions, ImagePart, Message, Role
from autoglm_training.evaluate import draw_samples
from autoglm_training.evaluation.by_family import PARTS, RELATIONAL, family_samples
from autoglm_training.evaluation.held_out import (
    Sample,
    screen_samples,
    speak,
    speech_samples,
    spoken_screen_samples,
)
from autoglm_training.evaluation.speech import word_errors
from autoglm_training.loading import LoadedCheckpoint, load_checkpoint
from autoglm_training.samples import RowBuilder
from autoglm_training.world.comparison_tasks import compare_prices
from autoglm_training.world.screens import make_screen

needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
TINY = Path("checkpoints/autoglm-phone-tiny")


@pytest.fixture(scope="module")
def loaded() -> LoadedCheckpoint:
    return load_checkpoint(TINY)


@pytest.fixture(scope="module")
def builder(loaded: LoadedCheckpoint) -> RowBuilder:
    return RowBuilder(loaded.tokenizer)


def sentences(samples: list[Sample]) -> list[str]:
    return [sample.task.instruction for sample in samples]


def test_every_part_by_family_has_its_number(loaded: LoadedCheckpoint, builder: RowBuilder) -> None:
    samples = family_samples(builder, loaded, random.Random(1), 2)
    assert Counter(sample.task.family for sample in samples) == {part.name: 2 for part in PARTS}
    assert set(RELATIONAL) < {part.name for part in PARTS}


def test_the_cheapest_and_the_dearest_are_told_apart() -> None:
    rng = random.Random(2)
    cheapest, dearest = (next(p for p in PARTS if p.name == f"tap the {which}") for which in ("cheapest", "dearest"))
    seen: set[tuple[bool, bool]] = set()
    for _ in range(60):
        screen = make_screen(rng, "test", template="shop")
        task = compare_prices(rng, screen, "test")
        if task is None or task.target_box is None:
            continue
        prices = {e.label: e.price for e in screen.elements if e.price is not None}
        price = prices[task.named[0][0]]
        assert cheapest.fits(screen, task) == (price == min(prices.values()))
        assert dearest.fits(screen, task) == (price == max(prices.values()))
        seen.add((cheapest.fits(screen, task), dearest.fits(screen, task)))
    assert seen == {(True, False), (False, True)}


def test_a_natural_mix_asks_about_every_screen_once(loaded: LoadedCheckpoint, builder: RowBuilder) -> None:
    samples = screen_samples(builder, loaded, random.Random(3), 4)
    pictures = {sample.media[0][1].numpy().tobytes() for sample in samples}
    assert len(pictures) == len(samples) == 4


@needs_espeak
def test_half_of_the_clips_are_noisy(loaded: LoadedCheckpoint, builder: RowBuilder) -> None:
    samples = speech_samples(builder, loaded, random.Random(4), 4)
    assert [sample.clip for sample in samples] == ["quiet", "noisy", "quiet", "noisy"]


@needs_espeak
def test_noise_is_another_clip_and_comes_from_the_seed() -> None:
    quiet = speak("go back", random.Random(1), "test", "quiet")
    noisy, again, other = (speak("go back", random.Random(seed), "test", "noisy") for seed in (1, 1, 2))
    assert noisy.tobytes() == again.tobytes()
    assert noisy.tobytes() not in (quiet.tobytes(), other.tobytes())
    assert noisy.dtype == quiet.dtype == np.float32


@needs_espeak
def test_a_spoken_screen_is_the_row_that_the_server_s_template_gives(
    loaded: LoadedCheckpoint, builder: RowBuilder
) -> None:
    (sample,) = spoken_screen_samples(builder, loaded, random.Random(5), 1)
    (_, seen), (_, heard) = sample.media
    message = Message(role=Role.USER, parts=(ImagePart(data=b""), AudioPart(data=b"", format="wav")))
    encoded = load_chat_template(TINY, loaded.config).encode(
        [message], ChatOptions(), image_tokens=[len(seen)], audio_tokens=[len(heard)], context_tokens=4096
    )
    served, ours = encoded.ids.tolist(), sample.row.ids
    newline = served[len(ours) :]
    assert served[: len(ours)] == ours
    assert loaded.tokenizer.decode(newline) in ("", "\n")


def test_a_modality_gives_the_same_samples_alone_and_with_others(loaded: LoadedCheckpoint) -> None:
    alone = draw_samples(loaded, ["screen"], 2, 0, seed=6)
    both = draw_samples(loaded, ["text", "screen"], 2, 0, seed=6)
    assert sentences(both)[2:] == sentences(alone)
    assert sentences(draw_samples(loaded, ["screen"], 2, 0, seed=7)) != sentences(alone)


@needs_espeak
def test_a_deaf_encoder_gets_every_word_wrong_quiet_or_noisy(loaded: LoadedCheckpoint) -> None:
    config = SimpleNamespace(piece_token_ids=[70], num_mels=80)
    deaf: Any = SimpleNamespace(config=config, listen=lambda mel: (None, torch.zeros(1, 1, dtype=torch.long)))
    errors = word_errors(replace(loaded, speech=deaf), 8, seed=1)
    assert {error.rate for error in errors} == {1.0}
    clips = Counter[str]()
    for error in errors:
        clips[error.clip] += error.num_clips
    assert clips == {"quiet": 4, "noisy": 4}


def test_an_encoder_that_spells_nothing_has_no_word_errors(loaded: LoadedCheckpoint) -> None:
    assert word_errors(replace(loaded, speech=None), 2, seed=1) == []
