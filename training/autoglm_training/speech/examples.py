"""The spoken commands in `examples/`: `python -m autoglm_training.speech.examples examples`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import soundfile

from autoglm_backend.preprocess.audio import SAMPLE_RATE
from autoglm_training.speech.synth import Voice, synthesise

EXAMPLES = {
    "open_bluetooth.wav": "Open Bluetooth",
    "go_back.wav": "Go back",
    "open_wechat_zh.wav": "打开微信",
}
VOICE = Voice(accent="en-us", speaker="m3", words_per_min=150, pitch=50)


def write_examples(directory: Path) -> None:
    """16 kHz mono 16-bit WAV files. Raises SynthesisError without espeak-ng."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in EXAMPLES.items():
        samples = synthesise(text, VOICE)
        loud = np.flatnonzero(np.abs(samples) > 200)
        end = min(len(samples), int(loud[-1]) + SAMPLE_RATE // 10)
        soundfile.write(directory / name, samples[:end], SAMPLE_RATE, subtype="PCM_16")


if __name__ == "__main__":
    write_examples(Path(sys.argv[1]))
