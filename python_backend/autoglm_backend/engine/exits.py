"""What happens where a segment ends: whose next token is chosen here, and who is sure enough to leave.

A row is judged once a step: at its own depth, or in certified mode at the first exit whose gate is sure. Nothing else
makes a row leave. Judging says nothing about keys and values: a row that left early may still be taken deeper, to fill
them in.

Shape legend: N positions, D hidden, V vocabulary, K vocabulary of drafts.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass

import torch
from torch import Tensor

from autoglm_backend.engine.sampler import is_plain
from autoglm_backend.engine.scheduler import Row
from autoglm_backend.engine.sequence import Sequence
from autoglm_backend.engine.spans import Flow
from autoglm_backend.models.decoder import TextDecoder
from autoglm_backend.models.exits import ExitHeads
from autoglm_backend.models.gates import ExitGates
from autoglm_backend.models.router import Router


@dataclass(frozen=True, slots=True, kw_only=True)
class CertifiedExits:
    """Gates with the thresholds that a certificate grants them; an exit without threshold lets nobody leave."""

    gates: ExitGates
    thresholds: Mapping[int, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Logits that choose a row's next token; one more position than it drafted."""

    sequence: Sequence
    logits_NV: Tensor
    """float32, first the newest token's, then those of its drafts."""
    depth: int
    """Layers behind the logits."""
    sure_by: float | None = None
    """Confidence less threshold of the gate that let the row leave; None at the row's own depth."""
    likeliest_N: tuple[int, ...] | None = None
    """Each position's likeliest token, where they were found for all rows at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Tokens that had left early, compared with full depth's choice after the same text when it came by."""

    num_checked: int = 0
    num_agreed: int = 0

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(
            num_checked=self.num_checked + other.num_checked, num_agreed=self.num_agreed + other.num_agreed
        )


