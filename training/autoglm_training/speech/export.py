"""The trained speech encoder as a checkpoint's `speech/` sidecar."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch
from tokenizers import Tokenizer

from autoglm_backend.models.speech import CONFIG_NAME, SPEECH_DIR, WEIGHTS_NAME, SpeechEncoder
from autoglm_training.files import save_json, save_tensors
from autoglm_training.speech.heard import bind_embeddings, piece_encoder


def export_speech(encoder: SpeechEncoder, checkpoint_dir: Path) -> Path:
    """Write `speech/speech.safetensors` (bfloat16) and `speech/speech_config.json`; returns the folder.

    Raises OSError.
    """
    folder = checkpoint_dir / SPEECH_DIR
    weights = {name: p.detach().to(torch.bfloat16).contiguous() for name, p in encoder.named_parameters()}
    save_tensors(weights, folder / WEIGHTS_NAME)
    save_json(asdict(encoder.config), folder / CONFIG_NAME)
    return folder


def speech_for_decoder(speech_run: Path, tokenizer: Tokenizer, embeddings_VD: torch.Tensor) -> SpeechEncoder:
    """The trained encoder that speaks to a decoder with these token embeddings, ready for `export_speech`.

    Raises OSError, or ValueError for a damaged file or one of another tokenizer.
    """
    encoder, piece_ids = piece_encoder(speech_run, tokenizer)
    bind_embeddings(encoder, piece_ids, embeddings_VD)
    return encoder
