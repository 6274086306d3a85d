"""Codes of ordered things whose neighbours start alike: numbers, and the places of a picture."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def smooth_codes(count: int, size: int, *, shortest: float, longest: float, seed: int) -> Tensor:
    """[count, size] of unit variance: random Fourier features with periods from `shortest` to `longest` steps."""
    generator = torch.Generator().manual_seed(seed)
    periods = torch.logspace(np.log10(shortest), np.log10(longest), size // 2)
    phase = torch.rand(size // 2, generator=generator) * 2 * torch.pi
    angles = torch.arange(count)[:, None] * (2 * torch.pi / periods) + phase
    return torch.cat((angles.cos(), angles.sin()), dim=-1) * 2**0.5
