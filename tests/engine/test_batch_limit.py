"""The two switches that bound how many requests decode together."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from tests.engine.test_engine import Stream, ask, prompt, service
from tests.random_checkpoint import Shape, random_checkpoint

from autoglm_protocol.events import StreamEvent
from autoglm_protocol.sampling import SamplingParams

LONG = SamplingParams(temperature=0.0, max_tokens=400, ignore_eos=True)
STEPS_TO_ADMIT = 8
"""Tokens after which every request that may run beside the first one has joined it."""


class HeldStream(Stream):
    """Holds the engine's thread at its first token until all requests are in, and some tokens later until told."""

    def __init__(self) -> None:
        super().__init__()
        self.all_added, self.steady, self.looked = threading.Event(), threading.Event(), threading.Event()

    def __call__(self, event: StreamEvent) -> None:
        super().__call__(event)
        if len(self.events) == 1:
            assert self.all_added.wait(60)
        if len(self.events) == STEPS_TO_ADMIT:
            self.steady.set()
            assert self.looked.wait(60)


@pytest.mark.parametrize(
    ("switches", "together"),
    [({"dynamic_batching": False, "max_batch_size": 8}, 1), ({"max_batch_size": 2}, 2)],
    ids=["batching off", "batch of two"],
)
def test_no_more_requests_run_than_the_switches_allow(tmp_path: Path, switches: dict[str, Any], together: int) -> None:
    random_checkpoint(tmp_path, Shape())
    engine = service(tmp_path, **switches)
    first = HeldStream()
    streams = [first, Stream(), Stream(), Stream()]
    for number, stream in enumerate(streams):
        engine.add(ask(f"r{number}", prompt(5, number), sampling=LONG), stream)
    first.all_added.set()

    assert first.steady.wait(60)
    stats = engine.stats()
    begun = [stream.first_token.is_set() for stream in streams]
    first.looked.set()
    engine.shutdown()

    assert (stats.num_running, stats.num_waiting) == (together, 4 - together)
    assert begun == [True] * together + [False] * (4 - together)
