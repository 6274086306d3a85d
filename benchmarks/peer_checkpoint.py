"""A random GLM-4.1V checkpoint of 296 M parameters that every peer loads, with the default checkpoint's tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from autoglm_backend.models.config import load_model_config
from autoglm_backend.models.decoder import TextDecoder
from autoglm_backend.models.shards import HEAD_NAME, TEXT_PREFIX, VISION_PREFIX
from autoglm_backend.models.vision import VisionEncoder

SOURCE = Path(__file__).resolve().parents[1] / "checkpoints" / "autoglm-phone-tiny"
VOCAB_SIZE = 7278
TEXT = {
    "model_type": "glm4v_text",
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "max_position_embeddings": 16384,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "attention_bias": True,
    "dtype": "bfloat16",
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.5,
        "mrope_section": [4, 6, 6],
    },
}
VISION = {"hidden_size": 384, "depth": 6, "num_heads": 6, "out_hidden_size": 1024, "intermediate_size": 1024}
LONGEST_EDGE = 9_633_792
"""AutoGLM-Phone-9B's own image bound: a 1080x2400 screenshot becomes 3,354 tokens."""


def write_peer_checkpoint(directory: Path) -> Path:
    """Fill `directory`, unless it is there already."""
    if (directory / "model.safetensors").exists():
        return directory
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"):
        shutil.copy(SOURCE / name, directory / name)
    config = json.loads((SOURCE / "config.json").read_text(encoding="utf-8"))
    text = {**TEXT, "eos_token_id": config["text_config"]["eos_token_id"]}
    text["pad_token_id"] = config["text_config"]["pad_token_id"]
    config |= {"tie_word_embeddings": False, "text_config": text}
    config["vision_config"] |= VISION
    _write_json(directory / "config.json", config)
    processor = json.loads((SOURCE / "preprocessor_config.json").read_text(encoding="utf-8"))
    processor["size"]["longest_edge"] = LONGEST_EDGE
    _write_json(directory / "preprocessor_config.json", processor)
    shapes = load_model_config(directory)
    generator = torch.Generator().manual_seed(1)
    parts = ((TEXT_PREFIX, TextDecoder(shapes.text)), (VISION_PREFIX, VisionEncoder(shapes.vision)))
    tensors: dict[str, torch.Tensor] = {}
    for prefix, module in parts:
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator) * 0.02
            value = 1 + noise if "norm" in name and parameter.ndim == 1 else noise
            tensors[name if name == HEAD_NAME else prefix + name] = value.to(torch.bfloat16)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
