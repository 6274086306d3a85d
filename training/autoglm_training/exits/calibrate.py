"""Gates, thresholds and certificate for a checkpoint's exits, from requests that are split and never mixed.

One part of the requests fits the gates. The other part certifies: the unit is the whole request, a mismatch is a parsed
action that differs from full depth's. A request's answer can change only where a sure exit disagrees with full depth on
full depth's own answer, so only such requests are decoded again for each candidate; all others are known to be equal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone

import torch
from torch import Tensor

from autoglm_backend.models.certificate import Certificate
from autoglm_backend.models.exits import ExitHeads
from autoglm_backend.models.gates import ExitGates
from autoglm_protocol.actions import same_action
from autoglm_training.exits.certify import Accepted, Measured, fixed_sequence, requests_needed
from autoglm_training.exits.decoding import Leave, Prompt, Trace, decode
from autoglm_training.exits.gates import exit_views, fit_gates
from autoglm_training.loading import LoadedCheckpoint

RISK = "the parsed action of a request's answer differs from full depth's"
CONFIDENCES = (0.9999, 0.9995, 0.999, 0.998, 0.997, 0.995, 0.99, 0.985, 0.98, 0.97, 0.96, 0.95, 0.93, 0.9, 0.85, 0.8)
"""From the safest on; one confidence for all exits, since a gate's confidence means the same at each."""
NO_EXITS = "{}: no exits (`autoglm train-exits` makes them)"
CLOSED = 2.0
"""A threshold that no confidence reaches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """delta: bound on the risk. epsilon: probability that the bound is wrong."""

    delta: float = 0.02
    epsilon: float = 0.05
    uses_margin: bool = True
    max_tokens: int = 64
    dtype: str = "float32"
    quantization: str = "none"
    made: Mapping[str, object] = field(default_factory=dict[str, object])


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """Requests with their answers at full depth; the streams at the exits are kept."""

    prompts: Sequence[Prompt]
    traces: list[Trace]

    @classmethod
    def of(cls, loaded: LoadedCheckpoint, prompts: Sequence[Prompt], max_tokens: int) -> Answered:
        """Raises ValueError for a checkpoint without exits."""
        if loaded.exits is None:
            raise ValueError(NO_EXITS.format(loaded.directory))
        watch = loaded.exits.depths
        traces = decode(loaded.decoder, prompts, loaded.eos_ids, watch=watch, max_tokens=max_tokens)
        return cls(prompts=prompts, traces=traces)


class CertifiedRuns:
    """Answers of the same requests at full depth and with any thresholds."""

    def __init__(
        self, loaded: LoadedCheckpoint, heads: ExitHeads, gates: ExitGates, requests: Answered, max_tokens: int
    ) -> None:
        self._loaded, self._heads, self._gates = loaded, heads, gates
        self._prompts, self._max_tokens = requests.prompts, max_tokens
        self.full = requests.traces
        self._confidence_EN, self._agrees_EN = self._views()
        self._starts = [0]
        for trace in self.full:
            self._starts.append(self._starts[-1] + len(trace.ids) - 1)

    def _views(self) -> tuple[Tensor, Tensor]:
        views = exit_views(self._loaded.decoder, self._heads, self.full)
        confidence = [
            self._gates(depth, views.normed_END[index], self._logits(views.normed_END[index]))
            for index, depth in enumerate(views.depths)
        ]
        return torch.stack(confidence), views.agrees_EN

    def _logits(self, normed_ND: Tensor) -> Tensor | None:
        decoder = self._loaded.decoder
        return decoder.lm_head(normed_ND.to(decoder.norm.weight.dtype)).float() if self._gates.uses_margin else None

    @torch.no_grad()
    def at(self, thresholds: Mapping[int, float]) -> list[Trace]:
        """The certified answers."""
        num_layers = self._loaded.config.text.num_layers
        depths = self._heads.depths
        bounds_E = torch.tensor([thresholds.get(d, CLOSED) for d in depths], device=self._confidence_EN.device)
        sure_EN = self._confidence_EN >= bounds_E[:, None]
        leaves_N = sure_EN.any(0)
        first_N = sure_EN.float().argmax(0)
        layers_N = torch.where(leaves_N, torch.tensor(depths, device=first_N.device)[first_N], num_layers)
        differs_N = leaves_N & ~self._agrees_EN.gather(0, first_N[None])[0]
        layers, differs = layers_N.tolist(), differs_N.tolist()
        traces: list[Trace] = []
        again: list[int] = []
        for index, (full, start, end) in enumerate(zip(self.full, self._starts[:-1], self._starts[1:], strict=True)):
            if any(differs[start:end]):
                again.append(index)
            traces.append(Trace(ids=full.ids, layers=[num_layers, *layers[start:end]]))
        if again:
            leave = Leave(heads=self._heads, gates=self._gates, thresholds=thresholds)
            found = decode(
                self._loaded.decoder,
                [self._prompts[index] for index in again],
                self._loaded.eos_ids,
                leave=leave,
                max_tokens=self._max_tokens,
            )
            for index, trace in zip(again, found, strict=True):
                traces[index] = trace
        return traces

    def measure(self, thresholds: Mapping[int, float]) -> Measured:
        """Mismatching requests and mean layers per generated token."""
        traces = self.at(thresholds)
        mismatches = sum(not self._same(a, b) for a, b in zip(self.full, traces, strict=True))
        return Measured(num_mismatches=mismatches, mean_layers=mean_layers(traces))

    def _same(self, full: Trace, certified: Trace) -> bool:
        return full.ids == certified.ids or same_action(self.text(full), self.text(certified))

    def text(self, trace: Trace) -> str:
        """The answer without its stop token."""
        ids = [token for token in trace.ids if token not in self._loaded.eos_ids]
        return self._loaded.tokenizer.decode(ids, skip_special_tokens=False)


def mean_layers(traces: Sequence[Trace]) -> float:
    """Layers per generated token."""
    return sum(sum(trace.layers) for trace in traces) / sum(len(trace.layers) for trace in traces)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """Gates, and the boldest thresholds for them that may be promised."""

    gates: ExitGates
    accepted: Accepted[dict[int, float]]
    num_requests: int
    requests_for_gates: int
    config: Calibration

    def certificate(self, checkpoint_sha256: str) -> Certificate:
        """Of a checkpoint with these gates."""
        config, measured = self.config, self.accepted.measured
        return Certificate(
            risk=RISK,
            delta=config.delta,
            epsilon=config.epsilon,
            num_requests=self.num_requests,
            num_mismatches=measured.num_mismatches,
            max_tokens=config.max_tokens,
            dtype=config.dtype,
            quantization=config.quantization,
            checkpoint_sha256=checkpoint_sha256,
            thresholds=self.accepted.candidate,
            mean_layers=round(measured.mean_layers, 3),
            made={
                "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "p_value": self.accepted.p_value,
                "requests_for_gates": self.requests_for_gates,
                **config.made,
            },
        )


def check_enough(num_requests: int, config: Calibration) -> None:
    """Raises ValueError where so few certifying requests cannot promise anything, whatever they show."""
    needed = requests_needed(config.delta, config.epsilon)
    if num_requests < needed:
        raise ValueError(
            f"{num_requests} requests cannot certify a risk of {config.delta} with error {config.epsilon}: "
            f"at least {needed} are needed, all without a mismatch"
        )


def calibrate(
    loaded: LoadedCheckpoint,
    fitting: Answered,
    certifying: Answered,
    config: Calibration,
    say: Callable[[str], None] = print,
) -> Calibrated:
    """Fit gates and choose thresholds; writes nothing. Where nothing can be promised, all exits stay closed.

    Raises:
        ValueError: no exits, or too few certifying requests for any promise.
    """
    if loaded.exits is None:
        raise ValueError(NO_EXITS.format(loaded.directory))
    check_enough(count := len(certifying.prompts), config)
    heads = loaded.exits
    views = exit_views(loaded.decoder, heads, fitting.traces)
    gates = fit_gates(views, uses_margin=config.uses_margin)
    agreed = ", ".join(
        f"{d}: {float(a.float().mean()):.4f}" for d, a in zip(views.depths, views.agrees_EN, strict=True)
    )
    say(f"gates from {len(fitting.prompts)} requests, {len(views.chosen_N)} tokens; agreement by exit {agreed}")
    runs = CertifiedRuns(loaded, heads, gates, certifying, config.max_tokens)

    def measure(thresholds: dict[int, float]) -> Measured:
        measured = runs.measure(thresholds)
        say(
            f"confidence {min(thresholds.values())}: {measured.num_mismatches} of {count} differ, "
            f"{measured.mean_layers:.2f} layers a token"
        )
        return measured

    closed = dict.fromkeys(heads.depths, CLOSED)
    candidates = [closed] + [dict.fromkeys(heads.depths, confidence) for confidence in CONFIDENCES]
    accepted = fixed_sequence(candidates, measure, num_requests=count, delta=config.delta, epsilon=config.epsilon)
    assert accepted is not None, "closed exits never differ, and there are enough requests to accept that"
    return Calibrated(
        gates=gates, accepted=accepted, num_requests=count, requests_for_gates=len(fitting.prompts), config=config
    )
