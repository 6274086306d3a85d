"""The decoder with everything: text, screens through the frozen ViT, speech through the frozen encoder."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from autoglm_backend.models.vision import VisionEncoder
from autoglm_training.checkpoint import load_modules
from autoglm_training.config.recipes import Recipe
from autoglm_training.decoder_model import TrainableDecoder
from autoglm_training.decoder_stage import sampled_depth, text_batches
from autoglm_training.draws import Draws, PooledDraws, draw_number
from autoglm_training.loop import Session, Trainer
from autoglm_training.pointing import pointing
from autoglm_training.samples import Batch, Row, RowBuilder, collate, collate_branches
from autoglm_training.screen_rows import (
    HISTORY_SHARE,
    episode_row,
    label_tokens,
    later_step_row,
    screen_row,
)
from autoglm_training.screen_targets import (
    COMPARED_TEMPLATES,
    ScreenSample,
    SpokenTask,
    draw_episode_screen,
    draw_screen,
)
from autoglm_training.seeing import CentreMaps, StandingMaps, seen_centres, seen_standings, seen_words
from autoglm_training.speech.ears import Ears
from autoglm_training.speech_rows import SpeechRows
from autoglm_training.teacher import Teacher
from autoglm_training.tokenizer import load_tokenizer, number_token_ids
from autoglm_training.vision_stage import load_encoder, still_patches
from autoglm_training.world.elements import Screen
from autoglm_training.world.episodes import Episode
from autoglm_training.world.instructions import screen_tasks

EPISODE_SHARE = 0.35
"""Fresh screens that belong to an episode of several steps."""
COMPARED_SHARE = 0.2
"""Fresh screens that hold prices or bars for certain."""
SCREENS_SEED = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenScreen:
    screen: Screen
    embeddings_MD: Tensor
    word_token_ids: np.ndarray
    centres_RC2: np.ndarray
    facts_RCF: np.ndarray
    names_RC3: np.ndarray
    turn: tuple[Episode, int] | None = None
    spoken: tuple[SpokenTask, ...] = ()
    teacher_MD: Tensor | None = None
    """The picture as the teacher's own encoder sees it."""


