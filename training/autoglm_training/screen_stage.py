"""Whole screens for the ViT: reading goes on, and every merged token learns which element it lies on and how that one
stands to the others."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoglm_backend.models.vision import VisionEncoder
from autoglm_training.checkpoint import load_modules
from autoglm_training.config.recipes import VISION, CropStage, Recipe, ScreenStage
from autoglm_training.draws import Draws
from autoglm_training.facts import facts_loss
from autoglm_training.loop import Session, Trainer
from autoglm_training.progress import Meter
from autoglm_training.screen_targets import COMPARED_TEMPLATES, ICONS, KINDS, ScreenSample, draw_screen
from autoglm_training.vision_stage import (
    CENTRE_BINS,
    CENTRE_SIGMA_BINS,
    ReadingBatch,
    ReadingHeads,
    draw_crops,
    foreground_accuracy,
    in_merge_order,
    reading_loss,
    weighted_cross_entropy,
)
from autoglm_training.world.reading import character_vocabulary
from autoglm_training.world.screens import SIZES_PX
from autoglm_training.world.standing import FACT_CLASSES

ELEMENT_BACKGROUND_WEIGHT = 0.2
ELEMENT_LOSS_WEIGHT = 0.3
CENTRE_LOSS_WEIGHT = 1.0
PLACE_LOSS_WEIGHT = 1.0
MERGED_CHARACTER_WEIGHT = 0.5
FACTS_LOSS_WEIGHT = 0.5
_SIZE_WEIGHTS = (12, 2, 2, 2, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScreenBatch:
    """Screens of one size; grids [B, rows, columns] of merged tokens, centres in 0..1 (NaN: no element)."""

    reading: ReadingBatch
    kinds_BRC: np.ndarray
    states_BRC: np.ndarray
    icons_BRC: np.ndarray
    centres_BRC2: np.ndarray
    facts_BRCF: np.ndarray


class ElementHeads(nn.Module):
    """What a merged embedding must tell: kind, state, icon, centre and standing of the element under it, its four
    patches' characters, and its own place, without which nobody can tell where the element is."""

    def __init__(self, token_size: int, merge: int = 2) -> None:
        super().__init__()
        self.kinds = nn.Linear(token_size, len(KINDS) + 1)
        self.states = nn.Linear(token_size, 3)
        self.icons = nn.Linear(token_size, len(ICONS) + 1)
        self.centres = nn.Linear(token_size, 2 * CENTRE_BINS)
        self.places = nn.Linear(token_size, 2 * CENTRE_BINS)
        self.characters = nn.Linear(token_size, merge * merge * len(character_vocabulary()))
        self.facts = nn.Linear(token_size, sum(FACT_CLASSES))


def stack_screens(samples: list[ScreenSample]) -> ScreenBatch:
    return ScreenBatch(
        reading=ReadingBatch(
            images_BHW3=np.stack([s.image_HW3 for s in samples]),
            chars_BRC=np.stack([s.char_patch_ids for s in samples]),
            words_BRC=np.stack([s.word_token_ids for s in samples]),
            numbers_BRC=np.stack([s.number_token_ids for s in samples]),
        ),
        kinds_BRC=np.stack([s.kinds_RC for s in samples]),
        states_BRC=np.stack([s.states_RC for s in samples]),
        icons_BRC=np.stack([s.icons_RC for s in samples]),
        centres_BRC2=np.stack([s.centres_RC2 for s in samples]),
        facts_BRCF=np.stack([s.facts_RCF for s in samples]),
    )


def draw_batch(config: ScreenStage, crops: CropStage, rng: random.Random) -> ScreenBatch | ReadingBatch:
    """Screens of one size, or now and then crops."""
    if rng.random() < config.crop_share:
        return draw_crops(rng, crops)
    size = rng.choices(SIZES_PX, _SIZE_WEIGHTS)[0]
    return stack_screens([_practice_screen(rng, config, size) for _ in range(config.batch_screens)])


def _practice_screen(rng: random.Random, config: ScreenStage, size_px: tuple[int, int]) -> ScreenSample:
    compared = rng.random() < config.compared_share
    return draw_screen(rng, "train", size_px, rng.choice(COMPARED_TEMPLATES) if compared else None)


def centre_loss(logits_M2B: Tensor, centres_M2: Tensor) -> Tensor:
    """Cross entropy against a narrow Gaussian over bins of 0..1; tokens with NaN centres do not count."""
    known = ~centres_M2.isnan().any(-1)
    middle = (torch.arange(CENTRE_BINS, device=logits_M2B.device) + 0.5) / CENTRE_BINS
    distance = (middle - centres_M2[known][..., None]) * CENTRE_BINS / CENTRE_SIGMA_BINS
    weights = torch.exp(-0.5 * distance**2)
    target = weights / weights.sum(-1, keepdim=True)
    return -(target * F.log_softmax(logits_M2B[known].float(), dim=-1)).sum(-1).mean()


