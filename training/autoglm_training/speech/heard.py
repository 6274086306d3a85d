"""What the trained encoder hears of the spoken tasks, as token ids: speech becomes text rows with mistakes in them.

The served encoder hands the decoder its own embeddings of the heard pieces (`SpeechEncoder.hear`), so the decoder's
training needs no audio at all: a clip is its ids between the audio marks.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from autoglm_backend.models.speech import SpeechEncoder
from autoglm_backend.preprocess.audio import log_mel
from autoglm_training.checkpoint import load_state
from autoglm_training.config.recipes import SPEECH
from autoglm_training.files import write_atomically
from autoglm_training.speech.augment import augment
from autoglm_training.speech.batches import mel_batch
from autoglm_training.speech.clips import Clip, Line, load_shard
from autoglm_training.speech.synth import Split
from autoglm_training.world.tasks import Task

EMPTY_TEXT = "\n"
"""What an empty slot reads as. Of eight candidates a decoder that had never heard speech followed most commands after
line breaks (54 of 100, against 55 without empty slots and 31 after <|audio|>)."""
TOKENS_FILE = "tokens.pt"
TRAIN_TAKES = 1
"""Differently distorted takes of each training clip."""


def piece_encoder(run: Path, tokenizer: Tokenizer) -> tuple[SpeechEncoder, Tensor]:
    """The second stage's encoder with its piece head, and the token id [num_pieces + 1] of each class.

    Its piece embeddings are still random: see `bind_embeddings`.
    Raises OSError, or ValueError for a damaged file or one of another tokenizer.
    """
    path = run / TOKENS_FILE
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: run --stage speech first, or go on --without-speech")
    state = load_state(path)
    try:
        modules = state.get("modules", state)  # the committed checkpoint's file is older than `Trainer`
        head = modules["piece_head"]
        names = head["names" if "names" in head else "_extra_state"][1:]
        weight, bias = (head[name] if name in head else head[f"linear.{name}"] for name in ("weight", "bias"))
        trained = modules["encoder"]
    except KeyError as error:
        raise ValueError(f"{path} is no state of the speech stages: it has no {error}") from error
    ids = [tokenizer.token_to_id(name) for name in names]
    if None in ids:
        raise ValueError(f"{path} was trained with another tokenizer, whose {names[ids.index(None)]!r} this one lacks")
    encoder = SpeechEncoder(replace(SPEECH, num_pieces=len(names), piece_token_ids=tuple(ids)))
    encoder.load_state_dict(trained, strict=False)
    with torch.no_grad():
        encoder.piece_head.weight.copy_(weight)
        encoder.piece_head.bias.copy_(bias)
    empty = tokenizer.encode(EMPTY_TEXT, add_special_tokens=False).ids
    assert len(empty) == 1
    return encoder.eval().requires_grad_(False), torch.tensor([*empty, *ids])


def bind_embeddings(encoder: SpeechEncoder, piece_ids: Tensor, embeddings_VD: Tensor) -> None:
    """Give `encoder` the decoder's embeddings of its pieces: do it last, when the decoder is trained."""
    with torch.no_grad():
        encoder.piece_embedding.weight.copy_(embeddings_VD[piece_ids])


@torch.no_grad()
def heard_ids(encoder: SpeechEncoder, piece_ids: Tensor, waves: Sequence[np.ndarray]) -> list[list[int]]:
    """Token ids of each clip's speech tokens, empty slots first, as many as the server makes of it."""
    batch = mel_batch([log_mel(wave, encoder.config.num_mels) for wave in waves])
    tokens_BAD = encoder.project(encoder.encode_frames(batch.mel_BFC, batch.num_frames_B))
    counts = (-(-batch.num_steps_B // encoder.config.frames_per_token)).tolist()
    return [
        piece_ids[encoder.hear(row[None, :count])[0]].tolist() for row, count in zip(tokens_BAD, counts, strict=True)
    ]


def build_heard(encoder: SpeechEncoder, piece_ids: Tensor, shards: Sequence[Path], path: Path, split: Split) -> None:
    """Write what is heard of every clip, one JSON line each: {"line": ..., "ids": [...]}. Raises OSError."""
    rng = np.random.default_rng(0)

    def write(partial: Path) -> None:
        with partial.open("w", encoding="utf-8") as file:
            for shard in shards:
                clips = sorted(load_shard(shard), key=lambda clip: len(clip.samples_T))
                for _ in range(TRAIN_TAKES if split == "train" else 1):
                    for start in range(0, len(clips), 16):
                        group = clips[start : start + 16]
                        heard = heard_ids(encoder, piece_ids, _waves(group, split, rng))
                        for clip, ids in zip(group, heard, strict=True):
                            file.write(json.dumps({"line": asdict(clip.line), "ids": ids}, ensure_ascii=False) + "\n")
                print(f"{shard.name}: heard", flush=True)

    write_atomically(path, write)


class HeardClips:
    """What was heard of a split's clips, with the task that was said.

    The ids stand between <|begin_of_audio|> and <|end_of_audio|> in a row. Raises FileNotFoundError when the heard
    clips have not been written (`autoglm train --stage speech`).
    """

    def __init__(self, split: Split, directory: Path = Path("runs/speech")) -> None:
        path = directory / f"heard-{split}.jsonl"
        with path.open(encoding="utf-8") as file:
            entries = [json.loads(line) for line in file]
        self._clips = [(Line.from_json(entry["line"]).task, entry["ids"]) for entry in entries]

    def __len__(self) -> int:
        return len(self._clips)

    def pick(self, rng: random.Random) -> tuple[Task, list[int]]:
        """One clip: its task, and the ids that were heard."""
        task, ids = rng.choice(self._clips)
        assert task is not None  # only tasks are written
        return task, ids


def _waves(clips: Sequence[Clip], split: Split, rng: np.random.Generator) -> list[np.ndarray]:
    return [augment(clip.wave_T, rng) if split == "train" else clip.wave_T for clip in clips]
