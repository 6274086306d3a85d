"""Spoken clips kept on disk: shards of int16 samples, so that every later stage hears them without speaking again."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoglm_training.speech.synth import Split, SynthesisError, Voice, random_voice, synthesise
from autoglm_training.world.language import Language, is_chinese
from autoglm_training.world.tasks import Task

CLIPS_PER_SHARD = 1_000
CORPORA = ("practice", "commands", "tasks")
"""Names of the shards; `practice.py` says what each holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What is said, the command family it belongs to, and the task it asks for (None: said for practice only)."""

    text: str
    family: str | None = None
    task: Task | None = None

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Line:
        """From `dataclasses.asdict`'s form, after a round through JSON."""
        task = value["task"]
        return cls(text=value["text"], family=value["family"], task=None if task is None else Task(**task))


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    line: Line
    voice: Voice
    samples_T: NDArray[np.int16]

    @property
    def text(self) -> str:
        return self.line.text

    @property
    def language(self) -> Language:
        return "zh" if is_chinese(self.text) else "en"

    @property
    def wave_T(self) -> NDArray[np.float32]:
        return self.samples_T.astype(np.float32) / 32768


LineSource = Callable[[random.Random, Split], Line]


def build_shard(path: Path, source: LineSource, split: Split, seed: int, num_clips: int = CLIPS_PER_SHARD) -> None:
    """Speak `num_clips` lines of `source` into `path`; an existing file is kept. Deterministic in (split, seed)."""
    if path.exists():
        return
    rng = random.Random(f"{split}/{seed}")
    meta, waves = [], []
    while len(waves) < num_clips:
        line, voice = source(rng, split), random_voice(rng, split)
        try:
            waves.append(synthesise(line.text, voice))
        except SynthesisError:
            if not waves:  # espeak-ng itself is missing or broken: say so at once
                raise
            continue  # a text without anything to speak
        meta.append({"line": asdict(line), "voice": asdict(voice)})
    path.parent.mkdir(parents=True, exist_ok=True)
    ends = np.cumsum([len(wave) for wave in waves])
    # Written beside and moved: a shard that exists is whole.
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(file, samples=np.concatenate(waves), ends=ends, meta=np.array(json.dumps(meta, ensure_ascii=False)))
    os.replace(partial, path)


def load_shard(path: Path) -> list[Clip]:
    with np.load(path) as shard:
        samples, ends, meta = shard["samples"], shard["ends"], json.loads(str(shard["meta"]))
    starts = [0, *ends[:-1].tolist()]
    return [
        Clip(line=Line.from_json(entry["line"]), voice=Voice(**entry["voice"]), samples_T=samples[start:end])
        for entry, start, end in zip(meta, starts, ends.tolist(), strict=True)
    ]


def build_corpus(
    directory: Path, name: str, source: LineSource, split: Split, num_shards: int, num_clips: int = CLIPS_PER_SHARD
) -> list[Path]:
    """Build (or find) shards `name`-`split`-NNN.npz and return their paths, printing progress."""
    paths = [directory / f"{name}-{split}-{index:03d}.npz" for index in range(num_shards)]
    for index, path in enumerate(paths):
        started = time.monotonic()
        if not path.exists():
            build_shard(path, source, split, index, num_clips)
            print(f"{path.name}: {num_clips} clips in {time.monotonic() - started:.0f} s", flush=True)
    return paths


def load_corpus(directory: Path, split: Split) -> list[Clip]:
    """Every clip of the split that `build_corpus` has put into `directory`. Raises FileNotFoundError without any."""
    paths = [path for name in CORPORA for path in sorted(directory.glob(f"{name}-{split}-*.npz"))]
    if not paths:
        raise FileNotFoundError(f"{directory} holds no clips of the {split} split")
    return [clip for path in paths for clip in load_shard(path)]
