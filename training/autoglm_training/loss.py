"""Losses of the decoder: every exit answers; coordinates are graded by distance.

A tap five units off is nearly right, so a coordinate's target is a narrow Gaussian over neighbouring number tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from autoglm_training.samples import IGNORE

EXIT_WEIGHTS = {6: 0.3, 12: 0.5, 18: 0.7, 24: 1.0}
POINT_SIGMA = 6.0
"""Width of a coordinate's target, in units of 0..999 (one merged token is 100 by 45)."""


def point_targets(values_N: Tensor, num_numbers: int, sigma: float) -> Tensor:
    """Distributions [N, num_numbers] around true values in 0..num_numbers - 1."""
    numbers = torch.arange(num_numbers, device=values_N.device)
    distance = (numbers[None] - values_N[:, None]) / sigma
    weights = torch.exp(-0.5 * distance**2)
    return weights / weights.sum(-1, keepdim=True)


def answer_loss(
    logits_NV: Tensor, targets_N: Tensor, points_N: Tensor, number_ids: Tensor, value_of_V: Tensor
) -> Tensor:
    """Cross entropy per answer token [N]; where `points_N`, against the Gaussian over number tokens.

    number_ids: tokens of 0..999 in order. value_of_V: the number a token stands for, -1 for other tokens.
    """
    log_probs = F.log_softmax(logits_NV.float(), dim=-1)
    losses = F.nll_loss(log_probs, targets_N, ignore_index=IGNORE, reduction="none")
    if bool(points_N.any()):
        chosen = log_probs[points_N][:, number_ids]
        soft = point_targets(value_of_V[targets_N[points_N]], len(number_ids), POINT_SIGMA)
        losses = losses.masked_scatter(points_N, -(soft * chosen).sum(-1))
    return losses


def exit_weight(depth: int, num_layers: int) -> float:
    """Loss weight of the exit at `depth`."""
    return EXIT_WEIGHTS.get(depth, depth / num_layers)
