"""A product whose inputs are spread over ranks: each has a part of the sum."""

from __future__ import annotations

from collections.abc import Callable

import torch.distributed as dist
from torch import Tensor, nn


class RowParallelLinear(nn.Linear):
    """A linear without bias over this rank's inputs; the result is everyone's sum."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(
            linear.in_features, linear.out_features, bias=False, device=linear.weight.device, dtype=linear.weight.dtype
        )

    def forward(self, input: Tensor) -> Tensor:
        return _summed(super().forward(input))


def summed_as(module: nn.Linear, product: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """`product`, another form of the module's, followed by the sum over ranks where the module has one."""
    if not isinstance(module, RowParallelLinear):
        return product
    return lambda x_TK: _summed(product(x_TK))


def _summed(partial: Tensor) -> Tensor:
    dist.all_reduce(partial)
    return partial
