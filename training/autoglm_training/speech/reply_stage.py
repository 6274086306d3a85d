"""Last speech stage: encoder and projector learn from the frozen decoder's own loss what it needs to hear.

The decoder is not touched, so this runs after (or beside) any of its stages and never costs it anything: from the
projector that a joint stage left, the better encoder's tokens are first fitted to the tokens the decoder knows.

    python -m autoglm_training.speech.reply_stage --out runs/speech --run-dir runs/tiny-cpu --steps 600
"""

from __future__ import annotations

import argparse
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from autoglm_backend.models.speech import SpeechEncoder
from autoglm_training.checkpoint import load_modules, load_training, save_training
from autoglm_training.config.recipes import EXIT_DEPTHS, SPEECH, TEXT
from autoglm_training.decoder_model import TrainableDecoder
from autoglm_training.generate import generate
from autoglm_training.loop import Meter
from autoglm_training.samples import Row, RowBuilder, app_json, collate
from autoglm_training.speech.alphabet import Alphabet
from autoglm_training.speech.batches import LengthBatches, MelBatch, augmented_batch, ctc_loss, learning_rate
from autoglm_training.speech.clips import Clip, load_corpus
from autoglm_training.speech.export import export_speech
from autoglm_training.speech.heads import NamedHead
from autoglm_training.speech.scoring import clean_batches
from autoglm_training.tokenizer import EOS_TOKENS, number_token_ids, token_id

CHARACTER_LOSS_WEIGHT = 0.2
ENCODER_LR_SHARE = 0.3
APP_SHARE = 0.3
"""Rows in which the agent's `current_app` follows the clip."""
DEPTH_WEIGHTS = (0.7, 0.05, 0.05, 0.2)


