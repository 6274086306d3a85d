"""Held-out requests of the phone world: tasks with their rows and media, as the served model gets them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoglm_backend.preprocess.audio import log_mel
from autoglm_backend.preprocess.image import preprocess_image
from autoglm_training.loading import LoadedCheckpoint
from autoglm_training.samples import Row, RowBuilder, first_turn
from autoglm_training.speech.augment import augment
from autoglm_training.speech.synth import random_voice, synthesise
from autoglm_training.world.elements import Screen, Split
from autoglm_training.world.instructions import TEXT_FAMILIES, Task, screen_tasks, text_task
from autoglm_training.world.screens import make_screen, render

Clip = Literal["quiet", "noisy"]
CLIPS: tuple[Clip, ...] = ("quiet", "noisy")
SPOKEN_SCREEN = "screen+speech"
MODALITIES = ("text", "screen", "speech", SPOKEN_SCREEN)
PHONE_SCALE = 27 / 7
"""Screens are drawn at 1080 pixels' width and go through the server's own preprocessing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A task as a prompt.

    media: (placeholder's token id, embeddings [N, D]) in the order in which they stand in the prompt
    image_grids: rows and columns of each picture in merged tokens
    clip: how the instruction was spoken, None where it was typed
    """

    task: Task
    modality: str
    row: Row
    media: tuple[tuple[int, Tensor], ...]
    image_grids: tuple[tuple[int, int], ...] = ()
    clip: Clip | None = None


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
def look(loaded: LoadedCheckpoint, screen: Screen) -> tuple[Tensor, tuple[int, int]]:
    """A screen's embeddings [N, D], and its rows and columns of merged tokens."""
    patches = preprocess_image(render(screen, PHONE_SCALE).image.convert("RGB"), loaded.image_config)
    merge = loaded.image_config.merge_size
    embeddings = loaded.vision(torch.from_numpy(patches.patches_PK), [patches.grid])
    return embeddings, (patches.grid[0] // merge, patches.grid[1] // merge)


def screen_sample(
    builder: RowBuilder,
    rng: random.Random,
    task: Task,
    seen: tuple[Tensor, tuple[int, int]],
    modality: str = "screen",
) -> Sample:
    """A typed instruction on a screen."""
    embeddings, grid = seen
    row = Row()
    builder.add_text(row, "[gMASK]<sop><|user|>\n")
    builder.add_image(row, grid)
    builder.add_text(row, first_turn(rng, task) + "<|assistant|>\n")
    return Sample(task=task, modality=modality, row=row, media=((builder.image, embeddings),), image_grids=(grid,))


def screen_samples(
    builder: RowBuilder,
    loaded: LoadedCheckpoint,
    rng: random.Random,
    count: int,
    split: Split = "test",
    *,
    per_screen: int = 1,
) -> list[Sample]:
    """Instructions on screenshots in their natural mix, `per_screen` of them on each."""
    samples: list[Sample] = []
    while len(samples) < count:
        screen = make_screen(rng, split)
        seen = look(loaded, screen)
        samples += [screen_sample(builder, rng, task, seen) for task in screen_tasks(rng, screen, split, per_screen)]
    return samples[:count]


def speak(text: str, rng: random.Random, split: Split, clip: Clip) -> NDArray[np.float32]:
    """Samples [T] at 16 kHz in a voice of the split; a noisy clip has a microphone and often a room around it."""
    wave = synthesise(text, random_voice(rng, "test" if split == "test" else "train")) / np.float32(32768)
    return wave if clip == "quiet" else augment(wave, np.random.default_rng(rng.getrandbits(64)))


@torch.no_grad()
def listen(loaded: LoadedCheckpoint, wave_T: NDArray[np.float32]) -> Tensor:
    """A clip's embeddings [N, D]."""
    assert loaded.speech is not None
    return loaded.speech(torch.from_numpy(log_mel(wave_T, loaded.speech.config.num_mels))[None])[0]


def speech_samples(
    builder: RowBuilder, loaded: LoadedCheckpoint, rng: random.Random, count: int, split: Split = "test"
) -> list[Sample]:
    """Spoken commands without a screen, in the split's voices; every second one is noisy."""
    samples: list[Sample] = []
    for index in range(count):
        task = speakable_command(rng, split)
        clip = CLIPS[index % 2]
        embeddings = listen(loaded, speak(task.instruction, rng, split, clip))
        row = Row()
        builder.add_text(row, "[gMASK]<sop><|user|>\n")
        builder.add_audio(row, len(embeddings))
        builder.add_text(row, "<|assistant|>\n")
        media = ((builder.audio, embeddings),)
        samples.append(Sample(task=task, modality="speech", row=row, media=media, clip=clip))
    return samples


def spoken_screen_samples(
    builder: RowBuilder, loaded: LoadedCheckpoint, rng: random.Random, count: int, split: Split = "test"
) -> list[Sample]:
    """A screenshot and then the instruction spoken, in that order: so the server puts plain images and audios."""
    samples: list[Sample] = []
    while len(samples) < count:
        screen = make_screen(rng, split)
        task = next((task for task in screen_tasks(rng, screen, split, 4) if task.speakable), None)
        if task is None:
            continue
        clip = CLIPS[len(samples) % 2]
        seen, grid = look(loaded, screen)
        heard = listen(loaded, speak(task.instruction, rng, split, clip))
        row = Row()
        builder.add_text(row, "[gMASK]<sop><|user|>\n")
        builder.add_image(row, grid)
        builder.add_audio(row, len(heard))
        builder.add_text(row, "<|assistant|>\n")
        media = ((builder.image, seen), (builder.audio, heard))
        samples.append(Sample(task=task, modality=SPOKEN_SCREEN, row=row, media=media, image_grids=(grid,), clip=clip))
    return samples


def speakable_command(rng: random.Random, split: Split) -> Task:
    """A command without a screen that can be spoken."""
    task = text_task(rng, split)
    while not task.speakable:
        task = text_task(rng, split)
    return task
