"""Keys and values in blocks, and the attention that reads only the blocks a row owns.

Two readers share the tables: torch operators for any device and precision, which gather each row's blocks first, and
the CPU kernels (models/cpu_attention.py), which read the blocks where they lie.

Shape legend: T tokens of a step, B decoding rows, N blocks of the longest row, S block size, L = N * S, G KV heads,
H heads, d head dimension.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from autoglm_backend.engine.eager_attention import EagerTables, decode, eager_tables, prefill
from autoglm_backend.engine.sparse_prefill import sparse_prefill
from autoglm_backend.engine.step_tables import LongRow, RowSpan, SegmentTables
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
