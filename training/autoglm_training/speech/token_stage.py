"""Second speech stage: the projector's tokens (12.5 a second) learn to carry the decoder's own text tokens, by CTC.

A small decoder then finds in a spoken command what it knows from typed ones: its vocabulary's pieces in order, with
empty slots between. The command's family is read from the tokens too, so that they carry the intent. The encoder is
tuned along, its character loss kept, so that hearing is not forgotten.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from autoglm_backend.models.speech import SpeechEncoder
from autoglm_training.checkpoint import load_modules
from autoglm_training.config.recipes import SPEECH, Recipe
from autoglm_training.files import save_json
from autoglm_training.loop import Session, Trainer
from autoglm_training.speech.alphabet import BLANK, Alphabet, edit_distance, spoken_form
from autoglm_training.speech.batches import START, LengthBatches, MelBatch, augmented_batch, ctc_loss
from autoglm_training.speech.clips import Clip, shard_paths
from autoglm_training.speech.ctc_stage import CTC_FILE
from autoglm_training.speech.heads import IntentHead, NamedHead
from autoglm_training.speech.heard import TOKENS_FILE, build_heard, piece_encoder
from autoglm_training.speech.practice import spoken_clips
from autoglm_training.speech.scoring import ErrorCount, clean_batches, error_rates
from autoglm_training.tokenizer import load_tokenizer
from autoglm_training.world.phrases import families

CHARACTER_LOSS_WEIGHT = 0.5
INTENT_LOSS_WEIGHT = 0.3
LONGEST_CLIP_S = 6.0


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


class TokenModel(nn.Module):
    """Encoder with projector, and the throw-away heads."""

    def __init__(self, alphabet: Alphabet, pieces: Pieces) -> None:
        super().__init__()
        self.alphabet, self.pieces = alphabet, pieces
        self.families = {family: index for index, family in enumerate(families())}
        self.encoder = SpeechEncoder(SPEECH)
        self.char_head = NamedHead(SPEECH.hidden_size, alphabet.characters)
        self.piece_head = NamedHead(SPEECH.out_hidden_size, pieces.names)
        self.intent_head = IntentHead(SPEECH.out_hidden_size, len(self.families))

    @property
    def device(self) -> torch.device:
        return self.encoder.conv1.weight.device

    def heard_before(self) -> list[nn.Parameter]:
        """What the first stage has trained: it moves slower than the fresh projector."""
        slow = [p for n, p in self.encoder.named_parameters() if not n.startswith("projector")]
        return [*slow, *self.char_head.parameters()]

    def forward(self, batch: MelBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of characters [B, S, C], of pieces [B, A, P] and of families [B, families]."""
        hidden_BSD = self.encoder.encode_frames(batch.mel_BFC, batch.num_frames_B)
        tokens_BAD = self.encoder.project(hidden_BSD)
        return self.char_head(hidden_BSD), self.piece_head(tokens_BAD), self.intent_head(tokens_BAD, num_tokens(batch))

    def family_targets(self, clips: Sequence[Clip]) -> Tensor:
        """Class of each clip's family, -1 where it has none (torch's ignore_index)."""
        return torch.tensor([self.families.get(clip.line.family or "", -1) for clip in clips], device=self.device)