def near(logits_M2B: Tensor, wanted_M2: Tensor) -> float:
    """Share of the known points that are told to within 2.5 % of the screen on both axes."""
    known = ~wanted_M2.isnan().any(-1)
    off = (logits_M2B[known].argmax(-1) + 0.5) / CENTRE_BINS - wanted_M2[known]
    return float((off.abs().amax(-1) < 0.025).float().mean())


def own_places(count: int, rows: int, columns: int) -> Tensor:
    """[count * rows * columns, 2]: x and y in 0..1 of every merged token's middle."""
    y, x = torch.meshgrid((torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns, indexing="ij")
    return torch.stack((x, y), dim=-1).view(-1, 2).repeat(count, 1)


def element_loss(heads: ElementHeads, merged_MD: Tensor, batch: ScreenBatch, meter: Meter) -> Tensor:
    """Losses of the merged embeddings' element heads."""
    total = merged_MD.new_zeros((), dtype=torch.float32)
    for name, head, grid in (
        ("kind", heads.kinds, batch.kinds_BRC),
        ("state", heads.states, batch.states_BRC),
        ("icon", heads.icons, batch.icons_BRC),
    ):
        targets = torch.from_numpy(grid).view(-1).to(merged_MD.device)
        logits = head(merged_MD)
        total = total + ELEMENT_LOSS_WEIGHT * weighted_cross_entropy(logits, targets, ELEMENT_BACKGROUND_WEIGHT)
        meter.add(f"{name}_acc", *foreground_accuracy(logits, targets))
    centres = torch.from_numpy(batch.centres_BRC2).view(-1, 2).to(merged_MD.device)
    centre_logits = heads.centres(merged_MD).view(-1, 2, CENTRE_BINS)
    total = total + CENTRE_LOSS_WEIGHT * centre_loss(centre_logits, centres)
    meter.add("centre_near", near(centre_logits, centres))
    places = own_places(*batch.kinds_BRC.shape).to(merged_MD.device)
    place_logits = heads.places(merged_MD).view(-1, 2, CENTRE_BINS)
    total = total + PLACE_LOSS_WEIGHT * centre_loss(place_logits, places)
    meter.add("place_near", near(place_logits, places))
    characters = in_merge_order(batch.reading.chars_BRC).to(merged_MD.device)
    char_logits = heads.characters(merged_MD).view(len(characters), -1)
    total = total + MERGED_CHARACTER_WEIGHT * weighted_cross_entropy(char_logits, characters, 0.1)
    meter.add("merged_char_acc", *foreground_accuracy(char_logits, characters))
    facts_MF = torch.from_numpy(batch.facts_BRCF).flatten(0, 2).to(merged_MD.device) - 1
    fact_logits = heads.facts(merged_MD)
    told, right = facts_loss(fact_logits, facts_MF)
    total = total + FACTS_LOSS_WEIGHT * told
    meter.add("facts_right", float(right))
    extremes = facts_MF[:, -1]
    if bool((extremes >= 0).any()):
        found = fact_logits[:, -FACT_CLASSES[-1] :].argmax(-1) == extremes
        meter.add("extreme_found", float(found[(extremes == 0) | (extremes == 1)].float().mean()))
    return total


def train_screens(recipe: Recipe, session: Session) -> None:
    """Stage two, from `vision_crops.pt`: `vision_screens.pt`."""
    config = recipe.screens
    torch.manual_seed(recipe.seed + 1)
    encoder = VisionEncoder(VISION)
    reading = ReadingHeads(VISION.hidden_size, VISION.out_hidden_size)
    elements = ElementHeads(VISION.out_hidden_size)
    modules: dict[str, nn.Module] = {"encoder": encoder, "heads": reading, "elements": elements}
    trainer = Trainer("screens", config, "vision_screens.pt", modules, session, recipe.seed + 1)
    if not trainer.restore():
        load_modules(session.run_dir / "vision_crops.pt", {"encoder": encoder, "heads": reading}, session.device)
    draw = partial(draw_batch, config, recipe.crops)
    batches = Draws(draw, recipe.seed + 100, trainer.taken("batches", 0), session.workers)
    trainer.watch(batches=batches)

    def losses() -> Iterator[Tensor]:
        batch = batches.next()
        with session.autocast():
            if isinstance(batch, ScreenBatch):
                loss, merged_MD = reading_loss(encoder, reading, batch.reading, trainer.meter)
                trainer.counts["screens"] += len(batch.kinds_BRC)
                yield loss + element_loss(elements, merged_MD, batch, trainer.meter)
            else:
                yield reading_loss(encoder, reading, batch, Meter())[0]

    trainer.run(losses)
