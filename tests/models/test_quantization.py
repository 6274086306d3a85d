"""Weights in 8 and 4 bits: how far they are from the originals, and that products multiply exactly what is stored."""

import pytest
import torch
from torch import Tensor

from autoglm_backend.models.quantization import (
    INT4_GROUP,
    Int4Linear,
    Int8Linear,
    dequantized_int4,
    quantize_int4,
    quantize_int8,
)


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_an_int8_weight_is_off_by_half_a_level_at_most() -> None:
    weight_NK = normal(48, 128)
    stored = quantize_int8(weight_NK)
    error_NK = (stored.values_NK * stored.scale_N[:, None] - weight_NK).abs()
    assert (error_NK <= 0.5001 * stored.scale_N[:, None]).all()
    assert (stored.scale_N == weight_NK.abs().amax(dim=1) / 127).all()


def test_an_output_without_weights_is_zero_in_int8() -> None:
    stored = quantize_int8(torch.zeros((16, 64)))
    assert not stored.values_NK.any()
    assert Int8Linear(torch.zeros((16, 64)), None)(normal(3, 64)).abs().max() == 0


@pytest.mark.parametrize("tokens", [1, 3, 8, 33])
@pytest.mark.parametrize("biased", [False, True])
def test_an_int8_product_is_that_of_the_stored_integers(tokens: int, biased: bool) -> None:
    weight_NK, x_TK = normal(48, 128), normal(tokens, 128, seed=2)
    bias_N = normal(48, seed=3) if biased else None
    stored = quantize_int8(weight_NK)
    scale_T = x_TK.abs().amax(dim=1) / 127
    integers_TK = (x_TK.double() / scale_T[:, None].double()).round()
    expected = integers_TK @ stored.values_NK.double().T * scale_T[:, None] * stored.scale_N
    got = Int8Linear(weight_NK, bias_N)(x_TK).double()
    expected = expected if bias_N is None else expected + bias_N
    # One input that lies between two levels may be rounded the other way in float32.
    one_level_TN = scale_T[:, None] * weight_NK.abs().amax()
    assert ((got - expected).abs() <= 1.01 * one_level_TN).all()
    assert (got - expected).abs().median() < 1e-5


def test_an_int4_weight_is_off_by_about_half_a_level_at_most() -> None:
    weight_NK = normal(32, 2 * INT4_GROUP)
    groups = weight_NK.unflatten(1, (-1, INT4_GROUP))
    level = (groups.amax(dim=-1) - groups.amin(dim=-1)) / 15
    error = (dequantized_int4(weight_NK) - weight_NK).unflatten(1, (-1, INT4_GROUP)).abs().amax(dim=-1)
    # Scale and centre are kept in bfloat16 (8 bits): the ends of a group lose up to 8 levels' rounding more.
    assert (error <= 0.6 * level).all()


@pytest.mark.parametrize("tokens", [1, 3, 8, 33])
@pytest.mark.parametrize("biased", [False, True])
def test_an_int4_product_is_that_of_the_stored_weights(tokens: int, biased: bool) -> None:
    weight_NK, x_TK = normal(48, 128), normal(tokens, 128, seed=2).to(torch.bfloat16)
    bias_N = normal(48, seed=3).to(torch.bfloat16) if biased else None
    expected = x_TK.double() @ dequantized_int4(weight_NK).double().T
    expected = expected if bias_N is None else expected + bias_N.double()
    got = Int4Linear(weight_NK, bias_N)(x_TK).double()
    assert (got - expected).norm() / expected.norm() < 5e-3  # bfloat16 keeps 8 bits


def test_int4_refuses_inputs_that_its_groups_do_not_divide() -> None:
    with pytest.raises(ValueError, match=f"multiple of {INT4_GROUP}, this one has 100"):
        quantize_int4(normal(16, 100))
