"""Keys and values in blocks, and the attention that reads only the blocks a row owns.

Two readers share the tables: torch operators for any device and precision, which gather each row's blocks first, and
the CPU kernels (models/cpu_attention.py), which read the blocks where they lie.

Shape legend: T tokens of a step, B decoding rows, N blocks of the longest row, S block size, L = N * S, G KV heads,
H heads, d head dimension.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from autoglm_backend.engine.eager_attention import EagerTables, decode, eager_tables, prefill
from autoglm_backend.engine.scheduler import Row
from autoglm_backend.engine.sparse_prefill import sparse_prefill
from autoglm_backend.models.attention_window import AttentionWindow
from autoglm_backend.models.config import TextConfig

if TYPE_CHECKING:
    from autoglm_backend.models.cpu_attention import PagedReader


class KVCache:
    """One key and one value tensor per layer, [num_blocks, S, G, d]."""

    def __init__(
        self,
        config: TextConfig,
        num_blocks: int,
        block_tokens: int,
        dtype: torch.dtype,
        device: torch.device,
        *,
        sparse_prefill: int | None = None,
        poison: float = 0.0,
    ) -> None:
        # sparse_prefill: keys that a block of a prompt's tokens may read (engine/sparse_prefill.py); None is all.
        # poison: what unwritten slots hold. Tests make it huge, so that a read beyond kv_len cannot go unnoticed.
        shape = (num_blocks, block_tokens, config.num_kv_heads, config.head_dim)
        self.block_tokens = block_tokens
        self.sparse_prefill = sparse_prefill
        self.keys = [torch.full(shape, poison, dtype=dtype, device=device) for _ in range(config.num_layers)]
        self.values = [torch.full(shape, poison, dtype=dtype, device=device) for _ in range(config.num_layers)]
        self.num_heads = config.num_heads
        self.addresses = [(k.data_ptr(), v.data_ptr()) for k, v in zip(self.keys, self.values, strict=True)]
        self._reader: PagedReader | None = None
        self._read_rows: tuple[RowSpan, ...] = ()
        """Whose places `_reader` holds; by identity, for a step's segments share them."""

    def bytes_per_token(self, depth: int) -> int:
        key = self.keys[0]
        return 2 * depth * key.shape[2] * key.shape[3] * key.element_size()

    def reader(self, tables: SegmentTables, without: Seq[LongRow]) -> PagedReader:
        """The CPU kernels' reader of these tables, for all their rows but those of `without`."""
        if self._reader is None or without or tables.rows is not self._read_rows:
            self._reader = self._new_reader(tables, without)
            self._read_rows = () if without else tables.rows
        self._reader.find(slots_T=tables.slots_T, blocks_BN=tables.blocks_BN)
        return self._reader

    def _new_reader(self, tables: SegmentTables, without: Seq[LongRow]) -> PagedReader:
        # Here, not above: numba takes half a second to load, and only CPU decoders need it.
        from autoglm_backend.models.cpu_attention import HeadShape, PagedReader

        _, block_tokens, groups, head_dim = self.keys[0].shape
        shape = HeadShape(heads=self.num_heads, groups=groups, head_dim=head_dim, block_tokens=block_tokens)
        first_T, count_T = tables.unseen_T()
        for row in without:  # they see nothing here, and cost nothing
            first_T[row.tokens], count_T[row.tokens] = 0, tables.position_T[row.tokens] + 1
        return PagedReader(
            shape,
            self.keys[0].dtype,
            unseen_T=(first_T, count_T),
            positions_T=tables.position_T,
            rows_T=tables.row_T,
        )


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


def paged_attend(cache: KVCache, tables: SegmentTables) -> PagedAttention:
    """The attention of one segment and step: write new keys and values, then read what each row may see."""
    return PagedAttention(cache, tables)


class PagedAttention:
    """An `Attend` over the cache; `fused` is the same for the CPU kernels (models/cpu_decoder.py's FusedAttend)."""

    def __init__(self, cache: KVCache, tables: SegmentTables, eager: EagerTables | None = None) -> None:
        # eager: the tables as tensors, where somebody has them already (engine/graphs.py).
        self.cache = cache
        self.tables = tables
        self._eager = eager
        self._reader: PagedReader | None = None
        self._long_rows: list[LongRow] = []

    def __call__(self, layer: int, q_THd: Tensor, k_TGd: Tensor, v_TGd: Tensor) -> Tensor:
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        tables = self._eager_tables
        keys.flatten(0, 1).index_copy_(0, tables.write_slots_T, k_TGd)
        values.flatten(0, 1).index_copy_(0, tables.write_slots_T, v_TGd)
        return self._read(q_THd, keys, values)

    @property
    def is_sparse(self) -> bool:
        """Whether some of these tokens may not read all that lies before them."""
        budget = self.cache.sparse_prefill
        return budget is not None and any(row.num_tokens > 1 and _is_over(row, budget) for row in self.tables.rows)

    @property
    def _eager_tables(self) -> EagerTables:
        if self._eager is None:
            keys = self.cache.keys[0]
            self._eager = eager_tables(self.tables, self.cache.block_tokens, keys.device, keys.dtype)
        return self._eager

    def _read(self, q_THd: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        tables = self._eager_tables
        if not tables.prefills:
            return decode(q_THd, keys, values, tables)
        out_THd = torch.empty_like(q_THd)
        for row in tables.prefills:
            self._read_row(row, q_THd, keys, values, out_THd)
        if tables.decode_tokens_B is not None:
            out_THd[tables.decode_tokens_B] = decode(q_THd[tables.decode_tokens_B], keys, values, tables)
        return out_THd

    def _read_row(self, row: LongRow, q_THd: Tensor, keys: Tensor, values: Tensor, out_THd: Tensor) -> None:
        """A row of several tokens, dense, or sparse as far as it is a long prompt and that was asked for."""
        budget = self.cache.sparse_prefill
        if budget is None or not _is_over(row, budget):
            out_THd[row.tokens] = prefill(q_THd[row.tokens], keys, values, row)
            return
        prompt, rest = row.split(row.num_prompt)
        out_THd[prompt.tokens] = sparse_prefill(q_THd[prompt.tokens], keys, values, prompt, budget)
        if rest.tokens.start < rest.tokens.stop:
            out_THd[rest.tokens] = prefill(q_THd[rest.tokens], keys, values, rest)

    def fused(self, layer: int, qkv: Tensor, cos: np.ndarray, sin: np.ndarray, out: Tensor) -> None:
        """Rotate qkv [T, (H + 2G) * d] in place, store its keys and values, attend: out [T, H * d].

        Where prompts are read sparsely, rows of several tokens go to torch.
        """
        cache = self.cache
        if self._reader is None:
            if self.is_sparse:
                self._long_rows = self.tables.long_rows(cache.block_tokens, cache.keys[0].device)
            self._reader = cache.reader(self.tables, self._long_rows)
        self._reader(qkv, cos, sin, out, *cache.addresses[layer])
        if self._long_rows:
            heads = (cache.num_heads, cache.keys[0].shape[3])
            q_THd = qkv[:, : heads[0] * heads[1]].unflatten(1, heads)
            for row in self._long_rows:
                self._read_row(row, q_THd, cache.keys[layer], cache.values[layer], out.unflatten(1, heads))


def _is_over(row: RowSpan | LongRow, budget_tokens: int) -> bool:
    # A window bounds the keys already, and says which ones.
    return row.window is None and row.num_prompt > 0 and row.start + row.num_prompt > budget_tokens
