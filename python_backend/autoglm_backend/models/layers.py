"""Norms and rotary embeddings shared by the decoder and the encoders.

Shape legend: T tokens (ragged rows laid end to end, any leading batch shape works too), D hidden, H heads, G KV heads,
d head dimension, R rotary dimension, P patches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""`attend(layer, q_THd, k_TGd, v_TGd) -> out_THd`: the caller owns masks and the KV cache, the model owns neither."""


class Rotation(NamedTuple):
    """Cosine and sine of every token's rotary angles, float32, [..., R/2]."""

    cos: Tensor
    sin: Tensor


class RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        # Statistics in float32, product in the weight's type: the order that checkpoints were trained with.
        x32 = x.float()
        normed = x32 * torch.rsqrt(x32.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * normed.to(x.dtype)


def inverse_frequencies(rotary_dim: int, theta: float, device: torch.device | None = None) -> Tensor:
    """theta^(-2i/R) for i in 0..R/2-1, float32 [R/2]."""
    exponents = torch.arange(0, rotary_dim, 2, dtype=torch.float32, device=device) / rotary_dim
    return 1.0 / theta**exponents


def mrope_rotation(positions_3T: Tensor, section: tuple[int, int, int], rotary_dim: int, theta: float) -> Rotation:
    """M-RoPE: each frequency band follows one of the three position axes (temporal, row, column).

    positions_3T: integer [3, ...]. Returns [..., R/2] (transformers' Glm4vTextRotaryEmbedding).
    """
    bands = positions_3T.float()[..., None] * inverse_frequencies(rotary_dim, theta, positions_3T.device)
    angles = torch.cat([band[axis] for axis, band in enumerate(bands.split(section, dim=-1))], dim=-1)
    return Rotation(angles.cos(), angles.sin())


def rotate_interleaved(x_THd: Tensor, rotation: Rotation) -> Tensor:
    """Rotate even/odd pairs of the leading R dimensions (GPT-J order, as GLM-4.1V's text decoder does)."""
    cos, sin = rotation.cos.to(x_THd.dtype).unsqueeze(-2), rotation.sin.to(x_THd.dtype).unsqueeze(-2)
    rotary_dim = cos.shape[-1] * 2
    even, odd = x_THd[..., :rotary_dim:2], x_THd[..., 1:rotary_dim:2]
    turned = torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1).flatten(-2)
    return torch.cat((turned, x_THd[..., rotary_dim:]), dim=-1)


def rotate_halves(x_THd: Tensor, rotation: Rotation) -> Tensor:
    """Rotate first against second half of the leading R dimensions (NeoX order: the ViT and the speech encoder)."""
    cos, sin = rotation.cos.unsqueeze(-2), rotation.sin.unsqueeze(-2)
    half = cos.shape[-1]
    first, second, rest = x_THd[..., :half].float(), x_THd[..., half : 2 * half].float(), x_THd[..., 2 * half :]
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x_THd.dtype)
    return torch.cat((turned, rest), dim=-1)
