"""The trained speech encoder as a checkpoint's `speech/` sidecar."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file

from autoglm_backend.models.speech import CONFIG_NAME, SPEECH_DIR, WEIGHTS_NAME, SpeechEncoder


def export_speech(encoder: SpeechEncoder, checkpoint_dir: Path) -> Path:
    """Write `speech/speech_config.json` and `speech/speech.safetensors` (bfloat16); returns the folder."""
    folder = checkpoint_dir / SPEECH_DIR
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: p.detach().to(torch.bfloat16).contiguous() for name, p in encoder.named_parameters()}
    partial = folder / (WEIGHTS_NAME + ".partial")
    save_file(weights, partial, metadata={"format": "pt"})
    (folder / CONFIG_NAME).write_text(json.dumps(asdict(encoder.config), indent=2) + "\n", encoding="utf-8")
    os.replace(partial, folder / WEIGHTS_NAME)
    return folder
