"""Rows through the decoder's segments: where hidden states run, and where they wait.

One invariant carries all exit modes: a sequence's `kv_len` never grows with depth, and the tokens between kv_len[s] and
kv_len[s - 1] wait at the border below segment s with the hidden states that came out of segment s - 1. A segment always
runs all that waits before it. So drafts wait for their verification, tokens that left early wait for the pass that
fills their deep keys and values in exactly, and a prompt waits for nobody: it is the same few lines.

Shape legend: T tokens under way, D hidden.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from autoglm_backend.engine.kv_cache import KVCache, paged_attend
from autoglm_backend.engine.profiling import mark
from autoglm_backend.engine.scheduler import Row
from autoglm_backend.engine.step_tables import StepTables
from autoglm_backend.models.decoder import TextDecoder
from autoglm_backend.models.layers import Rotation


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """Rows under way together; their tokens' residual streams laid end to end."""

    rows: Seq[Row]
    hidden_TD: Tensor
    rotation: Rotation
    tables: StepTables

    def pieces(self) -> tuple[Tensor, ...]:
        """One view [count, D] per row."""
        return self.hidden_TD.split([row.count for row in self.rows])


class Spans:
    """The decoder cut at its exits, over the key/value cache."""

    def __init__(self, decoder: TextDecoder, cache: KVCache, segments: tuple[tuple[int, int], ...]) -> None:
        self.decoder = decoder
        self.cache = cache
        self.segments = segments

    @property
    def device(self) -> torch.device:
        return self.decoder.norm.weight.device

    def border_after(self, depth: int) -> int:
        """The number of the first segment that lies deeper than `depth`."""
        return [last for _, last in self.segments].index(depth) + 1

    def start(self, rows: Seq[Row], hidden_TD: Tensor) -> Flow:
        """Rows whose tokens are embedded and stand before segment 0."""
        tables = StepTables(rows, self.cache.block_tokens)
        return Flow(rows=rows, hidden_TD=hidden_TD, rotation=self._rotation(rows), tables=tables)

    def _rotation(self, rows: Seq[Row]) -> Rotation:
        if all(row.start >= row.sequence.num_prompt for row in rows):
            places = [at + row.sequence.prompt.rope_delta for row in rows for at in range(row.start, row.stop)]
            return self.decoder.text_rotation(places)
        positions_3T = np.concatenate([row.sequence.positions(row.start, row.stop) for row in rows], axis=1)
        return self.decoder.rotation(torch.from_numpy(positions_3T).to(self.device))

    def run(self, flow: Flow, segment: int) -> Flow:
        """One segment over all tokens of the flow: their keys and values exist there from now on."""
        low, high = self.segments[segment]
        attend = paged_attend(self.cache, flow.tables.segment(segment))
        with mark("layers"):
            hidden_TD = self.decoder.run_span(low, high, flow.hidden_TD, flow.rotation, attend)
        for row in flow.rows:
            row.sequence.kv_len[segment] = row.stop
            row.sequence.layer_steps += row.count * (high - low)
        return replace(flow, hidden_TD=hidden_TD)

    def hold(self, flow: Flow, segment: int) -> None:
        """Leave the flow's tokens waiting before `segment`, until `enter` in this step."""
        for row, piece in zip(flow.rows, flow.pieces(), strict=True):
            row.sequence.waiting[segment].append(piece)

    def enter(self, rows: Seq[Row], segment: int) -> Flow:
        """All tokens of these rows that wait before `segment`."""
        spans: list[Row] = []
        pieces: list[Tensor] = []
        for row in rows:
            sequence = row.sequence
            begin, end = sequence.kv_len[segment], sequence.kv_len[segment - 1]
            spans.append(replace(row, start=begin, count=end - begin))
            pieces += sequence.waiting[segment]
            sequence.waiting[segment] = []
        return self.start(spans, torch.cat(pieces) if pieces else torch.empty(0))

    def proceed(self, flow: Flow, segment: int, stays: Seq[bool]) -> Flow:
        """The flow into `segment`: rows that stay or end here drop out, tokens that waited from earlier steps join."""
        goes = [not stay and segment < len(row.sequence.segments) for row, stay in zip(flow.rows, stays, strict=True)]
        if all(goes) and not any(row.sequence.waiting[segment] for row in flow.rows):
            return flow
        going = [row for row, go in zip(flow.rows, goes, strict=True) if go]
        for row, piece, stay in zip(flow.rows, flow.pieces(), stays, strict=True):
            if segment < len(row.sequence.segments):
                # A row that stays keeps its states over steps: a view would keep the whole batch's alive.
                row.sequence.waiting[segment].append(piece.clone() if stay else piece)
                row.sequence.num_deferred += stay
        return self.enter(going, segment) if going else replace(flow, rows=(), hidden_TD=flow.hidden_TD[:0])
