"""Requests of the phone world that training never saw, for benchmarks: text, screenshots and speech in turn.

No benchmark by itself: graph.py and lossless.py ask for its requests.
"""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import soundfile

from autoglm_backend.preprocess.audio import SAMPLE_RATE
from autoglm_protocol.chat import AudioPart, ImagePart, Message, Part, Role, TextPart
from autoglm_training.samples import first_turn
from autoglm_training.speech.synth import random_voice, synthesise
from autoglm_training.world.examples import PHONE_SCALE
from autoglm_training.world.instructions import screen_tasks, text_task
from autoglm_training.world.screens import make_screen, render

MODALITIES = ("text", "screen", "speech")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One user turn: what is said in text, a screenshot (PNG) or a spoken command (WAV)."""

    modality: str
    text: str = ""
    image_png: bytes | None = None
    audio_wav: bytes | None = None

    @property
    def message(self) -> Message:
        parts: list[Part] = []
        if self.image_png is not None:
            parts.append(ImagePart(data=self.image_png))
        if self.audio_wav is not None:
            parts.append(AudioPart(data=self.audio_wav, format="wav"))
        if self.text:
            parts.append(TextPart(text=self.text))
        return Message(role=Role.USER, parts=tuple(parts))

    @property
    def openai_content(self) -> list[dict[str, Any]]:
        parts: list[dict[str, Any]] = []
        if self.image_png is not None:
            url = "data:image/png;base64," + base64.b64encode(self.image_png).decode()
            parts.append({"type": "image_url", "image_url": {"url": url}})
        if self.audio_wav is not None:
            data = base64.b64encode(self.audio_wav).decode()
            parts.append({"type": "input_audio", "input_audio": {"data": data, "format": "wav"}})
        if self.text:
            parts.append({"type": "text", "text": self.text})
        return parts


def mixed_traffic(count: int, seed: int) -> Iterator[Question]:
    """`count` requests of the test split (its screens, wordings and voices), the three modalities in turn."""
    rng = random.Random(seed)
    return islice(_endless(rng), count)


def _endless(rng: random.Random) -> Iterator[Question]:
    while True:
        yield Question(modality="text", text=first_turn(rng, text_task(rng, "test")))
        yield _about_a_screen(rng)
        yield _spoken(rng)


def _about_a_screen(rng: random.Random) -> Question:
    screen = make_screen(rng, "test")
    while not (tasks := screen_tasks(rng, screen, "test", 1)):
        screen = make_screen(rng, "test")
    png = io.BytesIO()
    render(screen, PHONE_SCALE).image.convert("RGB").save(png, "PNG")
    return Question(modality="screen", text=first_turn(rng, tasks[0]), image_png=png.getvalue())


def _spoken(rng: random.Random) -> Question:
    while not (task := text_task(rng, "test")).speakable:
        pass
    wav = io.BytesIO()
    soundfile.write(wav, synthesise(task.instruction, random_voice(rng, "test")), SAMPLE_RATE, format="WAV")
    return Question(modality="speech", audio_wav=wav.getvalue())
