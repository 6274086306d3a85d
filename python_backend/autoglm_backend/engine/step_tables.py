"""Where a step's tokens write and read in the cache: rows to blocks and places, segment by segment.

Shape legend: T tokens of a step, B rows, N blocks of the longest row.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from autoglm_backend.engine.scheduler import Row
from autoglm_backend.models.attention_window import AttentionWindow


@dataclass(frozen=True, slots=True, kw_only=True)
class LongRow:
    """A row of many tokens: its own causal attention over everything written so far."""

    tokens: slice
    blocks_N: Tensor
    start: int
    num_keys: int
    num_prompt: int
    """Leading tokens that belong to the prompt."""
    window: AttentionWindow | None = None

    def split(self, first: int) -> tuple[LongRow, LongRow]:
        """The first tokens, and the rest."""
        middle = self.tokens.start + first
        head = replace(self, tokens=slice(self.tokens.start, middle), num_keys=self.start + first)
        return head, replace(self, tokens=slice(middle, self.tokens.stop), start=self.start + first, num_prompt=0)


class RowSpan(NamedTuple):
    """Tokens [start, start + num_tokens) of one row, counted over the blocks that it still owns."""

    start: int
    num_tokens: int
    num_prompt: int = 0
    """Leading tokens that belong to the prompt."""
    window: AttentionWindow | None = None

    @property
    def stop(self) -> int:
        return self.start + self.num_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentTables:
    """Where one step's rows write and read in one segment. Plain data: it travels to other ranks."""

    rows: tuple[RowSpan, ...]
    """The same object in all segments of a step that differ in their blocks only (`StepTables`)."""
    blocks_BN: np.ndarray
    """int64; rows shorter than the longest are padded with block 0, which `position_T` never reaches."""
    row_T: np.ndarray
    """Which row a token belongs to."""
    position_T: np.ndarray
    """Its place among the tokens whose blocks its row still owns."""
    slots_T: np.ndarray
    """Its place in the cache."""

    @property
    def has_window(self) -> bool:
        return any(row.window is not None for row in self.rows)

    def unseen_T(self) -> tuple[np.ndarray, np.ndarray]:
        """(first_T, count_T), int64: of the places up to its own, a token sees all but [first, first + count)."""
        if not self.has_window:
            return np.zeros_like(self.position_T), np.zeros_like(self.position_T)
        tokens_B = np.array([row.stop if row.window is None else row.window.tokens for row in self.rows])
        sinks_B = np.array([0 if row.window is None else row.window.sink_tokens for row in self.rows])
        first_T = sinks_B[self.row_T]
        return first_T, np.maximum(self.position_T + 1 - tokens_B[self.row_T] - first_T, 0)

    def long_rows(self, block_tokens: int, device: torch.device) -> list[LongRow]:
        """The rows of several tokens."""
        found: list[LongRow] = []
        at = 0
        for row, blocks_N in zip(self.rows, self.blocks_BN, strict=True):
            if row.num_tokens > 1:
                blocks = torch.from_numpy(blocks_N[: -(-row.stop // block_tokens)]).to(device)
                tokens = slice(at, at + row.num_tokens)
                found.append(
                    LongRow(
                        tokens=tokens,
                        blocks_N=blocks,
                        start=row.start,
                        num_keys=row.stop,
                        num_prompt=row.num_prompt,
                        window=row.window,
                    )
                )
            at += row.num_tokens
        return found


class StepTables:
    """The tables of some rows, segment by segment. What is the same in all segments is worked out once."""

    def __init__(self, rows: Seq[Row], block_tokens: int) -> None:
        self._rows = rows
        self._block_tokens = block_tokens
        self._num_blocks = [-(-row.stop // block_tokens) for row in rows]
        self._row_T = np.repeat(np.arange(len(rows)), [row.count for row in rows])
        # Only a window gives blocks back, in each segment when its own tokens have come so far.
        self._are_whole = all(row.sequence.window is None for row in rows)
        self._place(self._spans([0] * len(rows)))

    def segment(self, segment: int) -> SegmentTables:
        """Tables of the rows (in token order) that run this segment."""
        owned: list[list[int]] = []
        for row, num_blocks in zip(self._rows, self._num_blocks, strict=True):
            # The truth that guards every read: attention may look at [0, stop), so [0, start) must already be written.
            assert row.sequence.kv_len[segment] >= row.start, "a read beyond the written keys and values"
            owned.append([block for block in row.sequence.blocks[segment][:num_blocks] if block is not None])
        if not self._are_whole:
            gone = [num_blocks - len(blocks) for num_blocks, blocks in zip(self._num_blocks, owned, strict=True)]
            self._place(self._spans(gone))
        longest = max(map(len, owned))
        padded = [block for blocks in owned for block in (*blocks, *[0] * (longest - len(blocks)))]
        blocks_BN = np.array(padded, dtype=np.int64).reshape(len(owned), longest)
        return SegmentTables(
            rows=self._placed,
            blocks_BN=blocks_BN,
            row_T=self._row_T,
            position_T=self._position_T,
            slots_T=blocks_BN[self._row_T, self._block_T] * self._block_tokens + self._offset_T,
        )

    def _spans(self, blocks_gone: Seq[int]) -> tuple[RowSpan, ...]:
        spans: list[RowSpan] = []
        for row, gone in zip(self._rows, blocks_gone, strict=True):
            # What was given back lies between sink and window of every token here: without it both are where they were.
            start = row.start - gone * self._block_tokens
            num_prompt = min(max(row.sequence.num_prompt - row.start, 0), row.count)
            spans.append(RowSpan(start, row.count, num_prompt, row.sequence.window))
        return tuple(spans)

    def _place(self, spans: tuple[RowSpan, ...]) -> None:
        self._placed = spans
        self._position_T = np.array([at for span in spans for at in range(span.start, span.stop)], dtype=np.int64)
        self._block_T, self._offset_T = np.divmod(self._position_T, self._block_tokens)


def segment_tables(rows: Seq[Row], segment: int, block_tokens: int) -> SegmentTables:
    """Tables of one segment alone."""
    return StepTables(rows, block_tokens).segment(segment)
