"""Training that expects its weights to be rounded: forward and backward run on int8 weights, steps on the exact ones.

That is the straight-through estimator: gradients at the rounded weights move the weights that are rounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from autoglm_backend.models.quantization import quantize_int8


@torch.no_grad()
def rounded(weight_OI: Tensor) -> Tensor:
    """The weights as serving in int8 would have them."""
    stored = quantize_int8(weight_OI)
    return (stored.values_NK * stored.scale_N[:, None]).to(weight_OI.dtype)


def quantized_weights(module: nn.Module) -> list[Tensor]:
    """The weights that serving would round: those of linear layers (a tied head counts as the embedding it is)."""
    return [layer.weight for layer in module.modules() if isinstance(layer, nn.Linear)]


@contextmanager
def rounded_weights(module: nn.Module) -> Iterator[None]:
    """Inside, the module's linear layers hold rounded weights; gradients land on the exact parameters."""
    exact = [(weight, weight.data) for weight in quantized_weights(module)]
    for weight, data in exact:
        weight.data = rounded(data)
    try:
        yield
    finally:
        for weight, data in exact:
            weight.data = data


def rounding_error(module: nn.Module) -> Tensor:
    """Mean over layers of |W - rounded(W)|^2 / |W|^2; its gradient pulls weights towards their rounded values."""
    errors = [
        (weight - rounded(weight)).square().sum() / weight.detach().square().sum().clamp(min=1e-12)
        for weight in quantized_weights(module)
    ]
    return torch.stack(errors).mean()
