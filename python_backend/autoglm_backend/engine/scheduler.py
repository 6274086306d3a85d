"""Who runs next: waiting and running sequences, prefill chunks, preemption by recompute, ageing. Pure Python, no torch.

Each step first gives every decoding sequence its one token, then spends what is left of the token budget on prefill
chunks, so a long prompt slows other streams by at most one budget's worth. When blocks run out, the least urgent
running sequence gives its blocks back and is run again later from its tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from autoglm_backend.engine.block_manager import BlockManager
from autoglm_backend.engine.sequence import Sequence, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Tokens [start, start + count) of one sequence in one step."""

    sequence: Sequence
    start: int
    count: int
    num_drafts: int = 0
    """Tokens that this row may guess beyond its own; blocks for them are reserved."""

    @property
    def stop(self) -> int:
        return self.start + self.count

    @property
    def samples(self) -> bool:
        """True when the row reaches the newest token, so its logits choose the next one."""
        return self.stop >= len(self.sequence.ids)


class Scheduler:
    def __init__(
        self,
        blocks: BlockManager,
        *,
        batch_limit: int,
        max_step_tokens: int,
        ageing_s: float,
        clock: Callable[[], float],
    ) -> None:
        self.blocks = blocks
        self.batch_limit = batch_limit
        self.max_step_tokens = max_step_tokens
        self.ageing_s = ageing_s
        self.clock = clock
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.num_preemptions = 0

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running)

    def add(self, sequence: Sequence) -> None:
        sequence.status = Status.WAITING
        self.waiting.append(sequence)

    def finish(self, sequence: Sequence) -> None:
        """Take a sequence out, whatever it is doing, and give its blocks back. A second call does nothing."""
        if sequence.status is Status.FINISHED:
            return
        (self.running if sequence.status is Status.RUNNING else self.waiting).remove(sequence)
        sequence.status = Status.FINISHED
        self.blocks.free(sequence)

    def schedule(self) -> list[Row]:
        """The rows of the next step; blocks for all of their tokens are reserved."""
        now_s = self.clock()
        self._make_way()
        rows: list[Row] = []
        budget = self.max_step_tokens
        # Most urgent first, so that the ones who lose their blocks are the least urgent.
        for sequence in sorted(self.running, key=lambda s: self._urgency(s, now_s)):
            if sequence.status is not Status.RUNNING or budget == 0:
                continue
            count = min(sequence.num_pending, budget)
            if not self._reserve(sequence, sequence.num_computed + count, now_s, rows):
                continue
            rows.append(Row(sequence=sequence, start=sequence.num_computed, count=count))
            budget -= count
        self.waiting.sort(key=lambda s: self._urgency(s, now_s))
        while self.waiting and budget and len(self.running) < self.batch_limit:
            sequence = self.waiting[0]
            self.blocks.adopt_prefix(sequence)
            # Admission asks for the whole prompt, although only a chunk runs now: half-admitted prompts would
            # preempt each other for ever.
            if not self.blocks.can_hold(sequence, len(sequence.ids)):
                self.blocks.free(sequence)
                break
            self.waiting.pop(0)
            sequence.status = Status.RUNNING
            self.running.append(sequence)
            self.blocks.reserve(sequence, len(sequence.ids))
            self.blocks.count_admission(sequence)
            count = min(sequence.num_pending, budget)
            rows.append(Row(sequence=sequence, start=sequence.num_computed, count=count))
            budget -= count
        return rows

    def _make_way(self) -> None:
        """A background sequence gives its place in a full batch to anyone who waits; once, for it must end some day."""
        if len(self.running) == self.batch_limit and any(not s.background for s in self.waiting):
            for sequence in self.running:
                if sequence.background and not sequence.num_preemptions:
                    self._preempt(sequence)
                    break

    def _urgency(self, sequence: Sequence, now_s: float) -> tuple[float, float]:
        """Lower runs sooner. Every `ageing_s` of age counts as one priority level."""
        return sequence.priority - (now_s - sequence.arrival_s) / self.ageing_s, sequence.arrival_s

    def _reserve(self, sequence: Sequence, num_tokens: int, now_s: float, rows: list[Row]) -> bool:
        """Reserve blocks, taking them from less urgent running sequences when need be."""
        scheduled = {id(row.sequence) for row in rows}
        while not self.blocks.reserve(sequence, num_tokens):
            losers = [s for s in self.running if id(s) not in scheduled]
            loser = max(losers, key=lambda s: self._urgency(s, now_s))
            self._preempt(loser)
            if loser is sequence:
                return False
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self.blocks.free(sequence)
        sequence.status = Status.WAITING
        sequence.num_preemptions += 1
        self.num_preemptions += 1
        self.waiting.append(sequence)
