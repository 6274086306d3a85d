"""First speech stage: the encoder learns to hear characters (CTC on its 20 ms frames, through a throw-away head)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from autoglm_backend.models.speech import SpeechEncoder
from autoglm_backend.preprocess.audio import num_mel_frames
from autoglm_training.config.recipes import SPEECH, Recipe
from autoglm_training.files import save_json
from autoglm_training.loop import Session, Trainer
from autoglm_training.speech.alphabet import Alphabet
from autoglm_training.speech.batches import START, LengthBatches, augmented_batch, ctc_loss
from autoglm_training.speech.clips import Clip
from autoglm_training.speech.heads import NamedHead
from autoglm_training.speech.practice import spoken_clips
from autoglm_training.speech.scoring import error_rates

CTC_FILE = "ctc.pt"
LONGEST_FRAMES = 600
"""Of 10 ms: what is longer would fill a batch alone."""


def train_ctc(recipe: Recipe, session: Session, speech_dir: Path) -> None:
    """Speaks the clips that `speech_dir` lacks, then trains on them: `ctc.pt` in `speech_dir`.

    Raises SynthesisError, OSError or ValueError.
    """
    config, seed = recipe.ctc, recipe.seed + 3
    session = replace(session, run_dir=speech_dir)
    clips = spoken_clips(recipe.clips, speech_dir, "train", session.workers)
    test_clips = spoken_clips(recipe.clips, speech_dir, "test", session.workers)
    alphabet = Alphabet.of_texts(clip.text for clip in clips)
    torch.manual_seed(seed)
    encoder = SpeechEncoder(SPEECH)
    head = NamedHead(SPEECH.hidden_size, alphabet.characters)
    # The projector is not part of this stage.
    encoder.projector_in.requires_grad_(False)
    encoder.projector_out.requires_grad_(False)
    trainer = Trainer("ctc", config, CTC_FILE, {"encoder": encoder, "char_head": head}, session, seed)
    trainer.restore()
    short = [clip for clip in clips if num_mel_frames(len(clip.samples_T)) <= LONGEST_FRAMES]
    batches = LengthBatches(short, config.batch_seconds, seed, trainer.taken("batches", START))
    trainer.watch(batches=batches)

    def losses() -> Iterator[Tensor]:
        # From short clean clips to all of them: on long distorted ones alone CTC stayed with the blank for 500 steps.
        group = batches.next(1.3 + trainer.step / 1000)
        distorted = min(1.0, max(0.0, trainer.step - 500) / 2000)
        rng = np.random.default_rng((seed, trainer.step))
        batch = augmented_batch(group, SPEECH.num_mels, rng, distorted).to(session.device)
        with session.autocast():
            logits_BSV = head(encoder.encode_frames(batch.mel_BFC, batch.num_frames_B))
        loss = ctc_loss(logits_BSV, batch.num_steps_B, [alphabet.encode(clip.text) for clip in group])
        trainer.meter.tokens += int(batch.num_steps_B.sum())
        trainer.meter.add("character_loss", float(loss.detach()))
        yield loss

    if trainer.run(losses):
        report(speech_dir, trainer.step, encoder, head, alphabet, test_clips)


def report(
    out: Path, step: int, encoder: SpeechEncoder, head: NamedHead, alphabet: Alphabet, test_clips: Sequence[Clip]
) -> None:
    """Character errors on voices that were never trained on, into `ctc_report.json`."""
    examples: list[str] = []
    rates = error_rates(encoder, head, alphabet, test_clips, examples)
    lines = {key: str(count) for key, count in rates.items()}
    print("; ".join(f"{key}: {lines[key]}" for key in lines if " " not in key), flush=True)
    save_json({"step": step, "rates": lines, "examples": examples[:100]}, out / "ctc_report.json")
