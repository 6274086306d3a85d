"""Spoken commands as rows: frames of the frozen speech encoder through the projector, which learns with the decoder."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from autoglm_backend.models.speech import SpeechEncoder, load_speech_encoder
from autoglm_training.checkpoint import load_modules
from autoglm_training.samples import Batch, Row, RowBuilder, app_json, collate
from autoglm_training.speech.features import Frames, SpeechClips
from autoglm_training.vision_stage import MEDIA_SCALE
from autoglm_training.world.tasks import Task

APP_SHARE = 0.3
"""Rows in which the agent's `current_app` follows the clip."""


@dataclass(slots=True)
class SpeechRows:
    builder: RowBuilder
    encoder: SpeechEncoder
    clips: Iterator[tuple[Task, Frames]]

    @classmethod
    def open(cls, speech_dir: Path, seed: int, builder: RowBuilder) -> SpeechRows | None:
        """What the speech stages left in `speech_dir` (`export/speech`, `frames-tasks-train-*.npz`), else None."""
        encoder = load_speech_encoder(speech_dir / "export")
        if encoder is None:
            return None
        with torch.no_grad():
            encoder.projector_out.weight.mul_(MEDIA_SCALE)
            encoder.projector_out.bias.mul_(MEDIA_SCALE)
        encoder.projector_in.requires_grad_(True)
        encoder.projector_out.requires_grad_(True)
        return cls(builder, encoder, iter(SpeechClips("train", seed, speech_dir)))

    @torch.no_grad()
    def restore_projector(self, path: Path) -> None:
        """The projector of an earlier run; the encoder stays the one that made the frames. Raises KeyError."""
        earlier = SpeechEncoder(self.encoder.config)
        load_modules(path, {"speech": earlier})
        self.encoder.projector_in.load_state_dict(earlier.projector_in.state_dict())
        self.encoder.projector_out.load_state_dict(earlier.projector_out.state_dict())

    def batch(self, rng: random.Random, max_tokens: int) -> tuple[Batch, list[Tensor]]:
        """Rows of about `max_tokens` tokens in all, and each one's encoder frames [S, D]."""
        rows: list[Row] = []
        frames: list[Tensor] = []
        longest = 0
        while True:
            task, frames_SD = next(self.clips)
            row = Row()
            self.builder.add_text(row, "[gMASK]<sop><|user|>\n")
            self.builder.add_audio(row, -(-len(frames_SD) // self.encoder.config.frames_per_token))
            if rng.random() < APP_SHARE:
                self.builder.add_text(row, "\n\n" + app_json(task.app))
            self.builder.add_reply(row, task.reply)
            longest = max(longest, len(row.ids))
            rows.append(row)
            frames.append(torch.from_numpy(frames_SD))
            if (len(rows) + 1) * longest > max_tokens:
                return collate(rows), frames

    def embed(self, frames: list[Tensor]) -> Tensor:
        """Speech tokens of the clips laid end to end [A, D]; gradients reach the projector."""
        padded_BSD = torch.nn.utils.rnn.pad_sequence(frames, batch_first=True)
        tokens_BAD = self.encoder.project(padded_BSD)
        group = self.encoder.config.frames_per_token
        return torch.cat([row[: -(-len(clip) // group)] for row, clip in zip(tokens_BAD, frames, strict=True)])
