"""Second speech stage: the projector's tokens (12.5 a second) learn to carry the decoder's own text tokens, by CTC.

A small decoder then finds in a spoken command what it knows from typed ones: its vocabulary's pieces in order, with
empty slots between. The encoder is tuned along, its character loss kept, so that hearing is not forgotten.

    python -m autoglm_training.speech.token_stage --out runs/speech --tokenizer DIR/tokenizer.json --minutes 12
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from autoglm_backend.models.speech import SpeechEncoder
from autoglm_training.checkpoint import save_atomically
from autoglm_training.config.recipes import SPEECH
from autoglm_training.speech.alphabet import BLANK, Alphabet, edit_distance
from autoglm_training.speech.batches import LengthBatches, MelBatch, augmented_batch, ctc_loss, learning_rate
from autoglm_training.speech.clips import Clip, load_shard
from autoglm_training.speech.scoring import ErrorCount, clean_batches, error_rates

CHARACTER_LOSS_WEIGHT = 0.5
ENCODER_LR_SHARE = 0.3
"""The encoder hears already: it moves slower than the fresh projector."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """The tokenizer's ids that occur in a corpus, as CTC classes from 1; class 0 is the empty slot."""

    tokenizer: Tokenizer
    ids: tuple[int, ...]

    @classmethod
    def of_texts(cls, tokenizer: Tokenizer, texts: Sequence[str]) -> Pieces:
        encodings = tokenizer.encode_batch(sorted(set(texts)), add_special_tokens=False)
        return cls(tokenizer, tuple(sorted({piece for encoding in encodings for piece in encoding.ids})))

    def __len__(self) -> int:
        return len(self.ids) + 1

    def encoder(self) -> Callable[[str], list[int]]:
        """Text to CTC classes; pieces outside the corpus are left out."""
        classes = {piece: index for index, piece in enumerate(self.ids, start=1)}

        def encode(text: str) -> list[int]:
            ids = self.tokenizer.encode(text, add_special_tokens=False).ids
            return [classes[piece] for piece in ids if piece in classes]

        return encode

    def decode(self, classes: Sequence[int]) -> str:
        return self.tokenizer.decode([self.ids[c - 1] for c in merge_repeats(classes)])


def merge_repeats(classes: Sequence[int]) -> list[int]:
    """Greedy CTC: repeats merged, blanks dropped."""
    return [c for i, c in enumerate(classes) if c != BLANK and (i == 0 or classes[i - 1] != c)]


