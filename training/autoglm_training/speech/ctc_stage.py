"""First speech stage: the encoder learns to hear characters (CTC on its 20 ms frames, through a throw-away head).

    python -m autoglm_training.speech.ctc_stage --out runs/speech --steps 8000

Resumes from `<out>/ctc.pt`. The character table is the corpus'; rows of known characters survive a change of corpus.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from autoglm_backend.models.speech import SpeechEncoder
from autoglm_backend.preprocess.audio import num_mel_frames
from autoglm_training.checkpoint import save_atomically
from autoglm_training.config.recipes import SPEECH
from autoglm_training.speech.alphabet import Alphabet
from autoglm_training.speech.batches import LengthBatches, augmented_batch, ctc_loss, learning_rate
from autoglm_training.speech.clips import CORPORA, Clip, build_corpus, load_corpus
from autoglm_training.speech.heads import NamedHead
from autoglm_training.speech.practice import command_line, practice_line, task_line
from autoglm_training.speech.scoring import error_rates


@dataclass(slots=True)
class CtcTrainer:
    """Owns the encoder, its throw-away head and the optimiser; saves them together."""

    out: Path
    alphabet: Alphabet
    peak_lr: float
    encoder: SpeechEncoder = field(init=False)
    head: NamedHead = field(init=False)
    parameters: list[nn.Parameter] = field(init=False)
    optimizer: torch.optim.AdamW = field(init=False)
    step: int = 0
    trained_s: float = 0.0

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.encoder = SpeechEncoder(SPEECH)
        self.head = NamedHead(SPEECH.hidden_size, self.alphabet.characters)
        saved = torch.load(self.path, weights_only=True) if self.path.exists() else None
        same_head = saved is not None and self._restore(saved)
        # The projector is not part of this stage.
        self.parameters = [p for n, p in self.encoder.named_parameters() if not n.startswith("projector")]
        self.parameters += list(self.head.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=self.peak_lr, betas=(0.9, 0.98), weight_decay=0.01)
        if saved is not None and same_head:
            self.optimizer.load_state_dict(saved["optimizer"])

    @property
    def path(self) -> Path:
        return self.out / "ctc.pt"

    def _restore(self, saved: dict[str, Any]) -> bool:
        self.encoder.load_state_dict(saved["encoder"])
        self.step, self.trained_s = saved["step"], saved["trained_s"]
        return self.head.carry_over(saved["head"])

    def save(self) -> None:
        state = {
            "encoder": self.encoder.state_dict(),
            "head": self.head.saved(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "trained_s": self.trained_s,
        }
        save_atomically(state, self.path)

    def train_step(self, clips: Sequence[Clip], rng: np.random.Generator, lr: float) -> float:
        batch = augmented_batch(clips, SPEECH.num_mels, rng, share=min(1.0, max(0.0, self.step - 500) / 2000))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        with torch.autocast("cpu", torch.bfloat16):
            hidden_BSD = self.encoder.encode_frames(batch.mel_BFC, batch.num_frames_B)
            logits_BSV = self.head(hidden_BSD)
        loss = ctc_loss(logits_BSV, batch.num_steps_B, [self.alphabet.encode(clip.text) for clip in clips])
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.step += 1
        return loss.item()


def train(out: Path, clips: list[Clip], test_clips: list[Clip], steps: int, peak_lr: float) -> None:
    clips = [clip for clip in clips if num_mel_frames(len(clip.samples_T)) <= 600]
    alphabet = Alphabet.of_texts(clip.text for clip in clips)
    trainer = CtcTrainer(out, alphabet, peak_lr)
    batches = LengthBatches(clips, batch_seconds=20, rng=random.Random(trainer.step))
    rng = np.random.default_rng(trainer.step)
    print(
        f"{len(clips)} clips, {len(test_clips)} test clips, {len(alphabet)} classes, from step {trainer.step}",
        flush=True,
    )
    mean_loss, heard_s, saved_s = 0.0, 0.0, trainer.trained_s
    log_started = time.monotonic()
    while trainer.step < steps:
        started = time.monotonic()
        # From short clean clips to all of them: on long distorted ones alone CTC stayed with the blank for 500 steps.
        batch = batches.next(1.3 + trainer.step / 1000)
        lr = learning_rate(peak_lr, trainer.step, trainer.step / steps)
        loss = trainer.train_step(batch, rng, lr)
        mean_loss += loss / 50
        heard_s += sum(len(clip.samples_T) for clip in batch) / 16_000
        trainer.trained_s += time.monotonic() - started
        if trainer.step % 50 == 0:
            rate = heard_s / (time.monotonic() - log_started)
            print(
                f"step {trainer.step} {trainer.trained_s / 60:.1f} min loss {mean_loss:.3f} lr {lr:.1e} {rate:.0f}x",
                flush=True,
            )
            mean_loss, heard_s, log_started = 0.0, 0.0, time.monotonic()
        if trainer.trained_s - saved_s > 120:
            saved_s = trainer.trained_s
            trainer.save()
            report(out, trainer, test_clips[::6])
    trainer.save()
    report(out, trainer, test_clips)


def report(out: Path, trainer: CtcTrainer, test_clips: Sequence[Clip]) -> None:
    examples: list[str] = []
    rates = error_rates(trainer.encoder, trainer.head, trainer.alphabet, test_clips, examples)
    lines = {key: str(count) for key, count in rates.items()}
    print(
        "; ".join(f"{key}: {lines[key]}" for key in lines if " " not in key),
        "|",
        "; ".join(examples[::40][:5]),
        flush=True,
    )
    (out / "ctc_report.json").write_text(
        json.dumps({"step": trainer.step, "rates": lines, "examples": examples[:100]}, ensure_ascii=False, indent=1)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=8000, help="35 minutes of one idle core")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--shards", type=int, default=14, help="thousands of practice clips, of commands and of tasks")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name, source in zip(CORPORA, (practice_line, command_line, task_line), strict=True):
        build_corpus(options.out, name, source, "train", options.shards)
        build_corpus(options.out, name, source, "test", 1, 500)
    train(options.out, load_corpus(options.out, "train"), load_corpus(options.out, "test"), options.steps, options.lr)


if __name__ == "__main__":
    main()
