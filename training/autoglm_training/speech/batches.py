"""Batches of clips for the speech stages: like lengths together, distorted, as padded log-mel; loss and schedule."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from autoglm_backend.preprocess.audio import log_mel
from autoglm_training.speech.augment import augment, mask_mel
from autoglm_training.speech.clips import Clip


@dataclass(frozen=True, slots=True, kw_only=True)
class MelBatch:
    """mel_BFC: float32, zero-padded. num_frames_B: true lengths in mel frames."""

    mel_BFC: Tensor
    num_frames_B: Tensor

    @property
    def num_steps_B(self) -> Tensor:
        """Encoder frames (20 ms) of each row."""
        return (self.num_frames_B + 1) // 2


def mel_batch(mels: Sequence[np.ndarray]) -> MelBatch:
    lengths = torch.tensor([len(mel) for mel in mels])
    mel_BFC = torch.zeros(len(mels), int(lengths.max()), mels[0].shape[1])
    for row, mel in zip(mel_BFC, mels, strict=True):
        row[: len(mel)] = torch.from_numpy(mel)
    return MelBatch(mel_BFC=mel_BFC, num_frames_B=lengths)


def augmented_batch(clips: Sequence[Clip], num_mels: int, rng: np.random.Generator, share: float = 1.0) -> MelBatch:
    """Log-mel of the clips, each distorted with probability `share`."""
    return mel_batch(
        [
            mask_mel(log_mel(augment(clip.wave_T, rng), num_mels), rng)
            if rng.random() < share
            else log_mel(clip.wave_T, num_mels)
            for clip in clips
        ]
    )


def ctc_loss(logits_BSV: Tensor, num_steps_B: Tensor, targets: Sequence[Sequence[int]]) -> Tensor:
    """Mean over the batch of the CTC loss per target symbol."""
    flat = torch.tensor([symbol for target in targets for symbol in target])
    lengths = torch.tensor([len(target) for target in targets])
    log_probs = logits_BSV.float().log_softmax(-1).transpose(0, 1)
    return F.ctc_loss(log_probs, flat, num_steps_B, lengths, zero_infinity=True)


@dataclass(slots=True)
class LengthBatches:
    """Endless batches of clips of like length, so that little of a batch is padding."""

    clips: list[Clip]
    batch_seconds: float
    rng: random.Random
    _queue: list[list[Clip]] = field(default_factory=list)

    def next(self, max_clip_s: float) -> list[Clip]:
        """The next batch; `max_clip_s` counts when a new pass begins."""
        if not self._queue:
            short = [clip for clip in self.clips if len(clip.samples_T) < max_clip_s * 16_000]
            # A jitter of 10 % mixes the neighbourhoods anew in every pass.
            ordered = sorted(short, key=lambda clip: len(clip.samples_T) * self.rng.uniform(0.9, 1.1))
            batch: list[Clip] = []
            for clip in ordered:
                batch.append(clip)
                if len(batch) * len(clip.samples_T) >= self.batch_seconds * 16_000:
                    self._queue.append(batch)
                    batch = []
            self.rng.shuffle(self._queue)
        return self._queue.pop()


def learning_rate(peak: float, step: int, share_done: float, warmup_steps: int = 400) -> float:
    """Linear warm-up by step, cosine fall to 2 % by the share of the steps that is done."""
    fall = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(share_done, 1.0)))
    return peak * min(1.0, (step + 1) / warmup_steps) * fall