def num_tokens(batch: MelBatch) -> Tensor:
    """[B] speech tokens of each row."""
    return -(-batch.num_steps_B // SPEECH.frames_per_token)


def train_tokens(recipe: Recipe, session: Session, speech_dir: Path) -> None:
    """From `ctc.pt` and the run's tokenizer: `tokens.pt`, then `heard-train.jsonl` for the joint stage.

    All of them lie in `speech_dir`. Raises SynthesisError, OSError or ValueError.
    """
    config, seed = recipe.tokens, recipe.seed + 4
    tokenizer = load_tokenizer(session.run_dir / "tokenizer.json")
    session = replace(session, run_dir=speech_dir)
    clips = spoken_clips(recipe.clips, speech_dir, "train", session.workers)
    test_clips = spoken_clips(recipe.clips, speech_dir, "test", session.workers)
    texts = [clip.text for clip in clips]
    torch.manual_seed(seed)
    model = TokenModel(Alphabet.of_texts(texts), Pieces(tokenizer, texts))
    modules: dict[str, nn.Module] = dict(model.named_children())
    trainer = Trainer("tokens", config, TOKENS_FILE, modules, session, seed, model.heard_before())
    if not trainer.restore():
        first = {name: modules[name] for name in ("encoder", "char_head")}
        load_modules(speech_dir / CTC_FILE, first, session.device)
    # Of what a decoder must follow there is least: spoken tasks count three times.
    weighted = [*clips, *[clip for clip in clips if clip.line.task is not None] * 2]
    batches = LengthBatches(weighted, config.batch_seconds, seed, trainer.taken("batches", START))
    trainer.watch(batches=batches)

    def losses() -> Iterator[Tensor]:
        group = batches.next(LONGEST_CLIP_S)
        rng = np.random.default_rng((seed, trainer.step))
        batch = augmented_batch(group, SPEECH.num_mels, rng).to(session.device)
        with session.autocast():
            char_logits, piece_logits, intent_logits = model(batch)
        characters = ctc_loss(char_logits, batch.num_steps_B, [model.alphabet.encode(clip.text) for clip in group])
        pieces = ctc_loss(piece_logits, num_tokens(batch), [model.pieces.encode(clip.text) for clip in group])
        wanted = model.family_targets(group)
        intent = F.cross_entropy(intent_logits.float(), wanted, ignore_index=-1, reduction="sum") / len(group)
        trainer.meter.tokens += int(num_tokens(batch).sum())
        for name, loss in (("character", characters), ("piece", pieces), ("family", intent)):
            trainer.meter.add(f"{name}_loss", float(loss.detach()))
        yield CHARACTER_LOSS_WEIGHT * characters + pieces + INTENT_LOSS_WEIGHT * intent

    if trainer.run(losses):
        report(speech_dir, trainer.step, model, test_clips)
    heard = speech_dir / "heard-train.jsonl"
    if not heard.exists() or heard.stat().st_mtime < (speech_dir / TOKENS_FILE).stat().st_mtime:
        encoder, piece_ids = piece_encoder(speech_dir, tokenizer)
        build_heard(
            encoder, piece_ids, shard_paths(speech_dir, "tasks", "train", recipe.clips.train_shards), heard, "train"
        )


@torch.no_grad()
def token_rates(model: TokenModel, clips: Sequence[Clip]) -> tuple[dict[str, str], list[str]]:
    """Errors per text token and right families, by language; and examples "expected | heard"."""
    model.eval()
    pieces: defaultdict[str, ErrorCount] = defaultdict(ErrorCount)
    intents: defaultdict[str, list[bool]] = defaultdict(list)
    examples: list[str] = []
    for group, batch in clean_batches(clips, SPEECH.num_mels):
        _, piece_logits, intent_logits = model(batch.to(model.device))
        rows = (piece_logits.argmax(-1).tolist(), num_tokens(batch).tolist(), intent_logits.argmax(-1).tolist())
        wanted_B = model.family_targets(group).tolist()
        for clip, row, count, family, wanted in zip(group, *rows, wanted_B, strict=True):
            heard, expected = merge_repeats(row[:count]), model.pieces.encode(clip.text)
            pieces[clip.language] = pieces[clip.language].plus(len(expected), edit_distance(expected, heard))
            examples.append(f"{clip.text} | {model.pieces.decode(heard)}")
            if wanted >= 0:
                intents[clip.language].append(family == wanted)
    model.train()
    lines = {f"tokens {language}": str(count) for language, count in sorted(pieces.items())}
    lines |= {f"family {key}": f"{sum(hits) / len(hits):.1%} of {len(hits)}" for key, hits in sorted(intents.items())}
    return lines, examples


def report(out: Path, step: int, model: TokenModel, test_clips: Sequence[Clip]) -> None:
    """Errors on voices that were never trained on, into `tokens_report.json`."""
    tokens, examples = token_rates(model, test_clips)
    characters = error_rates(model.encoder, model.char_head, model.alphabet, test_clips)
    lines = {f"characters {key}": str(count) for key, count in characters.items()} | tokens
    print("; ".join(f"{key}: {line}" for key, line in lines.items() if key.count(" ") == 1), flush=True)
    save_json({"step": step, "rates": lines, "examples": examples[:100]}, out / "tokens_report.json")
