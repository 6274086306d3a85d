"""Runs one step: rows of different depth through the spans they share, and out at their exits.

It decides nothing. Rows are ordered deepest first, so the rows still alive at a segment are a prefix of the batch and
dropping the others is a slice, not a copy.

Shape legend: T tokens of the step, D hidden, V vocabulary, N sampling rows.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from autoglm_backend.engine.kv_cache import KVCache, paged_attend, segment_tables
from autoglm_backend.engine.scheduler import Row
from autoglm_backend.models.decoder import TextDecoder
from autoglm_backend.models.exits import ExitHeads


class ModelRunner:
    def __init__(
        self,
        decoder: TextDecoder,
        exits: ExitHeads | None,
        cache: KVCache,
        segments: tuple[tuple[int, int], ...],
        media_token_ids: frozenset[int],
    ) -> None:
        self.decoder = decoder
        self.exits = exits
        self.cache = cache
        self.segments = segments
        self.media_token_ids = media_token_ids
        self.num_layer_calls = 0
        """Layers executed, counted per call: what a step really ran."""

    @property
    def device(self) -> torch.device:
        return self.decoder.norm.weight.device

    @torch.inference_mode()
    def run(self, rows: Seq[Row]) -> tuple[list[Row], Tensor | None]:
        """Run the step and advance each row's `kv_len`.

        Returns the rows that sample, and their logits float32 [N, V] in the same order (None when no row samples).
        """
        rows = sorted(rows, key=lambda row: -row.sequence.depth)
        hidden_TD = self._embed(rows)
        rotation = self.decoder.rotation(self._positions(rows))
        sampling: list[Row] = []
        outputs: list[Tensor] = []
        for segment, (first, last) in enumerate(self.segments):
            rows = [row for row in rows if row.sequence.depth > first]
            if not rows:
                break
            num_tokens = sum(row.count for row in rows)
            hidden_TD = hidden_TD[:num_tokens]
            rotation = type(rotation)(rotation.cos[:num_tokens], rotation.sin[:num_tokens])
            tables = segment_tables(rows, segment, self.cache.block_tokens, self.device, hidden_TD.dtype)
            hidden_TD = self.decoder.run_span(first, last, hidden_TD, rotation, paged_attend(self.cache, tables))
            self.num_layer_calls += last - first
            for row in rows:
                row.sequence.kv_len[segment] = row.stop
                row.sequence.layer_steps += row.count * (last - first)
            leaving, at = self._leaving(rows, last)
            if leaving:
                sampling += leaving
                outputs.append(self._head_input(last, hidden_TD[at]))
        if not sampling:
            return [], None
        return sampling, self.decoder.lm_head(torch.cat(outputs)).float()

    def _leaving(self, rows: Seq[Row], depth: int) -> tuple[list[Row], Tensor]:
        """Rows whose depth ends here and that sample, with the index of each one's last token."""
        leaving: list[Row] = []
        at: list[int] = []
        end = 0
        for row in rows:
            end += row.count
            if row.sequence.depth == depth and row.samples:
                leaving.append(row)
                at.append(end - 1)
        return leaving, torch.tensor(at, device=self.device, dtype=torch.int64)

    def _head_input(self, depth: int, hidden_ND: Tensor) -> Tensor:
        if depth == self.decoder.config.num_layers:
            return self.decoder.norm(hidden_ND)
        assert self.exits is not None, "a sequence was planned for an exit that the checkpoint has not got"
        return self.exits(depth, hidden_ND)

    def _positions(self, rows: Seq[Row]) -> Tensor:
        positions_3T = np.concatenate([row.sequence.positions(row.start, row.stop) for row in rows], axis=1)
        return torch.from_numpy(positions_3T).to(self.device)

    def _embed(self, rows: Seq[Row]) -> Tensor:
        ids = [token for row in rows for token in row.sequence.ids[row.start : row.stop]]
        hidden_TD = self.decoder.embed_tokens(torch.tensor(ids, device=self.device))
        at = 0
        for row in rows:
            if row.sequence.prompt.embeddings_MD is not None and row.start < row.sequence.num_prompt:
                self._place_media(row, hidden_TD[at : at + row.count])
            at += row.count
        return hidden_TD

    def _place_media(self, row: Row, hidden_TD: Tensor) -> None:
        """Overwrite placeholder embeddings of this row's tokens with the encoders' output."""
        prompt = row.sequence.prompt
        assert prompt.embeddings_MD is not None
        seen = 0
        for span in prompt.media:
            first, last = max(span.start, row.start), min(span.start + span.length, row.stop)
            if first < last:
                source = prompt.embeddings_MD[seen + first - span.start : seen + last - span.start]
                hidden_TD[first - row.start : last - row.start] = torch.from_numpy(source).to(hidden_TD)
            seen += span.length


def media_runs(ids: np.ndarray, media_token_ids: frozenset[int]) -> list[tuple[int, int, int]]:
    """Runs of equal media placeholders in a prompt: (token id, start, length)."""
    runs: list[tuple[int, int, int]] = []
    at = 0
    for token, group in groupby(ids.tolist()):
        length = sum(1 for _ in group)
        if token in media_token_ids:
            runs.append((token, at, length))
        at += length
    return runs
