"""Keys and values in blocks, and the attention that reads only the blocks a row owns.

Two readers share the tables: torch operators for any device and precision, which gather each row's blocks first, and
the CPU kernels (models/cpu_attention.py), which read the blocks where they lie.

Shape legend: T tokens of a step, B decoding rows, N blocks of the longest row, S block size, L = N * S, G KV heads,
H heads, d head dimension.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from autoglm_backend.engine.scheduler import Row
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
        poison: float = 0.0,
    ) -> None:
        # poison: what unwritten slots hold. Tests make it huge, so that a read beyond kv_len cannot go unnoticed.
        shape = (num_blocks, block_tokens, config.num_kv_heads, config.head_dim)
        self.block_tokens = block_tokens
        self.keys = [torch.full(shape, poison, dtype=dtype, device=device) for _ in range(config.num_layers)]
        self.values = [torch.full(shape, poison, dtype=dtype, device=device) for _ in range(config.num_layers)]
        self.num_heads = config.num_heads
        self.addresses = [(k.data_ptr(), v.data_ptr()) for k, v in zip(self.keys, self.values, strict=True)]

    def bytes_per_token(self, depth: int) -> int:
        key = self.keys[0]
        return 2 * depth * key.shape[2] * key.shape[3] * key.element_size()


@dataclass(frozen=True, slots=True, kw_only=True)
class LongRow:
    """A row of many tokens: its own causal attention over everything written so far."""

    tokens: slice
    blocks_N: Tensor
    start: int
    num_keys: int


class RowSpan(NamedTuple):
    """Tokens [start, start + num_tokens) of one row."""

    start: int
    num_tokens: int

    @property
    def stop(self) -> int:
        return self.start + self.num_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentTables:
    """Where one step's rows write and read in one segment. Plain data: it travels to other ranks."""

    rows: tuple[RowSpan, ...]
    blocks_BN: np.ndarray
    """int64; rows shorter than the longest are padded with block 0, which `position_T` never reaches."""
    row_T: np.ndarray
    """Which row a token belongs to."""
    position_T: np.ndarray
    """Its place in its sequence."""
    slots_T: np.ndarray
    """Its place in the cache."""

    def long_rows(self, shortest: int, block_tokens: int, device: torch.device) -> list[LongRow]:
        """The rows of `shortest` tokens and more."""
        found: list[LongRow] = []
        at = 0
        for row, blocks_N in zip(self.rows, self.blocks_BN, strict=True):
            if row.num_tokens >= shortest:
                blocks = torch.from_numpy(blocks_N[: -(-row.stop // block_tokens)]).to(device)
                tokens = slice(at, at + row.num_tokens)
                found.append(LongRow(tokens=tokens, blocks_N=blocks, start=row.start, num_keys=row.stop))
            at += row.num_tokens
        return found


def segment_tables(rows: Seq[Row], segment: int, block_tokens: int) -> SegmentTables:
    """Tables of the rows (in token order) that run this segment."""
    num_blocks = max(-(-row.stop // block_tokens) for row in rows)
    blocks_BN = np.zeros((len(rows), num_blocks), dtype=np.int64)
    for row, blocks_N in zip(rows, blocks_BN, strict=True):
        # The truth that guards every read: attention may look at [0, stop), so [0, start) must already be written.
        assert row.sequence.kv_len[segment] >= row.start, "a read beyond the written keys and values"
        owned = row.sequence.blocks[segment][: -(-row.stop // block_tokens)]
        blocks_N[: len(owned)] = owned
    counts = [row.count for row in rows]
    row_T = np.repeat(np.arange(len(rows)), counts)
    position_T = np.concatenate([np.arange(row.start, row.stop) for row in rows])
    slots_T = blocks_BN[row_T, position_T // block_tokens] * block_tokens + position_T % block_tokens
    spans = tuple(RowSpan(row.start, row.count) for row in rows)
    return SegmentTables(rows=spans, blocks_BN=blocks_BN, row_T=row_T, position_T=position_T, slots_T=slots_T)


def paged_attend(cache: KVCache, tables: SegmentTables) -> PagedAttention:
    """The attention of one segment and step: write new keys and values, then read what each row may see."""
    return PagedAttention(cache, tables)


class PagedAttention:
    """An `Attend` over the cache; `fused` is the same for the CPU kernels (models/cpu_decoder.py's FusedAttend)."""

    def __init__(self, cache: KVCache, tables: SegmentTables) -> None:
        self.cache = cache
        self.tables = tables
        self._eager: _EagerTables | None = None
        self._reader: PagedReader | None = None

    def __call__(self, layer: int, q_THd: Tensor, k_TGd: Tensor, v_TGd: Tensor) -> Tensor:
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        if self._eager is None:
            self._eager = _eager_tables(self.tables, self.cache.block_tokens, keys.device, keys.dtype)
        tables = self._eager
        keys.flatten(0, 1).index_copy_(0, tables.write_slots_T, k_TGd)
        values.flatten(0, 1).index_copy_(0, tables.write_slots_T, v_TGd)
        if not tables.prefills:
            return _decode(q_THd, keys, values, tables)
        out_THd = torch.empty_like(q_THd)
        for row in tables.prefills:
            out_THd[row.tokens] = _prefill(q_THd[row.tokens], keys, values, row)
        if tables.decode_tokens_B is not None:
            out_THd[tables.decode_tokens_B] = _decode(q_THd[tables.decode_tokens_B], keys, values, tables)
        return out_THd

    def fused(self, layer: int, qkv: Tensor, cos: np.ndarray, sin: np.ndarray, out: Tensor) -> None:
        """Rotate qkv [T, (H + 2G) * d] in place, store its keys and values, attend: out [T, H * d]."""
        if self._reader is None:
            self._reader = _reader(self.cache, self.tables)
        self._reader(qkv, cos, sin, out, *self.cache.addresses[layer])


def _reader(cache: KVCache, tables: SegmentTables) -> PagedReader:
    # Here, not above: numba takes half a second to load, and only CPU decoders need it.
    from autoglm_backend.models.cpu_attention import HeadShape, PagedReader

    _, block_tokens, groups, head_dim = cache.keys[0].shape
    shape = HeadShape(heads=cache.num_heads, groups=groups, head_dim=head_dim, block_tokens=block_tokens)
    return PagedReader(
        shape,
        cache.keys[0].dtype,
        slots_T=tables.slots_T,
        lengths_T=tables.position_T + 1,
        rows_T=tables.row_T,
        blocks_BN=tables.blocks_BN,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _EagerTables:
    write_slots_T: Tensor
    decode_tokens_B: Tensor | None
    """Indices of single-token rows among the step's tokens; None when there are none."""
    decode_blocks_BN: Tensor
    decode_mask_B11L: Tensor
    prefills: list[LongRow]


def _eager_tables(tables: SegmentTables, block_tokens: int, device: torch.device, dtype: torch.dtype) -> _EagerTables:
    singles_B = np.array([row.num_tokens == 1 for row in tables.rows])
    tokens_B = np.flatnonzero(singles_B[tables.row_T])
    rows_B = tables.row_T[tokens_B]
    lengths_B = torch.from_numpy(tables.position_T[tokens_B] + 1).to(device)
    num_blocks = -(-int(lengths_B.max()) // block_tokens) if len(tokens_B) else 0
    beyond = torch.arange(num_blocks * block_tokens, device=device)[None] >= lengths_B[:, None]
    mask = torch.zeros(beyond.shape, device=device, dtype=dtype).masked_fill_(beyond, float("-inf"))
    return _EagerTables(
        write_slots_T=torch.from_numpy(tables.slots_T).to(device),
        decode_tokens_B=torch.from_numpy(tokens_B).to(device) if len(tokens_B) else None,
        decode_blocks_BN=torch.from_numpy(tables.blocks_BN[rows_B, :num_blocks]).to(device),
        decode_mask_B11L=mask[:, None, None],
        prefills=tables.long_rows(2, block_tokens, device),
    )


def _decode(q_BHd: Tensor, keys: Tensor, values: Tensor, tables: _EagerTables) -> Tensor:
    batch, num_heads, head_dim = q_BHd.shape
    groups = keys.shape[2]
    # The heads of one KV group become query positions, so grouped keys are read once and never repeated.
    q_BGhd = q_BHd.view(batch, groups, num_heads // groups, head_dim)
    k_BLGd = keys[tables.decode_blocks_BN].flatten(1, 2)
    v_BLGd = values[tables.decode_blocks_BN].flatten(1, 2)
    out = F.scaled_dot_product_attention(
        q_BGhd, k_BLGd.transpose(1, 2), v_BLGd.transpose(1, 2), attn_mask=tables.decode_mask_B11L
    )
    return out.reshape(batch, num_heads, head_dim)


def _prefill(q_THd: Tensor, keys: Tensor, values: Tensor, row: LongRow) -> Tensor:
    k_LGd = keys[row.blocks_N].flatten(0, 1)[: row.num_keys]
    v_LGd = values[row.blocks_N].flatten(0, 1)[: row.num_keys]
    mask_TL = None
    if row.start:
        positions_T = torch.arange(row.start, row.num_keys, device=keys.device)
        mask_TL = torch.arange(row.num_keys, device=keys.device)[None] <= positions_T[:, None]
    out_1HTd = F.scaled_dot_product_attention(
        q_THd.transpose(0, 1)[None],
        k_LGd.transpose(0, 1)[None],
        v_LGd.transpose(0, 1)[None],
        attn_mask=mask_TL,
        is_causal=mask_TL is None,
        enable_gqa=True,
    )
    return out_1HTd[0].transpose(0, 1)
