"""Weights in 8 and 4 bits, and the products that take them on a CPU.

int8: one scale per output, and one per token for the inputs. Sums are exact integers, so a token's result does not
depend on which others share its step. int4: groups of inputs share a scale and an offset; inputs stay as they are.

Shape legend: T tokens, K inputs, N outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from autoglm_backend.models import cpu_kernels
from autoglm_backend.models.cpu_product import FEW_TOKENS, FewTokens, check_layout, has_vnni, int8_product

INT4_GROUP = 64
"""Inputs that share a scale."""
ZERO_POINT = 128
"""oneDNN's quick path takes unsigned inputs: they are stored shifted by this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8Weight:
    values_NK: Tensor
    """int8, within +-127."""
    scale_N: Tensor
    """float32: weight = values * scale."""


def quantize_int8(weight_NK: Tensor) -> Int8Weight:
    """Round to the nearest of 255 levels, symmetric, a scale per output."""
    wide_NK = weight_NK.float()
    scale_N = (wide_NK.abs().amax(dim=1) / 127).clamp_min(torch.finfo(torch.float32).tiny)
    values_NK = (wide_NK / scale_N[:, None]).round_().clamp_(-127, 127).to(torch.int8)
    return Int8Weight(values_NK=values_NK, scale_N=scale_N)


class Int8Linear:
    """8-bit inputs times 8-bit weights: a few tokens in our own kernel where the CPU has VNNI, more in oneDNN."""

    def __init__(self, weight_NK: Tensor, bias_N: Tensor | None, *, streamed: bool = True) -> None:
        # streamed: False leaves all to oneDNN.
        weight = quantize_int8(weight_NK)
        self.packed = torch.ops.onednn.qlinear_prepack(weight.values_NK, None)
        self.scale_N = weight.scale_N
        self.zero_N = torch.zeros(len(weight.scale_N), dtype=torch.int32)
        self.bias_N = bias_N
        self._run = torch.ops.onednn.qlinear_pointwise.default
        self._few = self._few_tokens(weight, weight_NK.dtype) if streamed and has_vnni() else None

    def _few_tokens(self, weight: Int8Weight, dtype: torch.dtype) -> FewTokens | None:
        outputs, inputs = weight.values_NK.shape
        try:
            check_layout(self.packed, weight.values_NK)
        except ValueError:
            return None
        # What the shift of the inputs adds to every sum.
        shift_N = weight.values_NK.sum(dim=1, dtype=torch.int32) * ZERO_POINT
        return FewTokens(int8_product(dtype), self.packed, inputs, outputs, self.bias_N, self.scale_N, shift_N)

    def __call__(self, x_TK: Tensor) -> Tensor:
        tokens, size = x_TK.shape
        if self._few is not None and tokens <= FEW_TOKENS[torch.int8]:
            return self._few(x_TK)
        quantized_TK = torch.empty((tokens, size), dtype=torch.uint8)
        scale_T = np.empty(tokens, dtype=np.float32)
        kind = cpu_kernels.kind_of(x_TK.dtype)
        cpu_kernels.quantize_rows(kind, x_TK.data_ptr(), quantized_TK.data_ptr(), scale_T, size)
        y_TN = self._run(
            quantized_TK,
            1.0,
            ZERO_POINT,
            self.packed,
            self.scale_N,
            self.zero_N,
            None,
            1.0,
            0,
            x_TK.dtype,
            "none",
            [],
            "",
        )
        bias = 0 if self.bias_N is None else self.bias_N.data_ptr()
        cpu_kernels.scale_rows(kind, y_TN.data_ptr(), scale_T, bias, y_TN.shape[1])
        return y_TN


class Int4Linear:
    """4-bit weights, inputs in bfloat16 (torch's own kernel)."""

    def __init__(self, weight_NK: Tensor, bias_N: Tensor | None) -> None:
        values_NK, scales_and_zeros = quantize_int4(weight_NK)
        self.packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(values_NK, 1)
        self.scales_and_zeros = scales_and_zeros
        self.bias_N = bias_N

    def __call__(self, x_TK: Tensor) -> Tensor:
        y_TN = torch.ops.aten._weight_int4pack_mm_for_cpu(
            x_TK.to(torch.bfloat16), self.packed, INT4_GROUP, self.scales_and_zeros
        )
        y_TN = y_TN.to(x_TK.dtype)
        return y_TN if self.bias_N is None else y_TN.add_(self.bias_N)


def quantize_int4(weight_NK: Tensor) -> tuple[Tensor, Tensor]:
    """Values 0..15 as int32 [N, K], and bfloat16 [K / group, N, 2] scales and centres: (value - 8) * scale + centre.

    Raises ValueError when K is not a multiple of the group.
    """
    outputs, inputs = weight_NK.shape
    if inputs % INT4_GROUP:
        raise ValueError(f"int4 needs layers whose inputs are a multiple of {INT4_GROUP}, this one has {inputs}")
    groups = weight_NK.float().reshape(outputs, inputs // INT4_GROUP, INT4_GROUP)
    low, high = groups.amin(dim=-1), groups.amax(dim=-1)
    # Scales are stored in bfloat16, so values are chosen for what is stored.
    scale = ((high - low) / 15).clamp_min(1e-8).to(torch.bfloat16).float()
    centre = (low + 8 * scale).to(torch.bfloat16).float()
    values = ((groups - centre[..., None]) / scale[..., None] + 8).round_().clamp_(0, 15)
    packed = torch.stack((scale, centre), dim=-1).transpose(0, 1).contiguous().to(torch.bfloat16)
    return values.reshape(outputs, inputs).to(torch.int32), packed


def dequantized_int4(weight_NK: Tensor) -> Tensor:
    """The weights that `Int4Linear` really multiplies with, float32."""
    values_NK, scales_and_zeros = quantize_int4(weight_NK)
    scale, centre = scales_and_zeros.float().transpose(0, 1).unbind(-1)
    groups = values_NK.float().reshape(*scale.shape, INT4_GROUP)
    return ((groups - 8) * scale[..., None] + centre[..., None]).reshape(weight_NK.shape)
