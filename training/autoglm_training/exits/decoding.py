"""The reference decoder of certified exits: plain, batched, and by definition what the engine's certified mode does.

Every generated token but the first (the prompt's last position has been at full depth anyway) leaves at the first exit
whose gate is sure; keys and values of the layers it skipped are those of the real layers. So this decoder simply runs
every layer and takes the first sure exit's token. `tests/training/test_certified.py` holds it against the engine.

Shape legend: B rows, T tokens, D hidden, V vocabulary, E exits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from autoglm_backend.models.decoder import TextDecoder
from autoglm_backend.models.exits import ExitHeads
from autoglm_backend.models.gates import ExitGates
from autoglm_training.generate import BatchedRows, start_rows
from autoglm_training.samples import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt and its media: (placeholder's token id, embeddings [N, D])."""

    row: Row
    media: tuple[tuple[int, Tensor], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """Who may leave where: gates, and the least confidence by exit depth."""

    heads: ExitHeads
    gates: ExitGates
    thresholds: Mapping[int, float]


@dataclass(slots=True, kw_only=True)
class Trace:
    """One answer. `ids` end with the stop token where there was one; `layers` says what each token needed.

    streams_TED: the residual stream at every watched depth for every token; empty where none was watched.
    """

    ids: list[int] = field(default_factory=list)
    layers: list[int] = field(default_factory=list)
    streams: list[np.ndarray] = field(default_factory=list)

    @property
    def streams_TED(self) -> np.ndarray:
        return np.stack(self.streams)


@torch.no_grad()
def decode(
    decoder: TextDecoder,
    prompts: Sequence[Prompt],
    eos_ids: frozenset[int],
    *,
    leave: Leave | None = None,
    watch: Sequence[int] = (),
    max_tokens: int = 64,
    batch_size: int = 32,
) -> list[Trace]:
    """Greedy answers at full depth, or with certified exits; in the order of the prompts.

    watch: depths (full depth allowed) whose residual streams are kept, float16 if the decoder is no wider.
    """
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index].row.ids))
    traces: dict[int, Trace] = {}
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        found = _decode_batch(decoder, [prompts[i] for i in batch], eos_ids, leave, tuple(watch), max_tokens)
        traces.update(zip(batch, found, strict=True))
    return [traces[index] for index in range(len(prompts))]


def _decode_batch(
    decoder: TextDecoder,
    prompts: Sequence[Prompt],
    eos_ids: frozenset[int],
    leave: Leave | None,
    watch: tuple[int, ...],
    max_tokens: int,
) -> list[Trace]:
    rows: BatchedRows = start_rows(decoder, [p.row for p in prompts], [p.media for p in prompts])
    num_layers = decoder.config.num_layers
    exits = [] if leave is None else sorted(leave.thresholds)
    borders = sorted({*watch, *exits, num_layers})
    traces = [Trace() for _ in prompts]
    running = list(range(len(prompts)))
    for number in range(max_tokens):
        hidden, first = rows.hidden, 0
        kept: dict[int, Tensor] = {}
        tokens = torch.full((len(prompts),), -1, device=hidden.device)
        layers = torch.full((len(prompts),), num_layers, device=hidden.device)
        for depth in borders:
            hidden = decoder.run_span(first, depth, hidden, rows.rotation, rows.attend)
            first = depth
            stream_BD = kept[depth] = hidden[:, -1]
            if leave is not None and depth in exits and number > 0:
                sure_B, exit_tokens_B = _sure(decoder, leave, depth, stream_BD)
                leaving_B = sure_B & (tokens < 0)
                tokens = torch.where(leaving_B, exit_tokens_B, tokens)
                layers = torch.where(leaving_B, depth, layers)
        tokens = torch.where(tokens < 0, decoder.logits(kept[num_layers]).argmax(-1), tokens)
        streams = np.stack([kept[d].float().cpu().numpy() for d in watch], axis=1) if watch else None
        chosen, needed = tokens.tolist(), layers.tolist()
        for index in running:
            traces[index].ids.append(chosen[index])
            traces[index].layers.append(needed[index])
            if streams is not None:
                traces[index].streams.append(streams[index])
        running = [index for index in running if chosen[index] not in eos_ids]
        if not running:
            break
        rows.advance(decoder, tokens)
    return traces


def _sure(decoder: TextDecoder, leave: Leave, depth: int, stream_BD: Tensor) -> tuple[Tensor, Tensor]:
    """(whose gate is sure, the exit's tokens)."""
    normed_BD = leave.heads(depth, stream_BD)
    logits_BV = decoder.lm_head(normed_BD).float()
    confidence_B = leave.gates(depth, normed_BD, logits_BV if leave.gates.uses_margin else None)
    return confidence_B >= leave.thresholds[depth], logits_BV.argmax(-1)


@torch.no_grad()
def pooled_prompts(decoder: TextDecoder, prompts: Sequence[Prompt], depth: int, batch_size: int = 32) -> Tensor:
    """Each prompt's residual stream after `depth` layers, averaged over its tokens: float32 [N, D]."""
    pooled: list[Tensor] = []
    for start in range(0, len(prompts), batch_size):
        batch = prompts[start : start + batch_size]
        rows = start_rows(decoder, [p.row for p in batch], [p.media for p in batch])
        hidden_BTD = decoder.run_span(0, depth, rows.hidden, rows.rotation, rows.attend).float()
        real_BT1 = rows.real_BT[..., None]
        pooled.append((hidden_BTD * real_BT1).sum(1) / real_BT1.sum(1))
    return torch.cat(pooled)
