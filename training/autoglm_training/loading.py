"""A checkpoint directory as training and evaluation use it: every part in float32 modules."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from autoglm_backend.models.config import load_model_config
from autoglm_backend.models.decoder import TextDecoder
from autoglm_backend.models.exits import ExitHeads, load_exit_heads
from autoglm_backend.models.speech import SpeechEncoder, load_speech_encoder
from autoglm_backend.models.vision import VisionEncoder
from autoglm_backend.models.weights import checkpoint_shards, load_module, text_name, vision_name
from autoglm_backend.preprocess.image import ImageProcessorConfig, load_image_config


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedCheckpoint:
    tokenizer: Tokenizer
    decoder: TextDecoder
    exits: ExitHeads | None
    vision: VisionEncoder
    speech: SpeechEncoder | None
    image_config: ImageProcessorConfig
    eos_ids: frozenset[int]


def load_checkpoint(directory: Path) -> LoadedCheckpoint:
    """Everything in `directory`, for inference. Raises CheckpointError or ImageError naming what is wrong."""
    config = load_model_config(directory)
    shards = checkpoint_shards(directory)
    decoder, vision = TextDecoder(config.text), VisionEncoder(config.vision)
    load_module(decoder, shards, text_name)
    load_module(vision, shards, vision_name)
    return LoadedCheckpoint(
        tokenizer=Tokenizer.from_file(str(directory / "tokenizer.json")),
        decoder=decoder.eval().requires_grad_(False),
        exits=load_exit_heads(directory, config.text),
        vision=vision.eval().requires_grad_(False),
        speech=load_speech_encoder(directory),
        image_config=load_image_config(directory),
        eos_ids=frozenset(config.eos_token_ids),
    )
