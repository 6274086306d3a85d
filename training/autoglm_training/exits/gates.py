"""Fit the gates: for every exit a logistic probe that knows when the exit says what full depth says.

Shape legend: N tokens, E exits, D hidden, F features, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from autoglm_backend.models.decoder import TextDecoder
from autoglm_backend.models.exits import ExitHeads
from autoglm_backend.models.gates import ExitGate, ExitGates, margin_features
from autoglm_training.exits.decoding import Trace

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
HELD_OUT = 0.2
ITERATIONS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitViews:
    """What the exits say along full-depth answers; the first token of each answer, which may not leave, is not there.

    normed_END float32, tokens_EN the exits' choices, margins_EN2, chosen_N full depth's choices.
    """

    depths: tuple[int, ...]
    normed_END: Tensor
    tokens_EN: Tensor
    margins_EN2: Tensor
    chosen_N: Tensor

    @property
    def agrees_EN(self) -> Tensor:
        return self.tokens_EN == self.chosen_N


@torch.no_grad()
def exit_views(decoder: TextDecoder, heads: ExitHeads, traces: Sequence[Trace]) -> ExitViews:
    """The exits' views of traces that watched exactly the heads' depths.

    Raises:
        ValueError: no answer is longer than one token.
    """
    streams = [torch.from_numpy(trace.streams_TED[1:]) for trace in traces if len(trace.ids) > 1]
    if not streams:
        raise ValueError("no answer is longer than one token: there is nothing that could leave early")
    like = decoder.norm.weight
    stream_NED = torch.cat(streams).to(like)
    normed, tokens, margins = [], [], []
    for index, depth in enumerate(heads.depths):
        normed_ND = heads(depth, stream_NED[:, index])
        logits_NV = decoder.lm_head(normed_ND).float()
        normed.append(normed_ND.float())
        tokens.append(logits_NV.argmax(-1))
        margins.append(margin_features(logits_NV))
    chosen = torch.tensor([token for trace in traces for token in trace.ids[1:]], device=like.device)
    return ExitViews(
        depths=heads.depths,
        normed_END=torch.stack(normed),
        tokens_EN=torch.stack(tokens),
        margins_EN2=torch.stack(margins),
        chosen_N=chosen,
    )


def fit_gates(views: ExitViews, *, uses_margin: bool, seed: int = 20261121) -> ExitGates:
    """One gate per exit, its penalty chosen on tokens held out."""
    hidden_size = views.normed_END.shape[-1]
    gates = ExitGates(views.depths, hidden_size, uses_margin=uses_margin).to(views.normed_END.device)
    generator = torch.Generator().manual_seed(seed)
    for index, depth in enumerate(views.depths):
        features_NF = views.normed_END[index]
        if uses_margin:
            features_NF = torch.cat((features_NF, views.margins_EN2[index]), dim=-1)
        weight_F, bias = fit_probe(features_NF, views.agrees_EN[index].float(), generator)
        gate = gates.gates[str(depth)]
        assert isinstance(gate, ExitGate)
        with torch.no_grad():
            gate.weight.copy_(weight_F[:hidden_size])
            gate.bias.copy_(bias)
            if gate.margin is not None:
                gate.margin.copy_(weight_F[hidden_size:])
    return gates.requires_grad_(False)


def fit_probe(features_NF: Tensor, labels_N: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Penalised logistic regression: (weight [F], bias []) for the features as they are."""
    mean_F, width_F = features_NF.mean(0), features_NF.std(0, correction=0).clamp(min=1e-6)
    standard_NF = (features_NF - mean_F) / width_F
    order = torch.randperm(len(labels_N), generator=generator).to(labels_N.device)
    count = int(HELD_OUT * len(order))
    held, used = order[:count], order[count:]
    penalty = PENALTIES[-1]
    if count:
        penalty = min(
            PENALTIES,
            key=lambda p: _log_loss(_regress(standard_NF[used], labels_N[used], p), standard_NF[held], labels_N[held]),
        )
    fitted = _regress(standard_NF, labels_N, penalty)
    weight_F = fitted[:-1] / width_F
    return weight_F, fitted[-1] - weight_F @ mean_F


def _regress(features_NF: Tensor, labels_N: Tensor, penalty: float) -> Tensor:
    """Weights and, last, the bias [F + 1]."""
    fitted = torch.zeros(features_NF.shape[1] + 1, device=features_NF.device, requires_grad=True)
    optimizer = torch.optim.LBFGS([fitted], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        score_N = features_NF @ fitted[:-1] + fitted[-1]
        loss = F.binary_cross_entropy_with_logits(score_N, labels_N) + penalty * fitted[:-1].square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)  # pyright: ignore[reportArgumentType]
    return fitted.detach()


def _log_loss(fitted: Tensor, features_NF: Tensor, labels_N: Tensor) -> float:
    score_N = features_NF @ fitted[:-1] + fitted[-1]
    return float(F.binary_cross_entropy_with_logits(score_N, labels_N))
