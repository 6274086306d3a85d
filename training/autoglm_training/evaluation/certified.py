"""Certified exits and the router held against mixed traffic of the test split, as the serving engine runs them."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from autoglm_backend.engine.options import EngineOptions
from autoglm_backend.engine.service import DecoderService
from autoglm_backend.models.certificate import Certificate, check_certificate, load_certificate
from autoglm_backend.models.config import CheckpointError
from autoglm_backend.models.router import load_router
from autoglm_protocol.actions import same_action
from autoglm_protocol.events import Failed, Finished, StreamEvent, TokenDelta
from autoglm_protocol.plan import DepthBy, ExecutionPlan, ExitMode
from autoglm_protocol.sampling import SamplingParams
from autoglm_protocol.wire import DecodeRequest
from autoglm_training.evaluation.held_out import Sample
from autoglm_training.exits.traffic import traffic
from autoglm_training.loading import LoadedCheckpoint

MAX_TOKENS = 64
DTYPE, QUANTIZATION = "float32", "none"
"""What evaluation runs at."""
PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One answer of the engine. exits: the layer at which each token was chosen.

    layer_steps: layers run, summed over the prompt's tokens and the answer's; depth: of the whole request.
    """

    reply: str
    exits: tuple[int, ...]
    layer_steps: int
    depth: int


def checked_certificate(loaded: LoadedCheckpoint) -> Certificate:
    """The checkpoint's certificate. Raises CheckpointError where a server at this precision would refuse it."""
    certificate = load_certificate(loaded.directory)
    if certificate is None:
        raise CheckpointError(f"{loaded.directory}: no certificate (`autoglm calibrate` makes one)")
    check_certificate(certificate, loaded.directory, dtype=DTYPE, quantization=QUANTIZATION)
    return certificate


def certified_figures(loaded: LoadedCheckpoint, count: int, seed: int, threads: int = 1) -> dict[str, object]:
    """The same requests at full depth and with certified exits, and by the router where there is one.

    Raises:
        CheckpointError: there is no certificate, or the server would refuse it.
        AutoglmError: the engine failed.
        TimeoutError: it stands still.
    """
    certificate = checked_certificate(loaded)
    samples = traffic(loaded, "test", seed, count)
    num_layers, depths = loaded.config.text.num_layers, () if loaded.exits is None else loaded.exits.depths
    router = load_router(loaded.directory, loaded.config.text.hidden_size, depths)
    with _engine(loaded, threads) as engine:
        full = _answers(loaded, engine, samples, ExitMode.FIXED)
        certified = _answers(loaded, engine, samples, ExitMode.CERTIFIED)
        routed = None if router is None else _answers(loaded, engine, samples, ExitMode.FIXED, DepthBy.PROBE)
    prompt_steps = num_layers * sum(len(sample.row.ids) for sample in samples)
    exits = [layers for answer in certified for layers in answer.exits]
    figures: dict[str, object] = {
        "n": count,
        "tokens": len(exits),
        "mismatches": _num_changed(full, certified),
        "delta": certificate.delta,
        "epsilon": certificate.epsilon,
        "thresholds": {str(depth): bound for depth, bound in certificate.thresholds.items()},
        "mean_layers": round(sum(exits) / len(exits), 3),
        "num_layers": num_layers,
        "layer_steps": _steps(certified),
        "layer_steps_full": _steps(full),
        "answer_layer_steps": _steps(certified) - prompt_steps,
        "answer_layer_steps_full": _steps(full) - prompt_steps,
    }
    if router is not None and routed is not None:
        shallow = [at for at, answer in enumerate(routed) if answer.depth < num_layers]
        figures["router"] = {
            "depth": router.depth,
            "delta": router.delta,
            "n": count,
            "routed": len(shallow),
            "mismatches": _num_changed(full, routed),
            "calibrated_share": round(router.share, 4),
            "calibrated_n": router.num_requests,
            "calibrated_mismatches": router.num_mismatches,
        }
    return figures


