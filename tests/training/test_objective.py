"""The decoder's joint objective: pointing, distillation, rounded weights, left-out layers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from autoglm_training.config.recipes import TEXT, Objective
from autoglm_training.decoder_model import TrainableDecoder
from autoglm_training.pointing import Pointing, pointing, pointing_loss
from autoglm_training.progress import Meter
from autoglm_training.quantization_aware import quantized_weights, rounded, rounded_weights, rounding_error
from autoglm_training.samples import Row, add_picture, add_tokens, collate
from autoglm_training.teacher import distillation_loss

IMAGE = 5


def pointing_row(box: tuple[int, int, int, int]) -> Row:
    """A picture of two by two tokens, one word, and a coordinate that must hit `box`."""
    row = Row()
    add_picture(row, IMAGE, (2, 2))
    add_tokens(row, [7, 8])
    row.targets[-1], row.points[-1], row.boxes[-1] = 8, True, box
    return row


@pytest.mark.parametrize(
    ("box", "cells"),
    [((0, 0, 400, 400), [0]), ((600, 600, 900, 900), [3]), ((0, 0, 1000, 400), [0, 1]), ((480, 10, 520, 60), [0, 1])],
)
def test_the_cells_of_the_box_are_to_be_looked_at(box: tuple[int, int, int, int], cells: list[int]) -> None:
    taught = pointing(collate([pointing_row(box)]), IMAGE)
    assert taught is not None
    assert taught.columns_N.tolist() == [4], "the token before the coordinate writes it"
    assert np.nonzero(taught.inside_NT[0].numpy())[0].tolist() == cells


def test_nothing_is_taught_where_nothing_is_tapped() -> None:
    row = Row()
    add_tokens(row, [1, 2, 3])
    assert pointing(collate([row]), IMAGE) is None


def test_attention_on_the_box_costs_nothing_and_elsewhere_much() -> None:
    visible, inside = torch.ones(1, 3, dtype=torch.bool), torch.tensor([[True, False, False]])
    taught = Pointing(rows_N=torch.tensor([0]), columns_N=torch.tensor([2]), visible_NT=visible, inside_NT=inside)
    queries = torch.zeros(1, 3, 6, 4)
    queries[0, 2, :, 0] = 40.0
    keys = torch.zeros(1, 3, 2, 4)
    keys[0, 0, :, 0] = 1.0
    right, mass = pointing_loss(queries, keys, taught)
    wrong, _ = pointing_loss(-queries, keys, taught)
    assert float(right) < 1e-3 < 5 < float(wrong)
    assert float(mass) > 0.99


def test_a_student_like_its_teacher_has_nothing_to_learn() -> None:
    logits = torch.randn(6, 11, generator=torch.Generator().manual_seed(1))
    assert float(distillation_loss(logits, logits + 3.0, 2.0)) == pytest.approx(0.0, abs=1e-5)
    assert float(distillation_loss(logits, -logits, 2.0)) > 0.1


def test_rounded_weights_have_255_levels_a_row_and_keep_the_largest() -> None:
    weight = torch.randn(4, 500, generator=torch.Generator().manual_seed(1))
    grid = rounded(weight)
    assert all(len(row.unique()) <= 255 for row in grid)
    torch.testing.assert_close(grid.abs().amax(1), weight.abs().amax(1))
    torch.testing.assert_close(rounded(grid), grid)


def test_gradients_at_rounded_weights_land_on_the_exact_ones() -> None:
    layer = nn.Linear(3, 2, bias=False)
    exact = layer.weight.detach().clone()
    with rounded_weights(layer):
        assert not torch.equal(layer.weight, exact)
        layer(torch.ones(1, 3)).sum().backward()
    torch.testing.assert_close(layer.weight.detach(), exact, rtol=0, atol=0)
    torch.testing.assert_close(layer.weight.grad, torch.ones(2, 3))


def test_the_pull_of_rounding_ends_on_the_grid() -> None:
    layer = nn.Linear(8, 8, bias=False)
    before = float(rounding_error(layer).detach())
    for weight in quantized_weights(layer):
        weight.data = rounded(weight.data)
    assert float(rounding_error(layer).detach()) < 1e-3 * before


def text_loss(objective: Objective, *, training: bool = True) -> float:
    torch.manual_seed(3)
    model = TrainableDecoder(range(1000), objective).train(training)
    row = Row()
    add_tokens(row, [1500, 1501, 1502, 1503])
    row.targets[2:] = row.ids[2:]
    torch.manual_seed(4)
    return float(model.loss(collate([row]), (), TEXT.num_layers, True, Meter(), "t").detach())


def test_alpha_scales_the_answers_loss() -> None:
    whole, half = (text_loss(Objective(alpha=alpha), training=False) for alpha in (1.0, 0.5))
    assert half == pytest.approx(whole / 2, rel=1e-5)


def test_layers_are_left_out_in_training_only() -> None:
    dropped = Objective(layer_dropout=0.9)
    assert text_loss(dropped) != pytest.approx(text_loss(Objective()), abs=1e-7)
    assert text_loss(dropped, training=False) == text_loss(Objective(), training=False)


def test_distillation_without_a_teacher_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a teacher"):
        TrainableDecoder(range(1000), Objective(beta=0.5))


@pytest.mark.parametrize("wrong", [{"alpha": -1.0}, {"temperature": 0.0}, {"layer_dropout": 1.0}])
def test_senseless_objectives_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(Objective(), **wrong)
