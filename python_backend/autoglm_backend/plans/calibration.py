"""Real inputs for int8 scales: every screenshot and every clip of a folder, as the server would cut them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from autoglm_backend.models.config import load_speech_config
from autoglm_backend.models.speech import CONFIG_NAME, SPEECH_DIR
from autoglm_backend.plans.int8 import Feed
from autoglm_backend.preprocess.audio import decode_audio, log_mel
from autoglm_backend.preprocess.image import load_image_config, preprocess_image

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
SOUNDS = (".wav", ".mp3")


def pictures(folder: Path, checkpoint_dir: Path) -> Iterator[Feed]:
    """Inputs of the vision encoder. Raises ValueError when the folder holds no picture."""
    config = load_image_config(checkpoint_dir)
    for path in _files(folder, PICTURES):
        with Image.open(path) as image:
            patches = preprocess_image(image, config)
        yield {"patches": patches.patches_PK, "grids": np.array([patches.grid], dtype=np.int32)}


def clips(folder: Path, checkpoint_dir: Path) -> Iterator[Feed]:
    """Inputs of the speech encoder. Raises ValueError when the folder holds no clip."""
    num_mels = load_speech_config(checkpoint_dir / SPEECH_DIR / CONFIG_NAME).num_mels
    for path in _files(folder, SOUNDS):
        yield {"mel": log_mel(decode_audio(path.read_bytes()), num_mels)}


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes)
    if not files:
        raise ValueError(f"--calibration {folder} holds no file of {', '.join(suffixes)}")
    return files
