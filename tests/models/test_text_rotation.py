"""Rotary angles that are looked up are those that are computed, to the bit."""

from __future__ import annotations

import pytest
import torch
from tests.random_checkpoint import Shape, random_checkpoint

from autoglm_backend.models.config import load_model_config
from autoglm_backend.models.decoder import FEW_POSITIONS, TextDecoder


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> TextDecoder:
    folder = tmp_path_factory.mktemp("checkpoint")
    random_checkpoint(folder, Shape())
    return TextDecoder(load_model_config(folder).text)


@pytest.mark.parametrize(
    "places", [[0], [7], [3, 900, 41], [FEW_POSITIONS - 1, FEW_POSITIONS], [70_000, 5]], ids=lambda p: f"up to {max(p)}"
)
def test_text_is_turned_as_computed_alone_and_in_a_batch(decoder: TextDecoder, places: list[int]) -> None:
    found = decoder.text_rotation(places)
    for row, place in enumerate(places):
        alone = decoder.rotation(torch.tensor([[place]]).expand(3, -1))
        assert torch.equal(found.cos[row], alone.cos[0])
        assert torch.equal(found.sin[row], alone.sin[0])
