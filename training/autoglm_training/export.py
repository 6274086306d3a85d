"""Write the checkpoint as Hugging Face `Glm4vForConditionalGeneration` reads it, plus the exits and speech sidecars."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from autoglm_backend.models.decoder import TextDecoder
from autoglm_backend.models.exits import ExitHeads
from autoglm_backend.models.shards import HEAD_NAME, TEXT_PREFIX, VISION_PREFIX
from autoglm_backend.models.speech import SpeechEncoder
from autoglm_backend.models.vision import VisionEncoder
from autoglm_training.config.recipes import EXIT_ADAPTER_SIZE, TEXT, VISION
from autoglm_training.exits.files import save_exits
from autoglm_training.files import replaced_folder, save_json, save_tensors, save_text
from autoglm_training.speech.export import export_speech
from autoglm_training.tokenizer import EOS_TOKENS, PAD_TOKEN, save_tokenizer, token_id

# 2 frames x 288 x 640: a 1080x2400 screenshot becomes 280x616, which is 220 tokens.
LONGEST_EDGE = 368640
SHORTEST_EDGE = 12544
# Depth by class of request that was measured to be enough (the checkpoint's card, "direct commands").
AUTO_DEPTHS = {"direct_text": 6}
CARD = "README.md"
TOP_LEVEL = frozenset(
    {
        CARD,
        "chat_template.jinja",
        "config.json",
        "exits",
        "generation_config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "special_tokens_map.json",
        "speech",
        "tokenizer.json",
        "tokenizer_config.json",
    }
)


def model_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """The contents of config.json."""
    eos = [token_id(tokenizer, token) for token in EOS_TOKENS]
    pad = token_id(tokenizer, PAD_TOKEN)
    return {
        "architectures": ["Glm4vForConditionalGeneration"],
        "model_type": "glm4v",
        "dtype": "bfloat16",
        "tie_word_embeddings": TEXT.tie_word_embeddings,
        "image_token_id": token_id(tokenizer, "<|image|>"),
        "image_start_token_id": token_id(tokenizer, "<|begin_of_image|>"),
        "image_end_token_id": token_id(tokenizer, "<|end_of_image|>"),
        "video_token_id": token_id(tokenizer, "<|video|>"),
        "video_start_token_id": token_id(tokenizer, "<|begin_of_video|>"),
        "video_end_token_id": token_id(tokenizer, "<|end_of_video|>"),
        "text_config": {
            "model_type": "glm4v_text",
            "vocab_size": TEXT.vocab_size,
            "hidden_size": TEXT.hidden_size,
            "intermediate_size": TEXT.intermediate_size,
            "num_hidden_layers": TEXT.num_layers,
            "num_attention_heads": TEXT.num_heads,
            "num_key_value_heads": TEXT.num_kv_heads,
            "max_position_embeddings": TEXT.max_positions,
            "rms_norm_eps": TEXT.rms_norm_eps,
            "hidden_act": "silu",
            "attention_bias": True,
            "attention_dropout": 0.0,
            "initializer_range": 0.02,
            "use_cache": True,
            "eos_token_id": eos,
            "pad_token_id": pad,
            "dtype": "bfloat16",
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": TEXT.rope_theta,
                "partial_rotary_factor": TEXT.rotary_dim / TEXT.head_dim,
                "mrope_section": list(TEXT.mrope_section),
            },
        },
        "vision_config": {
            "model_type": "glm4v_vision",
            "depth": VISION.depth,
            "hidden_size": VISION.hidden_size,
            "num_heads": VISION.num_heads,
            "image_size": VISION.image_size,
            "patch_size": VISION.patch_size,
            "temporal_patch_size": VISION.temporal_patch_size,
            "spatial_merge_size": VISION.spatial_merge_size,
            "in_channels": VISION.in_channels,
            "out_hidden_size": VISION.out_hidden_size,
            "intermediate_size": VISION.intermediate_size,
            "rms_norm_eps": VISION.rms_norm_eps,
            "attention_bias": VISION.attention_bias,
            "attention_dropout": 0.0,
            "hidden_act": "silu",
            "initializer_range": 0.02,
            "dtype": "bfloat16",
        },
    }


def preprocessor_config() -> dict[str, Any]:
    """The contents of preprocessor_config.json."""
    return {
        "image_processor_type": "Glm4vImageProcessor",
        "processor_class": "Glm4vProcessor",
        "size": {"shortest_edge": SHORTEST_EDGE, "longest_edge": LONGEST_EDGE},
        "patch_size": VISION.patch_size,
        "temporal_patch_size": VISION.temporal_patch_size,
        "merge_size": VISION.spatial_merge_size,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }


def model_tensors(decoder: TextDecoder, vision: VisionEncoder) -> dict[str, Tensor]:
    """Checkpoint names to bfloat16 tensors; a tied head is left out."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in decoder.state_dict().items():
        if name == HEAD_NAME:
            if not decoder.config.tie_word_embeddings:
                tensors[name] = tensor
            continue
        tensors[TEXT_PREFIX + name] = tensor
    tensors.update({VISION_PREFIX + name: tensor for name, tensor in vision.state_dict().items()})
    return {name: tensor.detach().to(torch.bfloat16).contiguous() for name, tensor in tensors.items()}


def export_checkpoint(
    directory: Path,
    tokenizer: Tokenizer,
    decoder: TextDecoder,
    exits: ExitHeads,
    vision: VisionEncoder,
    speech: SpeechEncoder | None,
) -> list[str]:
    """Put a checkpoint at `directory`, all files at once: a kill leaves the old checkpoint or the new one.

    speech: None writes no sidecar, so the checkpoint hears nothing. Of an old checkpoint there only the card stays
    (README.md). Returns its other files that are gone because they belonged to the old weights: certificate, gates,
    router. Raises OSError, also for a folder that holds anything else than a checkpoint.
    """
    old = checkpoint_files(directory)
    with replaced_folder(directory) as fresh:
        _write(fresh, tokenizer, decoder, exits, vision, speech)
        if CARD in old:
            save_text((directory / CARD).read_text(encoding="utf-8"), fresh / CARD)
        new = checkpoint_files(fresh)
    return sorted(old - new)


def checkpoint_files(directory: Path) -> set[str]:
    """What stands in a checkpoint folder, empty where there is none.

    Raises OSError naming a file that `export` does not know: it would be lost, or read beside weights of another kind.
    """
    if not directory.is_dir():
        return set()
    for path in sorted(directory.iterdir()):
        if path.name not in TOP_LEVEL:
            raise FileExistsError(f"{path} is no file of this export: choose another folder, or move it away")
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}


def _write(
    directory: Path,
    tokenizer: Tokenizer,
    decoder: TextDecoder,
    exits: ExitHeads,
    vision: VisionEncoder,
    speech: SpeechEncoder | None,
) -> None:
    save_tokenizer(tokenizer, directory, TEXT.max_positions)
    config = model_config(tokenizer)
    save_json(config, directory / "config.json")
    generation = {
        "do_sample": False,
        "eos_token_id": config["text_config"]["eos_token_id"],
        "pad_token_id": config["text_config"]["pad_token_id"],
    }
    save_json(generation, directory / "generation_config.json")
    save_json(preprocessor_config(), directory / "preprocessor_config.json")
    save_tensors(model_tensors(decoder, vision), directory / "model.safetensors")
    save_exits(directory, exits, EXIT_ADAPTER_SIZE, auto=AUTO_DEPTHS)
    if speech is not None:
        export_speech(speech, directory)
