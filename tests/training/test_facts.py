"""How an element's standing is learnt from logits."""

from __future__ import annotations

import torch

from autoglm_training.facts import NEAR, WORTH, facts_loss, worth_loss
from autoglm_training.world.standing import FACT_CLASSES


def logits_for(facts: list[int]) -> torch.Tensor:
    """Logits [1, F] sure of these classes."""
    parts = []
    for count, told in zip(FACT_CLASSES, facts, strict=True):
        parts.append(torch.zeros(count))
        if told >= 0:
            parts[-1][told] = 20.0
    return torch.cat(parts)[None]


def test_facts_that_are_told_right_cost_little_and_count_as_right() -> None:
    facts = [1, -1, -1, -1, 0, -1, 2]
    loss, right = facts_loss(logits_for(facts), torch.tensor([facts]))
    assert float(loss) < 1e-3
    assert float(right) == 1.0


def test_unknown_facts_count_for_nothing() -> None:
    loss, right = facts_loss(torch.randn(2, sum(FACT_CLASSES)), torch.full((2, len(FACT_CLASSES)), -1))
    assert (float(loss), float(right)) == (0.0, 0.0)


def test_one_wrong_fact_of_two_halves_the_share() -> None:
    said, wanted = [1, -1, -1, -1, 0, -1, -1], [2, -1, -1, -1, 0, -1, -1]
    loss, right = facts_loss(logits_for(said), torch.tensor([wanted]))
    assert float(right) == 0.5
    assert float(loss) > 5


def test_a_price_nearly_right_costs_less_than_one_far_off() -> None:
    classes = torch.tensor([40, 40, 40])
    logits = torch.zeros(3, FACT_CLASSES[WORTH])
    for row, told in enumerate((40, 40 + NEAR, 60)):
        logits[row, told] = 8.0
    losses, near = worth_loss(logits, classes)
    assert losses[0] < losses[1] < losses[2]
    assert near.tolist() == [True, True, False]
