"""How well logits tell an element's `Standing`; the vision tower and the decoder's first layers both learn it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from autoglm_training.loss import point_targets
from autoglm_training.world.standing import FACT_CLASSES

WORTH = 5
"""The one fact of `FACT_CLASSES` whose neighbouring classes are alike."""
WORTH_SIGMA = 1.5
NEAR = 2


def worth_loss(logits_NC: Tensor, classes_N: Tensor) -> tuple[Tensor, Tensor]:
    """(cross entropy [N] against a Gaussian around the class, whether the likeliest class is at most NEAR off [N])."""
    target = point_targets(classes_N, logits_NC.shape[-1], WORTH_SIGMA)
    losses = -(target * F.log_softmax(logits_NC.float(), dim=-1)).sum(-1)
    return losses, (logits_NC.argmax(-1) - classes_N).abs() <= NEAR


def facts_loss(logits_NF: Tensor, facts_NF: Tensor) -> tuple[Tensor, Tensor]:
    """(mean loss, share told right) of the facts that are known.

    logits_NF: all facts' classes side by side; facts_NF: classes from 0 on, -1 where there is none.
    """
    total, right = logits_NF.new_zeros((), dtype=torch.float32), logits_NF.new_zeros((), dtype=torch.float32)
    for fact, (logits_NC, told_N) in enumerate(zip(logits_NF.split(FACT_CLASSES, -1), facts_NF.T, strict=True)):
        known = told_N >= 0
        if not bool(known.any()):
            continue
        logits_NC, told_N = logits_NC[known].float(), told_N[known]
        if fact == WORTH:
            losses_N, right_N = worth_loss(logits_NC, told_N)
        else:
            losses_N, right_N = F.cross_entropy(logits_NC, told_N, reduction="none"), logits_NC.argmax(-1) == told_N
        total, right = total + losses_N.sum(), right + right_N.sum()
    known = (facts_NF >= 0).sum().clamp(min=1)
    return total / known, right.detach() / known