@dataclass(slots=True)
class ScreenPool:
    """The last `size` screens with their embeddings, to be asked again.

    A screen is known by its draw's number and its place there: one that a resumed run no longer holds is drawn again.
    """

    vision: VisionEncoder
    draw: Callable[[random.Random], list[ScreenSample]]
    seed: int
    size: int
    session: Session
    teacher: Teacher | None = None
    _seen: dict[int, list[SeenScreen]] = field(default_factory=dict)

    def take(self, rng: random.Random, number: int, fresh: list[ScreenSample], count: int) -> list[SeenScreen]:
        """The fresh screens of draw `number` plus earlier ones, `count` in all (fresh ones only where none is old)."""
        self._seen[number] = [self._see(sample) for sample in fresh]
        first = max(0, number - self.size // max(1, len(fresh)))
        self._seen.pop(first - 1, None)
        new = self._seen[number]
        if first == number:
            return new
        old = [rng.choice(self._again(rng.randrange(first, number))) for _ in range(count - len(new))]
        return new + old

    def _again(self, number: int) -> list[SeenScreen]:
        if number not in self._seen:
            self._seen[number] = [self._see(sample) for sample in draw_number(self.draw, self.seed, number)]
        return self._seen[number]

    @torch.no_grad()
    def _see(self, sample: ScreenSample) -> SeenScreen:
        grids = [(sample.image_HW3.shape[0] // 14, sample.image_HW3.shape[1] // 14)]
        patches = still_patches(sample.image_HW3[None]).to(self.session.device)
        with self.session.autocast():
            embeddings = self.vision(patches, grids)
        return SeenScreen(
            screen=sample.screen,
            embeddings_MD=embeddings.to(torch.bfloat16),
            word_token_ids=sample.word_token_ids,
            centres_RC2=sample.centres_RC2,
            facts_RCF=sample.facts_RCF,
            names_RC3=sample.names_RC3,
            turn=sample.turn,
            spoken=sample.spoken,
            teacher_MD=None if self.teacher is None else self.teacher.vision(patches, grids),
        )


def draw_fresh(count: int, ears: Ears | None, rng: random.Random) -> list[ScreenSample]:
    """Screens of their own and of episodes; with `ears`, each with a task that is said aloud."""
    drawn = [_draw_one(rng) for _ in range(count)]
    return drawn if ears is None else [replace(sample, spoken=_said(sample.screen, ears, rng)) for sample in drawn]


def _draw_one(rng: random.Random) -> ScreenSample:
    kind = rng.random()
    if kind < EPISODE_SHARE:
        return draw_episode_screen(rng, "train")
    compared = kind < EPISODE_SHARE + COMPARED_SHARE
    return draw_screen(rng, "train", template=rng.choice(COMPARED_TEMPLATES) if compared else None)


def _said(screen: Screen, ears: Ears, rng: random.Random) -> tuple[SpokenTask, ...]:
    tasks = [task for task in screen_tasks(rng, screen, "train", 4) if task.speakable][:1]
    return tuple((task, ears.hear(task.instruction, rng)) for task in tasks)


def heard_file(speech_dir: Path) -> Path:
    """What the speech stages heard of the spoken tasks. Raises FileNotFoundError."""
    path = speech_dir / "heard-train.jsonl"
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: run --stage speech first, or train --without-speech")
    return path


def train_joint(recipe: Recipe, session: Session, speech_dir: Path | None, teacher: Teacher | None = None) -> None:
    """Last stage, from `decoder_text.pt` and the finished ViT of `vision_screens.pt`: `decoder.pt`.

    speech_dir: where the speech stages left what they heard; None trains without spoken commands.
    Raises OSError or ValueError.
    """
    config = recipe.joint
    tokenizer = load_tokenizer(session.run_dir / "tokenizer.json")
    torch.manual_seed(recipe.seed + 2)
    model = TrainableDecoder(number_token_ids(tokenizer), config.objective, teacher)
    builder = RowBuilder(tokenizer)
    speech = None if speech_dir is None else SpeechRows.open(heard_file(speech_dir).parent, builder)
    vision = load_encoder(session.run_dir / "vision_screens.pt").to(session.device).eval().requires_grad_(False)
    maps, stand = CentreMaps(), StandingMaps()
    modules: dict[str, nn.Module] = {"model": model, "centres": maps, "standing": stand}
    trainer = Trainer("joint", config, "decoder.pt", modules, session, recipe.seed + 2)
    # Restores torch's random state: whatever draws from it at random must have been built before.
    if not trainer.restore():
        load_modules(session.run_dir / "decoder_text.pt", {"model": model}, session.device)
    ears = None if speech_dir is None else Ears.open(speech_dir, tokenizer)
    draw_texts = partial(text_batches, builder, config, speech)
    draw_screens = partial(draw_fresh, config.fresh_screens, ears)
    texts = PooledDraws(draw_texts, recipe.seed + 200, trainer.taken("texts", (0, 0)))
    screens = Draws(draw_screens, recipe.seed + SCREENS_SEED, trainer.taken("screens", 0), session.workers)
    trainer.watch(texts=texts, screens=screens)
    pool = ScreenPool(vision, draw_screens, recipe.seed + SCREENS_SEED, config.pool_screens, session, teacher)
    table = label_tokens(builder)

    def losses() -> Iterator[Tensor]:
        depth = sampled_depth(trainer.rng, config)
        with model.rounding():
            with session.autocast():
                loss = model.loss(texts.next(), (), depth, config.grown, trainer.meter, "t")
            yield loss
            number = screens.taken
            taken = pool.take(trainer.rng, number, screens.next(), config.screens)
            batch = screen_batch(builder, trainer.rng, taken, config.branches)
            words = seen_words(batch.ids_BT, builder.image, [seen.word_token_ids for seen in taken], table)
            places = seen_centres(batch.ids_BT, builder.image, [seen.centres_RC2 for seen in taken])
            facts, names = [seen.facts_RCF for seen in taken], [seen.names_RC3 for seen in taken]
            standing = seen_standings(batch.ids_BT, builder.image, facts, names, table)
            media = ((builder.image, torch.cat([seen.embeddings_MD for seen in taken])),)
            told = [seen.teacher_MD for seen in taken if seen.teacher_MD is not None]
            teacher_media = ((builder.image, torch.cat(told)),) if told else ()
            taught = pointing(batch, builder.image)
            with session.autocast():
                loss = model.loss(
                    batch,
                    media,
                    depth,
                    config.grown,
                    trainer.meter,
                    "s",
                    words,
                    taught,
                    teacher_media,
                    None if places is None else (maps, places),
                    None if standing is None else (stand, standing),
                )
            yield config.screen_weight * loss
        yield from model.rounding_losses(trainer.meter)

    trainer.run(losses)


def screen_batch(builder: RowBuilder, rng: random.Random, taken: Sequence[SeenScreen], branches: int) -> Batch:
    """First questions about screens, or now and then one later step of each."""
    if rng.random() < HISTORY_SHARE:
        return collate([_later_row(builder, rng, seen) for seen in taken])
    return collate_branches([screen_row(builder, rng, seen.screen, "train", branches, seen.spoken) for seen in taken])


def _later_row(builder: RowBuilder, rng: random.Random, seen: SeenScreen) -> Row:
    if seen.turn is not None:
        return episode_row(builder, *seen.turn, seen.screen)
    return later_step_row(builder, rng, seen.screen, "train")
