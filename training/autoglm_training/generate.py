"""Batched greedy answers with a plain KV cache: for evaluation, not for serving."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from autoglm_backend.models.decoder import TextDecoder
from autoglm_backend.models.exits import ExitHeads
from autoglm_training.samples import Row


@dataclass(slots=True)
class _Cache:
    """Keys and values of all tokens so far; `visible` says which of them the present queries may look at."""

    visible_B1QK: Tensor
    keys: dict[int, Tensor] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)

    def attend(self, layer: int, q_BTHd: Tensor, k_BTGd: Tensor, v_BTGd: Tensor) -> Tensor:
        if layer in self.keys:
            k_BTGd = torch.cat((self.keys[layer], k_BTGd), dim=1)
            v_BTGd = torch.cat((self.values[layer], v_BTGd), dim=1)
        self.keys[layer], self.values[layer] = k_BTGd, v_BTGd
        out = F.scaled_dot_product_attention(
            q_BTHd.transpose(1, 2),
            k_BTGd.transpose(1, 2),
            v_BTGd.transpose(1, 2),
            attn_mask=self.visible_B1QK,
            enable_gqa=True,
        )
        return out.transpose(1, 2)


@torch.no_grad()
def generate(
    decoder: TextDecoder,
    exits: ExitHeads | None,
    rows: Sequence[Row],
    media: Sequence[Sequence[tuple[int, Tensor]]],
    depth: int,
    eos_ids: frozenset[int],
    max_tokens: int = 64,
) -> list[list[int]]:
    """Greedy continuation of every prompt row at a fixed depth, without the stop token.

    media: per row, (token id, embeddings [N, D]) for its placeholder tokens.

    Raises:
        ValueError: a depth below full without exit heads.
    """
    if depth < decoder.config.num_layers and exits is None:
        raise ValueError(f"depth {depth} needs exit heads, this checkpoint has none")
    length = max(len(row.ids) for row in rows)
    size = len(rows)
    hidden = torch.zeros(size, length, decoder.config.hidden_size, dtype=decoder.norm.weight.dtype)
    positions = torch.zeros(3, size, length, dtype=torch.long)
    real = torch.zeros(size, length, dtype=torch.bool)
    for index, row in enumerate(rows):
        ids = torch.tensor(row.ids)
        embedded = decoder.embed_tokens(ids)
        for token, rows_ND in media[index]:
            embedded = embedded.masked_scatter((ids == token)[:, None], rows_ND.to(embedded.dtype))
        # Left padding: the last column is every row's newest token.
        hidden[index, length - len(ids) :] = embedded
        positions[:, index, length - len(ids) :] = torch.tensor(row.positions).T
        real[index, length - len(ids) :] = True
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    # A pad sees itself: a row of nothing but masked keys would be NaN.
    visible = (causal & real[:, None, :]) | torch.eye(length, dtype=torch.bool)
    cache = _Cache(visible[:, None])
    answers: list[list[int]] = [[] for _ in rows]
    running = [True] * size
    for _ in range(max_tokens):
        stream = decoder.run_span(0, depth, hidden, decoder.rotation(positions), cache.attend)[:, -1]
        normed = exits(depth, stream) if exits is not None and depth in exits.depths else decoder.norm(stream)
        tokens = decoder.lm_head(normed).argmax(-1)
        for index, token in enumerate(tokens.tolist()):
            if running[index] and token not in eos_ids:
                answers[index].append(token)
            else:
                running[index] = False
        if not any(running):
            break
        hidden = decoder.embed_tokens(tokens)[:, None]
        positions = positions[:, :, -1:].amax(dim=0, keepdim=True).expand(3, -1, -1) + 1
        real = torch.cat((real, torch.ones(size, 1, dtype=torch.bool)), dim=1)
        cache.visible_B1QK = real[:, None, None, :]
    return answers
