"""A text decoder for Triton that only keeps time: each live stream gets one token a tick.

benchmarks/streaming.py puts this file in the place of text_decoder's own model.py; everything in front of it is real.
"""

import autoglm_site

autoglm_site.activate()

import threading
import time
from dataclasses import fields

from autoglm_backend import triton_io
from autoglm_backend.doorways import start
from autoglm_backend.doorways.decoder import DecoderDoorway
from autoglm_backend.engine.stats import EngineStats
from autoglm_backend.models.config import load_model_config
from autoglm_protocol.events import Cancelled, Finished, FinishReason, TokenDelta, Usage

TICK_S = 0.005
TOKEN = 300


class PacedService:
    """What a DecoderDoorway needs of a DecoderService."""

    exits = ()

    def __init__(self, config):
        self.config = config
        self._live = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()

    def add(self, request, emit):
        with self._lock:
            self._live[request.tag] = [request.sampling.max_tokens, 0, emit, len(request.prompt_ids)]

    def abort(self, tag):
        with self._lock:
            stream = self._live.pop(tag, None)
        if stream is not None:
            stream[2](Cancelled())

    def stats(self):
        return EngineStats(
            **{field.name: {} if field.name == "tokens_by_depth" else 0 for field in fields(EngineStats)}
        )

    def shutdown(self):
        self._stopping.set()
        self._thread.join()

    def _loop(self):
        due_s = time.monotonic()
        while not self._stopping.wait(max(0.0, due_s - time.monotonic())):
            due_s = max(due_s + TICK_S, time.monotonic())
            with self._lock:
                streams = list(self._live.items())
            for tag, stream in streams:
                wanted, given, emit, prompt = stream
                emit(TokenDelta(text="", token_ids=(TOKEN,), index=0))
                stream[1] = given + 1
                if stream[1] >= wanted:
                    with self._lock:
                        self._live.pop(tag, None)
                    usage = Usage(prompt_tokens=prompt, completion_tokens=wanted)
                    emit(Finished(finish_reason=FinishReason.LENGTH, usage=usage, dynamic_graph={}))


class TritonPythonModel:
    def initialize(self, args):
        arguments = triton_io.ModelArguments.from_triton(args)
        self._doorway = DecoderDoorway(PacedService(load_model_config(start.checkpoint_dir(arguments))))

    def execute(self, requests):
        return self._doorway.execute(requests)

    def finalize(self):
        self._doorway.finalize()
