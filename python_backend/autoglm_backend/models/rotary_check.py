"""The start-up test of the rotary embedding: this checkpoint's sections and frequencies, against GLM-4.1V's definition.

Wrong pairs, halves or sections shift every tap and raise nothing, so the definition is spelled out once more here, pair
by pair in float64 (transformers' Glm4vTextRotaryEmbedding and apply_rotary_pos_emb).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from autoglm_backend.models.config import CheckpointError, TextConfig
from autoglm_backend.models.layers import mrope_rotation, rotate_interleaved

_POSITIONS = ((0, 0, 0), (1, 2, 5), (301, 17, 88))
"""Time, row and column of three tokens."""
_TOLERANCE = 1e-3  # float32 angles of a few hundred radians


def check_rotary(config: TextConfig) -> None:
    """Raises CheckpointError when what the decoder computes is not what GLM-4.1V defines for this config.json."""
    positions_3T = torch.tensor(_POSITIONS).T
    x_THd = torch.linspace(-1, 1, len(_POSITIONS) * config.head_dim).view(len(_POSITIONS), 1, -1)
    rotation = mrope_rotation(positions_3T, config.mrope_section, config.rotary_dim, config.rope_theta)
    ours = rotate_interleaved(x_THd, rotation).double()
    if not torch.allclose(ours, _definition(x_THd.double(), config), atol=_TOLERANCE):
        raise CheckpointError(
            f"config.json: rope_parameters (theta {config.rope_theta}, {config.rotary_dim} of {config.head_dim} "
            f"dimensions, mrope_section {list(config.mrope_section)}) come out wrong in this server's rotary embedding"
        )


def _definition(x_THd: Tensor, config: TextConfig) -> Tensor:
    turned = x_THd.clone()
    axes = [axis for axis, count in enumerate(config.mrope_section) for _ in range(count)]
    for token, position in enumerate(_POSITIONS):
        for pair, axis in enumerate(axes):
            angle = position[axis] * config.rope_theta ** (-2 * pair / config.rotary_dim)
            even, odd = float(x_THd[token, 0, 2 * pair]), float(x_THd[token, 0, 2 * pair + 1])
            turned[token, 0, 2 * pair] = even * math.cos(angle) - odd * math.sin(angle)
            turned[token, 0, 2 * pair + 1] = odd * math.cos(angle) + even * math.sin(angle)
    return turned
