"""A checkpoint directory as training and evaluation use it: every part as modules, on the CPU in float32 by default."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from tokenizers import Tokenizer
from torch import nn

from autoglm_backend.models.config import ModelConfig, load_model_config
from autoglm_backend.models.decoder import TextDecoder
from autoglm_backend.models.exits import ExitHeads, load_exit_heads
from autoglm_backend.models.shards import checkpoint_shards, text_name, vision_name
from autoglm_backend.models.speech import SpeechEncoder, load_speech_encoder
from autoglm_backend.models.vision import VisionEncoder
from autoglm_backend.models.weights import load_module
from autoglm_backend.preprocess.image import ImageProcessorConfig, load_image_config

Part = TypeVar("Part", bound=nn.Module)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedCheckpoint:
    directory: Path
    config: ModelConfig
    tokenizer: Tokenizer
    decoder: TextDecoder
    exits: ExitHeads | None
    vision: VisionEncoder
    speech: SpeechEncoder | None
    image_config: ImageProcessorConfig
    eos_ids: frozenset[int]


def load_checkpoint(directory: Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> LoadedCheckpoint:
    """Everything in `directory`, for inference. Raises CheckpointError naming what is wrong."""
    config = load_model_config(directory)
    shards = checkpoint_shards(directory)
    with torch.device("meta"):
        decoder, vision = TextDecoder(config.text).to(dtype), VisionEncoder(config.vision).to(dtype)
    decoder, vision = decoder.to_empty(device=device), vision.to_empty(device=device)
    if config.text.tie_word_embeddings:
        # to_empty gives tied parameters storage of their own.
        decoder.lm_head.weight = decoder.embed_tokens.weight
    load_module(decoder, shards, text_name)
    load_module(vision, shards, vision_name)
    exits, speech = load_exit_heads(directory, config.text), load_speech_encoder(directory)
    return LoadedCheckpoint(
        directory=directory,
        config=config,
        tokenizer=Tokenizer.from_file(str(directory / "tokenizer.json")),
        decoder=_frozen(decoder),
        exits=None if exits is None else _frozen(exits.to(device=device, dtype=dtype)),
        vision=_frozen(vision),
        speech=None if speech is None else _frozen(speech.to(device=device)),
        image_config=load_image_config(directory),
        eos_ids=frozenset(config.eos_token_ids),
    )


def _frozen(module: Part) -> Part:
    return module.eval().requires_grad_(False)
