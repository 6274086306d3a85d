from __future__ import annotations

import pytest
from torch import Tensor

from autoglm_backend.models import rotary_check
from autoglm_backend.models.config import CheckpointError, TextConfig
from autoglm_backend.models.layers import Rotation, rotate_halves

GLM = TextConfig(
    vocab_size=151552,
    hidden_size=4096,
    intermediate_size=13696,
    num_layers=40,
    num_heads=32,
    num_kv_heads=2,
    max_positions=65536,
    rms_norm_eps=1e-5,
    rope_theta=10000.0,
    rotary_dim=64,
    mrope_section=(8, 12, 12),
    tie_word_embeddings=False,
)


def test_the_public_checkpoints_rotary_embedding_passes() -> None:
    rotary_check.check_rotary(GLM)


def test_halves_in_the_place_of_pairs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def halves(x_THd: Tensor, rotation: Rotation) -> Tensor:
        return rotate_halves(x_THd, rotation)

    monkeypatch.setattr(rotary_check, "rotate_interleaved", halves)

    with pytest.raises(CheckpointError, match=r"mrope_section \[8, 12, 12\].*come out wrong"):
        rotary_check.check_rotary(GLM)
