"""Teach the decoder to act: text commands first, then screens and speech, growing from the first exit to full depth."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from autoglm_training.config.recipes import EXIT_DEPTHS, TEXT, DecoderStage, Recipe
from autoglm_training.decoder_model import TrainableDecoder
from autoglm_training.draws import PooledDraws
from autoglm_training.loop import Session, Trainer
from autoglm_training.samples import Batch, Row, RowBuilder, collate
from autoglm_training.speech_rows import SpeechRows
from autoglm_training.teacher import Teacher
from autoglm_training.text_rows import text_row
from autoglm_training.tokenizer import load_tokenizer, number_token_ids

POOL_BATCHES = 24
"""Batches drawn together and sorted by length, so that little of a batch is padding."""

SPEECH_SHARE = 0.3


def text_batches(
    builder: RowBuilder, config: DecoderStage, speech: SpeechRows | None, rng: random.Random
) -> list[Batch]:
    """Batches of about `text_tokens` tokens each, rows of like length together, in random order.

    With `speech`, a share of the rows are spoken commands.
    """

    def draw() -> Row:
        if speech is not None and rng.random() < SPEECH_SHARE:
            return speech.row(rng)
        return text_row(builder, rng, "train")

    rows = sorted(
        (draw() for _ in range(POOL_BATCHES * config.text_tokens // 70)),
        key=lambda r: len(r.ids),
    )
    batches, current = [], []
    for row in rows:
        if current and (len(current) + 1) * len(row.ids) > config.text_tokens:
            batches.append(collate(current))
            current = []
        current.append(row)
    batches.append(collate(current))
    rng.shuffle(batches)
    return batches


def train_text(recipe: Recipe, session: Session, teacher: Teacher | None = None) -> None:
    """Text-only commands: `decoder_text.pt`."""
    config = recipe.text
    tokenizer = load_tokenizer(session.run_dir / "tokenizer.json")
    torch.manual_seed(recipe.seed)
    model = TrainableDecoder(number_token_ids(tokenizer), config.objective, teacher)
    trainer = Trainer("text", config, "decoder_text.pt", {"model": model}, session, recipe.seed)
    trainer.restore()
    draw = partial(text_batches, RowBuilder(tokenizer), config, None)
    batches = PooledDraws(draw, recipe.seed, trainer.taken("batches", (0, 0)), session.workers)
    trainer.watch(batches=batches)

    def losses() -> Iterator[Tensor]:
        depth = sampled_depth(trainer.rng, config)
        with model.rounding(), session.autocast():
            yield model.loss(batches.next(), (), depth, config.grown, trainer.meter, "t")
        yield from model.rounding_losses(trainer.meter)

    trainer.run(losses)


def sampled_depth(rng: random.Random, config: DecoderStage) -> int:
    """How deep this step runs."""
    return rng.choices((*EXIT_DEPTHS, TEXT.num_layers), config.depth_weights)[0]
