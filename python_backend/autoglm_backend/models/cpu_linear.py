"""A matrix product with frozen weights on a CPU, in the forms that torch's libraries offer.

Which one is fastest is measured (engine/kernel_choice.py).

Shape legend: T tokens, K inputs, N outputs.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F


class Linear(Protocol):
    def __call__(self, x_TK: Tensor, /) -> Tensor:
        """x_TK @ weight.T + bias, [T, N] in x's type."""
        ...


class PlainLinear:
    """Weights as the checkpoint has them: the quickest way for one token of a small layer."""

    def __init__(self, weight_NK: Tensor, bias_N: Tensor | None) -> None:
        self.weight_NK = weight_NK
        self.bias_N = bias_N

    def __call__(self, x_TK: Tensor) -> Tensor:
        return F.linear(x_TK, self.weight_NK, self.bias_N)


class PackedLinear:
    """Weights in oneDNN's blocked layout (a copy: the caller drops the original)."""

    def __init__(self, weight_NK: Tensor, bias_N: Tensor | None) -> None:
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight_NK.contiguous(), None)
        self.bias_N = bias_N
        self._run = torch.ops.mkldnn._linear_pointwise.default

    def __call__(self, x_TK: Tensor) -> Tensor:
        return self._run(x_TK, self.packed, self.bias_N, "none", [], "")


class ByTokens:
    """One form for up to `few` tokens, another for more."""

    def __init__(self, few: int, for_few: Linear, for_many: Linear) -> None:
        self.few = few
        self.for_few = for_few
        self.for_many = for_many

    def __call__(self, x_TK: Tensor) -> Tensor:
        return (self.for_few if x_TK.shape[0] <= self.few else self.for_many)(x_TK)
