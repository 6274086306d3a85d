"""Spoken commands from text with espeak-ng, in many voices; voices of the test split are never heard in training."""

from __future__ import annotations

import io
import random
import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import Literal

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from autoglm_backend.preprocess.audio import SAMPLE_RATE

Split = Literal["train", "test"]

ENGLISH_ACCENTS = (
    "en-us", "en-us", "en-us", "en-gb", "en-gb", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbclan",
    "en-gb-x-gbcwmd", "en-029", "en-us-nyc",
)  # fmt: skip
# espeak-ng's own "cmn" (1.51) reads many characters as English words; this voice reads every one as Mandarin.
MANDARIN = "cmn-latn-pinyin"
TRAIN_SPEAKERS = (
    "m1", "m2", "m3", "m4", "m6", "m7", "m8", "f1", "f2", "f4", "f5", "klatt", "klatt2", "klatt3", "klatt4",
    "Alex", "Alicia",
    "Andrea", "Annie", "David", "Diogo", "Hugo", "Jacky", "Lee", "Marco", "Mario", "Michael", "Mike",
    "adam", "boris", "edward", "grandpa", "iven", "john", "max", "pablo", "paul", "quincy",
    "robert", "sandro", "travis", "victor", "zac",
)  # fmt: skip
TEST_SPEAKERS = ("m5", "f3", "belinda", "anika", "Gene", "Denis", "benjamin", "steph2")

_HAN_RUN = re.compile(r"[一-鿿]")
_LATIN_RUN = re.compile(r"[A-Za-z][A-Za-z'\- .&]*")
_PAUSE_S = 0.06
SPEAK_TIMEOUT_S = 30


class SynthesisError(OSError):
    """espeak-ng is missing or refused a text: an OSError, so that every command ends with its sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    accent: str
    speaker: str
    words_per_min: int
    pitch: int
    """0 to 99; 50 is the speaker's own."""


def random_voice(rng: random.Random, split: Split) -> Voice:
    """A voice of the split; the speakers of "train" and "test" are disjoint."""
    return Voice(
        accent=rng.choice(ENGLISH_ACCENTS),
        speaker=rng.choice(TRAIN_SPEAKERS if split == "train" else TEST_SPEAKERS),
        words_per_min=rng.randint(120, 200),
        pitch=rng.randint(30, 70),
    )


def synthesise(text: str, voice: Voice) -> NDArray[np.int16]:
    """Samples [T] at 16 kHz of `text` spoken by `voice`. Chinese text is read in Mandarin whatever the accent, Latin
    words inside it in English by the same speaker. Raises SynthesisError."""
    if text.isupper() and len(text) > 5:
        text = text.lower()  # a shouted sentence would be spelt out
    parts = [_speak(run, language, voice) for run, language in _language_runs(text, voice.accent)]
    if not parts:
        raise SynthesisError(f"there is nothing to speak in {text!r}")
    wave = parts[0] if len(parts) == 1 else _join(parts)
    return np.clip(wave * 32767, -32768, 32767).astype(np.int16)


def _language_runs(text: str, accent: str) -> list[tuple[str, str]]:
    if not _HAN_RUN.search(text):
        return [(text, accent)] if text.strip() else []
    runs: list[tuple[str, str]] = []
    position = 0
    for match in _LATIN_RUN.finditer(text):
        runs += [(text[position : match.start()], MANDARIN), (match.group(), accent)]
        position = match.end()
    runs.append((text[position:], MANDARIN))
    return [(run, language) for run, language in runs if any(character.isalnum() for character in run)]


def _speak(text: str, language: str, voice: Voice) -> NDArray[np.float32]:
    program = shutil.which("espeak-ng")
    if program is None:
        raise SynthesisError("espeak-ng is not installed; on Debian and Ubuntu: apt-get install espeak-ng")
    command = [
        program, "-b", "1", "-v", f"{language}+{voice.speaker}", "-s", str(voice.words_per_min),
        "-p", str(voice.pitch), "--stdin", "--stdout",
    ]  # fmt: skip
    try:
        done = subprocess.run(command, input=text.encode(), capture_output=True, timeout=SPEAK_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise SynthesisError(f"espeak-ng has not spoken {text!r} in {SPEAK_TIMEOUT_S} s") from error
    if done.returncode != 0 or len(done.stdout) <= 44:
        reason = done.stderr.decode(errors="replace").strip() or f"status {done.returncode}, no sound"
        raise SynthesisError(f"espeak-ng failed on {text!r} with voice {language}+{voice.speaker}: {reason}")
    samples, rate = soundfile.read(io.BytesIO(done.stdout), dtype="float32")
    return np.clip(soxr.resample(samples, rate, SAMPLE_RATE), -1, 1).astype(np.float32)


def _join(parts: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    pause = np.zeros(int(_PAUSE_S * SAMPLE_RATE), np.float32)
    pieces: list[NDArray[np.float32]] = []
    for part in parts:
        loud = np.flatnonzero(np.abs(part) > 0.005)
        pieces += [part[loud[0] : loud[-1] + 1] if len(loud) else part, pause]
    return np.concatenate(pieces[:-1])
