"""Our decoder and ViT against transformers' Glm4v on random weights: float32 logits within 1e-4 relative."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.random_checkpoint import Shape, random_checkpoint

from autoglm_backend.models.config import load_model_config
from autoglm_backend.models.decoder import TextDecoder, causal_attend
from autoglm_backend.models.shards import checkpoint_shards, text_name, vision_name
from autoglm_backend.models.vision import VisionEncoder
from autoglm_backend.models.weights import load_module

SHAPES = {
    "tied, fully rotary": Shape(layers=3, mrope_section=(2, 3, 3), partial_rotary=1.0, tied=True),
    "one KV head": Shape(hidden=96, heads=3, kv_heads=1, layers=2, mrope_section=(2, 3, 3)),
    "GLM-like": Shape(hidden=256, heads=4, kv_heads=2, layers=2, mrope_section=(4, 6, 6)),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_text_logits_equal_transformers(tmp_path: Path, shape: Shape) -> None:
    reference = random_checkpoint(tmp_path, shape)
    config = load_model_config(tmp_path)
    decoder = TextDecoder(config.text)
    load_module(decoder, checkpoint_shards(tmp_path), text_name)
    ids = torch.randint(0, 90, (1, 23))
    with torch.no_grad():
        expected = reference(input_ids=ids).logits
        rotation = decoder.rotation(torch.arange(23).expand(3, 1, 23))
        hidden = decoder.run_span(0, config.text.num_layers, decoder.embed_tokens(ids), rotation, causal_attend)
        torch.testing.assert_close(decoder.logits(hidden), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("grid", [(4, 4), (2, 8), (10, 6)], ids=str)
def test_vision_embeddings_equal_transformers(tmp_path: Path, grid: tuple[int, int]) -> None:
    reference = random_checkpoint(tmp_path, Shape())
    config = load_model_config(tmp_path)
    encoder = VisionEncoder(config.vision)
    load_module(encoder, checkpoint_shards(tmp_path), vision_name)
    other = (2, 2)
    patches = torch.randn(grid[0] * grid[1] + 4, config.vision.patch_dim)
    with torch.no_grad():
        expected = reference.model.visual(patches, grid_thw=torch.tensor([(1, *grid), (1, *other)])).pooler_output
        torch.testing.assert_close(encoder(patches, [grid, other]), expected, rtol=1e-4, atol=1e-4)
