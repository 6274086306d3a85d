"""The decoder with everything: text, screens through the frozen ViT, speech through the frozen encoder."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from autoglm_backend.models.vision import VisionEncoder
from autoglm_training.checkpoint import load_modules
from autoglm_training.config.recipes import Recipe
from autoglm_training.decoder_model import TrainableDecoder
from autoglm_training.decoder_stage import sampled_depth, text_batches
from autoglm_training.draws import Draws, PooledDraws
from autoglm_training.loop import Session, Trainer
from autoglm_training.pointing import pointing
from autoglm_training.samples import Batch, Row, RowBuilder, collate, collate_branches
from autoglm_training.screen_rows import (
    HISTORY_SHARE,
    episode_row,
    label_tokens,
    later_step_row,
    screen_row,
    seen_words,
)
from autoglm_training.screen_targets import ScreenSample, draw_episode_screen, draw_screen
from autoglm_training.speech_rows import SpeechRows
from autoglm_training.teacher import Teacher
from autoglm_training.tokenizer import number_token_ids
from autoglm_training.vision_stage import load_encoder, still_patches
from autoglm_training.world.elements import Screen
from autoglm_training.world.episodes import Episode

RELOAD_VISION_S = 240.0
EPISODE_SHARE = 0.4
"""Fresh screens that belong to an episode of several steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenScreen:
    screen: Screen
    embeddings_MD: Tensor
    word_token_ids: np.ndarray
    turn: tuple[Episode, int] | None = None
    teacher_MD: Tensor | None = None
    """The picture as the teacher's own encoder sees it."""


@dataclass(slots=True)
class ScreenPool:
    """Screens with their embeddings. The ViT may go on learning in another process: its file is read again when it
    has changed, and the pool begins anew."""

    path: Path
    size: int
    session: Session
    teacher: Teacher | None = None
    vision: VisionEncoder = field(init=False)
    read_at: float = field(init=False)
    modified: float = field(init=False)
    screens: list[SeenScreen] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._read()

    def _read(self) -> None:
        self.vision = load_encoder(self.path).to(self.session.device).eval().requires_grad_(False)
        self.modified, self.read_at = self.path.stat().st_mtime, time.monotonic()
        self.screens.clear()

    @torch.no_grad()
    def take(self, rng: random.Random, fresh: list[ScreenSample], count: int) -> list[SeenScreen]:
        """The fresh screens plus earlier ones, `count` in all."""
        if time.monotonic() - self.read_at > RELOAD_VISION_S:
            self.read_at = time.monotonic()
            if self.path.stat().st_mtime != self.modified:
                self._read()
        new: list[SeenScreen] = []
        for sample in fresh:
            grids = [(sample.image_HW3.shape[0] // 14, sample.image_HW3.shape[1] // 14)]
            patches = still_patches(sample.image_HW3[None]).to(self.session.device)
            with self.session.autocast():
                embeddings = self.vision(patches, grids)
            new.append(
                SeenScreen(
                    screen=sample.screen,
                    embeddings_MD=embeddings.to(torch.bfloat16),
                    word_token_ids=sample.word_token_ids,
                    turn=sample.turn,
                    teacher_MD=None if self.teacher is None else self.teacher.vision(patches, grids),
                )
            )
        old = [rng.choice(self.screens) for _ in range(count - len(new))] if self.screens else []
        self.screens = (self.screens + new)[-self.size :]
        return new + old


def draw_fresh(count: int, rng: random.Random) -> list[ScreenSample]:
    return [
        draw_episode_screen(rng, "train") if rng.random() < EPISODE_SHARE else draw_screen(rng, "train")
        for _ in range(count)
    ]


def train_joint(recipe: Recipe, session: Session, speech_dir: Path, teacher: Teacher | None = None) -> None:
    """Last stage, from `decoder_text.pt`: `decoder.pt`. A resumed run begins its pool of earlier screens anew."""
    config = recipe.joint
    tokenizer = Tokenizer.from_file(str(session.run_dir / "tokenizer.json"))
    torch.manual_seed(recipe.seed + 2)
    model = TrainableDecoder(number_token_ids(tokenizer), config.objective, teacher)
    builder = RowBuilder(tokenizer)
    speech = SpeechRows.open(speech_dir, builder)
    trainer = Trainer("joint", config, "decoder.pt", {"model": model}, session, recipe.seed + 2)
    if not trainer.restore():
        load_modules(session.run_dir / "decoder_text.pt", {"model": model}, session.device)
    draw_texts, draw_screens = partial(text_batches, builder, config, speech), partial(draw_fresh, config.fresh_screens)
    texts = PooledDraws(draw_texts, recipe.seed + 200, trainer.taken("texts", (0, 0)))
    screens = Draws(draw_screens, recipe.seed + 300, trainer.taken("screens", 0), session.workers)
    trainer.watch(texts=texts, screens=screens)
    pool = ScreenPool(session.run_dir / "vision_screens.pt", config.pool_screens, session, teacher)
    table = label_tokens(builder)

    def losses() -> Iterator[Tensor]:
        depth = sampled_depth(trainer.rng, config)
        with model.rounding():
            with session.autocast():
                loss = model.loss(texts.next(), (), depth, config.grown, trainer.meter, "t")
            yield loss
            taken = pool.take(trainer.rng, screens.next(), config.screens)
            batch = screen_batch(builder, trainer.rng, taken, config.branches)
            words = seen_words(batch.ids_BT, builder.image, [seen.word_token_ids for seen in taken], table)
            media = ((builder.image, torch.cat([seen.embeddings_MD for seen in taken])),)
            told = [seen.teacher_MD for seen in taken if seen.teacher_MD is not None]
            teacher_media = ((builder.image, torch.cat(told)),) if told else ()
            taught = pointing(batch, builder.image)
            with session.autocast():
                loss = model.loss(batch, media, depth, config.grown, trainer.meter, "s", words, taught, teacher_media)
            yield config.screen_weight * loss
        yield from model.rounding_losses(trainer.meter)

    trainer.run(losses)


def screen_batch(builder: RowBuilder, rng: random.Random, taken: Sequence[SeenScreen], branches: int) -> Batch:
    """First questions about screens, or now and then one later step of each."""
    if rng.random() < HISTORY_SHARE:
        return collate([_later_row(builder, rng, seen) for seen in taken])
    return collate_branches([screen_row(builder, rng, seen.screen, "train", branches) for seen in taken])


def _later_row(builder: RowBuilder, rng: random.Random, seen: SeenScreen) -> Row:
    if seen.turn is not None:
        return episode_row(builder, *seen.turn, seen.screen)
    return later_step_row(builder, rng, seen.screen, "train")
