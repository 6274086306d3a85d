"""Triton's side of `autoglm_phone`: a thread per stream, since the decoder's answers are read in blocking calls."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from autoglm_backend import triton_io
from autoglm_backend.bls.embedding_cache import EmbeddingCache
from autoglm_backend.bls.media import MediaReader
from autoglm_backend.bls.pipeline import Pipeline, RequestHandle
from autoglm_backend.bls.planner import CheckpointFacts, Deployment, load_checkpoint_facts
from autoglm_backend.bls.step_clock import StepClock
from autoglm_backend.doorways import start
from autoglm_backend.doorways.cancel_watcher import CancelWatcher, Watch
from autoglm_backend.doorways.event_writer import is_terminal
from autoglm_backend.doorways.triton_stages import TritonStages
from autoglm_backend.models.config import load_model_config, load_speech_config
from autoglm_backend.preprocess.chat_template import load_chat_template
from autoglm_backend.preprocess.image import load_image_config
from autoglm_protocol.chat import ChatRequest
from autoglm_protocol.errors import OverloadedError
from autoglm_protocol.events import Failed, StreamEvent
from autoglm_protocol.plan import SPEECH, VISION
from autoglm_protocol.tensors import AUTOGLM_PHONE
from autoglm_protocol.wire import chat_from_tensors, event_to_tensors, steps_to_tensors

MAX_STREAMS = 256
EMBEDDING_CACHE_BYTES = 256 << 20
_ENCODING_THREADS = 16
OUTCOMES = ("finished", "cancelled", "refused", "failed")

_log = logging.getLogger(__name__)


class PhoneDoorway:
    """max_streams: streams at once; one more is refused."""

    def __init__(
        self, pipeline: Pipeline, stages: TritonStages, observer: _TritonObserver, *, max_streams: int
    ) -> None:
        self._pipeline = pipeline
        self._observer = observer
        self._stages = stages
        self._max_streams = max_streams
        self._free = threading.Semaphore(max_streams)
        self._threads = ThreadPoolExecutor(max_streams, thread_name_prefix="stream")
        self._watcher = CancelWatcher()

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            sender = triton_io.Sender(request)
            if self._free.acquire(blocking=False):
                self._observer.stream_began()
                self._threads.submit(self._serve, request, sender)
            else:
                sender.fail(
                    OverloadedError(f"the server answers {self._max_streams} requests already, try again later")
                )
                sender.close()

    def finalize(self) -> None:
        self._threads.shutdown(wait=True)
        self._watcher.stop()
        self._observer.close()

    def _serve(self, request: Any, sender: triton_io.Sender) -> None:
        handle = RequestHandle(clock=StepClock() if triton_io.wants_steps(request) else None)

        def read() -> ChatRequest:
            tensors = triton_io.read_inputs(request, AUTOGLM_PHONE)
            return chat_from_tensors(tensors, request_id=request.request_id(), model=AUTOGLM_PHONE.model)

        def cancel() -> None:
            handle.is_cancelled.set()
            self._stages.cancel(handle.tag)

        watch = self._watcher.watch(sender.is_cancelled, cancel)
        try:
            self._relay(self._pipeline.run(read, handle), handle, sender, watch)
        finally:
            watch.end()
            self._free.release()
            sender.close()
            self._observer.stream_ended()

    def _relay(
        self, events: Iterator[StreamEvent], handle: RequestHandle, sender: triton_io.Sender, watch: Watch
    ) -> None:
        is_reachable = True
        for event in events:
            if not is_reachable:
                continue
            try:
                if handle.clock is not None and is_terminal(event):
                    sender.send(steps_to_tensors(handle.clock.finish()))
                if isinstance(event, Failed):
                    # It carries the final flag: to ask this sender anything after it kills Triton.
                    watch.end()
                    sender.fail(event.error)
                else:
                    sender.send(event_to_tensors(event))
            except Exception:
                # the decoder's stream must still be read to its end
                _log.exception("a message of request %s could not be sent", handle.tag)
                is_reachable = False
                handle.is_cancelled.set()
                self._stages.cancel(handle.tag)


class _TritonObserver:
    """Counts on Triton's metrics page, lines on its output."""

    def __init__(self, checkpoint: CheckpointFacts) -> None:
        counter = triton_io.Counter
        self._runs = counter("autoglm_encoder_runs_total", "Items that an encoder worked on", "encoder")
        self._skips = counter("autoglm_encoder_skips_total", "Requests that did not need an encoder", "encoder")
        self._exits = counter("autoglm_exit_layer_total", "Requests by the decoder layer they leave at", "depth")
        self._hits = counter("autoglm_embedding_cache_hits_total", "Items whose embeddings were there already")
        self._outcomes = counter("autoglm_requests_total", "Requests that are over", "outcome")
        self._streams = triton_io.Gauge("autoglm_streams", "Requests being answered")  # see launcher/readiness.py
        self._num_streams = 0
        self._lock = threading.Lock()
        self._runs.declare(VISION, SPEECH)
        self._skips.declare(VISION, SPEECH)
        self._exits.declare(*(str(depth) for depth in (*checkpoint.exits, checkpoint.num_layers)))
        self._hits.declare("")
        self._outcomes.declare(*OUTCOMES)

    def stream_began(self) -> None:
        self._count_streams(1)

    def stream_ended(self) -> None:
        self._count_streams(-1)

    def log(self, line: str) -> None:
        triton_io.show(line)

    def log_failure(self, line: str) -> None:
        triton_io.log_error(line)

    def encoder_ran(self, encoder: str) -> None:
        self._add(self._runs, encoder)

    def encoder_skipped(self, encoder: str) -> None:
        self._add(self._skips, encoder)

    def exited_at(self, depth: int) -> None:
        self._add(self._exits, str(depth))

    def cache_hit(self) -> None:
        self._add(self._hits, "")

    def ended(self, outcome: str) -> None:
        self._add(self._outcomes, outcome)

    def close(self) -> None:
        for metric in (self._runs, self._skips, self._exits, self._hits, self._outcomes, self._streams):
            metric.close()

    def _count_streams(self, step: int) -> None:
        with self._lock:
            self._num_streams += step
            self._streams.set(self._num_streams)

    def _add(self, counter: triton_io.Counter, value: str) -> None:
        with self._lock:
            counter.add(value)


