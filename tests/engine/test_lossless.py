"""Lossless mode: the same tokens as full depth, whatever is guessed, batched, aborted or preempted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engine.test_engine import Stream, add_exits, ask, prompt
from tests.random_checkpoint import Shape, random_checkpoint

from autoglm_backend.engine.options import EngineOptions
from autoglm_backend.engine.service import DecoderService
from autoglm_backend.engine.speculation import DraftController, DraftPlan
from autoglm_protocol.errors import InvalidRequestError
from autoglm_protocol.events import Finished
from autoglm_protocol.plan import ExitMode
from autoglm_protocol.sampling import SamplingParams

LOSSLESS = ExitMode.LOSSLESS


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("checkpoint")
    random_checkpoint(directory, Shape())
    add_exits(directory, [1, 3])
    return directory


class FixedDrafts(DraftController):
    """Always guesses the given number at the given exit."""

    def __init__(self, exit_depth: int, num_drafts: int) -> None:
        super().__init__((1, 3), 4)
        self._plan = DraftPlan(exit_depth=exit_depth, num_drafts=num_drafts)

    def choose(self, num_rows: int) -> DraftPlan:
        return self._plan if num_rows else DraftPlan(exit_depth=4, num_drafts=0)


def service(directory: Path, exit_depth: int = 1, num_drafts: int = 3, **options: object) -> DecoderService:
    # float64: the one-token and the many-token kernels then agree to the last greedy choice.
    engine = DecoderService.from_checkpoint(
        directory,
        EngineOptions(device="cpu", dtype="float64", threads=1, **options),  # type: ignore[arg-type]
    )
    engine._engine._drafts = FixedDrafts(exit_depth, num_drafts)
    return engine


def run_all(engine: DecoderService, mode: ExitMode, sampling: list[SamplingParams]) -> list[list[int]]:
    streams = [Stream() for _ in sampling]
    shared = prompt(7, 50)
    for i, (params, stream) in enumerate(zip(sampling, streams, strict=True)):
        ids = np.concatenate((shared, prompt(2 + 3 * i, i)))
        engine.add(ask(f"{mode.value}{i}", ids, depth=4, exit_mode=mode, sampling=params), stream)
    return [stream.ids() for stream in streams]


PLAIN = SamplingParams(temperature=0.0, max_tokens=30, ignore_eos=True)
MIX = [
    PLAIN,
    SamplingParams(temperature=0.0, max_tokens=30, frequency_penalty=0.2, presence_penalty=0.1, ignore_eos=True),
    SamplingParams(temperature=0.0, max_tokens=21, repetition_penalty=1.3, logit_bias={8: 2.0}),
    SamplingParams(temperature=0.9, top_p=0.8, seed=5, max_tokens=30, ignore_eos=True),
    SamplingParams(temperature=1.3, top_k=12, min_p=0.02, seed=6, max_tokens=17, min_tokens=10),
]


@pytest.mark.parametrize(("exit_depth", "num_drafts"), [(1, 1), (1, 4), (3, 2), (3, 7)])
@pytest.mark.parametrize(
    "pressure",
    [{}, {"kv_cache_tokens": 160, "block_tokens": 4}, {"max_step_tokens": 6}],
    ids=["free", "tight", "chunked"],
)
def test_every_kind_of_request_gets_full_depths_tokens(
    checkpoint: Path, exit_depth: int, num_drafts: int, pressure: dict[str, int]
) -> None:
    engine = service(checkpoint, exit_depth, num_drafts, **pressure)
    plain = run_all(engine, ExitMode.FIXED, MIX)
    assert run_all(engine, LOSSLESS, MIX) == plain
    assert engine.stats().kv_usage == 0.0
    engine.shutdown()


def test_drafts_are_counted_and_a_perfect_drafter_is_always_accepted(tmp_path: Path) -> None:
    random_checkpoint(tmp_path, Shape())
    add_exits(tmp_path, [1, 3])
    engine = service(tmp_path, exit_depth=3, num_drafts=4)
    stream = Stream()
    # The bias leaves one possible token, so every draft must be right.
    engine.add(
        ask(
            "one",
            prompt(5, 1),
            exit_mode=LOSSLESS,
            sampling=SamplingParams(temperature=0.0, max_tokens=31, allowed_token_ids=(9,)),
        ),
        stream,
    )
    end = stream.end()
    engine.shutdown()
    assert isinstance(end, Finished)
    assert end.dynamic_graph["drafts_proposed"] == end.dynamic_graph["drafts_accepted"] == 24
    assert stream.ids() == [9] * 31


def test_layer_calls_are_the_drafts_shallow_passes_and_one_deep_pass(checkpoint: Path) -> None:
    engine = service(checkpoint, exit_depth=1, num_drafts=3, prefix_cache=False)
    stream = Stream()
    engine.add(
        ask(
            "a",
            prompt(6, 2),
            exit_mode=LOSSLESS,
            sampling=SamplingParams(temperature=0.0, max_tokens=2, ignore_eos=True),
        ),
        stream,
    )
    end = stream.end()
    engine.shutdown()
    assert isinstance(end, Finished)
    # Prefill of 6 tokens gives the first token; the second may not draft, for max_tokens leaves no room.
    assert end.dynamic_graph["layer_steps"] == 4 * 6 + 4


@pytest.mark.parametrize("length", range(1, 12))
def test_max_tokens_inside_a_draft_cuts_exactly(checkpoint: Path, length: int) -> None:
    engine = service(checkpoint, exit_depth=3, num_drafts=5)
    stream = Stream()
    sampling = SamplingParams(temperature=0.0, max_tokens=length, ignore_eos=True)
    engine.add(ask("a", prompt(6, 3), exit_mode=LOSSLESS, sampling=sampling), stream)
    assert len(stream.ids()) == length
    engine.shutdown()


def test_a_stop_token_inside_a_draft_ends_the_row_there(checkpoint: Path) -> None:
    engine = service(checkpoint, exit_depth=3, num_drafts=5)
    first, second = Stream(), Stream()
    sampling = SamplingParams(seed=4, max_tokens=30, ignore_eos=True)
    engine.add(ask("a", prompt(6, 3), sampling=sampling), first)
    ids = first.ids()
    stop = next(t for t in ids if ids.index(t) >= 4)
    engine.add(ask("b", prompt(6, 3), exit_mode=LOSSLESS, sampling=replace(sampling, stop_token_ids=(stop,))), second)
    assert second.ids() == ids[: ids.index(stop) + 1]
    engine.shutdown()


@pytest.mark.parametrize(
    ("depth", "exit_mode", "field"),
    [(1, LOSSLESS, "depth"), (4, ExitMode.CERTIFIED, "exit"), (2, ExitMode.FIXED, "depth")],
)
def test_what_the_checkpoint_cannot_do_is_refused(
    checkpoint: Path, depth: int, exit_mode: ExitMode, field: str
) -> None:
    engine = service(checkpoint)
    with pytest.raises(InvalidRequestError) as refusal:
        engine.add(ask("x", prompt(4, 0), depth=depth, exit_mode=exit_mode), Stream())
    engine.shutdown()
    assert refusal.value.param == field


def test_lossless_without_exits_is_refused(tmp_path: Path) -> None:
    random_checkpoint(tmp_path, Shape())
    engine = DecoderService.from_checkpoint(tmp_path, EngineOptions(device="cpu", threads=1))
    with pytest.raises(InvalidRequestError, match="exit heads"):
        engine.add(ask("x", prompt(4, 0), exit_mode=LOSSLESS), Stream())
    engine.shutdown()


@settings(deadline=None, max_examples=60)
@given(st.floats(0.0, 1.0), st.floats(0.01, 10.0), st.floats(0.0, 2.0))
def test_the_controller_never_picks_what_it_expects_to_be_slower(a: float, base_s: float, per_token_s: float) -> None:
    controller = DraftController((6, 12), 24)
    for _ in range(50):
        for tokens in (1, 2, 4, 8, 16, 32):
            controller.record_pass(24, tokens, base_s + per_token_s * tokens)
        for depth in (6, 12):
            controller.record_acceptance(depth, int(a * 10), 10)
    plan = controller.choose(1)
    none = DraftPlan(exit_depth=24, num_drafts=0)
    assert controller.expected_rate(plan, 1) >= controller.expected_rate(none, 1)


def test_useless_drafts_are_given_up(checkpoint: Path) -> None:
    controller = DraftController((6,), 24)
    for _ in range(100):
        controller.record_pass(24, 1, 1.0)
        controller.record_pass(24, 8, 1.2)
        controller.record_acceptance(6, 0, 1)
    assert controller.choose(1).num_drafts == 0
