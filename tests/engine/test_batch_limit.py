"""The two switches that bound how many requests decode together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.engine.test_engine import Stream, ask, prompt, service
from tests.random_checkpoint import Shape, random_checkpoint

from autoglm_protocol.sampling import SamplingParams

LONG = SamplingParams(temperature=0.0, max_tokens=400, ignore_eos=True)


@pytest.mark.parametrize(
    ("switches", "together"),
    [({"dynamic_batching": False, "max_batch_size": 8}, 1), ({"max_batch_size": 2}, 2)],
    ids=["batching off", "batch of two"],
)
def test_no_more_requests_run_than_the_switches_allow(tmp_path: Path, switches: dict[str, Any], together: int) -> None:
    random_checkpoint(tmp_path, Shape())
    engine = service(tmp_path, **switches)
    streams = [Stream() for _ in range(4)]
    for number, stream in enumerate(streams):
        engine.add(ask(f"r{number}", prompt(5, number), sampling=LONG), stream)

    for number, stream in enumerate(streams[:together]):
        assert stream.first_token.wait(60), number
    stats = engine.stats()
    waiting = [stream.first_token.is_set() for stream in streams[together:]]
    engine.shutdown()

    assert (stats.num_running, stats.num_waiting) == (together, 4 - together)
    assert not any(waiting)
