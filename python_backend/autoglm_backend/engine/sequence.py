"""One request's tokens, blocks and progress: the mutable heart that Scheduler and BlockManager work on. No torch."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from autoglm_backend.engine.grammar import GrammarState
from autoglm_backend.models.attention_window import AttentionWindow
from autoglm_protocol.errors import InvalidRequestError
from autoglm_protocol.events import FinishReason, StreamEvent
from autoglm_protocol.sampling import SamplingParams
from autoglm_protocol.tensors import Array

if TYPE_CHECKING:
    from torch import Tensor

Emit = Callable[[StreamEvent], None]


class Status(Enum):
    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaSpan:
    """Where one picture or clip stands in the prompt; its key makes equal text over other media another prefix."""

    start: int
    length: int
    key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What all choices of one request share."""

    ids: tuple[int, ...]
    positions_3T: Array
    """int64 [3, T]."""
    rope_delta: int
    """A generated token at index i stands at position i + rope_delta on all three axes."""
    media: tuple[MediaSpan, ...] = ()
    embeddings_MD: Array | None = None
    """float32, one row per media token in prompt order."""


@dataclass(slots=True, kw_only=True, eq=False)
class Sequence:
    tag: str
    index: int
    """Which choice of the request this is."""
    prompt: Prompt
    sampling: SamplingParams
    segments: tuple[tuple[int, int], ...]
    """Layer spans [first, last) that this sequence runs; the last one ends at its depth."""
    max_tokens: int
    stop_ids: frozenset[int]
    emit: Emit
    priority: int = 0
    arrival_s: float = 0.0
    seed: int = 0
    reasoning_budget: int | None = None
    lossless: bool = False
    """May draft at an exit; every token is then checked at full depth."""
    bad_words: tuple[tuple[int, ...], ...] = ()
    """Token sequences that must not be generated."""
    grammar: GrammarState | None = None
    """What the answer must match, as far as it has come, drafts included."""
    background: bool = False
    """Takes only room that nobody else wants: gives its place in a full batch to others, once."""
    probe_depth: int | None = None
    """The exit that the router is asked about when the prompt has run so far; None where it is not, or has answered."""
    probed_D: Tensor | None = None
    """Sum over the prompt's tokens, as far as they have run, of their states at that exit."""
    confidence: float | None = None
    """The router's answer."""
    certified: bool = False
    """Its generated tokens may leave at an exit whose gate is sure."""
    window: AttentionWindow | None = None
    """What its tokens read; None is all before them."""

    status: Status = Status.WAITING
    ids: list[int] = field(default_factory=list[int])
    drafts: list[int] = field(default_factory=list[int])
    """Guesses for the tokens after `ids`, alive within one step only."""
    kv_len: list[int] = field(default_factory=list[int])
    """Per segment, tokens whose keys and values are written: the truth that every read is checked against.

    Never grows with depth: tokens from kv_len[s] to kv_len[s - 1] wait at the border below segment s.
    """
    waiting: list[list[Tensor]] = field(default_factory=list["list[Tensor]"])
    """Per segment, the hidden states [T, D] of the tokens that wait at the border below it, in token order."""
    blocks: list[list[int | None]] = field(default_factory=list["list[int | None]"])
    """Per segment, block ids in token order; None for one given back because no later token reads it."""
    num_published: list[int] = field(default_factory=list[int])
    """Per segment, leading blocks that the prefix cache already knows."""
    block_keys: list[bytes] = field(default_factory=list[bytes])
    """Prefix-cache keys of the full leading blocks, grown as tokens arrive."""
    counts: Counter[int] = field(default_factory=Counter[int])
    """How often each token was generated, drafts included (penalties look at what stands before them)."""
    num_cached: int = 0
    """Prompt tokens that the prefix cache spared."""
    layers: list[int] = field(default_factory=list[int])
    """Layers that each generated token needed: the exit that chose it or guessed it right, or the whole depth."""
    layer_steps: int = 0
    """Layers run, summed over every token of prefill and decode, wrong drafts and late tokens included."""
    num_deferred: int = 0
    """Tokens that left early and waited over steps for their deep keys and values."""
    kv_bytes_peak: int = 0
    """The most key/value memory it ever owned, shared prefix blocks included."""
    num_drafted: int = 0
    num_accepted: int = 0
    num_preemptions: int = 0
    reasoning_open: bool = False
    reasoning_tokens: int = 0

    def __post_init__(self) -> None:
        self.ids = list(self.prompt.ids)
        self.kv_len = [0] * len(self.segments)
        self.waiting = [[] for _ in self.segments]
        self.blocks = [[] for _ in self.segments]
        self.num_published = [0] * len(self.segments)

    @property
    def depth(self) -> int:
        return self.segments[-1][1]

    @property
    def num_prompt(self) -> int:
        return len(self.prompt.ids)

    @property
    def num_generated(self) -> int:
        return len(self.ids) - len(self.prompt.ids)

    @property
    def num_computed(self) -> int:
        """Tokens that have run, those included that still wait for the deeper segments."""
        return self.kv_len[0]

    @property
    def lag(self) -> int:
        """Tokens that have run, but not through every segment: 0 between steps except in certified mode."""
        return self.kv_len[0] - self.kv_len[-1]

    @property
    def num_pending(self) -> int:
        """Tokens still to run before the next one can be sampled; 1 while decoding."""
        return len(self.ids) - self.num_computed

    @property
    def num_history(self) -> int:
        """Tokens before the next one, drafts included: the place that the next draw is for."""
        return len(self.ids) + len(self.drafts)

    def tokens(self, start: int, stop: int) -> list[int]:
        """Token ids [start, stop), reaching into the drafts where `ids` ends."""
        known = self.ids[start:stop]
        first = max(start - len(self.ids), 0)
        return known + self.drafts[first : stop - len(self.ids)] if stop > len(self.ids) else known

    def settle(self, confidence: float, *, is_enough: bool) -> None:
        """The router has answered: stay at the exit it was asked about, or go on as planned.

        Keys and values that earlier parts of the prompt left deeper are given back by `BlockManager.trim`.
        """
        if is_enough:
            self.segments = tuple(span for span in self.segments if span[1] <= (self.probe_depth or 0))
            kept = len(self.segments)
            self.kv_len, self.num_published = self.kv_len[:kept], self.num_published[:kept]
            self.waiting = self.waiting[:kept]
        self.confidence, self.probe_depth, self.probed_D = confidence, None, None

    def push_draft(self, token: int) -> None:
        self.drafts.append(token)
        self.counts[token] += 1
        if self.grammar is not None:
            self.grammar.advance(token)

    def take_drafts(self) -> list[int]:
        """Remove all drafts and what they did to counts and grammar; returns them."""
        drafts, self.drafts = self.drafts, []
        if self.grammar is not None:
            self.grammar.rollback(len(drafts))
        for token in drafts:
            self.counts[token] -= 1
            if not self.counts[token]:
                del self.counts[token]
        return drafts

    def truncate_kv(self) -> None:
        """Forget keys and values of tokens that were guessed and not kept. The newest token is never run yet."""
        self.kv_len = [min(length, len(self.ids) - 1) for length in self.kv_len]

    def append(self, token: int, layers: int | None = None) -> FinishReason | None:
        """Add a generated token that needed `layers` (None: all); returns why the sequence ends here, None if not."""
        self.ids.append(token)
        self.layers.append(self.depth if layers is None else layers)
        self.counts[token] += 1
        if self.grammar is not None:
            self.grammar.advance(token)
            if self.grammar.is_complete:
                return FinishReason.STOP
        if token in self.stop_ids and self.num_generated > self.sampling.min_tokens:
            return FinishReason.STOP
        if self.num_generated >= self.max_tokens:
            return FinishReason.LENGTH
        return None

    @property
    def refusal(self) -> InvalidRequestError | None:
        """Why this sequence cannot go on: its grammar became too costly to follow."""
        if self.grammar is None or self.grammar.complaint is None:
            return None
        assert self.sampling.grammar is not None
        return self.sampling.grammar.refusal(f"the grammar became too costly to follow: {self.grammar.complaint}")

    def positions(self, start: int, stop: int) -> Array:
        """M-RoPE positions int64 [3, stop - start] of tokens [start, stop)."""
        if stop <= self.num_prompt:
            return self.prompt.positions_3T[:, start:stop]
        generated = np.arange(max(start, self.num_prompt), stop, dtype=np.int64) + self.prompt.rope_delta
        text_3T = np.broadcast_to(generated, (3, len(generated)))
        return np.concatenate((self.prompt.positions_3T[:, start:], text_3T), axis=1)

    def reset_kv(self) -> None:
        """Forget all keys and values (preemption): the tokens stay and are run again."""
        self.kv_len = [0] * len(self.segments)
        self.waiting = [[] for _ in self.segments]
        self.num_published = [0] * len(self.segments)
        self.probed_D = None


def segment_spans(exits: Seq[int], num_layers: int) -> tuple[tuple[int, int], ...]:
    """Layer spans between exits: exits (6, 12) of 24 layers -> (0, 6), (6, 12), (12, 24)."""
    borders = [0, *sorted({e for e in exits if 0 < e < num_layers}), num_layers]
    return tuple(itertools.pairwise(borders))
