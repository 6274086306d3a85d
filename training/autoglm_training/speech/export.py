"""The trained speech encoder as a checkpoint's `speech/` sidecar, and the frames that the decoder stage trains on.

python -m autoglm_training.speech.export --run runs/speech --checkpoint runs/speech/export
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file

from autoglm_backend.models.speech import (
    CONFIG_NAME,
    SPEECH_DIR,
    WEIGHTS_NAME,
    SpeechEncoder,
    load_speech_encoder,
)
from autoglm_training.config.recipes import SPEECH
from autoglm_training.speech.features import build_features


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


def trained_encoder(run: Path) -> SpeechEncoder:
    """The encoder of the second stage's file. Raises FileNotFoundError."""
    encoder = SpeechEncoder(SPEECH)
    encoder.load_state_dict(torch.load(run / "tokens.pt", weights_only=True)["encoder"])
    return encoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    export_speech(trained_encoder(options.run), options.checkpoint)
    # Read back: the decoder shall train on what the rounded weights say.
    encoder = load_speech_encoder(options.checkpoint)
    assert encoder is not None
    for split in ("train", "test"):
        build_features(encoder, options.run, split)


if __name__ == "__main__":
    main()
