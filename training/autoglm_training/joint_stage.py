"""The decoder with everything: text, screens through the frozen ViT, speech through the frozen encoder."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from autoglm_backend.models.vision import VisionEncoder
from autoglm_training.checkpoint import load_modules, load_training, save_training
from autoglm_training.config.recipes import JointStage, Recipe
from autoglm_training.decoder_model import TrainableDecoder
from autoglm_training.decoder_stage import sampled_depth, text_batches
from autoglm_training.loop import Meter, apply_gradients, drawn_ahead, make_optimizer
from autoglm_training.samples import Batch, RowBuilder, collate, collate_branches
from autoglm_training.screen_rows import HISTORY_SHARE, label_tokens, later_step_row, screen_row, seen_words
from autoglm_training.screen_targets import ScreenSample, draw_screen
from autoglm_training.speech_rows import SpeechRows
from autoglm_training.tokenizer import number_token_ids
from autoglm_training.vision_stage import load_encoder, still_patches
from autoglm_training.world.elements import Screen

RELOAD_VISION_S = 240.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenScreen:
    screen: Screen
    embeddings_MD: Tensor
    word_token_ids: np.ndarray


@dataclass(slots=True)
class ScreenPool:
    """Screens with their embeddings. The ViT may go on learning in another process: its file is read again when it
    has changed, and the pool begins anew."""

    path: Path
    size: int
    vision: VisionEncoder = field(init=False)
    read_at: float = field(init=False)
    modified: float = field(init=False)
    screens: list[SeenScreen] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._read()

    def _read(self) -> None:
        self.vision = load_encoder(self.path).eval().requires_grad_(False)
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
            height, width, _ = sample.image_HW3.shape
            with torch.autocast("cpu", torch.bfloat16):
                embeddings = self.vision(still_patches(sample.image_HW3[None]), [(height // 14, width // 14)])
            new.append(
                SeenScreen(
                    screen=sample.screen,
                    embeddings_MD=embeddings.to(torch.bfloat16),
                    word_token_ids=sample.word_token_ids,
                )
            )
        old = [rng.choice(self.screens) for _ in range(count - len(new))] if self.screens else []
        self.screens = (self.screens + new)[-self.size :]
        return new + old


def draw_fresh(count: int, rng: random.Random) -> list[ScreenSample]:
    return [draw_screen(rng, "train") for _ in range(count)]


def train_joint(recipe: Recipe, run_dir: Path, speech_dir: Path, resume: bool) -> None:
    """Last stage, from `decoder_text.pt`: `decoder.pt`."""
    config, path = recipe.joint, run_dir / "decoder.pt"
    tokenizer = Tokenizer.from_file(str(run_dir / "tokenizer.json"))
    torch.manual_seed(recipe.seed + 2)
    model = TrainableDecoder(number_token_ids(tokenizer))
    modules: dict[str, nn.Module] = {"model": model}
    builder = RowBuilder(tokenizer)
    speech = SpeechRows.open(speech_dir, recipe.seed, builder)
    optimizer = make_optimizer(list(modules.values()), config)
    step = 0
    if resume and path.exists():
        step = load_training(path, modules, optimizer)["step"]
    else:
        load_modules(run_dir / "decoder_text.pt", {"model": model})
    rng = random.Random(recipe.seed + step)
    texts = drawn_ahead(partial(text_batches, builder, config, speech), recipe.seed + 200 + step)
    screens = drawn_ahead(partial(draw_fresh, config.fresh_screens), recipe.seed + 300 + step)
    pool, table = ScreenPool(run_dir / "vision_screens.pt", config.pool_screens), label_tokens(builder)
    ready: list[Batch] = []
    meter, saved = Meter(), time.monotonic()
    while step < config.steps:
        depth = sampled_depth(rng, config)
        ready = ready or next(texts)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model.loss(ready.pop(), (), depth, config.grown, meter, "t")
        loss.backward()
        _screen_step(model, builder, config, rng, pool, next(screens), table, depth, meter)
        meter.add("norm", apply_gradients(optimizer, config, step))
        step += 1
        if step % config.log_every == 0:
            print("joint", meter.line(step, config.steps), flush=True)
        if time.monotonic() - saved > config.save_every_s:
            save_training(path, modules, optimizer, {"step": step})
            saved = time.monotonic()
    save_training(path, modules, optimizer, {"step": step})
    texts.close()
    screens.close()


def _screen_step(
    model: TrainableDecoder,
    builder: RowBuilder,
    config: JointStage,
    rng: random.Random,
    pool: ScreenPool,
    fresh: list[ScreenSample],
    table: Tensor,
    depth: int,
    meter: Meter,
) -> None:
    taken = pool.take(rng, fresh, config.screens)
    if rng.random() < HISTORY_SHARE:
        batch = collate([later_step_row(builder, rng, seen.screen, "train") for seen in taken])
    else:
        batch = collate_branches([screen_row(builder, rng, seen.screen, "train", config.branches) for seen in taken])
    embeddings = torch.cat([seen.embeddings_MD for seen in taken])
    words = seen_words(batch.ids_BT, builder.image, [seen.word_token_ids for seen in taken], table)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.loss(batch, ((builder.image, embeddings),), depth, config.grown, meter, "s", words)
    (config.screen_weight * loss).backward()
