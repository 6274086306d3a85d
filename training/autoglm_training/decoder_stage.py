"""Teach the decoder to act: text commands first, then screens and speech, growing from the first exit to full depth."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import nn

from autoglm_training.checkpoint import load_training, save_training
from autoglm_training.config.recipes import EXIT_DEPTHS, TEXT, DecoderStage, Recipe
from autoglm_training.decoder_model import TrainableDecoder
from autoglm_training.loop import Meter, apply_gradients, drawn_ahead, make_optimizer
from autoglm_training.samples import Batch, Row, RowBuilder, collate
from autoglm_training.speech_rows import SpeechRows
from autoglm_training.text_rows import text_row
from autoglm_training.tokenizer import number_token_ids

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


def train_text(recipe: Recipe, run_dir: Path, resume: bool) -> None:
    """Text-only commands: `decoder_text.pt`."""
    config, path = recipe.text, run_dir / "decoder_text.pt"
    tokenizer = Tokenizer.from_file(str(run_dir / "tokenizer.json"))
    torch.manual_seed(recipe.seed)
    model = TrainableDecoder(number_token_ids(tokenizer))
    optimizer = make_optimizer([model], config)
    modules: dict[str, nn.Module] = {"model": model}
    step = 0
    if resume and path.exists():
        step = load_training(path, modules, optimizer)["step"]
    rng = random.Random(recipe.seed + step)
    meter, saved = Meter(), time.monotonic()
    pools = drawn_ahead(partial(text_batches, RowBuilder(tokenizer), config, None), recipe.seed + step)
    ready: list[Batch] = []
    while step < config.steps:
        if not ready:
            ready = next(pools)
        depth = sampled_depth(rng, config)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model.loss(ready.pop(), (), depth, config.grown, meter, "t")
        loss.backward()
        meter.add("norm", apply_gradients(optimizer, config, step))
        step += 1
        if step % config.log_every == 0:
            print("text", meter.line(step, config.steps), flush=True)
        if time.monotonic() - saved > config.save_every_s:
            save_training(path, modules, optimizer, {"step": step})
            saved = time.monotonic()
    save_training(path, modules, optimizer, {"step": step})
    pools.close()


def sampled_depth(rng: random.Random, config: DecoderStage) -> int:
    """How deep this step runs."""
    return rng.choices((*EXIT_DEPTHS, TEXT.num_layers), config.depth_weights)[0]


def with_steps(config: DecoderStage, steps: int | None) -> DecoderStage:
    return replace(config, steps=steps) if steps else config
