"""Second speech stage: the projector's tokens (12.5 a second) learn to carry the decoder's own text tokens, by CTC.

A small decoder then finds in a spoken command what it knows from typed ones: its vocabulary's pieces in order, with
empty slots between. The command's family is read from the tokens too, so that they carry the intent. The encoder is
tuned along, its character loss kept, so that hearing is not forgotten.

    python -m autoglm_training.speech.token_stage --out runs/speech --tokenizer DIR/tokenizer.json --steps 3000
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from autoglm_backend.models.speech import SpeechEncoder
from autoglm_training.checkpoint import save_atomically
from autoglm_training.config.recipes import SPEECH
from autoglm_training.speech.alphabet import BLANK, Alphabet, edit_distance, spoken_form
from autoglm_training.speech.batches import LengthBatches, MelBatch, augmented_batch, ctc_loss, learning_rate
from autoglm_training.speech.clips import Clip, load_corpus
from autoglm_training.speech.heads import IntentHead, NamedHead
from autoglm_training.speech.scoring import ErrorCount, clean_batches, error_rates
from autoglm_training.world.phrases import families

CHARACTER_LOSS_WEIGHT = 0.5
INTENT_LOSS_WEIGHT = 0.3
ENCODER_LR_SHARE = 0.5
"""The encoder hears already: it moves slower than the fresh projector."""


class Pieces:
    """The tokenizer's pieces that occur in a corpus, as CTC classes from 1; class 0 is the empty slot.

    Texts count in their spoken form: neither letter case nor punctuation is heard.
    """

    def __init__(self, tokenizer: Tokenizer, texts: Iterable[str]) -> None:
        self._tokenizer = tokenizer
        encodings = tokenizer.encode_batch(sorted({spoken_form(text) for text in texts}), add_special_tokens=False)
        self.ids = sorted({piece for encoding in encodings for piece in encoding.ids})
        self._classes = {piece: index for index, piece in enumerate(self.ids, start=1)}

    @property
    def names(self) -> list[str]:
        return [str(self._tokenizer.id_to_token(piece)) for piece in self.ids]

    def encode(self, text: str) -> list[int]:
        """CTC classes; pieces outside the corpus are left out."""
        ids = self._tokenizer.encode(spoken_form(text), add_special_tokens=False).ids
        return [self._classes[piece] for piece in ids if piece in self._classes]

    def decode(self, classes: Sequence[int]) -> str:
        return self._tokenizer.decode([self.ids[c - 1] for c in classes])


def merge_repeats(classes: Sequence[int]) -> list[int]:
    """Greedy CTC: repeats merged, blanks dropped."""
    return [c for i, c in enumerate(classes) if c != BLANK and (i == 0 or classes[i - 1] != c)]


@dataclass(slots=True)
class TokenTrainer:
    """Encoder, projector and the throw-away heads, with their optimiser."""

    out: Path
    alphabet: Alphabet
    pieces: Pieces
    peak_lr: float
    encoder: SpeechEncoder = field(init=False)
    char_head: NamedHead = field(init=False)
    piece_head: NamedHead = field(init=False)
    intent_head: IntentHead = field(init=False)
    optimizer: torch.optim.AdamW = field(init=False)
    families: dict[str, int] = field(init=False)
    step: int = 0
    trained_s: float = 0.0

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.families = {family: index for index, family in enumerate(families())}
        self.encoder = SpeechEncoder(SPEECH)
        self.char_head = NamedHead(SPEECH.hidden_size, self.alphabet.characters)
        self.piece_head = NamedHead(SPEECH.out_hidden_size, self.pieces.names)
        self.intent_head = IntentHead(SPEECH.out_hidden_size, len(self.families))
        projector = [p for n, p in self.encoder.named_parameters() if n.startswith("projector")]
        slow = [p for n, p in self.encoder.named_parameters() if not n.startswith("projector")]
        fresh = [*projector, *self.piece_head.parameters(), *self.intent_head.parameters()]
        groups = [
            {"params": [*slow, *self.char_head.parameters()], "share": ENCODER_LR_SHARE},
            {"params": fresh, "share": 1.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=self.peak_lr, betas=(0.9, 0.98), weight_decay=0.01)
        self._restore()

    @property
    def path(self) -> Path:
        return self.out / "tokens.pt"

    def _restore(self) -> None:
        """Resume this stage, or start from the first stage's encoder and character head."""
        if not self.path.exists():
            first = torch.load(self.out / "ctc.pt", weights_only=True)
            self.encoder.load_state_dict(first["encoder"])
            self.char_head.carry_over(first["head"])
            return
        saved = torch.load(self.path, weights_only=True)
        self.encoder.load_state_dict(saved["encoder"])
        self.intent_head.load_state_dict(saved["intent_head"])
        same = [self.char_head.carry_over(saved["char_head"]), self.piece_head.carry_over(saved["piece_head"])]
        self.step, self.trained_s = saved["step"], saved["trained_s"]
        if all(same):
            self.optimizer.load_state_dict(saved["optimizer"])

    def save(self) -> None:
        state = {
            "encoder": self.encoder.state_dict(),
            "char_head": self.char_head.saved(),
            "piece_head": self.piece_head.saved(),
            "intent_head": self.intent_head.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "trained_s": self.trained_s,
        }
        save_atomically(state, self.path)

    def losses(self, clips: Sequence[Clip], batch: MelBatch) -> tuple[Tensor, Tensor, Tensor]:
        """(character loss, piece loss, intent loss)."""
        num_tokens_B = -(-batch.num_steps_B // SPEECH.frames_per_token)
        with torch.autocast("cpu", torch.bfloat16):
            hidden_BSD = self.encoder.encode_frames(batch.mel_BFC, batch.num_frames_B)
            tokens_BAD = self.encoder.project(hidden_BSD)
            char_logits, piece_logits = self.char_head(hidden_BSD), self.piece_head(tokens_BAD)
            intent_logits = self.intent_head(tokens_BAD, num_tokens_B)
        characters = ctc_loss(char_logits, batch.num_steps_B, [self.alphabet.encode(clip.text) for clip in clips])
        pieces = ctc_loss(piece_logits, num_tokens_B, [self.pieces.encode(clip.text) for clip in clips])
        intent = F.cross_entropy(intent_logits.float(), self.family_targets(clips), ignore_index=-1, reduction="sum")
        return characters, pieces, intent / len(clips)

    def family_targets(self, clips: Sequence[Clip]) -> Tensor:
        """Class of each clip's family, -1 where it has none (torch's ignore_index)."""
        return torch.tensor([self.families.get(clip.line.family or "", -1) for clip in clips])

    def train_step(self, clips: Sequence[Clip], rng: np.random.Generator, lr: float) -> list[float]:
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["share"]
        characters, pieces, intent = self.losses(clips, augmented_batch(clips, SPEECH.num_mels, rng))
        self.optimizer.zero_grad(set_to_none=True)
        (CHARACTER_LOSS_WEIGHT * characters + pieces + INTENT_LOSS_WEIGHT * intent).backward()
        nn.utils.clip_grad_norm_([p for group in self.optimizer.param_groups for p in group["params"]], 1.0)
        self.optimizer.step()
        self.step += 1
        return [characters.item(), pieces.item(), intent.item()]


@torch.no_grad()
def token_rates(trainer: TokenTrainer, clips: Sequence[Clip]) -> tuple[dict[str, str], list[str]]:
    """Errors per text token and right families, by language; and examples "expected | heard"."""
    trainer.encoder.eval()
    pieces: defaultdict[str, ErrorCount] = defaultdict(ErrorCount)
    intents: defaultdict[str, list[bool]] = defaultdict(list)
    examples: list[str] = []
    for group, batch in clean_batches(clips, SPEECH.num_mels):
        tokens_BAD = trainer.encoder.project(trainer.encoder.encode_frames(batch.mel_BFC, batch.num_frames_B))
        num_tokens_B = -(-batch.num_steps_B // SPEECH.frames_per_token)
        best_BA = trainer.piece_head(tokens_BAD).argmax(-1).tolist()
        families_B = trainer.intent_head(tokens_BAD, num_tokens_B).argmax(-1).tolist()
        wanted_B = trainer.family_targets(group).tolist()
        for clip, row, num_tokens, family, wanted in zip(
            group, best_BA, num_tokens_B.tolist(), families_B, wanted_B, strict=True
        ):
            heard, expected = merge_repeats(row[:num_tokens]), trainer.pieces.encode(clip.text)
            pieces[clip.language] = pieces[clip.language].plus(len(expected), edit_distance(expected, heard))
            examples.append(f"{clip.text} | {trainer.pieces.decode(heard)}")
            if wanted >= 0:
                intents[clip.language].append(family == wanted)
    trainer.encoder.train()
    lines = {f"tokens {language}": str(count) for language, count in sorted(pieces.items())}
    lines |= {f"family {key}": f"{sum(hits) / len(hits):.1%} of {len(hits)}" for key, hits in sorted(intents.items())}
    return lines, examples


def train(trainer: TokenTrainer, clips: list[Clip], test_clips: list[Clip], steps: int) -> None:
    batches = LengthBatches(clips, batch_seconds=20, rng=random.Random(trainer.step))
    rng = np.random.default_rng(trainer.step)
    sums, saved_s = np.zeros(3), trainer.trained_s
    while trainer.step < steps:
        started = time.monotonic()
        lr = learning_rate(trainer.peak_lr, trainer.step, trainer.step / steps, warmup_steps=200)
        sums += trainer.train_step(batches.next(max_clip_s=6.0), rng, lr)
        trainer.trained_s += time.monotonic() - started
        if trainer.step % 50 == 0:
            figures = f"characters {sums[0] / 50:.3f} pieces {sums[1] / 50:.3f} intent {sums[2] / 50:.3f} lr {lr:.1e}"
            print(f"step {trainer.step} {trainer.trained_s / 60:.1f} min {figures}", flush=True)
            sums[:] = 0
        if trainer.trained_s - saved_s > 180:
            saved_s = trainer.trained_s
            trainer.save()
            report(trainer, test_clips[:300])
    trainer.save()
    report(trainer, test_clips)


def report(trainer: TokenTrainer, test_clips: Sequence[Clip]) -> None:
    tokens, examples = token_rates(trainer, test_clips)
    characters = error_rates(trainer.encoder, trainer.char_head, trainer.alphabet, test_clips)
    lines = {f"characters {key}": str(count) for key, count in characters.items()}
    lines |= tokens
    print("; ".join(f"{key}: {line}" for key, line in lines.items() if key.count(" ") == 1), flush=True)
    print("; ".join(examples[:: max(1, len(examples) // 8)]), flush=True)
    content = {"step": trainer.step, "rates": lines, "examples": examples[:100]}
    (trainer.out / "tokens_report.json").write_text(json.dumps(content, ensure_ascii=False, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3000, help="13 minutes of one idle core")
    parser.add_argument("--lr", type=float, default=1e-3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    clips = load_corpus(options.out, "train")
    # Of what a decoder must follow there is least: spoken tasks count three times.
    clips += [clip for clip in clips if clip.line.task is not None] * 2
    test_clips = load_corpus(options.out, "test")
    random.Random(0).shuffle(test_clips)
    alphabet = Alphabet.of_texts(clip.text for clip in clips)
    pieces = Pieces(Tokenizer.from_file(str(options.tokenizer)), (clip.text for clip in clips))
    trainer = TokenTrainer(options.out, alphabet, pieces, options.lr)
    print(f"{len(clips)} clips, {len(pieces.ids)} pieces, from step {trainer.step}", flush=True)
    train(trainer, clips, test_clips, options.steps)


if __name__ == "__main__":
    main()
