"""Attention over cached blocks with torch operators, for any device and precision: blocks of a row are gathered first.

Shape legend: T tokens of a step, B decoding rows, N blocks of the longest row, S block size, L = N * S, G KV heads,
H heads, d head dimension.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from autoglm_backend.engine.step_tables import LongRow, SegmentTables


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
    num_blocks = -(-int(tables.position_T[tokens_B].max() + 1) // block_tokens) if len(tokens_B) else 0
    mask_BL = token_mask(tables, tokens_B, num_blocks * block_tokens, device, dtype)
    return EagerTables(
        write_slots_T=torch.from_numpy(tables.slots_T).to(device),
        decode_tokens_B=torch.from_numpy(tokens_B).to(device) if len(tokens_B) else None,
        decode_blocks_BN=torch.from_numpy(tables.blocks_BN[rows_B, :num_blocks]).to(device),
        decode_mask_B11L=mask_BL[:, None, None],
        prefills=tables.long_rows(block_tokens, device),
    )


def token_mask(
    tables: SegmentTables, tokens_B: np.ndarray, num_places: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """What each of these tokens sees of its row's first places: 0, or -inf; [B, num_places]."""
    lengths_B1 = torch.from_numpy(tables.position_T[tokens_B] + 1).to(device)[:, None]
    places_L = torch.arange(num_places, device=device)
    hidden = places_L >= lengths_B1
    if tables.has_window:
        first_B, count_B = (torch.from_numpy(unseen_T[tokens_B]).to(device) for unseen_T in tables.unseen_T())
        hidden |= (places_L >= first_B[:, None]) & (places_L < (first_B + count_B)[:, None])
    return torch.zeros(hidden.shape, device=device, dtype=dtype).masked_fill_(hidden, float("-inf"))


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
    if row.start or row.window is not None:
        positions_T1 = torch.arange(row.start, row.num_keys, device=keys.device)[:, None]
        places_L = torch.arange(row.num_keys, device=keys.device)
        mask_TL = places_L <= positions_T1
        if row.window is not None:
            mask_TL &= (places_L > positions_T1 - row.window.tokens) | (places_L < row.window.sink_tokens)
    out_1HTd = F.scaled_dot_product_attention(
        q_THd.transpose(0, 1)[None],
        k_LGd.transpose(0, 1)[None],
        v_LGd.transpose(0, 1)[None],
        attn_mask=mask_TL,
        is_causal=mask_TL is None,
        enable_gqa=True,
    )
    return out_1HTd[0].transpose(0, 1)
