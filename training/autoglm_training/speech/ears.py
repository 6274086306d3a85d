"""Any sentence as the trained speech encoder hears it, spoken on the spot: so questions about a screen can be said."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from torch import Tensor

from autoglm_backend.models.speech import SpeechEncoder
from autoglm_training.speech.augment import augment
from autoglm_training.speech.heard import heard_ids, piece_encoder
from autoglm_training.speech.synth import random_voice, synthesise


@dataclass(frozen=True, slots=True)
class Ears:
    """The speech stages' encoder and the token id of each of its classes."""

    encoder: SpeechEncoder
    piece_ids: Tensor

    @classmethod
    def open(cls, speech_dir: Path, tokenizer: Tokenizer) -> Ears:
        """What the speech stages left in `speech_dir`. Raises OSError, SynthesisError (no espeak-ng) or ValueError."""
        ears = cls(*piece_encoder(speech_dir, tokenizer))
        ears.hear("go back", random.Random(0))
        return ears

    def hear(self, sentence: str, rng: random.Random) -> tuple[int, ...]:
        """Token ids of the sentence in a training voice, distorted as all training clips. Raises SynthesisError."""
        wave_T = synthesise(sentence, random_voice(rng, "train")) / np.float32(32768)
        distorted = augment(wave_T, np.random.default_rng(rng.getrandbits(64)))
        return tuple(heard_ids(self.encoder, self.piece_ids, [distorted])[0])
