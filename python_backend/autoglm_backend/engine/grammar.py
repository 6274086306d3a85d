"""Answers that match a grammar: compiled once per grammar, then one small state per sequence. No torch.

Compiling runs in the thread that adds a request, so that a bad or huge grammar is refused before the engine sees it.
The state lives with its sequence: it advances with every token, drafts included, and is rolled back with them.

A reasoning answer is free until </think>; the grammar holds for what follows (as vLLM does it). Which of the three
places an answer starts in is read off the prompt, from its last turn, that is, behind the last special token:
an open <think> there means in the thought, a closed one (as for `enable_thinking: false`) means in the answer, and
neither means that the model may open a thought with its first token, or begin its answer right away.

The library is llguidance (Rust): https://github.com/guidance-ai/llguidance
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, lru_cache

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper
from numpy.typing import NDArray

from autoglm_backend.engine.grammar_text import library_grammar
from autoglm_backend.preprocess.tokenizer import AddedToken, Tokenizer
from autoglm_protocol.grammar import Grammar

Mask = NDArray[np.bool_]
"""bool [vocabulary]: True where a token may come next."""

CACHED_GRAMMARS = 64
_MESSAGE_LIMIT = 400
"""Characters of a compiler's complaint that a caller gets to read: it quotes the grammar."""


class Place(Enum):
    """Where in its answer a sequence stands."""

    START = "start"
    THOUGHT = "thought"
    ANSWER = "answer"
    END = "end"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerTokens:
    """What a checkpoint's tokenizer says about the places of an answer."""

    vocab_size: int
    eos_ids: tuple[int, ...]
    think_ids: tuple[int, int] | None
    """<think> and </think>."""
    special_ids: frozenset[int]
    """Added tokens that no text holds: role tags and the like."""
    answer_tag_ends: bool
    """</answer> is an end token, so that the text of an answer ends before it."""

    @classmethod
    def of(cls, added: Collection[AddedToken], vocab_size: int, eos_ids: Sequence[int]) -> AnswerTokens:
        ids = {token.content: token.id for token in added}
        opening, closing = ids.get("<think>"), ids.get("</think>")
        return cls(
            vocab_size=vocab_size,
            eos_ids=tuple(eos_ids),
            think_ids=None if opening is None or closing is None else (opening, closing),
            special_ids=frozenset(token.id for token in added if token.special),
            answer_tag_ends=ids.get("</answer>") in eos_ids,
        )

    def place_after(self, prompt_ids: Sequence[int]) -> Place:
        """Where the answer to a prompt starts."""
        if self.think_ids is None:
            return Place.ANSWER
        opening, closing = self.think_ids
        for token in reversed(prompt_ids):
            if token in self.special_ids:
                break
            if token == opening:
                return Place.THOUGHT
            if token == closing:
                return Place.ANSWER
        return Place.START


class CompiledGrammar:
    """A grammar ready to be started any number of times. Thread-safe."""

    def __init__(self, prototype: LLMatcher, tokens: AnswerTokens) -> None:
        self._prototype = prototype
        self._tokens = tokens

    def start(self, place: Place, stop_ids: Collection[int]) -> GrammarState:
        """The state of a new sequence. stop_ids: end tokens among them may follow a complete answer."""
        return GrammarState(self._prototype.deep_copy(), self._tokens, place, stop_ids)


class GrammarCompiler:
    """Grammars of requests to matchers, the latest ones kept. Thread-safe.

    The library's own view of the vocabulary is made by `load`, or else at the first grammar.
    """

    def __init__(self, read_tokenizer: Callable[[], Tokenizer], tokens: AnswerTokens) -> None:
        self._read_tokenizer = read_tokenizer
        self._tokens = tokens
        self._lock = threading.Lock()
        self.compile = lru_cache(maxsize=CACHED_GRAMMARS)(self._compile)
        """Raises InvalidRequestError saying what is wrong with the grammar."""

    def load(self) -> LLTokenizer:
        """Make the library's view of the vocabulary, unless it is there."""
        with self._lock:
            return self._vocabulary

    def _compile(self, grammar: Grammar) -> CompiledGrammar:
        text = library_grammar(grammar, answer_tag_ends=self._tokens.answer_tag_ends)
        prototype = LLMatcher(self.load(), text, log_level=0, limits=LLParserLimits(verbose_errors=False))
        if not prototype.is_error():
            prototype.compute_bitmask()  # the first mask is the dearest: copies share what it has worked out
        if prototype.is_error():
            raise grammar.refusal(f"the grammar does not compile: {_complaint(prototype)}")
        return CompiledGrammar(prototype, self._tokens)

    @cached_property
    def _vocabulary(self) -> LLTokenizer:
        return LLTokenizer(TokenizerWrapper(_Vocabulary(self._read_tokenizer(), self._tokens)))


