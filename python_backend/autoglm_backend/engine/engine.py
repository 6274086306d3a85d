"""The engine loop: take requests, run steps, hand out tokens. It moves data between parts and decides nothing.

One thread owns every sequence, block and tensor; other threads only leave requests and aborts in an inbox. `emit` runs
in that thread and must not block. Every accepted request gets exactly one terminal event.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import torch

from autoglm_backend.engine.block_manager import BlockManager
from autoglm_backend.engine.judging import Verdict, choose_drafts, judge
from autoglm_backend.engine.model_runner import ChooseDrafts, StepResult
from autoglm_backend.engine.profiling import StepProfiler, Tell, mark
from autoglm_backend.engine.requests import EngineRequest, LiveRequest
from autoglm_backend.engine.scheduler import Row, Scheduler
from autoglm_backend.engine.sequence import Emit, Sequence, Status
from autoglm_backend.engine.shadow import SHADOW_PRIORITY, ShadowChecks
from autoglm_backend.engine.speculation import DraftController, DraftPlan
from autoglm_backend.engine.stats import Counters, EngineStats
from autoglm_protocol.errors import InternalError, OverloadedError, UnavailableError
from autoglm_protocol.events import Cancelled, ChoiceFinished, Failed, Finished, StreamEvent, TokenDelta
from autoglm_protocol.plan import ExitMode
from autoglm_protocol.profile import ProfileBounds

log = logging.getLogger(__name__)


class Runner(Protocol):
    """Executes a step: advances `kv_len` of every row, leaves drafts in sequences, returns logits to judge."""

    def run(self, rows: list[Row], exit_depth: int, choose: ChooseDrafts) -> StepResult: ...


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
        shadows: ShadowChecks | None = None,
        profiler: StepProfiler | None = None,
        before_step: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # think_ids: the ids of <think> and </think>; None for a tokenizer without them (no reasoning budget then).
        # shadows: None where certified mode is not on offer.
        self._runner = runner
        self._blocks = blocks
        self._scheduler = scheduler
        self._drafts = drafts
        self._max_waiting = max_waiting
        self._think_ids = think_ids
        self._shadows = shadows
        self._profiler = profiler or StepProfiler()
        self._before_step = before_step
        self._clock = clock
        self._live: dict[str, LiveRequest] = {}
        self._inbox: list[tuple[EngineRequest, Emit]] = []
        self._aborts: set[str] = set()
        self._wake = threading.Condition()
        self._stopping = False
        self._stop_message = "the server is shutting down"
        self._counters = Counters()
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def add(self, request: EngineRequest, emit: Emit) -> None:
        """Queue a request from any thread. Raises OverloadedError for a full queue, UnavailableError when stopping."""
        with self._wake:
            if self._stopping:
                raise UnavailableError(self._stop_message)
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

    def profile(self, bounds: ProfileBounds, tell: Tell) -> None:
        """Profile the coming steps, from any thread. Raises ConflictError, and UnavailableError when stopping."""
        with self._wake:
            if self._stopping:
                raise UnavailableError(self._stop_message)
            self._profiler.ask(bounds, tell)
            self._wake.notify()

    def stats(self) -> EngineStats:
        blocks, counters, shadows = self._blocks, self._counters, self._shadows
        return EngineStats(
            num_running=len(self._scheduler.running),
            num_waiting=len(self._scheduler.waiting) + len(self._inbox),
            kv_usage=blocks.usage,
            kv_bytes=blocks.bytes_used,
            kv_bytes_peak=blocks.bytes_peak,
            prefix_queries=blocks.prefix_queries,
            prefix_hits=blocks.prefix_hits,
            num_preemptions=self._scheduler.num_preemptions,
            num_steps=counters.num_steps,
            tokens_by_depth=dict(counters.tokens_by_depth),
            layer_steps=counters.layer_steps,
            drafts_proposed=counters.drafts_proposed,
            drafts_accepted=counters.drafts_accepted,
            certified_active=shadows is not None and shadows.is_active,
            shadow_checked=shadows.num_checked if shadows is not None else 0,
            shadow_agreed=shadows.num_agreed if shadows is not None else 0,
            late_checked=counters.late.num_checked,
            late_agreed=counters.late.num_agreed,
            involuntary_exits=counters.involuntary_exits,
        )

    def shutdown(self) -> None:
        """Stop the loop and wait for it; requests still live end in Failed(UnavailableError)."""
        self._stop()
        self._thread.join()

    def fail(self, message: str) -> None:
        """Stop for a reason, from any thread: requests still live end in Failed with it, later ones are refused."""
        self._stop(message)

    def _stop(self, message: str | None = None) -> None:
        with self._wake:
            if message is not None and not self._stopping:
                self._stop_message = message
            self._stopping = True
            self._wake.notify()

    def _loop(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(self._has_something_to_do, timeout=self._profiler.remaining_s)
                if self._stopping:
                    break
                arrivals, self._inbox = self._inbox, []
                aborts, self._aborts = self._aborts, set()
            for request, emit in arrivals:
                self._admit(request, emit)
            for tag in aborts:
                if live := self._live.get(tag):
                    self._end(tag, Cancelled(usage=live.usage(), dynamic_graph=live.dynamic_graph()))
            has_work = self._scheduler.has_work
            if has_work:
                self._before_step()
                with mark("step"):
                    self._step()
            self._profiler.turn(int(has_work))
        self._profiler.close()
        for tag in list(self._live):
            self._end(tag, Failed(error=UnavailableError(self._stop_message)))
        for _, emit in self._inbox:
            emit(Failed(error=UnavailableError(self._stop_message)))

    def _has_something_to_do(self) -> bool:
        is_woken = self._stopping or bool(self._inbox or self._aborts)
        return is_woken or self._scheduler.has_work or self._profiler.is_asked

    def _admit(self, request: EngineRequest, emit: Emit, *, background: bool = False) -> None:
        may_exit = self._shadows is not None and self._shadows.is_active
        live = LiveRequest.begin(request, emit, self._clock(), certified_is_on=may_exit, background=background)
        self._live[request.tag] = live
        for sequence in live.choices:
            self._scheduler.add(sequence)

    @torch.inference_mode()
    def _step(self) -> None:
        began = time.perf_counter()
        rows = self._scheduler.schedule()
        plan = self._drafts.choose(sum(row.count == 1 for row in rows if row.sequence.lossless))
        plan = self._drafts.allow_rides(plan, rows)
        rows = [self._with_drafts(row, plan) for row in rows]
        try:
            result = self._runner.run(rows, plan.exit_depth, choose_drafts)
            verdicts = [judge(judgement, plan.exit_depth, self._think_ids) for judgement in result.judgements]
        except Exception:
            # A step that breaks takes its own rows with it and nothing else; the loop lives on.
            log.exception("a step of %d rows failed", len(rows))
            # A lost rank stops the engine before its step breaks: no fault of these requests.
            is_over = UnavailableError(self._stop_message) if self._stopping else None
            for tag in {row.sequence.tag for row in rows}:
                self._end(tag, Failed(error=is_over or InternalError("the decoder failed on this request")))
            return
        self._drafts.record_step(rows, plan, result.drafting_s, time.perf_counter() - began)
        self._count(result, verdicts, plan)
        for verdict in verdicts:
            self._deliver(verdict)
        for row in rows:
            if row.sequence.status is Status.RUNNING:
                self._blocks.publish(row.sequence)
                self._blocks.trim(row.sequence, len(row.sequence.ids))
                self._blocks.release_unread(row.sequence)

    def _with_drafts(self, row: Row, plan: DraftPlan) -> Row:
        """Let a row guess, as far as its limits and free blocks reach. Drafts never push anyone out.

        Lossless rows do, and beside them fixed rows that end between the guesses and full depth: their own depth
        judges, so the text is its own. A row that ends where the guesses are made, or above, rides along instead.
        """
        sequence = row.sequence
        if sequence.depth <= plan.exit_depth:
            wanted = plan.num_rides
        else:
            is_between = sequence.depth < self._drafts.num_layers
            wanted = plan.num_drafts if sequence.lossless or is_between else 0
        if not (wanted and row.count == 1 and row.samples):
            return row
        count = min(wanted, sequence.max_tokens - sequence.num_generated - 1)
        if count <= 0 or not self._blocks.reserve(sequence, row.stop + count):
            return row
        return replace(row, num_drafts=count)

    def _count(self, result: StepResult, verdicts: list[Verdict], plan: DraftPlan) -> None:
        counters = self._counters
        counters.num_steps += 1
        counters.late += result.late
        counters.involuntary_exits += sum(j.sure_by is not None and j.sure_by < 0 for j in result.judgements)
        for verdict in verdicts:
            counters.tokens_by_depth.update(verdict.layers)
            counters.drafts_proposed += verdict.num_drafted
            counters.drafts_accepted += verdict.num_accepted
            # What a middle depth thinks of drafts says nothing about full depth.
            if verdict.num_drafted and verdict.sequence.lossless:
                num_judged = min(verdict.num_accepted + 1, verdict.num_drafted)
                self._drafts.record_acceptance(plan.exit_depth, verdict.num_accepted, num_judged)

    def _deliver(self, verdict: Verdict) -> None:
        sequence = verdict.sequence
        if sequence.tag not in self._live:
            return
        if (refusal := sequence.refusal) is not None:
            self._end(sequence.tag, Failed(error=refusal))
            return
        sequence.emit(verdict.delta())
        if verdict.reason is None:
            return
        self._scheduler.finish(sequence)
        live = self._live[sequence.tag]
        live.reasons[sequence.index] = verdict.reason
        if len(live.choices) > 1:
            sequence.emit(ChoiceFinished(index=sequence.index, finish_reason=verdict.reason))
        if len(live.reasons) == len(live.choices):
            self._end(
                sequence.tag,
                Finished(finish_reason=live.reasons[0], usage=live.usage(), dynamic_graph=live.dynamic_graph()),
            )
        if sequence.certified and self._shadows is not None and self._shadows.picks():
            self._run_again(live.request, sequence, self._shadows)

    def _run_again(self, request: EngineRequest, certified: Sequence, shadows: ShadowChecks) -> None:
        """Decode a certified answer once more at full depth, when nobody else needs the machine, and compare."""
        assert request.plan is not None
        full_ids: list[int] = []
        shadows.num_running += 1

        def emit(event: StreamEvent) -> None:
            if isinstance(event, TokenDelta):
                full_ids.extend(event.token_ids)
                return
            shadows.num_running -= 1
            if isinstance(event, Finished):
                shadows.compare(certified.ids[certified.num_prompt :], full_ids)
                if not shadows.is_active:
                    self._leave_certified()

        again = replace(
            request,
            tag=f"{request.tag}/shadow-{certified.index}-{self._counters.num_steps}",
            sampling=replace(request.sampling, n=1, seed=certified.seed, logprobs=False),
            plan=replace(request.plan, exit_mode=ExitMode.LOSSLESS),
            priority=SHADOW_PRIORITY,
        )
        self._admit(again, emit, background=True)

    def _leave_certified(self) -> None:
        """Let requests under way go on lossless; their waiting tokens run deeper with their next one."""
        for live in self._live.values():
            for sequence in live.choices:
                sequence.lossless = sequence.lossless or sequence.certified
                sequence.certified = False

    def _end(self, tag: str, event: StreamEvent) -> None:
        live = self._live.pop(tag, None)
        if live is None:
            return
        for sequence in live.choices:
            self._scheduler.finish(sequence)
            self._counters.layer_steps += sequence.layer_steps
        live.emit(event)
