"""The engine loop: take requests, run steps, hand out tokens. It moves data between parts and decides nothing.

One thread owns every sequence, block and tensor; other threads only leave requests and aborts in an inbox. `emit` runs
in that thread and must not block. Every accepted request gets exactly one terminal event.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from autoglm_backend.engine.block_manager import BlockManager
from autoglm_backend.engine.model_runner import ChooseDrafts, Judgement, StepResult
from autoglm_backend.engine.sampler import Sampled, is_plain, sample, sample_one
from autoglm_backend.engine.scheduler import Row, Scheduler
from autoglm_backend.engine.sequence import Emit, Prompt, Sequence, Status
from autoglm_backend.engine.speculation import DraftController, DraftPlan
from autoglm_protocol.errors import InternalError, OverloadedError, UnavailableError
from autoglm_protocol.events import (
    Cancelled,
    ChoiceFinished,
    Failed,
    Finished,
    FinishReason,
    StreamEvent,
    TokenDelta,
    TokenLogprob,
    Usage,
)
from autoglm_protocol.plan import ExecutionPlan, ExitMode
from autoglm_protocol.sampling import SamplingParams

log = logging.getLogger(__name__)


class Runner(Protocol):
    """Executes a step: advances `kv_len` of every row, leaves drafts in sequences, returns logits to judge."""

    def run(self, rows: list[Row], exit_depth: int, choose: ChooseDrafts) -> StepResult: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    num_running: int
    num_waiting: int
    kv_usage: float
    """Share of key/value blocks that live requests own, 0 to 1."""
    prefix_queries: int
    """Prompt tokens looked up in the prefix cache since the start."""
    prefix_hits: int
    num_preemptions: int
    num_steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRequest:
    """A checked request, ready to run: what `DecoderService` (engine/service.py) makes of a DecodeRequest."""

    tag: str
    prompt: Prompt
    sampling: SamplingParams
    segments: tuple[tuple[int, int], ...]
    max_tokens: int
    stop_ids: frozenset[int]
    plan: ExecutionPlan | None
    priority: int


@dataclass(slots=True, kw_only=True, eq=False)
class _Live:
    """A request with its choices still to finish."""

    choices: list[Sequence]
    emit: Emit
    reasons: dict[int, FinishReason]


class Engine:
    def __init__(
        self,
        runner: Runner,
        blocks: BlockManager,
        scheduler: Scheduler,
        *,
        drafts: DraftController,
        max_waiting: int,
        think_ids: tuple[int, int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # think_ids: the ids of <think> and </think>; None for a tokenizer without them (no reasoning budget then).
        self._runner = runner
        self._blocks = blocks
        self._scheduler = scheduler
        self._drafts = drafts
        self._max_waiting = max_waiting
        self._think_ids = think_ids
        self._clock = clock
        self._live: dict[str, _Live] = {}
        self._inbox: list[tuple[EngineRequest, Emit]] = []
        self._aborts: set[str] = set()
        self._wake = threading.Condition()
        self._stopping = False
        self._num_steps = 0
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def add(self, request: EngineRequest, emit: Emit) -> None:
        """Queue a request from any thread. Raises OverloadedError for a full queue, UnavailableError when stopping."""
        with self._wake:
            if self._stopping:
                raise UnavailableError("the server is shutting down")
            waiting = len(self._inbox) + len(self._scheduler.waiting)
            if waiting >= self._max_waiting:
                raise OverloadedError(f"the queue is full: {waiting} requests wait, at most {self._max_waiting} may")
            self._inbox.append((request, emit))
            self._wake.notify()

    def abort(self, tag: str) -> None:
        """Drop a request from any thread, wherever it is; its stream ends in Cancelled. Unknown tags are ignored."""
        with self._wake:
            self._aborts.add(tag)
            self._wake.notify()

    def stats(self) -> EngineStats:
        return EngineStats(
            num_running=len(self._scheduler.running),
            num_waiting=len(self._scheduler.waiting) + len(self._inbox),
            kv_usage=self._blocks.usage,
            prefix_queries=self._blocks.prefix_queries,
            prefix_hits=self._blocks.prefix_hits,
            num_preemptions=self._scheduler.num_preemptions,
            num_steps=self._num_steps,
        )

    def shutdown(self) -> None:
        """Stop the loop; requests still live end in Failed(UnavailableError)."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()

    def _loop(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._stopping or self._inbox or self._aborts or self._scheduler.has_work)
                if self._stopping:
                    break
                arrivals, self._inbox = self._inbox, []
                aborts, self._aborts = self._aborts, set()
            for request, emit in arrivals:
                self._admit(request, emit)
            for tag in aborts:
                self._end(tag, Cancelled())
            if self._scheduler.has_work:
                self._step()
        for tag in list(self._live):
            self._end(tag, Failed(error=UnavailableError("the server is shutting down")))
        for _, emit in self._inbox:
            emit(Failed(error=UnavailableError("the server is shutting down")))

    def _admit(self, request: EngineRequest, emit: Emit) -> None:
        seed = request.sampling.seed if request.sampling.seed is not None else secrets.randbits(63)
        choices = [
            Sequence(
                tag=request.tag,
                index=index,
                prompt=request.prompt,
                sampling=request.sampling,
                segments=request.segments,
                max_tokens=request.max_tokens,
                stop_ids=request.stop_ids,
                emit=emit,
                priority=request.priority,
                arrival_s=self._clock(),
                seed=seed + index,
                reasoning_budget=request.plan.reasoning_budget_tokens if request.plan else None,
                lossless=request.plan is not None and request.plan.exit_mode is ExitMode.LOSSLESS,
            )
            for index in range(request.sampling.n)
        ]
        self._live[request.tag] = _Live(choices=choices, emit=emit, reasons={})
        for sequence in choices:
            self._scheduler.add(sequence)

    @torch.inference_mode()
    def _step(self) -> None:
        rows = self._scheduler.schedule()
        plan = self._drafts.choose(sum(row.count == 1 for row in rows if row.sequence.lossless))
        rows = [self._with_drafts(row, plan) for row in rows]
        try:
            result = self._runner.run(rows, plan.exit_depth, choose_drafts)
            tokens = [self._judge(judgement, plan.exit_depth) for judgement in result.judgements]
        except Exception:
            # A step that breaks takes its own rows with it and nothing else; the loop lives on.
            log.exception("a step of %d rows failed", len(rows))
            for tag in {row.sequence.tag for row in rows}:
                self._end(tag, Failed(error=InternalError("the decoder failed on this request")))
            return
        self._num_steps += 1
        for spent in result.times:
            self._drafts.record_time(spent.num_layers, spent.num_tokens, spent.seconds)
        for judgement, sampled in zip(result.judgements, tokens, strict=True):
            self._deliver(judgement.row.sequence, sampled)
        for row in rows:
            if row.sequence.status is Status.RUNNING:
                self._blocks.publish(row.sequence)

    def _with_drafts(self, row: Row, plan: DraftPlan) -> Row:
        """Let a lossless row guess, as far as its limits and free blocks reach. Drafts never push anyone out."""
        sequence = row.sequence
        if not (plan.num_drafts and sequence.lossless and row.count == 1 and row.samples):
            return row
        count = min(plan.num_drafts, sequence.max_tokens - sequence.num_generated - 1)
        if count <= 0 or not self._blocks.reserve(sequence, row.stop + count):
            return row
        return replace(row, num_drafts=count)

    def _judge(self, judgement: Judgement, exit_depth: int) -> list[tuple[Sampled, FinishReason | None]]:
        """Tokens that full depth chooses after each other, for as long as the drafts foresaw them; appended here.

        The token after the first wrong draft is right all the same: its logits saw only true tokens.
        """
        sequence = judgement.row.sequence
        drafts = sequence.take_drafts()
        argmax = judgement.logits_NV.argmax(dim=-1).tolist() if is_plain(sequence) else None
        chosen: list[tuple[Sampled, FinishReason | None]] = []
        for i, logits_V in enumerate(judgement.logits_NV):
            sampled = Sampled(token=argmax[i]) if argmax is not None else sample_one(sequence, logits_V)
            token = self._within_reasoning_budget(sequence, sampled.token)
            sampled = replace(sampled, token=token)
            reason = sequence.append(token)
            chosen.append((sampled, reason))
            if reason is not None or i == len(drafts) or token != drafts[i]:
                break
        if drafts:
            # The last token was foreseen too when a stop ended the row on a right draft.
            accepted = sum(s.token == d for (s, _), d in zip(chosen, drafts, strict=False))
            sequence.num_drafted += len(drafts)
            sequence.num_accepted += accepted
            self._drafts.record_acceptance(exit_depth, accepted, min(accepted + 1, len(drafts)))
            sequence.truncate_kv()
        return chosen

    def _deliver(self, sequence: Sequence, chosen: list[tuple[Sampled, FinishReason | None]]) -> None:
        logprobs = None
        if sequence.sampling.logprobs:
            logprobs = tuple(_logprob(sampled) for sampled, _ in chosen)
        token_ids = tuple(sampled.token for sampled, _ in chosen)
        sequence.emit(TokenDelta(text="", token_ids=token_ids, index=sequence.index, logprobs=logprobs))
        reason = chosen[-1][1]
        if reason is None:
            return
        self._scheduler.finish(sequence)
        live = self._live[sequence.tag]
        live.reasons[sequence.index] = reason
        if len(live.choices) > 1:
            sequence.emit(ChoiceFinished(index=sequence.index, finish_reason=reason))
        if len(live.reasons) == len(live.choices):
            self._end(sequence.tag, _finished(live))

    def _within_reasoning_budget(self, sequence: Sequence, token: int) -> int:
        """The sampled token, or </think> once the thought has used up its budget."""
        if self._think_ids is None:
            return token
        opening, closing = self._think_ids
        if sequence.reasoning_open:
            over = sequence.reasoning_budget is not None and sequence.reasoning_tokens >= sequence.reasoning_budget
            token = closing if over else token
            sequence.reasoning_open = token != closing
            sequence.reasoning_tokens += token != closing
        elif token == opening:
            sequence.reasoning_open = True
        return token

    def _end(self, tag: str, event: StreamEvent) -> None:
        live = self._live.pop(tag, None)
        if live is None:
            return
        for sequence in live.choices:
            self._scheduler.finish(sequence)
        live.emit(event)


