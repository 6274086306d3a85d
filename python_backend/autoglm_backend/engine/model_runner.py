"""Runs one step: rows of different depth through the spans they share, guesses at an exit, and out.

It decides nothing but the order of work. Every row runs the segments it needs and no other (engine/spans.py); at each
border the exits say whose next token is chosen there (engine/exits.py). A row that drafts runs the layers below the
exit once per guess; its guesses wait at the border, and one deep pass takes them all from there.

Shape legend: T tokens of the step, D hidden, V vocabulary, N sampling positions.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field, replace
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from autoglm_backend.engine.exits import Agreement, Exits, Judgement
from autoglm_backend.engine.scheduler import Row
from autoglm_backend.engine.sequence import Sequence
from autoglm_backend.engine.spans import Flow, Spans

MAX_LAG = 8
"""Tokens of one row that may wait for their deep keys and values (FREE, EE-LLM: nearly free while memory-bound)."""
JOIN_LAG = 4
"""From so many on, a row's late tokens join a deep pass that another row needs anyway."""

ChooseDrafts = Callable[[Seq[Sequence], Tensor], list[int]]
"""One draft token per row from the exit's logits [N, V]; they may be changed in place."""


@dataclass(slots=True, kw_only=True)
class StepResult:
    judgements: list[Judgement] = field(default_factory=list[Judgement])
    """One per row that reached its newest token."""
    drafting_s: float | None = None
    """Seconds until the last guess was made; None for a step without drafts."""
    late: Agreement = field(default_factory=Agreement)


class ModelRunner:
    def __init__(self, spans: Spans, exits: Exits) -> None:
        self.spans = spans
        self.exits = exits

    @torch.inference_mode()
    def run(self, rows: Seq[Row], exit_depth: int, choose: ChooseDrafts) -> StepResult:
        """Run the step and advance each row's `kv_len`; rows with `num_drafts` guess at `exit_depth`.

        Drafts are left in each sequence; the caller judges and takes them.
        """
        began = time.perf_counter()
        result = StepResult()
        num_segments = len(self.spans.segments)
        flow = self._embedded(rows)
        if any(row.num_drafts for row in rows):
            border = self.spans.border_after(exit_depth)
            flow = self._through(flow, 0, border, result)
            flow = self._draft(rows, flow, border, choose, result)
            result.drafting_s = time.perf_counter() - began
            self._through(flow, border, num_segments, result)
        else:
            self._through(flow, 0, num_segments, result)
        return result

    def _through(self, flow: Flow, first: int, last: int, result: StepResult) -> Flow:
        """Run segments [first, last) and judge at their ends. Returns what goes deeper."""
        judged = {judgement.sequence for judgement in result.judgements}
        for segment in range(first, last):
            if not flow.rows:
                break
            flow = self.spans.run(flow, segment)
            depth = self.spans.segments[segment][1]
            self.exits.route(flow, depth)
            result.late += self.exits.late_agreement(flow, depth)
            result.judgements += self.exits.judge(flow, depth, judged)
            flow = self.spans.proceed(flow, segment + 1, _who_stays(flow.rows, segment, judged))
        return flow

    def _draft(self, rows: Seq[Row], flow: Flow, border: int, choose: ChooseDrafts, result: StepResult) -> Flow:
        """Guess with the layers below the border. Returns the flow into it, widened by the guesses.

        Rows that end above the border ride along: what they guess is their answer, because the logits that judge it are
        those that made it. Without that, a shallow row would get one token in the time that its neighbours get many.
        """
        exit_depth = self.spans.segments[border - 1][1]
        self.spans.hold(flow, border)
        is_deep = {row.sequence for row in flow.rows}
        rides = {j.sequence: [j.logits_NV] for j in result.judgements}
        for number in range(1, max(row.num_drafts for row in rows) + 1):
            guessing = sorted(
                (row for row in rows if row.num_drafts >= number), key=lambda row: row.sequence not in is_deep
            )
            sequences = [row.sequence for row in guessing]
            newest = [s.waiting[border][-1][-1] for s in sequences if s in is_deep]
            ridden = [rides[s][-1].clone() for s in sequences if s not in is_deep]
            whole = any(s.grammar is not None for s in sequences)
            deep = [self.exits.draft_logits(exit_depth, torch.stack(newest), whole=whole)] if newest else []
            for sequence, token in zip(sequences, choose(sequences, torch.cat([*deep, *ridden])), strict=True):
                sequence.push_draft(token)
            guesses = [replace(row, start=row.stop + number - 1, count=1) for row in guessing]
            passed = StepResult()
            self.spans.hold(self._through(self._embedded(guesses), 0, border, passed), border)
            for judgement in passed.judgements:
                rides[judgement.sequence].append(judgement.logits_NV)
        result.judgements = [
            replace(j, logits_NV=torch.cat(rides[j.sequence]), likeliest_N=None) for j in result.judgements
        ]
        return self.spans.enter(flow.rows, border)

    def _embedded(self, rows: Seq[Row]) -> Flow:
        ids = [token for row in rows for token in row.sequence.tokens(row.start, row.stop)]
        hidden_TD = self.spans.decoder.embed_tokens(torch.tensor(ids, device=self.spans.device))
        at = 0
        for row in rows:
            if row.sequence.prompt.embeddings_MD is not None and row.start < row.sequence.num_prompt:
                _place_media(row, hidden_TD[at : at + row.count])
            at += row.count
        return self.spans.start(rows, hidden_TD)


def _who_stays(rows: Seq[Row], segment: int, judged: set[Sequence]) -> list[bool]:
    """Rows that left early stay behind after this segment until enough of their tokens wait."""
    if not judged:
        return [False] * len(rows)
    lags = [row.stop - row.sequence.kv_len[-1] for row in rows]
    has_left = [row.sequence in judged for row in rows]
    ends = [len(row.sequence.segments) == segment + 1 for row in rows]
    someone_goes = any(
        not end and (not left or lag >= MAX_LAG) for end, left, lag in zip(ends, has_left, lags, strict=True)
    )
    bound = JOIN_LAG if someone_goes else MAX_LAG
    return [left and lag < bound for left, lag in zip(has_left, lags, strict=True)]


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