@dataclass(slots=True)
class TokenTrainer:
    """Encoder, projector and both throw-away heads, with their optimiser."""

    out: Path
    alphabet: Alphabet
    pieces: Pieces
    peak_lr: float
    encoder: SpeechEncoder = field(init=False)
    char_head: nn.Linear = field(init=False)
    piece_head: nn.Linear = field(init=False)
    optimizer: torch.optim.AdamW = field(init=False)
    encode_pieces: Callable[[str], list[int]] = field(init=False)
    step: int = 0
    trained_s: float = 0.0

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.encoder = SpeechEncoder(SPEECH)
        self.char_head = nn.Linear(SPEECH.hidden_size, len(self.alphabet))
        self.piece_head = nn.Linear(SPEECH.out_hidden_size, len(self.pieces))
        self.encode_pieces = self.pieces.encoder()
        saved = self._load()
        projector = [p for n, p in self.encoder.named_parameters() if n.startswith("projector")]
        slow = [p for n, p in self.encoder.named_parameters() if not n.startswith("projector")]
        groups = [
            {"params": slow + list(self.char_head.parameters()), "share": ENCODER_LR_SHARE},
            {"params": projector + list(self.piece_head.parameters()), "share": 1.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=self.peak_lr, betas=(0.9, 0.98), weight_decay=0.01)
        if saved is not None:
            self.optimizer.load_state_dict(saved["optimizer"])

    @property
    def path(self) -> Path:
        return self.out / "tokens.pt"

    def _load(self) -> dict[str, Any] | None:
        """Resume this stage where its file fits the vocabulary, else start from the first stage's encoder and head."""
        first = torch.load(self.out / "ctc.pt", weights_only=True)
        assert first["alphabet"] == self.alphabet.characters
        if self.path.exists():
            saved = torch.load(self.path, weights_only=True)
            if saved["pieces"] == list(self.pieces.ids):
                self.encoder.load_state_dict(saved["encoder"])
                self.char_head.load_state_dict(saved["char_head"])
                self.piece_head.load_state_dict(saved["piece_head"])
                self.step, self.trained_s = saved["step"], saved["trained_s"]
                return saved
        self.encoder.load_state_dict(first["encoder"])
        self.char_head.load_state_dict(first["head"])
        return None

    def save(self) -> None:
        state = {
            "alphabet": self.alphabet.characters,
            "pieces": list(self.pieces.ids),
            "encoder": self.encoder.state_dict(),
            "char_head": self.char_head.state_dict(),
            "piece_head": self.piece_head.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "trained_s": self.trained_s,
        }
        save_atomically(state, self.path)

    def losses(self, clips: Sequence[Clip], batch: MelBatch) -> tuple[Tensor, Tensor]:
        """(character loss, piece loss)."""
        with torch.autocast("cpu", torch.bfloat16):
            hidden_BSD = self.encoder.encode_frames(batch.mel_BFC, batch.num_frames_B)
            char_logits = self.char_head(hidden_BSD)
            piece_logits = self.piece_head(self.encoder.project(hidden_BSD))
        characters = ctc_loss(char_logits, batch.num_steps_B, [self.alphabet.encode(clip.text) for clip in clips])
        num_tokens_B = -(-batch.num_steps_B // SPEECH.frames_per_token)
        return characters, ctc_loss(piece_logits, num_tokens_B, [self.encode_pieces(clip.text) for clip in clips])

    def train_step(self, clips: Sequence[Clip], rng: np.random.Generator, lr: float) -> tuple[float, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["share"]
        characters, pieces = self.losses(clips, augmented_batch(clips, SPEECH.num_mels, rng))
        self.optimizer.zero_grad(set_to_none=True)
        (CHARACTER_LOSS_WEIGHT * characters + pieces).backward()
        nn.utils.clip_grad_norm_([p for group in self.optimizer.param_groups for p in group["params"]], 1.0)
        self.optimizer.step()
        self.step += 1
        return characters.item(), pieces.item()


@torch.no_grad()
def piece_rates(trainer: TokenTrainer, clips: Sequence[Clip]) -> tuple[dict[str, ErrorCount], list[str]]:
    """Errors per text token by language, and examples "expected | heard"."""
    trainer.encoder.eval()
    counts: dict[str, ErrorCount] = {}
    examples: list[str] = []
    for group, batch in clean_batches(clips, SPEECH.num_mels):
        tokens_BAD = trainer.encoder.project(trainer.encoder.encode_frames(batch.mel_BFC, batch.num_frames_B))
        best_BA = trainer.piece_head(tokens_BAD).argmax(-1).tolist()
        for clip, row, steps in zip(group, best_BA, batch.num_steps_B.tolist(), strict=True):
            heard = merge_repeats(row[: -(-steps // SPEECH.frames_per_token)])
            expected = trainer.encode_pieces(clip.text)
            count = counts.get(clip.language, ErrorCount())
            counts[clip.language] = count.plus(len(expected), edit_distance(expected, heard))
            examples.append(f"{clip.text} | {trainer.pieces.decode(heard)}")
    trainer.encoder.train()
    return counts, examples


def train(trainer: TokenTrainer, clips: list[Clip], test_clips: list[Clip], minutes: float) -> None:
    batches = LengthBatches(clips, batch_seconds=20, rng=random.Random(trainer.step))
    rng = np.random.default_rng(trainer.step)
    sums, saved_s = np.zeros(2), trainer.trained_s
    while trainer.trained_s < minutes * 60:
        started = time.monotonic()
        lr = learning_rate(trainer.peak_lr, trainer.step, trainer.trained_s / (minutes * 60), warmup_steps=200)
        sums += trainer.train_step(batches.next(max_clip_s=6.0), rng, lr)
        trainer.trained_s += time.monotonic() - started
        if trainer.step % 50 == 0:
            figures = f"characters {sums[0] / 50:.3f} pieces {sums[1] / 50:.3f} lr {lr:.1e}"
            print(f"step {trainer.step} {trainer.trained_s / 60:.1f} min {figures}", flush=True)
            sums[:] = 0
        if trainer.trained_s - saved_s > 120:
            saved_s = trainer.trained_s
            trainer.save()
            report(trainer, test_clips[:200])
    trainer.save()
    report(trainer, test_clips)


def report(trainer: TokenTrainer, test_clips: Sequence[Clip]) -> None:
    pieces, examples = piece_rates(trainer, test_clips)
    characters = error_rates(trainer.encoder, trainer.char_head, trainer.alphabet, test_clips)
    lines = {f"characters {key}": str(count) for key, count in characters.items()}
    lines |= {f"tokens {key}": str(count) for key, count in pieces.items()}
    print("; ".join(f"{key}: {line}" for key, line in lines.items() if key.count(" ") == 1), flush=True)
    print("; ".join(examples[:: max(1, len(examples) // 8)]), flush=True)
    content = {"step": trainer.step, "rates": lines, "examples": examples[:100]}
    (trainer.out / "tokens_report.json").write_text(json.dumps(content, ensure_ascii=False, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--lr", type=float, default=1e-3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    clips = [clip for path in sorted(options.out.glob("*-train-*.npz")) for clip in load_shard(path)]
    test_clips = [clip for path in sorted(options.out.glob("*-test-*.npz")) for clip in load_shard(path)]
    random.Random(0).shuffle(test_clips)
    alphabet = Alphabet.of_texts(torch.load(options.out / "ctc.pt", weights_only=True)["alphabet"])
    pieces = Pieces.of_texts(Tokenizer.from_file(str(options.tokenizer)), [clip.text for clip in clips])
    trainer = TokenTrainer(options.out, alphabet, pieces, options.lr)
    print(f"{len(clips)} clips, {len(pieces)} pieces, from step {trainer.step}", flush=True)
    train(trainer, clips, test_clips, options.minutes)


if __name__ == "__main__":
    main()
