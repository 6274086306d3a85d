"""Keys and values in blocks, and the attention that reads only the blocks a row owns.

Shape legend: T tokens of a step, B decoding rows, N blocks of the longest row, S block size, L = N * S, G KV heads,
H heads, d head dimension.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from autoglm_backend.engine.scheduler import Row
from autoglm_backend.models.config import TextConfig
from autoglm_backend.models.layers import Attend


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

    def bytes_per_token(self, depth: int) -> int:
        key = self.keys[0]
        return 2 * depth * key.shape[2] * key.shape[3] * key.element_size()


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillRow:
    """A row of several tokens: its own causal attention over everything written so far."""

    tokens: slice
    blocks_N: Tensor
    num_keys: int
    mask_TL: Tensor | None
    """None when the row starts at 0: plain causal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentTables:
    """Where one step's rows write and read in one segment."""

    write_slots_T: Tensor
    decode_tokens_B: Tensor | None
    """Indices of single-token rows among the step's tokens; None when every row decodes."""
    decode_blocks_BN: Tensor | None
    decode_mask_B11L: Tensor | None
    prefills: tuple[PrefillRow, ...]


def segment_tables(
    rows: Seq[Row], segment: int, block_tokens: int, device: torch.device, dtype: torch.dtype
) -> SegmentTables:
    """Tables of the rows (in token order) that run this segment."""
    write: list[int] = []
    decode_at: list[int] = []
    decode_rows: list[Row] = []
    prefills: list[PrefillRow] = []
    at = 0
    for row in rows:
        table = row.sequence.blocks[segment]
        # The truth that guards every read: attention may look at [0, stop), so [0, start) must already be written.
        assert row.sequence.kv_len[segment] >= row.start, "a read beyond the written keys and values"
        for position in range(row.start, row.stop):
            write.append(table[position // block_tokens] * block_tokens + position % block_tokens)
        if row.count == 1:
            decode_at.append(at)
            decode_rows.append(row)
        else:
            prefills.append(_prefill_row(row, table, at, block_tokens, device))
        at += row.count
    blocks = mask = None
    if decode_rows:
        blocks, mask = _decode_tables(decode_rows, segment, block_tokens, device, dtype)
    return SegmentTables(
        write_slots_T=torch.tensor(write, device=device),
        decode_tokens_B=None if not prefills else torch.tensor(decode_at, device=device, dtype=torch.int64),
        decode_blocks_BN=blocks,
        decode_mask_B11L=mask,
        prefills=tuple(prefills),
    )


def _prefill_row(row: Row, table: list[int], at: int, block_tokens: int, device: torch.device) -> PrefillRow:
    num_blocks = -(-row.stop // block_tokens)
    mask = None
    if row.start:
        keys, queries = torch.arange(row.stop, device=device), torch.arange(row.start, row.stop, device=device)
        mask = keys[None] <= queries[:, None]
    return PrefillRow(
        tokens=slice(at, at + row.count),
        blocks_N=torch.tensor(table[:num_blocks], device=device),
        num_keys=row.stop,
        mask_TL=mask,
    )


def _decode_tables(
    rows: list[Row], segment: int, block_tokens: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    num_blocks = max(-(-row.stop // block_tokens) for row in rows)
    padded = [(row.sequence.blocks[segment] + [0] * num_blocks)[:num_blocks] for row in rows]
    lengths = torch.tensor([row.stop for row in rows], device=device)
    beyond = torch.arange(num_blocks * block_tokens, device=device)[None] >= lengths[:, None]
    mask = torch.zeros(beyond.shape, device=device, dtype=dtype).masked_fill_(beyond, float("-inf"))
    return torch.tensor(padded, device=device), mask[:, None, None]


def paged_attend(cache: KVCache, tables: SegmentTables) -> Attend:
    """The `attend` of one segment and step: write new keys and values, then read what each row may see."""

    def attend(layer: int, q_THd: Tensor, k_TGd: Tensor, v_TGd: Tensor) -> Tensor:
        keys, values = cache.keys[layer], cache.values[layer]
        keys.flatten(0, 1).index_copy_(0, tables.write_slots_T, k_TGd)
        values.flatten(0, 1).index_copy_(0, tables.write_slots_T, v_TGd)
        if not tables.prefills:
            return _decode(q_THd, keys, values, tables)
        out_THd = torch.empty_like(q_THd)
        for row in tables.prefills:
            out_THd[row.tokens] = _prefill(q_THd[row.tokens], keys, values, row)
        if tables.decode_blocks_BN is not None:
            assert tables.decode_tokens_B is not None
            out_THd[tables.decode_tokens_B] = _decode(q_THd[tables.decode_tokens_B], keys, values, tables)
        return out_THd

    return attend


def _decode(q_BHd: Tensor, keys: Tensor, values: Tensor, tables: SegmentTables) -> Tensor:
    assert tables.decode_blocks_BN is not None
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


def _prefill(q_THd: Tensor, keys: Tensor, values: Tensor, row: PrefillRow) -> Tensor:
    k_LGd = keys[row.blocks_N].flatten(0, 1)[: row.num_keys]
    v_LGd = values[row.blocks_N].flatten(0, 1)[: row.num_keys]
    out_1HTd = F.scaled_dot_product_attention(
        q_THd.transpose(0, 1)[None],
        k_LGd.transpose(0, 1)[None],
        v_LGd.transpose(0, 1)[None],
        attn_mask=row.mask_TL,
        is_causal=row.mask_TL is None,
        enable_gqa=True,
    )
    return out_1HTd[0].transpose(0, 1)