class Exits:
    """The output head at every depth of a decoder."""

    def __init__(
        self,
        decoder: TextDecoder,
        heads: ExitHeads | None,
        *,
        certified: CertifiedExits | None = None,
        router: Router | None = None,
        draft_ids_K: Tensor | None = None,
    ) -> None:
        # draft_ids_K: the tokens that drafts may be, int64; None is the whole vocabulary.
        self.decoder = decoder
        self.heads = heads
        self.certified = certified
        self.router = router
        self._draft_ids_K = draft_ids_K
        self._draft_rows_KD = None if draft_ids_K is None else decoder.lm_head.weight[draft_ids_K]

    def route(self, flow: Flow, depth: int) -> None:
        """Ask the router about rows whose prompt has now come to its exit; those it is sure of end there."""
        if self.router is None or depth != self.router.depth:
            return
        for row, piece in zip(flow.rows, flow.pieces(), strict=True):
            sequence = row.sequence
            if sequence.probe_depth != depth:
                continue
            seen_D = piece[: sequence.num_prompt - row.start].float().sum(dim=0)
            sequence.probed_D = seen_D if sequence.probed_D is None else sequence.probed_D + seen_D
            if row.stop >= sequence.num_prompt:
                confidence = float(self.router.confidence(sequence.probed_D[None] / sequence.num_prompt)[0])
                sequence.settle(confidence, is_enough=confidence >= self.router.threshold)

    def judge(self, flow: Flow, depth: int, judged: set[Sequence]) -> list[Judgement]:
        """Judgements of the rows not yet judged that end at this depth or may leave here; adds them to `judged`."""
        ends: list[Row] = []
        gated: list[Row] = []
        for row in flow.rows:
            if row.samples and row.sequence not in judged:
                if row.sequence.depth == depth:
                    ends.append(row)
                elif self._may_leave(row, depth):
                    gated.append(row)
        judgements = self._at_own_depth(flow, ends, depth) if ends else []
        if gated:
            judgements += self._where_sure(flow, gated, depth)
        judged.update(judgement.sequence for judgement in judgements)
        return judgements

    def draft_logits(self, depth: int, hidden_ND: Tensor, *, whole: bool = False) -> Tensor:
        """An exit's logits for drafts, float32 [N, V]; -inf for tokens outside the draft vocabulary.

        whole: use the whole vocabulary (a grammar may allow nothing of the small one).
        """
        if whole or self._draft_ids_K is None or self._draft_rows_KD is None:
            return self._logits(self._normed(depth, hidden_ND))
        logits_NK = (self._normed(depth, hidden_ND) @ self._draft_rows_KD.T).float()
        full_NV = logits_NK.new_full((len(hidden_ND), self.decoder.config.vocab_size), float("-inf"))
        return full_NV.index_copy_(1, self._draft_ids_K, logits_NK)

    def late_agreement(self, flow: Flow, depth: int) -> Agreement:
        """How the deepest pass judges tokens that left early, where the choice was plain greedy."""
        if self.certified is None:
            return Agreement()
        at: list[int] = []
        chosen: list[int] = []
        begin = 0
        for row in flow.rows:
            sequence = row.sequence
            if sequence.certified and sequence.depth == depth and is_plain(sequence):
                first = max(row.start, sequence.num_prompt - 1)
                for position in range(first, min(row.stop, len(sequence.ids) - 1)):
                    if sequence.layers[position + 1 - sequence.num_prompt] < depth:
                        at.append(begin + position - row.start)
                        chosen.append(sequence.ids[position + 1])
            begin += row.count
        if not at:
            return Agreement()
        hidden_ND = flow.hidden_TD[torch.tensor(at, device=flow.hidden_TD.device)]
        full = self._logits(self._normed(depth, hidden_ND)).argmax(dim=-1).tolist()
        return Agreement(num_checked=len(at), num_agreed=sum(a == b for a, b in zip(full, chosen, strict=True)))

    def _may_leave(self, row: Row, depth: int) -> bool:
        """Only generated tokens leave: the prompt's last one comes at full depth, which it has reached anyway."""
        return (
            row.sequence.certified
            and self.certified is not None
            and depth in self.certified.thresholds
            and row.stop > row.sequence.num_prompt
        )

    def _at_own_depth(self, flow: Flow, rows: Seq[Row], depth: int) -> list[Judgement]:
        # A row that rides along with drafts is judged one token at a time.
        widths = [min(len(row.sequence.drafts) + 1, row.count) for row in rows]
        logits_NV = self._logits(self._normed(depth, _last_states(flow, rows, widths)))
        likeliest_N: list[int] = logits_NV.argmax(dim=-1).tolist()
        judgements: list[Judgement] = []
        at = 0
        for row, width, row_NV in zip(rows, widths, logits_NV.split(widths), strict=True):
            likeliest = tuple(likeliest_N[at : at + width])
            judgements.append(Judgement(sequence=row.sequence, logits_NV=row_NV, depth=depth, likeliest_N=likeliest))
            at += width
        return judgements

    def _where_sure(self, flow: Flow, rows: Seq[Row], depth: int) -> list[Judgement]:
        assert self.certified is not None
        gates, threshold = self.certified.gates, self.certified.thresholds[depth]
        normed_ND = self._normed(depth, _last_states(flow, rows, [1] * len(rows)))
        logits_NV = self._logits(normed_ND) if gates.uses_margin else None
        confidences: list[float] = gates(depth, normed_ND, logits_NV).tolist()
        sure = [i for i, confidence in enumerate(confidences) if confidence >= threshold]
        if not sure:
            return []
        picked = torch.tensor(sure, device=normed_ND.device)
        sure_NV = self._logits(normed_ND[picked]) if logits_NV is None else logits_NV[picked]
        return [
            Judgement(
                sequence=rows[i].sequence,
                logits_NV=sure_NV[n : n + 1],
                depth=depth,
                sure_by=confidences[i] - threshold,
            )
            for n, i in enumerate(sure)
        ]

    def _normed(self, depth: int, hidden_ND: Tensor) -> Tensor:
        if depth == self.decoder.config.num_layers:
            return self.decoder.norm(hidden_ND)
        assert self.heads is not None, "a sequence was planned for an exit that the checkpoint has not got"
        return self.heads(depth, hidden_ND)

    def _logits(self, normed_ND: Tensor) -> Tensor:
        return self.decoder.lm_head(normed_ND).float()


def _last_states(flow: Flow, rows: Seq[Row], widths: Seq[int]) -> Tensor:
    """The newest `widths[i]` states of rows[i], which are some of the flow's rows in its order."""
    wanted = dict(zip((row.sequence for row in rows), widths, strict=True))
    at: list[int] = []
    end = 0
    for row in flow.rows:
        end += row.count
        at.extend(range(end - wanted.get(row.sequence, 0), end))
    if len(at) == len(flow.hidden_TD):
        return flow.hidden_TD
    return flow.hidden_TD[torch.tensor(at, device=flow.hidden_TD.device)]
