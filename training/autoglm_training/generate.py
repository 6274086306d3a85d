"""Batched greedy answers with a plain KV cache: for evaluation and calibration, not for serving."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from autoglm_backend.models.decoder import TextDecoder
from autoglm_backend.models.exits import ExitHeads
from autoglm_backend.models.layers import Rotation
from autoglm_training.samples import Row

Media = Sequence[tuple[int, Tensor]]
"""(token id, embeddings [N, D]) for a row's placeholder tokens."""


@dataclass(slots=True, kw_only=True)
class BatchedRows:
    """Left-padded rows under way: the newest tokens' states, and keys and values of all tokens so far.

    visible_B1QK: which keys the present queries may look at.
    """

    hidden: Tensor
    positions_3BT: Tensor
    rotation: Rotation
    real_BT: Tensor
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

    def advance(self, decoder: TextDecoder, tokens_B: Tensor) -> None:
        """One more token for every row."""
        self.hidden = decoder.embed_tokens(tokens_B)[:, None]
        self.positions_3BT = self.positions_3BT[:, :, -1:].amax(dim=0, keepdim=True).expand(3, -1, -1) + 1
        self.rotation = decoder.rotation(self.positions_3BT)
        self.real_BT = torch.cat((self.real_BT, self.real_BT.new_ones(len(tokens_B), 1)), dim=1)
        self.visible_B1QK = self.real_BT[:, None, None, :]


@torch.no_grad()
def start_rows(decoder: TextDecoder, rows: Sequence[Row], media: Sequence[Media]) -> BatchedRows:
    """Prompts embedded and padded, before the first layer."""
    length, size = max(len(row.ids) for row in rows), len(rows)
    like = decoder.norm.weight
    hidden = torch.zeros(size, length, decoder.config.hidden_size, dtype=like.dtype, device=like.device)
    positions = torch.zeros(3, size, length, dtype=torch.long, device=like.device)
    real = torch.zeros(size, length, dtype=torch.bool, device=like.device)
    for index, row in enumerate(rows):
        ids = torch.tensor(row.ids, device=like.device)
        embedded = decoder.embed_tokens(ids)
        for token, rows_ND in media[index]:
            embedded = embedded.masked_scatter((ids == token)[:, None], rows_ND.to(embedded))
        # Left padding: the last column is every row's newest token.
        hidden[index, length - len(ids) :] = embedded
        positions[:, index, length - len(ids) :] = torch.tensor(row.positions, device=like.device).T
        real[index, length - len(ids) :] = True
    causal = torch.ones(length, length, dtype=torch.bool, device=like.device).tril()
    # A pad sees itself: a row of nothing but masked keys would be NaN.
    visible = (causal & real[:, None, :]) | torch.eye(length, dtype=torch.bool, device=like.device)
    return BatchedRows(
        hidden=hidden,
        positions_3BT=positions,
        rotation=decoder.rotation(positions),
        real_BT=real,
        visible_B1QK=visible[:, None],
    )


@torch.no_grad()
def generate(
    decoder: TextDecoder,
    exits: ExitHeads | None,
    rows: Sequence[Row],
    media: Sequence[Media],
    depth: int,
    eos_ids: frozenset[int],
    max_tokens: int = 64,
) -> list[list[int]]:
    """Greedy continuation of every prompt row at a fixed depth, without the stop token.

    Raises:
        ValueError: a depth below full without exit heads.
    """
    if depth < decoder.config.num_layers and exits is None:
        raise ValueError(f"depth {depth} needs exit heads, this checkpoint has none")
    batch = start_rows(decoder, rows, media)
    answers: list[list[int]] = [[] for _ in rows]
    running = [True] * len(rows)
    for _ in range(max_tokens):
        stream = decoder.run_span(0, depth, batch.hidden, batch.rotation, batch.attend)[:, -1]
        normed = exits(depth, stream) if exits is not None and depth in exits.depths else decoder.norm(stream)
        tokens = decoder.lm_head(normed).argmax(-1)
        for index, token in enumerate(tokens.tolist()):
            if running[index] and token not in eos_ids:
                answers[index].append(token)
            else:
                running[index] = False
        if not any(running):
            break
        batch.advance(decoder, tokens)
    return answers