class _Vocabulary:
    """A tokenizer as the library wants it: not by reading tokenizer.json itself, which takes <answer> for special."""

    def __init__(self, tokenizer: Tokenizer, tokens: AnswerTokens) -> None:
        table = tokenizer.token_table()
        # The model's vocabulary is padded; a padding id has no text and is never allowed.
        padding = {token for token in range(tokens.vocab_size) if not table.raw_bytes(token)}
        self._encode = tokenizer.encode
        self.tokens = [table.raw_bytes(token) or f"<|padding_{token}|>".encode() for token in range(tokens.vocab_size)]
        self.special_token_ids = sorted({*tokens.special_ids, *padding})
        self.eos_token_id = tokens.eos_ids[0]
        self.bos_token_id = None

    def __call__(self, text: str) -> list[int]:
        return self._encode(text)


def _complaint(matcher: LLMatcher) -> str:
    return " ".join(matcher.get_error().split())[:_MESSAGE_LIMIT]


class GrammarState:
    """How far one sequence has come in its grammar."""

    def __init__(self, matcher: LLMatcher, tokens: AnswerTokens, place: Place, stop_ids: Collection[int]) -> None:
        self._matcher = matcher
        self._tokens = tokens
        self._end_ids = [token for token in tokens.eos_ids if token in stop_ids]
        # An end token ends an answer; the tags of a thought are no text of one.
        self._never_ids = [*tokens.eos_ids, *(tokens.think_ids or ())]
        self._trail: list[tuple[Place, bool]] = []
        """Per token so far: where it was said, and whether the matcher took it."""
        self._mask: Mask | None = None
        self.place = place

    @property
    def is_complete(self) -> bool:
        """Nothing may follow any more."""
        return self.place is Place.END

    @property
    def complaint(self) -> str | None:
        """Why the matcher gave up (the grammar was too costly at some token), None while all is well."""
        return _complaint(self._matcher) if self._matcher.is_error() else None

    def allows(self, token: int) -> bool:
        """What `mask` says of one token, without working out all the others."""
        if self._mask is not None or self.place is not Place.ANSWER:
            return bool(self.mask()[token])
        if token in self._never_ids:
            return token in self._end_ids and self._matcher.is_accepting()
        return self._matcher.validate_tokens([token]) == 1

    def mask(self) -> Mask:
        """Which tokens may come next; never nothing at all."""
        if self._mask is None:
            self._mask = self._new_mask()
        return self._mask

    def _new_mask(self) -> Mask:
        size = self._tokens.vocab_size
        if self.place is Place.END or self._matcher.is_error():
            return np.ones(size, dtype=np.bool_)
        if self.place is Place.THOUGHT:
            mask = np.ones(size, dtype=np.bool_)
            mask[list(self._tokens.eos_ids)] = False
            return mask
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        if self._matcher.is_error():
            return np.ones(size, dtype=np.bool_)
        mask = np.unpackbits(bits, count=size, bitorder="little").view(np.bool_)
        mask[self._never_ids] = False
        if self._end_ids and self._matcher.is_accepting():
            mask[self._end_ids] = True
        if self.place is Place.START and self._tokens.think_ids is not None:
            mask[self._tokens.think_ids[0]] = True
        return mask

    def advance(self, token: int) -> None:
        """Take one more token, which the mask allows (a thought may also be closed by the reasoning budget)."""
        said_in, taken = self.place, False
        opening, closing = self._tokens.think_ids or (None, None)
        self._mask = None
        if self.place is Place.THOUGHT:
            self.place = Place.ANSWER if token == closing else Place.THOUGHT
        elif self.place is Place.START and token == opening:
            self.place = Place.THOUGHT
        elif self.place is not Place.END:
            taken = token not in self._never_ids and self._matcher.try_consume_tokens([token]) == 1
            # An end token, or one that was forced from outside: there is no way on.
            self.place = Place.ANSWER if taken and not self._is_exhausted() else Place.END
        self._trail.append((said_in, taken))

    def rollback(self, count: int) -> None:
        """Forget the last `count` tokens."""
        if count == 0:
            return
        undone = self._trail[-count:]
        del self._trail[-count:]
        self.place = undone[0][0]
        self._mask = None
        taken = sum(was_taken for _, was_taken in undone)
        if taken:
            self._matcher.rollback(taken)

    def _is_exhausted(self) -> bool:
        if self._matcher.is_stopped():
            return not self._matcher.is_error()
        if not self._matcher.is_accepting():
            return False
        self.place = Place.ANSWER
        mask = self.mask()
        return int(mask.sum()) == int(mask[self._end_ids].sum())
