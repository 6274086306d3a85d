"""Requests inside the engine: what is asked, what lives, and the account given at the end."""

from __future__ import annotations

import secrets
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from autoglm_backend.engine.grammar import CompiledGrammar, GrammarState, Place
from autoglm_backend.engine.sequence import Emit, Prompt, Sequence
from autoglm_backend.models.attention_window import AttentionWindow
from autoglm_protocol.events import FinishReason, Usage
from autoglm_protocol.plan import DepthBy, ExecutionPlan, ExitMode
from autoglm_protocol.sampling import SamplingParams


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRequest:
    """A checked request, ready to run: what engine/admission.py makes of a DecodeRequest."""

    tag: str
    prompt: Prompt
    sampling: SamplingParams
    segments: tuple[tuple[int, int], ...]
    max_tokens: int
    stop_ids: frozenset[int]
    plan: ExecutionPlan | None
    priority: int
    probe_depth: int | None = None
    """The exit that the router may keep this request at; None where it is not asked."""
    place: Place = Place.START
    """Where the answer starts: in a thought, behind one, or before."""
    grammar: CompiledGrammar | None = None
    window: AttentionWindow | None = None
    """What each token reads of the text before it; None is all."""
    bad_words: tuple[tuple[int, ...], ...] = ()
    """Token sequences that must not be generated."""

    def grammar_state(self) -> GrammarState | None:
        """A new one for each choice."""
        return None if self.grammar is None else self.grammar.start(self.place, self.stop_ids)

    @property
    def exit_mode(self) -> ExitMode:
        return ExitMode.FIXED if self.plan is None else self.plan.exit_mode


@dataclass(slots=True, kw_only=True, eq=False)
class LiveRequest:
    """A request with its choices still to finish."""

    request: EngineRequest
    choices: list[Sequence]
    emit: Emit
    reasons: dict[int, FinishReason] = field(default_factory=dict[int, FinishReason])

    @classmethod
    def begin(
        cls, request: EngineRequest, emit: Emit, arrival_s: float, *, certified_is_on: bool, background: bool
    ) -> LiveRequest:
        """A sequence per choice, each with a seed of its own. Certified requests run lossless while that is off."""
        sampling, plan = request.sampling, request.plan
        seed = sampling.seed if sampling.seed is not None else secrets.randbits(63)
        is_certified = request.exit_mode is ExitMode.CERTIFIED
        choices = [
            Sequence(
                tag=request.tag,
                index=index,
                prompt=request.prompt,
                sampling=sampling,
                segments=request.segments,
                max_tokens=request.max_tokens,
                stop_ids=request.stop_ids,
                emit=emit,
                priority=request.priority,
                arrival_s=arrival_s,
                seed=seed + index,
                reasoning_budget=plan.reasoning_budget_tokens if plan else None,
                lossless=request.exit_mode is ExitMode.LOSSLESS or (is_certified and not certified_is_on),
                certified=is_certified and certified_is_on,
                background=background,
                reasoning_open=request.place is Place.THOUGHT,
                grammar=request.grammar_state(),
                bad_words=request.bad_words,
                window=request.window,
                probe_depth=request.probe_depth,
            )
            for index in range(sampling.n)
        ]
        return cls(request=request, choices=choices, emit=emit)

    def usage(self) -> Usage:
        first = self.choices[0]
        return Usage(
            prompt_tokens=first.num_prompt,
            completion_tokens=sum(s.num_generated for s in self.choices),
            cached_tokens=first.num_cached,
            reasoning_tokens=sum(s.reasoning_tokens for s in self.choices),
        )

    def dynamic_graph(self) -> dict[str, Any]:
        """What of the graph ran: for the caller, as JSON."""
        layers_run = Counter(layers for s in self.choices for layers in s.layers)
        graph: dict[str, Any] = {
            "layers_run": {str(depth): layers_run[depth] for depth in sorted(layers_run)},
            "layer_steps": sum(s.layer_steps for s in self.choices),
            "drafts_proposed": sum(s.num_drafted for s in self.choices),
            "drafts_accepted": sum(s.num_accepted for s in self.choices),
            "kv_bytes": sum(s.kv_bytes_peak for s in self.choices),
        }
        graph |= self._routed()
        if self.request.exit_mode is ExitMode.CERTIFIED:
            depth = self.choices[0].depth
            graph["certified"] = {
                # False: shadow checks had switched certified exits off, and the request ran lossless.
                "active": all(s.certified for s in self.choices),
                "exits": {d: n for d, n in graph["layers_run"].items() if d != str(depth)},
                "deferred_tokens": sum(s.num_deferred for s in self.choices),
            }
        return graph

    def _routed(self) -> dict[str, Any]:
        """What became of a plan that left the depth to the router."""
        plan, first = self.request.plan, self.choices[0]
        if plan is None or plan.depth_by is not DepthBy.PROBE:
            return {}
        is_routed = first.depth < plan.depth
        chosen = DepthBy.PROBE if is_routed else DepthBy.ABSTAINED
        if first.confidence is None:
            reason = "auto: the router was not asked, it is not calibrated for this request on this server"
        else:
            said = "is sure of this depth" if is_routed else "abstains"
            reason = f"auto: the router {said} (confidence {first.confidence:.3f})"
        return {"depth": first.depth, "depth_by": chosen.value, "reason": reason}
