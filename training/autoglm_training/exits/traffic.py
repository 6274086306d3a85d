"""Requests of the phone world in their natural mix, for checkpoints that live in it: one independent request each."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from autoglm_training.evaluation.held_out import Sample, screen_samples, speech_samples, text_samples
from autoglm_training.exits.decoding import Prompt
from autoglm_training.loading import LoadedCheckpoint
from autoglm_training.samples import RowBuilder
from autoglm_training.world.elements import Split


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """Shares of the modalities; they need not sum to one."""

    text: float = 0.5
    screen: float = 0.35
    speech: float = 0.15


NATURAL = Mix()


def traffic(loaded: LoadedCheckpoint, split: Split, seed: int, count: int, mix: Mix = NATURAL) -> list[Sample]:
    """`count` independent requests of a split: every screen is asked about once. Speech needs a speech encoder."""
    rng = random.Random(seed)
    builder = RowBuilder(loaded.tokenizer)
    shares = [mix.text, mix.screen, mix.speech if loaded.speech is not None else 0.0]
    kinds = rng.choices(("text", "screen", "speech"), shares, k=count)
    samples = text_samples(builder, rng, kinds.count("text"), split, natural=True)
    samples += screen_samples(builder, loaded, rng, kinds.count("screen"), split, per_screen=1)
    if "speech" in kinds:
        samples += speech_samples(builder, loaded, rng, kinds.count("speech"), split)
    rng.shuffle(samples)
    return samples


def prompts(samples: Sequence[Sample]) -> list[Prompt]:
    """The samples as the reference decoder takes them."""
    return [Prompt(row=sample.row, media=sample.media) for sample in samples]
