"""Our decoder and ViT against transformers' Glm4v on random weights: float32 logits within 1e-4 relative."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import Glm4vConfig, Glm4vForConditionalGeneration

from autoglm_backend.models.config import load_model_config
from autoglm_backend.models.decoder import TextDecoder, causal_attend
from autoglm_backend.models.vision import VisionEncoder
from autoglm_backend.models.weights import checkpoint_shards, load_module, text_name, vision_name

SHAPES = {
    "tied-small": dict(hidden=64, heads=4, kv=2, layers=3, section=[2, 3, 3], partial=1.0, tie=True),
    "untied-partial": dict(hidden=96, heads=3, kv=1, layers=2, section=[2, 3, 3], partial=0.5, tie=False),
    "glm-like": dict(hidden=256, heads=4, kv=2, layers=2, section=[4, 6, 6], partial=0.5, tie=False),
}


def random_checkpoint(directory: Path, shape: dict) -> Glm4vForConditionalGeneration:
    config = Glm4vConfig(
        text_config=dict(
            vocab_size=97,
            hidden_size=shape["hidden"],
            intermediate_size=2 * shape["hidden"],
            num_hidden_layers=shape["layers"],
            num_attention_heads=shape["heads"],
            num_key_value_heads=shape["kv"],
            max_position_embeddings=512,
            eos_token_id=[1, 2],
            pad_token_id=1,
            rope_parameters=dict(
                rope_type="default",
                rope_theta=10000.0,
                partial_rotary_factor=shape["partial"],
                mrope_section=shape["section"],
            ),
        ),
        vision_config=dict(
            depth=2, hidden_size=48, num_heads=4, out_hidden_size=shape["hidden"], intermediate_size=80, image_size=56
        ),
        image_token_id=90,
        image_start_token_id=91,
        image_end_token_id=92,
        video_token_id=93,
        video_start_token_id=94,
        video_end_token_id=95,
        tie_word_embeddings=shape["tie"],
    )
    torch.manual_seed(7)
    model = Glm4vForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.15)
    model.save_pretrained(directory)
    return model


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_text_logits_equal_transformers(tmp_path: Path, shape: dict) -> None:
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
    reference = random_checkpoint(tmp_path, SHAPES["tied-small"])
    config = load_model_config(tmp_path)
    encoder = VisionEncoder(config.vision)
    load_module(encoder, checkpoint_shards(tmp_path), vision_name)
    other = (2, 2)
    patches = torch.randn(grid[0] * grid[1] + 4, config.vision.patch_dim)
    with torch.no_grad():
        expected = reference.model.visual(patches, grid_thw=torch.tensor([(1, *grid), (1, *other)])).pooler_output
        torch.testing.assert_close(encoder(patches, [grid, other]), expected, rtol=1e-4, atol=1e-4)
