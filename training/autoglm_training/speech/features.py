"""Spoken commands for the decoder's training: tasks with the frozen encoder's frames, kept on disk.

A row of frames goes to `SpeechEncoder.project` (zero-padded rows are right: the last token of a clip is padded with
zeros when served, too) and becomes `num_tokens(frames)` speech tokens.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from autoglm_backend.models.speech import SpeechEncoder
from autoglm_backend.preprocess.audio import log_mel
from autoglm_training.speech.augment import augment
from autoglm_training.speech.batches import mel_batch
from autoglm_training.speech.clips import Line, load_shard
from autoglm_training.speech.synth import Split, random_voice, synthesise
from autoglm_training.world.tasks import Task

Frames = NDArray[np.float32]
TRAIN_VARIANTS = 1
"""Differently distorted takes of each training clip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameShard:
    """frames_ND: float16, all clips one after another; ends: their ends in it; lines: what is said."""

    frames_ND: NDArray[np.float16]
    ends: NDArray[np.int64]
    lines: list[Line]

    def frames_SD(self, index: int) -> Frames:
        start = self.ends[index - 1] if index else 0
        return self.frames_ND[start : self.ends[index]].astype(np.float32)


def num_tokens(num_frames: int, frames_per_token: int = 4) -> int:
    """Speech tokens of a clip of `num_frames` encoder frames."""
    return -(-num_frames // frames_per_token)


@torch.no_grad()
def encode_waves(encoder: SpeechEncoder, waves: Sequence[NDArray[np.float32]]) -> list[Frames]:
    """Encoder frames [S, D] of each clip, computed in one padded batch."""
    batch = mel_batch([log_mel(wave, encoder.config.num_mels) for wave in waves])
    hidden_BSD = encoder.encode_frames(batch.mel_BFC, batch.num_frames_B)
    return [row[:steps].numpy() for row, steps in zip(hidden_BSD, batch.num_steps_B.tolist(), strict=True)]


def spoken_frames(encoder: SpeechEncoder, text: str, rng: random.Random, split: Split) -> Frames:
    """Frames [S, D] of any text in a random voice of the split: about 40 ms of one core. Training clips are distorted.

    Raises SynthesisError where espeak-ng is missing or has nothing to speak.
    """
    wave = synthesise(text, random_voice(rng, split)).astype(np.float32) / 32768
    if split == "train":
        wave = augment(wave, np.random.default_rng(rng.getrandbits(32)))
    return encode_waves(encoder, [wave])[0]


def build_features(encoder: SpeechEncoder, directory: Path, split: Split, name: str = "tasks") -> list[Path]:
    """Encode every clip shard `name`-`split`-*.npz; shards that this very encoder has made already are kept."""
    print_of_encoder = encoder_fingerprint(encoder)
    paths: list[Path] = []
    for shard in sorted(directory.glob(f"{name}-{split}-*.npz")):
        path = directory / f"frames-{shard.name}"
        paths.append(path)
        if path.exists() and str(np.load(path)["encoder"]) == print_of_encoder:
            continue
        _encode_shard(encoder, shard, path, split, print_of_encoder)
        print(f"{path.name}: encoded", flush=True)
    return paths


def load_frames(path: Path) -> FrameShard:
    with np.load(path) as shard:
        lines = [Line.from_json(line) for line in json.loads(str(shard["lines"]))]
        return FrameShard(frames_ND=shard["frames"], ends=shard["ends"], lines=lines)


class SpeechClips:
    """Endless (Task, frames float32 [S, D]) of a split, shuffled anew in every pass.

    Raises FileNotFoundError when `build_features` has not run.
    """

    def __init__(self, split: Split, seed: int, directory: Path = Path("runs/speech")) -> None:
        paths = sorted(directory.glob(f"frames-tasks-{split}-*.npz"))
        if not paths:
            raise FileNotFoundError(f"{directory} holds no frames-tasks-{split}-*.npz: build_features makes them")
        self._shards = [load_frames(path) for path in paths]
        self._order = [(shard, index) for shard, held in enumerate(self._shards) for index in range(len(held.lines))]
        self._rng = random.Random(seed)

    def __len__(self) -> int:
        """Clips in one pass."""
        return len(self._order)

    def __iter__(self) -> Iterator[tuple[Task, Frames]]:
        while True:
            self._rng.shuffle(self._order)
            yield from self.one_pass()

    def one_pass(self) -> Iterator[tuple[Task, Frames]]:
        """Every clip once, in the present order."""
        for shard, index in self._order:
            held = self._shards[shard]
            task = held.lines[index].task
            assert task is not None  # build_features was given shards of tasks
            yield task, held.frames_SD(index)


def encoder_fingerprint(encoder: SpeechEncoder) -> str:
    """Changes with any weight that the frames depend on (the projector is none of them)."""
    digest = hashlib.sha256()
    for name, parameter in encoder.named_parameters():
        if not name.startswith("projector"):
            digest.update(parameter.detach().float().numpy().tobytes())
    return digest.hexdigest()


def _encode_shard(encoder: SpeechEncoder, shard: Path, path: Path, split: Split, print_of_encoder: str) -> None:
    rng = np.random.default_rng(0)
    clips = load_shard(shard)
    takes = [clip for clip in clips for _ in range(TRAIN_VARIANTS)] if split == "train" else clips
    takes.sort(key=lambda clip: len(clip.samples_T))
    frames: list[Frames] = []
    for start in range(0, len(takes), 16):
        waves = [clip.wave_T for clip in takes[start : start + 16]]
        frames += encode_waves(encoder, [augment(wave, rng) for wave in waves] if split == "train" else waves)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(
            file,
            frames=np.concatenate(frames).astype(np.float16),
            ends=np.cumsum([len(rows) for rows in frames]),
            lines=np.array(json.dumps([asdict(clip.line) for clip in takes], ensure_ascii=False)),
            encoder=np.array(print_of_encoder),
        )
    os.replace(partial, path)
