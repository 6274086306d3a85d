"""Spoken clips kept on disk: shards of int16 samples, so that every later stage hears them without speaking again."""

from __future__ import annotations

import json
import multiprocessing
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from autoglm_training.files import write_atomically
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
        if task is not None:
            task = {**task, "named": tuple((text, tuple(box)) for text, box in task.get("named", ()))}
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
    """Speak `num_clips` lines of `source` into `path`; an existing file is kept. Deterministic in (split, seed).

    Raises SynthesisError without espeak-ng, or OSError.
    """
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
    ends, told = np.cumsum([len(wave) for wave in waves]), np.array(json.dumps(meta, ensure_ascii=False))

    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            np.savez(file, samples=np.concatenate(waves), ends=ends, meta=told)

    write_atomically(path, write)
    print(f"{path}: {num_clips} clips spoken", flush=True)


def load_shard(path: Path) -> list[Clip]:
    """The clips of one file. Raises OSError, or ValueError for a damaged one."""
    try:
        with path.open("rb") as file, np.load(file) as shard:
            samples, ends, meta = shard["samples"], shard["ends"], json.loads(str(shard["meta"]))
    except (ValueError, KeyError, EOFError, BadZipFile) as error:
        raise ValueError(f"{path} is damaged or holds no clips: {error}") from error
    starts = [0, *ends[:-1].tolist()]
    return [
        Clip(line=Line.from_json(entry["line"]), voice=Voice(**entry["voice"]), samples_T=samples[start:end])
        for entry, start, end in zip(meta, starts, ends.tolist(), strict=True)
    ]


def shard_paths(directory: Path, name: str, split: Split, num_shards: int) -> list[Path]:
    """Files of a corpus, in order."""
    return [directory / f"{name}-{split}-{index:03d}.npz" for index in range(num_shards)]


def build_shards(
    paths: Sequence[Path], source: LineSource, split: Split, num_clips: int = CLIPS_PER_SHARD, workers: int = 1
) -> None:
    """Build those of a corpus' shards that are missing, `workers` at a time; shard number i is seeded by i."""
    missing = [(index, path) for index, path in enumerate(paths) if not path.exists()]
    with ProcessPoolExecutor(max(1, workers), multiprocessing.get_context("fork")) as pool:
        for done in [pool.submit(build_shard, path, source, split, index, num_clips) for index, path in missing]:
            done.result()
