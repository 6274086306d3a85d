"""A whole random checkpoint of two megabytes: decoder with exits, ViT, speech, byte-level tokenizer, template.

It says nothing sensible, loads in no time, and has every part that the server looks for.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import nn

from autoglm_backend.models.config import load_model_config, load_speech_config
from autoglm_backend.models.decoder import TextDecoder
from autoglm_backend.models.exits import ExitHeads
from autoglm_backend.models.shards import HEAD_NAME, TEXT_PREFIX, VISION_PREFIX
from autoglm_backend.models.speech import SpeechEncoder
from autoglm_backend.models.vision import VisionEncoder

HIDDEN = 48
NUM_LAYERS = 24
EXITS = (6, 12, 18)
CONTEXT = 1024
SPECIAL_TOKENS = (
    *("<|endoftext|>", "[MASK]", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
    *("<|begin_of_image|>", "<|end_of_image|>", "<|image|>", "<|video|>"),
    *("<|begin_of_audio|>", "<|end_of_audio|>", "<|audio|>"),
)
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
IDS = {text: 256 + index for index, text in enumerate((*SPECIAL_TOKENS, *TAGS))}
VOCAB_SIZE = 288
# GLM-4.1V's own, with its unused branches left out, and audio.
TEMPLATE = """[gMASK]<sop>
{%- for msg in messages %}
    {%- if msg.role == 'system' %}<|system|>
{{ msg.content }}
    {%- elif msg.role == 'user' %}<|user|>{{ '\\n' }}
        {%- if msg.content is string %}{{ msg.content }}
        {%- else %}
            {%- for item in msg.content %}
                {%- if item.type == 'image' %}<|begin_of_image|><|image|><|end_of_image|>
                {%- elif item.type == 'audio' %}<|begin_of_audio|><|audio|><|end_of_audio|>
                {%- elif item.type == 'text' %}{{ item.text }}
                {%- endif %}
            {%- endfor %}
        {%- endif %}
    {%- elif msg.role == 'assistant' %}<|assistant|>{{ '\\n' }}{{ msg.content }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|assistant|>{{ '\\n' }}
{%- endif %}"""


def write_checkpoint(directory: Path, *, seed: int = 5) -> Path:
    """Fill `directory`. Weights are large, so that greedy choices vary."""
    directory.mkdir(parents=True, exist_ok=True)
    write_texts(directory)
    generator = torch.Generator().manual_seed(seed)
    config = load_model_config(directory)
    decoder, vision = TextDecoder(config.text), VisionEncoder(config.vision)
    weights = {name if name == HEAD_NAME else TEXT_PREFIX + name: t for name, t in _random(decoder, generator).items()}
    weights |= {VISION_PREFIX + name: tensor for name, tensor in _random(vision, generator).items()}
    save_file(weights, directory / "model.safetensors")
    heads = ExitHeads(config.text, EXITS, 8)
    save_file(_random(heads, generator), directory / "exits" / "exits.safetensors")
    speech = SpeechEncoder(load_speech_config(directory / "speech" / "speech_config.json"))
    save_file(_random(speech, generator), directory / "speech" / "speech.safetensors")
    return directory


def write_texts(directory: Path) -> Path:
    """Everything but the weights: enough for templates, tokenizers and planners."""
    files = {
        "config.json": _CONFIG,
        "generation_config.json": {"eos_token_id": [IDS["<|endoftext|>"], IDS["<|user|>"], IDS["</answer>"]]},
        "preprocessor_config.json": _PREPROCESSOR,
        "exits/exits.json": {"depths": EXITS, "adapter_size": 8, "auto": {"direct_text": 6}},
        "speech/speech_config.json": _SPEECH,
    }
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content), encoding="utf-8")
    (directory / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    tokenizer().save(str(directory / "tokenizer.json"))
    return directory


def tokenizer() -> Tokenizer:
    """A token per byte, so that every character beyond ASCII is split."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: index for index, character in enumerate(alphabet)}
    result = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    result.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    result.decoder = decoders.ByteLevel()
    result.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in SPECIAL_TOKENS])
    result.add_tokens([AddedToken(text, normalized=False, special=False) for text in TAGS])
    return result


def _random(module: nn.Module, generator: torch.Generator) -> dict[str, torch.Tensor]:
    # norms near one keep the stream alive through 24 layers, the rest is wide enough for clear winners
    return {
        name: 1.0 + 0.1 * torch.randn(p.shape, generator=generator)
        if p.dim() == 1 and name.endswith("weight")
        else 0.15 * torch.randn(p.shape, generator=generator)
        for name, p in module.named_parameters()
    }


_CONFIG = {
    "model_type": "glm4v",
    "architectures": ["Glm4vForConditionalGeneration"],
    "tie_word_embeddings": False,
    "image_token_id": IDS["<|image|>"],
    "image_start_token_id": IDS["<|begin_of_image|>"],
    "image_end_token_id": IDS["<|end_of_image|>"],
    "video_token_id": IDS["<|video|>"],
    "text_config": {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": HIDDEN,
        "intermediate_size": 64,
        "num_hidden_layers": NUM_LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5,
        "pad_token_id": IDS["<|endoftext|>"],
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.5,
            "mrope_section": [1, 1, 1],
        },
    },
    "vision_config": {
        "depth": 2,
        "hidden_size": 32,
        "num_heads": 2,
        "image_size": 56,
        "patch_size": 14,
        "temporal_patch_size": 2,
        "spatial_merge_size": 2,
        "in_channels": 3,
        "out_hidden_size": HIDDEN,
        "intermediate_size": 64,
        "rms_norm_eps": 1e-5,
    },
}
_PREPROCESSOR = {
    "size": {"shortest_edge": 12544, "longest_edge": 200704},
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
_SPEECH = {
    "num_mels": 80,
    "hidden_size": 32,
    "num_layers": 1,
    "num_heads": 2,
    "intermediate_size": 48,
    "frames_per_token": 4,
    "out_hidden_size": HIDDEN,
}
