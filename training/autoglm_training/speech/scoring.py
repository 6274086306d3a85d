"""How well an encoder hears: character error rates by language and speaker."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from autoglm_backend.models.speech import SpeechEncoder
from autoglm_backend.preprocess.audio import log_mel
from autoglm_training.speech.alphabet import Alphabet, edit_distance, spoken_form
from autoglm_training.speech.batches import MelBatch, mel_batch
from autoglm_training.speech.clips import Clip


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorCount:
    errors: int = 0
    symbols: int = 0
    exact: int = 0
    clips: int = 0

    def plus(self, symbols: int, errors: int) -> ErrorCount:
        return ErrorCount(
            errors=self.errors + errors,
            symbols=self.symbols + symbols,
            exact=self.exact + (errors == 0),
            clips=self.clips + 1,
        )

    def __str__(self) -> str:
        rate, exact = self.errors / max(self.symbols, 1), self.exact / max(self.clips, 1)
        return f"error rate {rate:.1%}, exact {exact:.1%} of {self.clips}"


def clean_batches(clips: Sequence[Clip], num_mels: int, size: int = 16) -> Iterator[tuple[Sequence[Clip], MelBatch]]:
    """Unaltered clips in batches of like length."""
    ordered = sorted(clips, key=lambda clip: len(clip.samples_T))
    for start in range(0, len(ordered), size):
        group = ordered[start : start + size]
        yield group, mel_batch([log_mel(clip.wave_T, num_mels) for clip in group])


@torch.no_grad()
def error_rates(
    encoder: SpeechEncoder,
    head: nn.Module,
    alphabet: Alphabet,
    clips: Sequence[Clip],
    examples: list[str] | None = None,
) -> dict[str, ErrorCount]:
    """Character errors by language ("en") and speaker ("en m5"); fills `examples` with "expected | heard"."""
    encoder.eval()
    counts: defaultdict[str, ErrorCount] = defaultdict(ErrorCount)
    device = encoder.conv1.weight.device
    for group, batch in clean_batches(clips, encoder.config.num_mels):
        batch = batch.to(device)
        classes_BS = head(encoder.encode_frames(batch.mel_BFC, batch.num_frames_B)).argmax(-1)
        for clip, row, steps in zip(group, classes_BS.tolist(), batch.num_steps_B.tolist(), strict=True):
            expected, heard = spoken_form(clip.text), alphabet.decode_greedy(row[:steps])
            for key in (clip.language, f"{clip.language} {clip.voice.speaker}"):
                counts[key] = counts[key].plus(len(expected), edit_distance(expected, heard))
            if examples is not None:
                examples.append(f"{expected} | {heard}")
    encoder.train()
    return dict(sorted(counts.items()))