def open_phone(args: Mapping[str, str]) -> PhoneDoorway:
    with start.clear_start_errors():
        arguments = triton_io.ModelArguments.from_triton(args)
        parameters = arguments.parameters
        checkpoint_dir = start.checkpoint_dir(arguments)
        config = load_model_config(checkpoint_dir)
        facts = load_checkpoint_facts(checkpoint_dir, config.text.num_layers)
        speech = load_speech_config(checkpoint_dir / "speech" / "speech_config.json") if facts.has_speech else None
        profile = start.profile(arguments)
        image = load_image_config(checkpoint_dir).within(profile.max_pixels, profile.min_pixels)
        deployment = Deployment.of(profile, os.environ)
        deployment.check(facts)
        template = load_chat_template(checkpoint_dir, config)
        cache = EmbeddingCache(int(parameters.get("embedding_cache_bytes", EMBEDDING_CACHE_BYTES)))
        stages, observer = TritonStages(), _TritonObserver(facts)
        pipeline = Pipeline(
            template=template,
            tokens=template.tokenizer.token_table(config.eos_token_ids),
            reader=MediaReader(image, speech, cache),
            stages=stages,
            checkpoint=facts,
            deployment=deployment,
            context_tokens=min(config.text.max_positions, _context_limit(arguments)),
            executor=ThreadPoolExecutor(_ENCODING_THREADS, thread_name_prefix="encode"),
            observer=observer,
        )
        return PhoneDoorway(pipeline, stages, observer, max_streams=int(parameters.get("max_streams", MAX_STREAMS)))


def _context_limit(arguments: triton_io.ModelArguments) -> int:
    """What the decoder's options leave of the checkpoint's context."""
    options = start.engine_options(arguments)
    return min(options.kv_cache_tokens, options.max_model_len or options.kv_cache_tokens)