def _steps(answers: Sequence[Served]) -> int:
    return sum(answer.layer_steps for answer in answers)


def _num_changed(full: Sequence[Served], other: Sequence[Served]) -> int:
    return sum(not same_action(a.reply, b.reply) for a, b in zip(full, other, strict=True))


@contextmanager
def _engine(loaded: LoadedCheckpoint, threads: int) -> Iterator[DecoderService]:
    """The decoder without shadow checks, which would run answers again, and without memory of earlier prompts."""
    options = EngineOptions(
        device="cpu", dtype=DTYPE, quantization=QUANTIZATION, threads=threads, shadow_share=0.0, prefix_cache=False
    )
    service = DecoderService.from_checkpoint(loaded.directory, options, default_exit=ExitMode.CERTIFIED)
    try:
        yield service
    finally:
        service.shutdown()
        torch.set_num_threads(threads)


def _answers(
    loaded: LoadedCheckpoint,
    engine: DecoderService,
    samples: Sequence[Sample],
    mode: ExitMode,
    depth_by: DepthBy = DepthBy.REQUEST,
) -> list[Served]:
    """Greedy answers in the order of the samples; as many at a time as the engine's batch holds."""
    events: queue.Queue[tuple[int, StreamEvent]] = queue.Queue()
    ids: list[list[int]] = [[] for _ in samples]
    exits: list[list[int]] = [[] for _ in samples]
    ends: dict[int, Finished] = {}
    waiting = iter(range(len(samples)))

    def send(at: int) -> None:
        request = _request(loaded, samples[at], f"{mode.value}-{depth_by.value}-{at}", mode, depth_by)
        engine.add(request, lambda event, at=at: events.put((at, event)))

    for at in islice(waiting, engine.options.batch_limit):
        send(at)
    while len(ends) < len(samples):
        try:
            at, event = events.get(timeout=PATIENCE_S)
        except queue.Empty as error:
            raise TimeoutError(f"the engine said nothing for {PATIENCE_S:.0f} s") from error
        if isinstance(event, TokenDelta):
            ids[at] += event.token_ids
            exits[at] += event.layers or ()
        elif isinstance(event, Failed):
            raise event.error
        elif isinstance(event, Finished):
            ends[at] = event
            if (following := next(waiting, None)) is not None:
                send(following)
    num_layers = loaded.config.text.num_layers
    return [
        Served(
            reply=_text(loaded, ids[at]),
            exits=tuple(exits[at]),
            layer_steps=ends[at].dynamic_graph["layer_steps"],
            depth=ends[at].dynamic_graph.get("depth", num_layers),
        )
        for at in range(len(samples))
    ]


def _request(loaded: LoadedCheckpoint, sample: Sample, tag: str, mode: ExitMode, depth_by: DepthBy) -> DecodeRequest:
    num_layers = loaded.config.text.num_layers
    plan = ExecutionPlan(
        enabled=True,
        run_vision=False,
        run_speech=False,
        num_layers=num_layers,
        depth=num_layers,
        exit_mode=mode,
        reason="evaluate",
        depth_by=depth_by,
    )
    embeddings = [rows_ND.float().cpu().numpy() for _, rows_ND in sample.media]
    return DecodeRequest(
        tag=tag,
        prompt_ids=np.array(sample.row.ids, dtype=np.int32),
        image_grids=sample.image_grids,
        embeddings_MD=np.concatenate(embeddings) if embeddings else None,
        sampling=SamplingParams(temperature=0.0, max_tokens=MAX_TOKENS),
        plan=plan,
    )


def _text(loaded: LoadedCheckpoint, ids: Sequence[int]) -> str:
    """An answer without its stop token."""
    kept = [token for token in ids if token not in loaded.eos_ids]
    return loaded.tokenizer.decode(kept, skip_special_tokens=False)
