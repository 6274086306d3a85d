"""Runs one step: rows of different depth through the spans they share, guesses at an exit, and out.

It decides nothing. Rows are ordered deepest first, so the rows still alive at a segment are a prefix of the batch and
dropping the others is a slice, not a copy. A row that drafts runs the layers below the exit once per guess; the deep
pass then takes all its positions at once and starts from the hidden states that drafting left behind.

Shape legend: T tokens of the step, D hidden, V vocabulary, N sampling positions.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from autoglm_backend.engine.kv_cache import KVCache, paged_attend, segment_tables
from autoglm_backend.engine.scheduler import Row
from autoglm_backend.engine.sequence import Sequence
from autoglm_backend.models.decoder import TextDecoder
from autoglm_backend.models.exits import ExitHeads

ChooseDrafts = Callable[[Seq[Sequence], Tensor], list[int]]
"""One draft token per row from the exit's logits [N, V]; they may be changed in place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Logits of one row: one position, or one more than it drafted."""

    row: Row
    logits_NV: Tensor
    """float32, position i chooses the token after the row's (count - 1 + i)-th."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PassTime:
    num_layers: int
    num_tokens: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    judgements: tuple[Judgement, ...]
    times: tuple[PassTime, ...]


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

    @property
    def device(self) -> torch.device:
        return self.decoder.norm.weight.device

    @torch.inference_mode()
    def run(self, rows: Seq[Row], exit_depth: int, choose: ChooseDrafts) -> StepResult:
        """Run the step and advance each row's `kv_len`; rows with `num_drafts` guess at `exit_depth`.

        Drafts are left in each sequence; the caller judges and takes them.
        """
        began = time.perf_counter()
        rows = sorted(rows, key=lambda row: -row.sequence.depth)
        drafting = any(row.num_drafts for row in rows)
        border = [last for _, last in self.segments].index(exit_depth) + 1 if drafting else len(self.segments)
        judgements: list[Judgement] = []
        step = _Step(runner=self, judgements=judgements)
        alive, hidden_TD = step.run_segments(rows, self._embed(rows), 0, border)
        times: list[PassTime] = []
        if drafting:
            alive, hidden_TD = self._draft(alive, hidden_TD, border, exit_depth, choose)
            middle = time.perf_counter()
            times.append(self._time(rows, exit_depth, began, middle))
            step.run_segments(alive, hidden_TD, border, len(self.segments))
            times.append(self._time(alive, self.decoder.config.num_layers - exit_depth, middle, time.perf_counter()))
        elif all(row.count == 1 for row in rows) and rows:
            times.append(self._time(rows, rows[0].sequence.depth, began, time.perf_counter()))
        return StepResult(judgements=tuple(judgements), times=tuple(times))

    def _time(self, rows: Seq[Row], num_layers: int, began: float, ended: float) -> PassTime:
        num_drafts = max((row.num_drafts for row in rows), default=0)
        # Drafting makes one pass per guess: what is wanted is the time of one.
        passes = 1 if any(row.count > 1 for row in rows) else num_drafts + 1
        return PassTime(
            num_layers=num_layers, num_tokens=sum(row.count for row in rows), seconds=(ended - began) / passes
        )

    def _draft(
        self, rows: list[Row], hidden_TD: Tensor, border: int, exit_depth: int, choose: ChooseDrafts
    ) -> tuple[list[Row], Tensor]:
        """Guess with the layers below the exit. Returns the rows widened by their guesses, and their hidden states."""
        pieces = [[piece] for piece in hidden_TD.split([row.count for row in rows])]
        guessing = [i for i, row in enumerate(rows) if row.num_drafts]
        for number in range(1, max(row.num_drafts for row in rows) + 1):
            guessing = [i for i in guessing if rows[i].num_drafts >= number]
            newest_ND = torch.stack([pieces[i][-1][-1] for i in guessing])
            logits_NV = self.decoder.lm_head(self._head_input(exit_depth, newest_ND)).float()
            sequences = [rows[i].sequence for i in guessing]
            for sequence, token in zip(sequences, choose(sequences, logits_NV), strict=True):
                sequence.push_draft(token)
            singles = [replace(rows[i], start=rows[i].stop + number - 1, count=1) for i in guessing]
            silent = _Step(runner=self, judgements=None)
            _, drafted_ND = silent.run_segments(singles, self._embed(singles), 0, border)
            for i, piece in zip(guessing, drafted_ND.split(1), strict=True):
                pieces[i].append(piece)
        wide = [replace(row, count=row.count + row.num_drafts) for row in rows]
        return wide, torch.cat([piece for row in pieces for piece in row])

    def _head_input(self, depth: int, hidden_ND: Tensor) -> Tensor:
        if depth == self.decoder.config.num_layers:
            return self.decoder.norm(hidden_ND)
        assert self.exits is not None, "a sequence was planned for an exit that the checkpoint has not got"
        return self.exits(depth, hidden_ND)

    def _embed(self, rows: Seq[Row]) -> Tensor:
        ids = [token for row in rows for token in row.sequence.tokens(row.start, row.stop)]
        hidden_TD = self.decoder.embed_tokens(torch.tensor(ids, device=self.device))
        at = 0
        for row in rows:
            if row.sequence.prompt.embeddings_MD is not None and row.start < row.sequence.num_prompt:
                _place_media(row, hidden_TD[at : at + row.count])
            at += row.count
        return hidden_TD


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """The spans of one step; collects judgements where rows reach their depth (None: a draft pass, nobody leaves)."""

    runner: ModelRunner
    judgements: list[Judgement] | None

    def run_segments(self, rows: Seq[Row], hidden_TD: Tensor, first: int, last: int) -> tuple[list[Row], Tensor]:
        """Run segments [first, last). Returns the rows that go deeper, and their residual stream."""
        runner = self.runner
        rows = list(rows)
        if not rows:
            return rows, hidden_TD
        positions_3T = np.concatenate([row.sequence.positions(row.start, row.stop) for row in rows], axis=1)
        rotation = runner.decoder.rotation(torch.from_numpy(positions_3T).to(runner.device))
        for segment in range(first, last):
            low, high = runner.segments[segment]
            tables = segment_tables(rows, segment, runner.cache.block_tokens, runner.device, hidden_TD.dtype)
            attend = paged_attend(runner.cache, tables)
            hidden_TD = runner.decoder.run_span(low, high, hidden_TD, rotation, attend)
            for row in rows:
                row.sequence.kv_len[segment] = row.stop
                row.sequence.layer_steps += row.count * (high - low)
            if self.judgements is not None:
                self._collect(rows, hidden_TD, high)
            rows = [row for row in rows if row.sequence.depth > high]
            num_tokens = sum(row.count for row in rows)
            hidden_TD = hidden_TD[:num_tokens]
            rotation = type(rotation)(rotation.cos[:num_tokens], rotation.sin[:num_tokens])
            if not rows:
                break
        return rows, hidden_TD

    def _collect(self, rows: Seq[Row], hidden_TD: Tensor, depth: int) -> None:
        assert self.judgements is not None
        leaving: list[tuple[Row, int]] = []
        at: list[int] = []
        end = 0
        for row in rows:
            end += row.count
            if row.sequence.depth == depth and row.samples:
                width = len(row.sequence.drafts) + 1
                leaving.append((row, width))
                at.extend(range(end - width, end))
        if not leaving:
            return
        chosen_ND = hidden_TD[torch.tensor(at, device=hidden_TD.device)]
        logits_NV = self.runner.decoder.lm_head(self.runner._head_input(depth, chosen_ND)).float()
        start = 0
        for row, width in leaving:
            self.judgements.append(Judgement(row=row, logits_NV=logits_NV[start : start + width]))
            start += width


def _place_media(row: Row, hidden_TD: Tensor) -> None:
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
