"""Teach the ViT to read: characters per patch and words per merged token, on crops first, then on whole screens.

On screens every merged token also learns which element it lies on: word, kind, on/off state and the centre of the
element's tap box. Those heads are thrown away; what they pull into the merged embedding is what the decoder reads.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoglm_backend.models.vision import VisionEncoder
from autoglm_training.checkpoint import load_modules
from autoglm_training.config.recipes import VISION, CropStage, Recipe
from autoglm_training.draws import Draws
from autoglm_training.facts import worth_loss
from autoglm_training.loop import Session, Trainer
from autoglm_training.progress import Meter
from autoglm_training.smooth_codes import smooth_codes
from autoglm_training.world.numbers import NUMBER_CLASSES
from autoglm_training.world.reading import character_vocabulary, label_vocabulary, reading_crop

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
CHAR_BACKGROUND_WEIGHT = 0.1
WORD_BACKGROUND_WEIGHT = 0.15
WORD_LOSS_WEIGHT = 0.5
NUMBER_LOSS_WEIGHT = 1.0
CENTRE_BINS = 64
MEDIA_SCALE = 0.1
POSITION_STD = 0.12
"""Of rows and of columns each; patches have 1 after their norm."""
CENTRE_SIGMA_BINS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingBatch:
    """Pictures of one size with their dense targets.

    images_BHW3 uint8; chars_BRC per patch; words_BRC and numbers_BRC per merged token (0 none in all).
    """

    images_BHW3: np.ndarray
    chars_BRC: np.ndarray
    words_BRC: np.ndarray
    numbers_BRC: np.ndarray


class ReadingHeads(nn.Module):
    def __init__(self, patch_size: int, token_size: int) -> None:
        super().__init__()
        self.characters = nn.Linear(patch_size, len(character_vocabulary()))
        self.words = nn.Linear(token_size, len(label_vocabulary()) + 1)
        self.numbers = nn.Linear(token_size, NUMBER_CLASSES)


def still_patches(images_BHW3: np.ndarray) -> Tensor:
    """Normalised patches [B * P, K] of uint8 pictures, in merge order, the frame doubled (as `preprocess.image`)."""
    pixels = torch.tensor(images_BHW3, dtype=torch.float32)
    pixels = (pixels - torch.tensor(CLIP_MEAN) * 255) / (torch.tensor(CLIP_STD) * 255)
    batch, height, width, _ = pixels.shape
    blocks = pixels.view(batch, height // 28, 2, 14, width // 28, 2, 14, 3)
    patches = blocks.permute(0, 1, 4, 2, 5, 7, 3, 6)[..., None, :, :]
    return patches.expand(*patches.shape[:6], 2, 14, 14).reshape(batch * (height // 14) * (width // 14), -1)


def in_merge_order(grid_BRC: np.ndarray, merge: int = 2) -> Tensor:
    """A per-patch grid [B, R, C] as [B * R * C] in the ViT's patch order."""
    batch, rows, columns = grid_BRC.shape
    blocks = torch.from_numpy(grid_BRC.astype(np.int64)).view(batch, rows // merge, merge, columns // merge, merge)
    return blocks.transpose(2, 3).reshape(-1)


def weighted_cross_entropy(logits: Tensor, targets: Tensor, background_weight: float) -> Tensor:
    """Cross entropy with class 0 (background) weighted down, normalised by the weights."""
    losses = F.cross_entropy(logits.float(), targets, reduction="none")
    weights = torch.where(targets > 0, 1.0, background_weight)
    return (losses * weights).sum() / weights.sum()


def foreground_accuracy(logits: Tensor, targets: Tensor) -> tuple[float, float]:
    """Share of non-background positions that are right, and how many there are."""
    known = targets > 0
    count = float(known.sum())
    return float(((logits.argmax(-1) == targets) & known).sum()) / max(count, 1.0), count


def draw_crops(rng: random.Random, config: CropStage) -> ReadingBatch:
    """One batch of text crops of one size drawn at random."""
    width, height = rng.choice(config.sizes_px)
    count = max(1, config.batch_tokens // (width // 28 * (height // 28)))
    samples = [reading_crop(rng, width, height) for _ in range(count)]
    return ReadingBatch(
        images_BHW3=np.stack([s.image_HW3 for s in samples]),
        chars_BRC=np.stack([s.char_patch_ids for s in samples]),
        words_BRC=np.stack([s.word_token_ids for s in samples]),
        numbers_BRC=np.stack([s.number_token_ids for s in samples]),
    )


def reading_loss(
    encoder: VisionEncoder, heads: ReadingHeads, batch: ReadingBatch, meter: Meter
) -> tuple[Tensor, Tensor]:
    """Character, word and number loss, and the merged embeddings [B * M, D] for further heads."""
    count, height, width, _ = batch.images_BHW3.shape
    device = heads.characters.weight.device
    patches = still_patches(batch.images_BHW3).to(device)
    features_PD = encoder.encode_patches(patches, [(height // 14, width // 14)] * count)
    merged_MD = encoder.merge(features_PD)
    char_targets, word_targets = (
        in_merge_order(batch.chars_BRC).to(device),
        torch.from_numpy(batch.words_BRC.astype(np.int64)).view(-1).to(device),
    )
    char_logits, word_logits = heads.characters(features_PD), heads.words(merged_MD)
    char_loss = weighted_cross_entropy(char_logits, char_targets, CHAR_BACKGROUND_WEIGHT)
    word_loss = weighted_cross_entropy(word_logits, word_targets, WORD_BACKGROUND_WEIGHT)
    meter.tokens += len(merged_MD)
    meter.add("char_loss", float(char_loss.detach()))
    meter.add("word_loss", float(word_loss.detach()))
    meter.add("char_acc", *foreground_accuracy(char_logits, char_targets))
    meter.add("word_acc", *foreground_accuracy(word_logits, word_targets))
    loss = char_loss + WORD_LOSS_WEIGHT * word_loss
    numbers = torch.from_numpy(batch.numbers_BRC.astype(np.int64)).view(-1).to(device)
    written = numbers > 0
    if bool(written.any()):
        number_losses, near = worth_loss(heads.numbers(merged_MD[written]), numbers[written] - 1)
        loss = loss + NUMBER_LOSS_WEIGHT * number_losses.mean()
        meter.add("number_near", float(near.float().mean()), float(written.sum()))
    return loss, merged_MD


def train_crops(recipe: Recipe, session: Session) -> None:
    """Stage one: `vision_crops.pt`."""
    config = recipe.crops
    torch.manual_seed(recipe.seed)
    encoder = VisionEncoder(VISION)
    heads = ReadingHeads(VISION.hidden_size, VISION.out_hidden_size)
    start_quietly(encoder)
    trainer = Trainer("crops", config, "vision_crops.pt", {"encoder": encoder, "heads": heads}, session, recipe.seed)
    trainer.restore()
    batches = Draws(partial(draw_crops, config=config), recipe.seed, trainer.taken("batches", 0), session.workers)
    trainer.watch(batches=batches)

    def losses() -> Iterator[Tensor]:
        batch = batches.next()
        with session.autocast():
            yield reading_loss(encoder, heads, batch, trainer.meter)[0]
        trainer.counts["images"] += len(batch.images_BHW3)

    trainer.run(losses)


@torch.no_grad()
def start_quietly(encoder: VisionEncoder) -> None:
    """Random start: narrow normal weights, and a position grid that says in every cell which row and column it is.

    A random grid is never learnt well enough: after 6,100 screens a linear probe told a token's own height only to
    within 8 % of the screen, and half of all taps missed their row.
    """
    for module in encoder.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d | nn.Embedding):
            module.weight.normal_(0.0, 0.02)
            if not isinstance(module, nn.Embedding) and module.bias is not None:
                module.bias.zero_()
    grid = encoder.embeddings
    rows_SD, columns_SD = (
        smooth_codes(grid.side, encoder.config.hidden_size, shortest=4.0, longest=4.0 * grid.side, seed=seed)
        for seed in (5, 6)
    )
    grid.position_embedding.weight.copy_((rows_SD[:, None] + columns_SD).flatten(0, 1) * POSITION_STD)


@torch.no_grad()
def load_encoder(path: Path) -> VisionEncoder:
    """The trained ViT of a stage's file, its embeddings scaled to the decoder's stream."""
    encoder = VisionEncoder(VISION)
    load_modules(path, {"encoder": encoder})
    # The reading heads pulled the embeddings to a width of 2.5, beside text of 0.05: layers could hardly change them.
    encoder.merger.down_proj.weight.mul_(MEDIA_SCALE)
    return encoder