@dataclass(slots=True)
class ReplyTrainer:
    """Frozen decoder, learning speech encoder. The new encoder starts from the second stage."""

    out: Path
    run_dir: Path
    peak_lr: float
    tokenizer: Tokenizer = field(init=False)
    builder: RowBuilder = field(init=False)
    model: TrainableDecoder = field(init=False)
    known: SpeechEncoder | None = field(init=False)
    """The encoder that the joint stage trained the decoder with, None after a text-only stage."""
    encoder: SpeechEncoder = field(init=False)
    char_head: NamedHead = field(init=False)
    optimizer: torch.optim.AdamW = field(init=False)
    step: int = 0

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.tokenizer = Tokenizer.from_file(str(self.run_dir / "tokenizer.json"))
        self.builder = RowBuilder(self.tokenizer)
        self.model = TrainableDecoder(number_token_ids(self.tokenizer))
        self.known = self._load_decoder()
        self.model.eval().requires_grad_(False)
        saved = torch.load(self.out / "tokens.pt", weights_only=True)
        self.encoder = SpeechEncoder(SPEECH)
        self.encoder.load_state_dict(saved["encoder"])
        self.char_head = NamedHead(SPEECH.hidden_size, saved["char_head"]["names"][1:])
        self.char_head.carry_over(saved["char_head"])
        projector = [p for n, p in self.encoder.named_parameters() if n.startswith("projector")]
        slow = [p for n, p in self.encoder.named_parameters() if not n.startswith("projector")]
        groups = [
            {"params": [*slow, *self.char_head.parameters()], "share": ENCODER_LR_SHARE},
            {"params": projector, "share": 1.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=self.peak_lr, betas=(0.9, 0.98), weight_decay=0.01)
        if self.path.exists():
            self.step = load_training(self.path, self.modules, self.optimizer)["step"]

    @property
    def path(self) -> Path:
        return self.out / "reply.pt"

    @property
    def modules(self) -> dict[str, nn.Module]:
        return {"encoder": self.encoder, "char_head": self.char_head}

    def _load_decoder(self) -> SpeechEncoder | None:
        joint = self.run_dir / "decoder.pt"
        if not joint.exists():
            load_modules(self.run_dir / "decoder_text.pt", {"model": self.model})
            return None
        known = SpeechEncoder(SPEECH)
        load_modules(joint, {"model": self.model, "speech": known})
        return known.eval().requires_grad_(False)

    def fit_known_tokens(self, clips: list[Clip], steps: int) -> None:
        """Projector only: the new encoder's tokens become those of the encoder that the decoder was trained with."""
        if self.known is None:
            return
        parameters = [*self.encoder.projector_in.parameters(), *self.encoder.projector_out.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.0)
        batches, rng = LengthBatches(clips, batch_seconds=30, rng=random.Random(1)), np.random.default_rng(1)
        for step in range(steps):
            batch = augmented_batch(batches.next(max_clip_s=6.0), SPEECH.num_mels, rng, share=0.7)
            real_BA = torch.arange(-(-int(batch.num_steps_B.max()) // 4)) < (-(-batch.num_steps_B // 4))[:, None]
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                wanted = self.known.project(self.known.encode_frames(batch.mel_BFC, batch.num_frames_B))[real_BA]
                frames_BSD = self.encoder.encode_frames(batch.mel_BFC, batch.num_frames_B)
            error = F.mse_loss(self.encoder.project(frames_BSD.float())[real_BA], wanted.float())
            loss = error / wanted.float().var()
            for group in optimizer.param_groups:
                group["lr"] = 2e-3 * (1 - step / steps)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % 25 == 24:
                print(f"fit {step + 1}: unexplained variance {loss.item():.3f}", flush=True)

    def row(self, clip: Clip, num_tokens: int, rng: random.Random | None) -> Row:
        """The clip as a user's turn; with its reply when `rng` is given (training), else up to the answer's start."""
        task = clip.line.task
        assert task is not None  # the corpus of tasks
        row = Row()
        self.builder.add_text(row, "[gMASK]<sop><|user|>\n")
        self.builder.add_audio(row, num_tokens)
        if rng is not None and rng.random() < APP_SHARE:
            self.builder.add_text(row, "\n\n" + app_json(task.app))
        if rng is None:
            self.builder.add_text(row, "<|assistant|>\n")
        else:
            self.builder.add_reply(row, task.reply)
        return row

    def speech_tokens(self, batch: MelBatch) -> tuple[Tensor, list[Tensor]]:
        """Encoder frames [B, S, D] and each clip's speech tokens [A, D]."""
        hidden_BSD = self.encoder.encode_frames(batch.mel_BFC, batch.num_frames_B)
        tokens_BAD = self.encoder.project(hidden_BSD)
        counts = (-(-batch.num_steps_B // SPEECH.frames_per_token)).tolist()
        return hidden_BSD, [row[:count] for row, count in zip(tokens_BAD, counts, strict=True)]

    def train_step(
        self, clips: Sequence[Clip], alphabet: Alphabet, rng: random.Random, noise: np.random.Generator, meter: Meter
    ) -> None:
        mels = augmented_batch(clips, SPEECH.num_mels, noise)
        depth = rng.choices((*EXIT_DEPTHS, TEXT.num_layers), DEPTH_WEIGHTS)[0]
        with torch.autocast("cpu", torch.bfloat16):
            hidden_BSD, tokens = self.speech_tokens(mels)
            rows = [self.row(clip, len(clip_tokens), rng) for clip, clip_tokens in zip(clips, tokens, strict=True)]
            media = ((self.builder.audio, torch.cat(tokens)),)
            loss = self.model.loss(collate(rows), media, depth, True, meter, "a")
            char_logits = self.char_head(hidden_BSD)
        characters = ctc_loss(char_logits, mels.num_steps_B, [alphabet.encode(clip.text) for clip in clips])
        meter.add("characters", characters.item())
        self.optimizer.zero_grad(set_to_none=True)
        (loss + CHARACTER_LOSS_WEIGHT * characters).backward()
        nn.utils.clip_grad_norm_([p for group in self.optimizer.param_groups for p in group["params"]], 1.0)
        self.optimizer.step()
        self.step += 1


@torch.no_grad()
def follow_rates(trainer: ReplyTrainer, clips: Sequence[Clip], depth: int) -> tuple[dict[str, float], list[str]]:
    """Share of clips whose greedy answer holds exactly the task's action, by language and by family; and examples."""
    trainer.encoder.eval()
    eos = frozenset(token_id(trainer.tokenizer, token) for token in EOS_TOKENS)
    hits: defaultdict[str, list[bool]] = defaultdict(list)
    examples: list[str] = []
    for group, batch in clean_batches(clips, SPEECH.num_mels):
        _, tokens = trainer.speech_tokens(batch)
        rows = [trainer.row(clip, len(heard), None) for clip, heard in zip(group, tokens, strict=True)]
        media = [[(trainer.builder.audio, heard)] for heard in tokens]
        answers = generate(trainer.model.decoder, trainer.model.exits, rows, media, depth, eos)
        for clip, ids in zip(group, answers, strict=True):
            assert clip.line.task is not None
            reply = trainer.tokenizer.decode(ids, skip_special_tokens=False)
            right = clip.line.task.action in reply
            for key in ("all", clip.language, f"{clip.line.family}"):
                hits[key].append(right)
            examples.append(f"{'+' if right else '-'} {clip.text} | {reply}")
    trainer.encoder.train()
    return {key: sum(found) / len(found) for key, found in sorted(hits.items())}, examples


def train(trainer: ReplyTrainer, clips: list[Clip], test_clips: list[Clip], steps: int) -> None:
    alphabet = Alphabet(set("".join(trainer.char_head.names)) - set(Alphabet("").characters))
    rng, noise = random.Random(trainer.step), np.random.default_rng(trainer.step)
    batches = LengthBatches(clips, batch_seconds=24, rng=random.Random(trainer.step))
    meter, saved = Meter(), time.monotonic()
    while trainer.step < steps:
        lr = learning_rate(trainer.peak_lr, trainer.step, trainer.step / steps, warmup_steps=30)
        for group in trainer.optimizer.param_groups:
            group["lr"] = lr * group["share"]
        trainer.train_step(batches.next(max_clip_s=6.0), alphabet, rng, noise, meter)
        if trainer.step % 25 == 0:
            print("reply", meter.line(trainer.step, steps), flush=True)
        if time.monotonic() - saved > 180:
            saved = time.monotonic()
            save_training(trainer.path, trainer.modules, trainer.optimizer, {"step": trainer.step})
            print("depth 6", follow_rates(trainer, test_clips[:100], 6)[0], flush=True)
    save_training(trainer.path, trainer.modules, trainer.optimizer, {"step": trainer.step})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--fit-steps", type=int, default=150)
    parser.add_argument("--lr", type=float, default=5e-4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    clips = [clip for clip in load_corpus(options.out, "train") if clip.line.task is not None]
    test_clips = [clip for clip in load_corpus(options.out, "test") if clip.line.task is not None]
    random.Random(0).shuffle(test_clips)
    trainer = ReplyTrainer(options.out, options.run_dir, options.lr)
    print(f"{len(clips)} spoken tasks, from step {trainer.step}", flush=True)
    if trainer.step == 0:
        trainer.fit_known_tokens(clips, options.fit_steps)
        print("depth 6 after the fit", follow_rates(trainer, test_clips[:100], 6)[0], flush=True)
    train(trainer, clips, test_clips, options.steps)
    export_speech(trainer.encoder, options.out / "final")
    for depth in (*EXIT_DEPTHS, TEXT.num_layers):
        rates, examples = follow_rates(trainer, test_clips, depth)
        print(f"depth {depth}", {key: round(rate, 3) for key, rate in rates.items()}, flush=True)
        if depth == TEXT.num_layers:
            print("\n".join(examples[::10]), flush=True)


if __name__ == "__main__":
    main()
