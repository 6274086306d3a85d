"""Batches of clips for the speech stages: like lengths together, distorted, as padded log-mel; their loss."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from autoglm_backend.preprocess.audio import SAMPLE_RATE, log_mel
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

    def to(self, device: str | torch.device) -> MelBatch:
        return MelBatch(mel_BFC=self.mel_BFC.to(device), num_frames_B=self.num_frames_B.to(device))


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
    flat = torch.tensor([symbol for target in targets for symbol in target], device=logits_BSV.device)
    lengths = torch.tensor([len(target) for target in targets])
    log_probs = logits_BSV.float().log_softmax(-1).transpose(0, 1)
    return F.ctc_loss(log_probs, flat, num_steps_B, lengths, zero_infinity=True)


Place = tuple[int, int, float]
"""A pass over the clips, how many batches of it were taken, and the longest clip it allows in seconds."""
START: Place = (0, 0, 0.0)


class LengthBatches:
    """Endless batches of clips of like length, so that little of a batch is padding.

    Pass number n is the same in every run with the same seed and limit, so `taken` says where a resumed run goes on.
    """

    def __init__(self, clips: Sequence[Clip], batch_seconds: float, seed: int, start: Place = START) -> None:
        self.taken = start
        self._clips, self._batch_seconds, self._seed = clips, batch_seconds, seed
        self._queue: list[list[Clip]] = []

    def next(self, max_clip_s: float) -> list[Clip]:
        """The next batch; `max_clip_s` counts when a new pass begins. Raises ValueError when all clips are longer."""
        number, used, limit_s = self.taken
        if not self._queue:
            limit_s = limit_s if used else max_clip_s
            self._queue = self._pass(number, limit_s)
        batch = self._queue[used]
        self.taken = (number, used + 1, limit_s)
        if used + 1 == len(self._queue):
            self._queue, self.taken = [], (number + 1, 0, 0.0)
        return batch

    def close(self) -> None:
        """Nothing to end: batches are made in the training process."""

    def _pass(self, number: int, max_clip_s: float) -> list[list[Clip]]:
        rng = random.Random(f"{self._seed}:{number}")
        short = [clip for clip in self._clips if len(clip.samples_T) < max_clip_s * SAMPLE_RATE]
        if not short:
            raise ValueError(f"none of {len(self._clips)} clips is shorter than {max_clip_s:.1f} s")
        # A jitter of 10 % mixes the neighbourhoods anew in every pass.
        ordered = sorted(short, key=lambda clip: len(clip.samples_T) * rng.uniform(0.9, 1.1))
        queue: list[list[Clip]] = [[]]
        for clip in ordered:
            if len(queue[-1]) * len(clip.samples_T) >= self._batch_seconds * SAMPLE_RATE:
                queue.append([])
            queue[-1].append(clip)
        rng.shuffle(queue)
        return queue
