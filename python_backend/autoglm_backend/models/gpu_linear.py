"""Weights in 8 bits on a GPU, with torch's own products: integers (`torch._int_mm`) and float8 (`torch._scaled_mm`).

Inputs are rounded too, with a scale per token; weights have a scale per output. All on the device without a look at a
value, so CUDA graphs can capture it.

Shape legend: T tokens, K inputs, N outputs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoglm_backend.models.decoder import DecoderLayer, TextDecoder
from autoglm_backend.models.quantization import quantize_int8
from autoglm_backend.models.row_parallel import summed_as

FEWEST_ROWS = 32
"""cuBLAS's integer product takes more than 16 rows; fewer are padded."""
FLOAT8 = torch.float8_e4m3fn
FLOAT8_MAX = 448.0
FLOAT8_CAPABILITY = (8, 9)
"""Ada; the first with float8 units."""


class Int8Product:
    def __init__(self, linear: nn.Linear) -> None:
        weight = quantize_int8(linear.weight.detach())
        self.weight_KN = weight.values_NK.t()
        self.scale_N = weight.scale_N
        self.bias_N = None if linear.bias is None else linear.bias.detach()

    def __call__(self, x_TK: Tensor) -> Tensor:
        tokens = len(x_TK)
        x32_TK = x_TK.float()
        scale_T1 = (x32_TK.abs().amax(dim=1, keepdim=True) / 127).clamp_min(torch.finfo(torch.float32).tiny)
        values_TK = (x32_TK / scale_T1).round_().to(torch.int8)
        values_TK = F.pad(values_TK, (0, 0, 0, max(0, FEWEST_ROWS - tokens)))
        sums_TN = torch.ops.aten._int_mm(values_TK, self.weight_KN)[:tokens]
        y_TN = (sums_TN.float() * scale_T1 * self.scale_N).to(x_TK.dtype)
        return y_TN if self.bias_N is None else y_TN + self.bias_N


class Float8Product:
    def __init__(self, linear: nn.Linear) -> None:
        wide_NK = linear.weight.detach().float()
        self.scale_1N = (wide_NK.abs().amax(dim=1) / FLOAT8_MAX).clamp_min(torch.finfo(torch.float32).tiny)[None]
        # The product wants its second factor column by column, which is how a transposed weight lies.
        self.weight_KN = (wide_NK / self.scale_1N.t()).to(FLOAT8).t()
        self.bias_N = None if linear.bias is None else linear.bias.detach()

    def __call__(self, x_TK: Tensor) -> Tensor:
        x32_TK = x_TK.float()
        scale_T1 = (x32_TK.abs().amax(dim=1, keepdim=True) / FLOAT8_MAX).clamp_min(torch.finfo(torch.float32).tiny)
        values_TK = (x32_TK / scale_T1).to(FLOAT8)
        # Scales per row come with bfloat16 results only.
        y_TN = torch.ops.aten._scaled_mm(
            values_TK, self.weight_KN, scale_a=scale_T1, scale_b=self.scale_1N, out_dtype=torch.bfloat16
        ).to(x_TK.dtype)
        return y_TN if self.bias_N is None else y_TN + self.bias_N


class _Product(nn.Module):
    """A product in a linear's place."""

    def __init__(self, product: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._product = product

    def forward(self, x_TK: Tensor) -> Tensor:
        return self._product(x_TK)


def quantize_layers(decoder: TextDecoder, quantization: str, device: torch.device) -> None:
    """Turn the layers' products into int8 or fp8 on `device`, in place, one weight at a time; the rest moves as it is.

    A decoder in the host's memory comes to a card that could never hold it unrounded.
    """
    form = {"int8": Int8Product, "fp8": Float8Product}[quantization]
    for layer in decoder.layers:
        assert isinstance(layer, DecoderLayer)
        for parent, names in (
            (layer.self_attn, ("q_proj", "k_proj", "v_proj", "o_proj")),
            (layer.mlp, ("gate_up_proj", "down_proj")),
        ):
            for name in names:
                linear: nn.Linear = getattr(parent, name)
                setattr(parent, name, _Product(summed_as(linear, form(linear.to(device)))))
    decoder.to(device)


def check_quantization(quantization: str, device: torch.device) -> None:
    """Raises ValueError for what this GPU cannot do."""
    if quantization == "int4":
        raise ValueError("quantization int4 needs a CPU; a GPU takes int8 or fp8")
    if quantization == "fp8" and torch.cuda.get_device_capability(device) < FLOAT8_CAPABILITY:
        raise ValueError(f"quantization fp8 needs a GPU of compute capability {FLOAT8_CAPABILITY[0]}.9 or newer")
