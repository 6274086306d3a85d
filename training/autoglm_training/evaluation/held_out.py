"""Held-out requests of the phone world: tasks with their rows and media, as the served model gets them."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from autoglm_backend.preprocess.audio import log_mel
from autoglm_backend.preprocess.image import preprocess_image
from autoglm_training.loading import LoadedCheckpoint
from autoglm_training.samples import Row, RowBuilder, first_turn
from autoglm_training.speech.synth import random_voice, synthesise
from autoglm_training.world.elements import Split
from autoglm_training.world.instructions import TEXT_FAMILIES, Task, screen_tasks, text_task
from autoglm_training.world.screens import make_screen, render

TASKS_PER_SCREEN = 4
PHONE_SCALE = 27 / 7
"""Screens are drawn at 1080 pixels' width and go through the server's own preprocessing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    task: Task
    modality: str
    row: Row
    media: tuple[tuple[int, Tensor], ...]


def text_samples(
    builder: RowBuilder, rng: random.Random, count: int, split: Split = "test", *, natural: bool = False
) -> list[Sample]:
    """Text-only commands, every family in turn, or in their natural mix."""
    samples = []
    for index in range(count):
        family = None if natural else TEXT_FAMILIES[index % len(TEXT_FAMILIES)]
        task = text_task(rng, split, family=family)
        row = Row()
        builder.add_text(row, "[gMASK]<sop><|user|>\n" + first_turn(rng, task) + "<|assistant|>\n")
        samples.append(Sample(task=task, modality="text", row=row, media=()))
    return samples


@torch.no_grad()
def screen_samples(
    builder: RowBuilder,
    loaded: LoadedCheckpoint,
    rng: random.Random,
    count: int,
    split: Split = "test",
    *,
    per_screen: int = TASKS_PER_SCREEN,
) -> list[Sample]:
    """Instructions on screenshots, `per_screen` of them on each."""
    samples: list[Sample] = []
    while len(samples) < count:
        screen = make_screen(rng, split)
        patches = preprocess_image(render(screen, PHONE_SCALE).image.convert("RGB"), loaded.image_config)
        embeddings = loaded.vision(torch.from_numpy(patches.patches_PK), [patches.grid])
        for task in screen_tasks(rng, screen, split, per_screen):
            row = Row()
            builder.add_text(row, "[gMASK]<sop><|user|>\n")
            builder.add_image(row, (patches.grid[0] // 2, patches.grid[1] // 2))
            builder.add_text(row, first_turn(rng, task) + "<|assistant|>\n")
            samples.append(Sample(task=task, modality="screen", row=row, media=((builder.image, embeddings),)))
    return samples[:count]


@torch.no_grad()
def speech_samples(
    builder: RowBuilder, loaded: LoadedCheckpoint, rng: random.Random, count: int, split: Split = "test"
) -> list[Sample]:
    """Spoken commands without a screen, in the split's voices."""
    assert loaded.speech is not None
    samples: list[Sample] = []
    while len(samples) < count:
        task = text_task(rng, split)
        if not task.speakable:
            continue
        mel = log_mel(
            synthesise(task.instruction, random_voice(rng, "test" if split == "test" else "train")) / 32768.0,
            loaded.speech.config.num_mels,
        )
        embeddings = loaded.speech(torch.from_numpy(mel)[None])[0]
        row = Row()
        builder.add_text(row, "[gMASK]<sop><|user|>\n")
        builder.add_audio(row, len(embeddings))
        builder.add_text(row, "<|assistant|>\n")
        samples.append(Sample(task=task, modality="speech", row=row, media=((builder.audio, embeddings),)))
    return samples
