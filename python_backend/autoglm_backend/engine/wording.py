"""What a request says in text and the engine needs in tokens: grammars, bad words, and where the answer starts."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from autoglm_backend.engine.grammar import AnswerTokens, CompiledGrammar, GrammarCompiler, Place
from autoglm_backend.models.config import ModelConfig
from autoglm_backend.preprocess.tokenizer import Tokenizer, load_added_tokens, load_tokenizer
from autoglm_protocol.errors import InvalidRequestError
from autoglm_protocol.grammar import Grammar


class Wording:
    """A checkpoint's tokenizer, read whole at the first request that needs it. Thread-safe.

    Raises CheckpointError for a tokenizer that cannot be read.
    """

    def __init__(self, checkpoint_dir: Path, config: ModelConfig) -> None:
        self._checkpoint_dir = checkpoint_dir
        added = load_added_tokens(checkpoint_dir)
        self._tokens = AnswerTokens.of(added, config.text.vocab_size, config.eos_token_ids)
        self._compiler = GrammarCompiler(lambda: self._tokenizer, self._tokens)

    def load(self) -> None:
        """Read the tokenizer now: with 150,000 tokens it takes seconds that no request should wait for."""
        self._compiler.load()

    def place_after(self, prompt_ids: np.ndarray) -> Place:
        return self._tokens.place_after(prompt_ids.tolist())

    def grammar(self, grammar: Grammar) -> CompiledGrammar:
        """Raises InvalidRequestError saying what is wrong with it."""
        return self._compiler.compile(grammar)

    def bad_words(self, words: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
        """Token ids of each word as it starts a text and as it follows a space.

        vLLM forgets the second where the two differ in length. Other spellings in tokens stay possible, as there.
        Raises InvalidRequestError for a word without any token.
        """
        found: list[tuple[int, ...]] = []
        for word in words:
            bare = word.lstrip()
            if not bare:
                raise InvalidRequestError("bad_words must not hold an empty string", param="bad_words")
            first = tuple(self._tokenizer.encode(bare))
            spaced = tuple(self._tokenizer.encode(f" {bare}"))
            found.append(first)
            # Where the space is a token of its own, the word behind it is barred already.
            if spaced[-len(first) :] != first:
                found.append(spaced)
        return tuple(found)

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return load_tokenizer(self._checkpoint_dir)
