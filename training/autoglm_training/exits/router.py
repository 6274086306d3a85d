"""Fit the per-request router (`models/router`): its probe, and a threshold fixed like the certificate's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from autoglm_backend.models.router import Router
from autoglm_protocol.actions import same_action
from autoglm_training.exits.calibrate import CLOSED, CONFIDENCES, NO_EXITS, Answered, Calibration
from autoglm_training.exits.certify import Measured, fixed_sequence
from autoglm_training.exits.decoding import Prompt, pooled_prompts
from autoglm_training.exits.gates import fit_probe
from autoglm_training.generate import generate
from autoglm_training.loading import LoadedCheckpoint

BATCH = 32


def fit_router(loaded: LoadedCheckpoint, fitting: Answered, certifying: Answered, config: Calibration) -> Router:
    """Probe and threshold from the certificate's own requests. Raises ValueError for a checkpoint without exits."""
    if loaded.exits is None:
        raise ValueError(NO_EXITS.format(loaded.directory))
    depth = loaded.exits.depths[0]
    seen_ND, same_N = _outcomes(loaded, fitting, depth, config.max_tokens)
    weight_D, bias = fit_probe(seen_ND, same_N.float(), torch.Generator().manual_seed(1))
    pooled_ND, agrees_N = _outcomes(loaded, certifying, depth, config.max_tokens)
    confidence_N = torch.sigmoid(pooled_ND @ weight_D + bias)

    def measure(threshold: float) -> Measured:
        routed_N = confidence_N >= threshold
        return Measured(num_mismatches=int((routed_N & ~agrees_N).sum()), mean_layers=0.0)

    accepted = fixed_sequence(
        (CLOSED, *CONFIDENCES),
        measure,
        num_requests=len(certifying.prompts),
        delta=config.delta,
        epsilon=config.epsilon,
    )
    threshold = CLOSED if accepted is None else accepted.candidate
    return Router(
        depth=depth,
        threshold=threshold,
        delta=config.delta,
        epsilon=config.epsilon,
        num_requests=len(certifying.prompts),
        num_mismatches=0 if accepted is None else accepted.measured.num_mismatches,
        share=float((confidence_N >= threshold).float().mean()),
        weight_D=weight_D,
        bias=bias,
    )


def _outcomes(loaded: LoadedCheckpoint, requests: Answered, depth: int, max_tokens: int) -> tuple[Tensor, Tensor]:
    """(pooled states [N, D], whether the exit's action is full depth's [N])."""
    shallow = _shallow(loaded, requests.prompts, depth, max_tokens)

    def text(ids: Sequence[int]) -> str:
        return loaded.tokenizer.decode([i for i in ids if i not in loaded.eos_ids], skip_special_tokens=False)

    same = [same_action(text(trace.ids), text(ids)) for trace, ids in zip(requests.traces, shallow, strict=True)]
    pooled_ND = pooled_prompts(loaded.decoder, requests.prompts, depth)
    return pooled_ND, torch.tensor(same, device=pooled_ND.device)


def _shallow(loaded: LoadedCheckpoint, prompts: Sequence[Prompt], depth: int, max_tokens: int) -> list[list[int]]:
    answers: list[list[int]] = []
    for start in range(0, len(prompts), BATCH):
        batch = prompts[start : start + BATCH]
        rows, media = [p.row for p in batch], [p.media for p in batch]
        answers += generate(loaded.decoder, loaded.exits, rows, media, depth, loaded.eos_ids, max_tokens)
    return answers
