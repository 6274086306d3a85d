"""Coordinates: graded by distance, and neighbours start alike."""

from __future__ import annotations

import torch

from autoglm_backend.models.vision import VisionEncoder
from autoglm_training.config.recipes import VISION
from autoglm_training.decoder_model import number_codes
from autoglm_training.loss import answer_loss, point_targets
from autoglm_training.vision_stage import start_quietly

NUMBERS = torch.arange(10, 1010)
VALUES = torch.full((1200,), -1)
VALUES[NUMBERS] = torch.arange(1000)


def sure_of(token: int) -> torch.Tensor:
    logits = torch.zeros(1, 1200)
    logits[0, token] = 12.0
    return logits


def test_point_target_is_a_distribution_that_peaks_at_the_value() -> None:
    target = point_targets(torch.tensor([0, 500, 999]), 1000, 6.0)
    torch.testing.assert_close(target.sum(-1), torch.ones(3))
    assert target.argmax(-1).tolist() == [0, 500, 999]


def test_a_near_coordinate_costs_less_than_a_far_one() -> None:
    target, point = torch.tensor([510]), torch.tensor([True])
    near = answer_loss(sure_of(514), target, point, NUMBERS, VALUES)
    far = answer_loss(sure_of(600), target, point, NUMBERS, VALUES)
    assert float(near) < float(far)


def test_other_tokens_get_plain_cross_entropy() -> None:
    logits, target = torch.randn(5, 1200), torch.randint(0, 1200, (5,))
    ours = answer_loss(logits, target, torch.zeros(5, dtype=torch.bool), NUMBERS, VALUES)
    torch.testing.assert_close(ours, torch.nn.functional.cross_entropy(logits, target, reduction="none"))


def test_neighbouring_numbers_start_alike() -> None:
    numbers = torch.nn.functional.normalize(number_codes(), dim=-1)
    assert float(numbers[500] @ numbers[501]) > 0.95 > float(numbers[500] @ numbers[700])


def test_neighbouring_places_of_a_picture_start_alike() -> None:
    encoder = VisionEncoder(VISION)
    start_quietly(encoder)
    grid = encoder.embeddings.position_embedding.weight.detach()
    places = torch.nn.functional.normalize(grid, dim=-1).view(24, 24, -1)
    near = [float(places[12, 12] @ place) for place in (places[13, 12], places[12, 13])]
    far = [float(places[12, 12] @ place) for place in (places[18, 12], places[12, 18])]
    assert min(near) > max(far)
