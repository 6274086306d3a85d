"""What the speech encoder heard against what was said: word error rate (characters for Chinese)."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch

from autoglm_backend.preprocess.audio import log_mel
from autoglm_training.loading import LoadedCheckpoint
from autoglm_training.speech.alphabet import edit_distance, spoken_form
from autoglm_training.speech.synth import random_voice, synthesise
from autoglm_training.world.elements import Split
from autoglm_training.world.instructions import text_task
from autoglm_training.world.language import is_chinese


@dataclass(frozen=True, slots=True, kw_only=True)
class WordErrors:
    """Edits over words said; in Chinese every character counts as a word."""

    language: str
    num_clips: int
    rate: float


@torch.no_grad()
def word_errors(loaded: LoadedCheckpoint, count: int, seed: int, split: Split = "test") -> list[WordErrors]:
    """By language, over spoken commands. Empty for a checkpoint whose encoder spells nothing."""
    speech = loaded.speech
    if speech is None or not speech.config.piece_token_ids:
        return []
    rng = random.Random(seed)
    edits: dict[str, tuple[int, int, int]] = {}
    for _ in range(count):
        task = text_task(rng, split)
        while not task.speakable:
            task = text_task(rng, split)
        wave = synthesise(task.instruction, random_voice(rng, "test" if split == "test" else "train")) / 32768.0
        _, pieces_BA = speech.listen(torch.from_numpy(log_mel(wave, speech.config.num_mels))[None])
        heard = [] if pieces_BA is None else [speech.config.piece_token_ids[p - 1] for p in pieces_BA[0].tolist() if p]
        said, got = _words(task.instruction), _words(loaded.tokenizer.decode(heard))
        clips, wrong, total = edits.get(task.language, (0, 0, 0))
        edits[task.language] = (clips + 1, wrong + edit_distance(said, got), total + len(said))
    return [
        WordErrors(language=language, num_clips=clips, rate=wrong / total)
        for language, (clips, wrong, total) in sorted(edits.items())
    ]


def _words(text: str) -> list[str]:
    words: list[str] = []
    for word in spoken_form(text).split():
        words += list(word) if is_chinese(word) else [word]
    return words