def _finished(live: _Live) -> Finished:
    first = live.choices[0]
    depths: dict[str, int] = {}
    for sequence in live.choices:
        depths[str(sequence.depth)] = depths.get(str(sequence.depth), 0) + sequence.num_generated
    return Finished(
        finish_reason=live.reasons[0],
        usage=Usage(
            prompt_tokens=first.num_prompt,
            completion_tokens=sum(s.num_generated for s in live.choices),
            cached_tokens=first.num_cached,
            reasoning_tokens=sum(s.reasoning_tokens for s in live.choices),
        ),
        dynamic_graph={
            "layers_run": depths,
            "layer_steps": sum(s.layer_steps for s in live.choices),
            "drafts_proposed": sum(s.num_drafted for s in live.choices),
            "drafts_accepted": sum(s.num_accepted for s in live.choices),
        },
    )


def choose_drafts(sequences: Seq[Sequence], logits_NV: torch.Tensor) -> list[int]:
    """Draft tokens: what the exit would choose under the request's own penalties, filters and draws."""
    return [sampled.token for sampled in sample(sequences, logits_NV)]


def _logprob(sampled: Sampled) -> TokenLogprob:
    """Ids and numbers only: text is the detokenizer's business."""
    assert sampled.logprob is not None
    top = tuple((token_id, "", b"", logprob) for token_id, logprob in sampled.top)
    return TokenLogprob(token_id=sampled.token, token="", raw=b"", logprob=sampled.logprob, top=top)
