"""Triton's side of the text decoder: requests into the engine, its events out through one writer thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from autoglm_backend import status_lines, triton_io
from autoglm_backend.doorways import start
from autoglm_backend.doorways.cancel_watcher import CancelWatcher, Watch
from autoglm_backend.doorways.decoder_metrics import DecoderMetrics
from autoglm_backend.doorways.event_writer import EventWriter, is_terminal
from autoglm_backend.doorways.receipts import Receipts
from autoglm_backend.engine.profiling import Trace
from autoglm_backend.engine.service import DecoderService
from autoglm_backend.models.config import load_model_config
from autoglm_backend.models.rotary_check import check_rotary
from autoglm_backend.status_lines import Refused
from autoglm_protocol.errors import AutoglmError, InternalError, InvalidRequestError
from autoglm_protocol.events import Failed, StreamEvent
from autoglm_protocol.plan import ExitMode
from autoglm_protocol.sampling import SamplingParams
from autoglm_protocol.tensors import TEXT_DECODER, as_bytes
from autoglm_protocol.wire import (
    DecodeRequest,
    decode_from_tensors,
    event_to_tensors,
    profile_from_tensors,
    trace_to_tensors,
)

# Only raw clients of this model are seen here; `autoglm_phone` sends word of its own clients.
_WATCH_PERIOD_S = 0.3

_log = logging.getLogger(__name__)


class DecoderDoorway:
    def __init__(self, service: DecoderService) -> None:
        self._service = service
        self._writer = EventWriter()
        self.receipts = Receipts.of_this_run()
        self._watcher = CancelWatcher(period_s=_WATCH_PERIOD_S)
        self._tags: set[str] = set()
        self._tags_lock = threading.Lock()
        self._metrics = DecoderMetrics(service)

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            sender = triton_io.Sender(request)
            try:
                is_streaming = self._accept(request, sender)
            except AutoglmError as error:
                sender.fail(error)
                sender.close()
            except Exception:
                _log.exception("a request could not be accepted")
                sender.fail(InternalError("the decoder failed on this request"))
                sender.close()
            else:
                if not is_streaming:
                    sender.close()

    def finalize(self) -> None:
        self._service.shutdown()
        self._writer.stop()
        self._watcher.stop()
        self._metrics.stop()

    def _accept(self, request: Any, sender: triton_io.Sender) -> bool:
        """Whether the request is answered from now on by others, who close the sender."""
        tensors = triton_io.read_inputs(request, TEXT_DECODER, copy=True)
        if "cancel" in tensors:
            self._service.abort(as_bytes(tensors["tag"][0]).decode(errors="replace"))
            return False
        if "profile" in tensors:
            self._service.profile(profile_from_tensors(tensors), partial(_send_trace, sender))
            return True
        decode = decode_from_tensors(tensors)
        with self._tags_lock:
            if decode.tag in self._tags:
                raise InvalidRequestError(f"tag {decode.tag!r} names another request in flight", param="tag")
            self._tags.add(decode.tag)
        stream = _Stream(decode.tag, sender, self, decode.receipt_slot)
        try:
            self._service.add(decode, stream.emit)
        except BaseException:
            self.forget(decode.tag)
            raise
        stream.start(self._watcher)
        return True

    def forget(self, tag: str) -> None:
        with self._tags_lock:
            self._tags.discard(tag)

    def abort(self, tag: str) -> None:
        self._service.abort(tag)

    def put(self, stream: _Stream, event: StreamEvent) -> None:
        self._writer.put(stream, event)


class _Stream:
    """One request's way out."""

    def __init__(self, tag: str, sender: triton_io.Sender, doorway: DecoderDoorway, receipt_slot: int | None) -> None:
        self._tag = tag
        self._sender = sender
        self._doorway = doorway
        self._watch: Watch | None = None
        self._is_over = False
        self._num_sent = 0
        self._receipt_slot = receipt_slot
        self._lock = threading.Lock()

    def start(self, watcher: CancelWatcher) -> None:
        with self._lock:
            if not self._is_over:
                self._watch = watcher.watch(self._sender.is_cancelled, lambda: self._doorway.abort(self._tag))

    def emit(self, event: StreamEvent) -> None:
        """In the engine's thread."""
        self._doorway.put(self, event)

    def send(self, event: StreamEvent) -> None:
        """In the writer's thread."""
        is_last = is_terminal(event)
        if is_last:
            # Before the final flag leaves: Triton dies of a question about a stream that is over.
            self._end_watch()
        try:
            if isinstance(event, Failed) and not self._num_sent:
                self._sender.fail(event.error)
            else:
                # Triton 2.51 drops an error that follows an answer on its way to a BLS caller, who then waits for ever.
                self._num_sent += 1
                self._sender.send(event_to_tensors(event), is_last=is_last)
        finally:
            if is_last:
                self._sender.close()

    def is_ready(self) -> bool:
        """In the writer's thread: whether the reader has taken all that was sent."""
        receipts = self._doorway.receipts
        if receipts is None or self._receipt_slot is None:
            return True
        return receipts.taken(self._receipt_slot) >= self._num_sent

    def is_urgent(self, event: StreamEvent) -> bool:
        return not self._num_sent or is_terminal(event)

    def _end_watch(self) -> None:
        with self._lock:
            self._is_over = True
        if self._watch is not None:
            self._watch.end()
        self._doorway.forget(self._tag)


def _send_trace(sender: triton_io.Sender, outcome: Trace | AutoglmError) -> None:
    try:
        if isinstance(outcome, AutoglmError):
            sender.fail(outcome)
        else:
            sender.send(trace_to_tensors(outcome))
    finally:
        sender.close()


def open_decoder(args: Mapping[str, str]) -> DecoderDoorway:
    with start.clear_start_errors():
        arguments = triton_io.ModelArguments.from_triton(args)
        checkpoint_dir, options = start.checkpoint_dir(arguments), start.engine_options(arguments)
        check_rotary(load_model_config(checkpoint_dir).text)
        default_exit = start.profile(arguments).default_exit
        service = DecoderService.from_checkpoint(
            checkpoint_dir,
            options,
            start.loading_progress(arguments),
            default_exit=None if default_exit is None else ExitMode(default_exit),
        )
        service.watch(lambda message: triton_io.show(status_lines.write(Refused(message=message))))
        service.load_wording()
        _warm_up(service)
        return DecoderDoorway(service)


def _warm_up(service: DecoderService) -> None:
    """A few tokens through every layer, so that the first caller does not wait for lazy set-up."""
    is_over = threading.Event()
    events: list[StreamEvent] = []

    def emit(event: StreamEvent) -> None:
        events.append(event)
        if is_terminal(event):
            is_over.set()

    request = DecodeRequest(
        tag="warm-up",
        prompt_ids=np.zeros(16, dtype=np.int32),
        sampling=SamplingParams(temperature=0.0, max_tokens=3, ignore_eos=True),
    )
    service.add(request, emit)
    is_over.wait()
    if isinstance(events[-1], Failed):
        raise events[-1].error
