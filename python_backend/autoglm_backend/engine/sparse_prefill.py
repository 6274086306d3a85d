"""Block-sparse attention for the prefill of long prompts: each block of queries reads a bounded number of keys.

It reads the first keys of the text (attention's sink), the nearest ones, and of the rest the blocks whose mean key
scores highest with the mean query, chosen anew per layer and KV group. A query block that sees no more keys than the
budget reads them all, so short prompts are exact. What is generated is never sparse: it reads all keys, but those of a
sparse prompt are not the dense ones, so answers differ from the dense model's.

Shape legend: T query tokens, H heads, G KV groups, d head dimension, Q query blocks, N key blocks of the row, M chosen
key blocks, S block size of the cache.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from autoglm_backend.engine.step_tables import LongRow

QUERY_BLOCK = 64
"""Queries that share one choice of keys."""
SINK_TOKENS = 64
LOCAL_SHARE = 4
"""One part in so many of the budget is the nearest keys."""


def sparse_prefill(q_THd: Tensor, keys: Tensor, values: Tensor, row: LongRow, budget_tokens: int) -> Tensor:
    """Causal attention [T, H, d] of a row's queries over the cache's blocks [blocks, S, G, d], its own keys stored."""
    tokens, heads, head_dim = q_THd.shape
    block_tokens, groups = keys.shape[1:3]
    num_queries = -(-tokens // QUERY_BLOCK)
    device = q_THd.device
    first_Q = row.start + QUERY_BLOCK * torch.arange(num_queries, device=device)
    padded = F.pad(q_THd, (0, 0, 0, 0, 0, num_queries * QUERY_BLOCK - tokens))
    q_QGhqd = padded.view(num_queries, QUERY_BLOCK, groups, heads // groups, head_dim).permute(0, 2, 3, 1, 4)
    chosen_QGM = _choose(q_QGhqd.mean(dim=(2, 3)), keys[row.blocks_N].mean(dim=1), first_Q, block_tokens, budget_tokens)
    physical_QGM = row.blocks_N[chosen_QGM]
    group_G1 = torch.arange(groups, device=device)[:, None]
    # [Q, G, M, S, d]: an index before and one after the slice put the indexed dimensions first.
    k = keys[physical_QGM, :, group_G1].flatten(2, 3)
    v = values[physical_QGM, :, group_G1].flatten(2, 3)
    place_QGL = (chosen_QGM[..., None] * block_tokens + torch.arange(block_tokens, device=device)).flatten(2)
    position_Qq = first_Q[:, None] + torch.arange(QUERY_BLOCK, device=device)
    sees_QGqL = place_QGL[:, :, None] <= position_Qq[:, None, :, None]
    out = F.scaled_dot_product_attention(
        q_QGhqd.flatten(0, 1),
        k.flatten(0, 1)[:, None],
        v.flatten(0, 1)[:, None],
        attn_mask=sees_QGqL.flatten(0, 1)[:, None],
        enable_gqa=True,
    )
    out = out.view(num_queries, groups, heads // groups, QUERY_BLOCK, head_dim).permute(0, 3, 1, 2, 4)
    return out.reshape(num_queries * QUERY_BLOCK, heads, head_dim)[:tokens]


def _choose(q_QGd: Tensor, k_NGd: Tensor, first_Q: Tensor, block_tokens: int, budget_tokens: int) -> Tensor:
    """Numbers [Q, G, M] of key blocks, each once; some may lie beyond the queries, where masks hide them."""
    num_blocks = len(k_NGd)
    # The query block's own keys come on top of the budget.
    num_chosen = -(-budget_tokens // block_tokens) + -(-QUERY_BLOCK // block_tokens) + 1
    score_QGN = torch.einsum("qgd,ngd->qgn", q_QGd.float(), k_NGd.float())
    begin_N = block_tokens * torch.arange(num_blocks, device=q_QGd.device)
    last_Q1 = first_Q[:, None] + QUERY_BLOCK - 1
    is_near = begin_N + block_tokens > first_Q[:, None] - budget_tokens // LOCAL_SHARE
    always_QN = is_near | (begin_N < SINK_TOKENS)
    score_QGN = score_QGN.masked_fill(always_QN[:, None], float("inf"))
    score_QGN = score_QGN.masked_fill((begin_N > last_Q1)[:, None], float("-inf"))
    return score_QGN.topk(min(num_chosen, num_blocks), dim=-1, sorted=False).indices
