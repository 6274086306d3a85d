"""A small random GLM-4.1V checkpoint made by transformers itself, for tests that compare with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, models
from transformers import Glm4vConfig, Glm4vForConditionalGeneration

IMAGE_ID = 90
AUDIO_ID = 96
EOS_IDS = (1, 2)
THINK_IDS = (70, 71)


@dataclass(frozen=True, kw_only=True)
class Shape:
    hidden: int = 64
    heads: int = 4
    kv_heads: int = 2
    layers: int = 4
    mrope_section: tuple[int, int, int] = (1, 1, 2)
    partial_rotary: float = 0.5
    tied: bool = False
    vision_bias: bool = False
    num_shards: int = 1


def random_checkpoint(
    directory: Path, shape: Shape, *, seed: int = 7, dtype: torch.dtype = torch.float32
) -> Glm4vForConditionalGeneration:
    """Write the checkpoint and return transformers' model of it. Weights are large, so that greedy choices vary."""
    config = Glm4vConfig(
        text_config={
            "vocab_size": 97,
            "hidden_size": shape.hidden,
            "intermediate_size": 2 * shape.hidden,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.kv_heads,
            "max_position_embeddings": 512,
            "eos_token_id": list(EOS_IDS),
            "pad_token_id": 1,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "partial_rotary_factor": shape.partial_rotary,
                "mrope_section": list(shape.mrope_section),
            },
        },
        vision_config={
            "depth": 2,
            "hidden_size": 48,
            "num_heads": 4,
            "out_hidden_size": shape.hidden,
            "intermediate_size": 80,
            "image_size": 56,
            "attention_bias": shape.vision_bias,
        },
        image_token_id=IMAGE_ID,
        image_start_token_id=91,
        image_end_token_id=92,
        video_token_id=93,
        video_start_token_id=94,
        video_end_token_id=95,
        tie_word_embeddings=shape.tied,
    )
    generator = torch.Generator().manual_seed(seed)
    model = Glm4vForConditionalGeneration(config).to(dtype).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=dtype)
            # Norm gains near 1 keep every layer's say in the answer; small ones would let the last token repeat itself.
            parameter.copy_(1 + 0.1 * noise if parameter.ndim == 1 and "norm" in name else 0.15 * noise)
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    model.save_pretrained(directory, max_shard_size=size // shape.num_shards + 1)
    _tokenizer().save(str(directory / "tokenizer.json"))
    return model


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(97)}, unk_token="w0"))
    return tokenizer
