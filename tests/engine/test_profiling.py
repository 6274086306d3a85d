"""Profiles of a running engine: what is in them, when they end, and that nothing is left on."""

from __future__ import annotations

import gzip
import json
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.random_checkpoint import Shape, random_checkpoint

from autoglm_backend.engine.options import EngineOptions
from autoglm_backend.engine.profiling import Trace
from autoglm_backend.engine.service import DecoderService
from autoglm_protocol.errors import AutoglmError, ConflictError, InvalidRequestError, UnavailableError
from autoglm_protocol.events import Finished, StreamEvent, TokenDelta
from autoglm_protocol.profile import MAX_STEPS, ProfileBounds
from autoglm_protocol.sampling import SamplingParams
from autoglm_protocol.wire import DecodeRequest


@pytest.fixture
def service(tmp_path: Path) -> Iterator[DecoderService]:
    random_checkpoint(tmp_path, Shape())
    service = DecoderService.from_checkpoint(tmp_path, EngineOptions(device="cpu", threads=1))
    try:
        yield service
    finally:
        service.shutdown()


class Outcome:
    """What a profile came to."""

    def __init__(self) -> None:
        self._outcomes: queue.SimpleQueue[Trace | AutoglmError] = queue.SimpleQueue()

    def __call__(self, outcome: Trace | AutoglmError) -> None:
        self._outcomes.put(outcome)

    def get(self) -> Trace | AutoglmError:
        return self._outcomes.get(timeout=60)

    def trace(self) -> dict[str, Any]:
        outcome = self.get()
        assert isinstance(outcome, bytes), outcome
        return json.loads(gzip.decompress(outcome))


def generate(service: DecoderService, tag: str, max_tokens: int, started: threading.Event | None = None) -> None:
    """Decode until the end of the request."""
    is_over = threading.Event()

    def emit(event: StreamEvent) -> None:
        if isinstance(event, TokenDelta) and started is not None:
            started.set()
        if isinstance(event, Finished):
            is_over.set()

    sampling = SamplingParams(temperature=0.0, max_tokens=max_tokens, ignore_eos=True)
    service.add(DecodeRequest(tag=tag, prompt_ids=np.arange(3, 11, dtype=np.int32), sampling=sampling), emit)
    assert is_over.wait(60)


def test_a_profile_holds_its_steps_and_what_ran_in_them(service: DecoderService):
    outcome = Outcome()
    service.profile(ProfileBounds(steps=4, seconds=60), outcome)
    generate(service, "a", 12)

    trace = outcome.trace()
    names = [event.get("name") for event in trace["traceEvents"]]
    assert trace["autoglm"]["steps"] == 4
    assert names.count("step") == 4
    assert {"layers", "aten::argmax"} <= set(names)


def test_an_idle_engines_profile_ends_by_its_time(service: DecoderService):
    outcome = Outcome()
    service.profile(ProfileBounds(seconds=0.05), outcome)

    assert outcome.trace()["autoglm"]["steps"] == 0


def test_a_second_profile_is_refused_while_one_is_taken_and_not_after(service: DecoderService):
    first, second = Outcome(), Outcome()
    service.profile(ProfileBounds(steps=1, seconds=60), first)
    with pytest.raises(ConflictError):
        service.profile(ProfileBounds(), second)
    generate(service, "a", 2)
    first.trace()

    service.profile(ProfileBounds(seconds=0.05), second)
    assert second.trace()["autoglm"]["steps"] == 0


def test_what_runs_after_a_profile_is_not_in_it(service: DecoderService):
    outcome = Outcome()
    service.profile(ProfileBounds(steps=1, seconds=60), outcome)
    generate(service, "a", 6)
    generate(service, "b", 6)

    assert [event.get("name") for event in outcome.trace()["traceEvents"]].count("step") == 1


def test_a_shutdown_ends_a_profile_in_an_error(service: DecoderService):
    outcome = Outcome()
    service.profile(ProfileBounds(seconds=60), outcome)
    service.shutdown()

    assert isinstance(outcome.get(), UnavailableError)


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        ({"seconds": 0}, "seconds"),
        ({"seconds": 10**400}, "seconds"),
        ({"seconds": float("nan")}, "seconds"),
        ({"seconds": "5"}, "seconds"),
        ({"steps": 0}, "steps"),
        ({"steps": MAX_STEPS + 1}, "steps"),
        ({"steps": 1.5}, "steps"),
        ({"minutes": 1}, "minutes"),
    ],
)
def test_bounds_that_are_none_are_refused_by_name(raw: dict[str, Any], param: str):
    with pytest.raises(InvalidRequestError) as refusal:
        ProfileBounds.from_json(raw)

    assert refusal.value.param == param
