"""What the speech encoder heard against what was said: word error rate (characters for Chinese)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from autoglm_backend.models.speech import SpeechEncoder
from autoglm_backend.preprocess.audio import log_mel
from autoglm_training.evaluation.held_out import CLIPS, Clip, speak, speakable_command
from autoglm_training.loading import LoadedCheckpoint
from autoglm_training.speech.alphabet import edit_distance, spoken_form
from autoglm_training.world.elements import Split
from autoglm_training.world.language import is_chinese


@dataclass(frozen=True, slots=True, kw_only=True)
class WordErrors:
    """Edits over words said; in Chinese every character counts as a word."""

    language: str
    clip: Clip
    num_clips: int
    rate: float


@torch.no_grad()
def word_errors(loaded: LoadedCheckpoint, count: int, seed: int, split: Split = "test") -> list[WordErrors]:
    """By language and noise, over spoken commands. Empty for a checkpoint whose encoder spells nothing."""
    speech = loaded.speech
    if speech is None or not speech.config.piece_token_ids:
        return []
    rng = random.Random(seed)
    edits: dict[tuple[str, Clip], tuple[int, int, int]] = {}
    for index in range(count):
        task, clip = speakable_command(rng, split), CLIPS[index % 2]
        heard = loaded.tokenizer.decode(_spelled(speech, speak(task.instruction, rng, split, clip)))
        said, got = _words(task.instruction), _words(heard)
        clips, wrong, total = edits.get((task.language, clip), (0, 0, 0))
        edits[task.language, clip] = (clips + 1, wrong + edit_distance(said, got), total + len(said))
    return [
        WordErrors(language=language, clip=clip, num_clips=clips, rate=wrong / total)
        for (language, clip), (clips, wrong, total) in sorted(edits.items())
    ]


def _spelled(speech: SpeechEncoder, wave_T: NDArray[np.float32]) -> Sequence[int]:
    _, pieces_BA = speech.listen(torch.from_numpy(log_mel(wave_T, speech.config.num_mels))[None])
    return [] if pieces_BA is None else [speech.config.piece_token_ids[p - 1] for p in pieces_BA[0].tolist() if p]


def _words(text: str) -> list[str]:
    words: list[str] = []
    for word in spoken_form(text).split():
        words += list(word) if is_chinese(word) else [word]
    return words
