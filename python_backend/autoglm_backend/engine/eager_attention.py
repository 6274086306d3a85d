"""Attention over cached blocks with torch operators, for any device and precision: each row's blocks are gathered first.

Shape legend: T tokens of a step, B decoding rows, N blocks of the longest row, S block size, L = N * S, G KV heads,
H heads, d head dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from autoglm_backend.engine.kv_cache import LongRow, SegmentTables


@dataclass(frozen=True, slots=True, kw_only=True)
class EagerTables:
    write_slots_T: Tensor
    decode_tokens_B: Tensor | None
    """Indices of single-token rows among the step's tokens; None when there are none."""
    decode_blocks_BN: Tensor
    decode_mask_B11L: Tensor
    prefills: list[LongRow]


def eager_tables(tables: SegmentTables, block_tokens: int, device: torch.device, dtype: torch.dtype) -> EagerTables:
    singles_B = np.array([row.num_tokens == 1 for row in tables.rows])
    tokens_B = np.flatnonzero(singles_B[tables.row_T])
    rows_B = tables.row_T[tokens_B]
    lengths_B = torch.from_numpy(tables.position_T[tokens_B] + 1).to(device)
    num_blocks = -(-int(lengths_B.max()) // block_tokens) if len(tokens_B) else 0
    beyond = torch.arange(num_blocks * block_tokens, device=device)[None] >= lengths_B[:, None]
    mask = torch.zeros(beyond.shape, device=device, dtype=dtype).masked_fill_(beyond, float("-inf"))
    return EagerTables(
        write_slots_T=torch.from_numpy(tables.slots_T).to(device),
        decode_tokens_B=torch.from_numpy(tokens_B).to(device) if len(tokens_B) else None,
        decode_blocks_BN=torch.from_numpy(tables.blocks_BN[rows_B, :num_blocks]).to(device),
        decode_mask_B11L=mask[:, None, None],
        prefills=tables.long_rows(2, block_tokens, device),
    )


def decode(q_BHd: Tensor, keys: Tensor, values: Tensor, tables: EagerTables) -> Tensor:
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


def prefill(q_THd: Tensor, keys: Tensor, values: Tensor, row: LongRow) -> Tensor:
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
