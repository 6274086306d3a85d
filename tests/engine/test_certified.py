"""Certified exits: a token leaves where its gate is sure, its deep keys and values come later and exactly."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engine.depth_world import Dense, certified_checkpoint, service, write_certificate
from tests.engine.test_engine import Stream, ask, dense_greedy, prompt

from autoglm_backend.engine.certified import CertifiedOffer, certified_offer
from autoglm_backend.engine.options import EngineOptions
from autoglm_backend.engine.sequence import Sequence
from autoglm_backend.engine.service import DecoderService
from autoglm_backend.engine.shadow import RiskMonitor
from autoglm_backend.models.config import CheckpointError, load_model_config
from autoglm_backend.models.exits import load_exit_heads
from autoglm_protocol.errors import InvalidRequestError
from autoglm_protocol.events import Finished, StreamEvent, TokenDelta
from autoglm_protocol.plan import ExitMode
from autoglm_protocol.sampling import SamplingParams

CERTIFIED = ExitMode.CERTIFIED
HALF = {1: 0.5, 2: 0.5}
ALWAYS = {1: 0.0}
NEVER = {1: 1.5, 2: 1.5}
COMMITTED = Path(__file__).parents[2] / "checkpoints" / "autoglm-phone-tiny"


def greedy(max_tokens: int) -> SamplingParams:
    return SamplingParams(temperature=0.0, max_tokens=max_tokens, ignore_eos=True)


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certified_checkpoint(tmp_path_factory.mktemp("half"), HALF)


@pytest.fixture(scope="module")
def always(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certified_checkpoint(tmp_path_factory.mktemp("always"), ALWAYS)


def layers_of(stream: Stream) -> list[int]:
    return [n for e in stream.events if isinstance(e, TokenDelta) for n in e.layers or ()]


def finished(stream: Stream) -> Finished:
    end = stream.end()
    assert isinstance(end, Finished)
    return end


@pytest.mark.parametrize(
    ("thresholds", "uses_margin"),
    [(HALF, False), (HALF, True), (ALWAYS, False), ({2: 0.5}, False), ({}, False)],
    ids=["half", "margin", "always", "one exit", "no exit"],
)
def test_tokens_and_layers_are_those_of_the_dense_reference(
    tmp_path: Path, thresholds: dict[int, float], uses_margin: bool
) -> None:
    directory = certified_checkpoint(tmp_path / "c", thresholds, uses_margin=uses_margin)
    engine, stream = service(directory, shadow_share=0.0), Stream()
    engine.add(ask("a", prompt(9, 1), exit_mode=CERTIFIED, sampling=greedy(30)), stream)
    ids = stream.ids()
    stats = engine.stats()
    engine.shutdown()
    reference = Dense(directory).certified(prompt(9, 1), 30, thresholds)
    assert ids == reference.ids
    assert layers_of(stream) == reference.layers
    assert stats.involuntary_exits == 0
    if thresholds == HALF:
        assert set(reference.layers) == {1, 2, 4}


@pytest.mark.parametrize(
    "pressure",
    [{}, {"kv_cache_tokens": 160, "block_tokens": 4}, {"max_step_tokens": 6, "block_tokens": 4}],
    ids=["free", "preempted", "chunked"],
)
def test_a_mixed_batch_gives_what_each_row_gives_alone(half: Path, pressure: dict[str, int]) -> None:
    engine = service(half, shadow_share=0.0, **pressure)
    shared = prompt(7, 50)
    prompts = [np.concatenate((shared, prompt(2 + 3 * i, i))) for i in range(6)]
    modes = [CERTIFIED, CERTIFIED, ExitMode.LOSSLESS, CERTIFIED, ExitMode.FIXED, CERTIFIED]
    streams = [Stream() for _ in prompts]
    for i, (ids, mode, stream) in enumerate(zip(prompts, modes, streams, strict=True)):
        depth = 2 if mode is ExitMode.FIXED else 4
        engine.add(ask(f"r{i}", ids, depth=depth, exit_mode=mode, sampling=greedy(24)), stream)
    answers = [stream.ids() for stream in streams]
    stats = engine.stats()
    engine.shutdown()
    dense = Dense(half)
    full = {ExitMode.LOSSLESS: {}, CERTIFIED: HALF}
    for ids, mode, answer in zip(prompts, modes, answers, strict=True):
        if mode is ExitMode.FIXED:
            assert answer == dense_greedy(half, ids, 2, 24)
        else:
            assert answer == dense.certified(ids, 24, full[mode]).ids
    assert stats.kv_usage == 0.0
    assert stats.involuntary_exits == 0
    if "kv_cache_tokens" in pressure:
        assert stats.num_preemptions > 0


class Inspector(Stream):
    """Looks at the sequence with every new token, in the engine's thread."""

    def __init__(self) -> None:
        super().__init__()
        self.engine: DecoderService | None = None
        self.largest_lag = 0
        self.kv: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.kv_len: list[int] = []
        self.text: list[int] = []
        self.layer_steps = 0

    def __call__(self, event: StreamEvent) -> None:
        if isinstance(event, TokenDelta):
            assert self.engine is not None
            self._look(self.engine, self.engine._engine._live["a"].choices[0])
        super().__call__(event)

    def _look(self, engine: DecoderService, sequence: Sequence) -> None:
        self.largest_lag = max(self.largest_lag, sequence.lag)
        cache = engine._engine._runner.spans.cache  # type: ignore[attr-defined]
        self.kv = []
        for segment, (first, last) in enumerate(sequence.segments):
            size = cache.block_tokens
            slots = [sequence.blocks[segment][p // size] * size + p % size for p in range(sequence.kv_len[segment])]
            for layer in range(first, last):
                keys, values = (t[layer].flatten(0, 1)[slots] for t in (cache.keys, cache.values))
                self.kv.append((keys, values))
        self.kv_len, self.text = list(sequence.kv_len), list(sequence.ids)
        self.layer_steps = sequence.layer_steps


def inspect(directory: Path, max_tokens: int) -> Inspector:
    engine, inspector = service(directory, shadow_share=0.0, block_tokens=4), Inspector()
    inspector.engine = engine
    engine.add(ask("a", prompt(9, 2), exit_mode=CERTIFIED, sampling=greedy(max_tokens)), inspector)
    inspector.end()
    engine.shutdown()
    return inspector


def test_deferred_keys_and_values_equal_a_dense_forward_pass(half: Path) -> None:
    seen = inspect(half, 40)
    assert seen.kv_len[0] == 48
    for (keys, values), (dense_keys, dense_values) in zip(seen.kv, Dense(half).keys_values(seen.text), strict=True):
        torch.testing.assert_close(keys, dense_keys[: len(keys)], rtol=0, atol=1e-10)
        torch.testing.assert_close(values, dense_values[: len(values)], rtol=0, atol=1e-10)


def test_every_layer_meets_every_token_once_and_the_lag_is_bounded(always: Path) -> None:
    seen = inspect(always, 40)
    lengths = dict(zip(((0, 1), (1, 2), (2, 4)), seen.kv_len, strict=True))
    assert seen.layer_steps == sum(length * (last - first) for (first, last), length in lengths.items())
    assert seen.largest_lag == 7
    assert seen.kv_len[-1] > 9


def test_the_account_names_exits_and_deferred_tokens(always: Path) -> None:
    engine, stream = service(always, shadow_share=0.0), Stream()
    engine.add(ask("a", prompt(9, 2), exit_mode=CERTIFIED, sampling=greedy(20)), stream)
    graph = finished(stream).dynamic_graph
    stats = engine.stats()
    engine.shutdown()
    assert graph["layers_run"] == {"1": 19, "4": 1}
    # Of the 19, the 8th and 16th went deep at once with those that had waited for them.
    assert graph["certified"] == {"active": True, "exits": {"1": 19}, "deferred_tokens": 17}
    assert stats.tokens_by_depth == {1: 19, 4: 1}
    assert stats.late_checked == 14


def test_tokens_met_again_by_the_deep_pass_are_compared_with_its_choice(always: Path) -> None:
    engine, stream = service(always, shadow_share=0.0), Stream()
    engine.add(ask("a", prompt(9, 2), exit_mode=CERTIFIED, sampling=greedy(20)), stream)
    ids = stream.ids()
    stats = engine.stats()
    engine.shutdown()
    dense, text = Dense(always), [*prompt(9, 2).tolist(), *ids]
    agreed = 0
    for at in [*range(10, 17), *range(18, 25)]:
        agreed += dense.certified(np.array(text[:at]), 1, {}).ids[0] == text[at]
    assert stats.late_agreed == agreed


def test_thresholds_that_nothing_reaches_give_full_depth_at_its_price(tmp_path: Path) -> None:
    directory = certified_checkpoint(tmp_path / "c", NEVER)
    engine, certified, full = service(directory, shadow_share=0.0, prefix_cache=False), Stream(), Stream()
    engine.add(ask("a", prompt(9, 1), exit_mode=CERTIFIED, sampling=greedy(30)), certified)
    engine.add(ask("b", prompt(9, 1), depth=4, sampling=greedy(30)), full)
    assert certified.ids() == full.ids()
    assert finished(certified).dynamic_graph["layer_steps"] == finished(full).dynamic_graph["layer_steps"]
    engine.shutdown()


@pytest.mark.parametrize(
    ("break_it", "named"),
    [
        (lambda d: (d / "exits" / "certificate.json").unlink(), "certificate.json"),
        (lambda d: (d / "exits" / "gates.json").unlink(), "gates.json"),
        (lambda d: write_certificate(d, HALF, dtype="bfloat16"), "dtype was bfloat16"),
        (lambda d: write_certificate(d, HALF, quantization="int8"), "quantization was int8"),
        (lambda d: write_certificate(d, HALF, checkpoint_sha256="0" * 64), "checkpoint_sha256"),
        (lambda d: (d / "chat_template.jinja").write_text("another"), "checkpoint_sha256 is of other files"),
        (lambda d: write_certificate(d, {3: 0.5}), "depth 3"),
        (lambda d: write_certificate(d, HALF, delta=2), "delta is 2"),
    ],
    ids=["no certificate", "no gates", "dtype", "quantization", "hash", "changed file", "depth", "field"],
)
def test_certified_that_cannot_be_kept_is_refused(tmp_path: Path, break_it, named: str) -> None:
    directory = certified_checkpoint(tmp_path / "c", HALF)
    break_it(directory)
    engine = service(directory)
    with pytest.raises(InvalidRequestError, match=named) as refusal:
        engine.add(ask("a", prompt(4, 0), exit_mode=CERTIFIED), Stream())
    engine.shutdown()
    assert refusal.value.param == "exit"
    with pytest.raises(CheckpointError, match=named):
        DecoderService.from_checkpoint(
            directory, EngineOptions(device="cpu", dtype="float64", threads=1), default_exit=CERTIFIED
        )


def test_the_default_checkpoints_certificate_fits_the_default_checkpoint() -> None:
    config = load_model_config(COMMITTED)
    heads = load_exit_heads(COMMITTED, config.text)
    assert heads is not None
    offer = certified_offer(COMMITTED, config, heads.depths, torch.device("cpu"), torch.float32, "auto")
    assert isinstance(offer, CertifiedOffer), offer
    assert any(threshold <= 1 for threshold in offer.certificate.thresholds.values())
    assert offer.router is not None


def test_shadow_checks_switch_certified_mode_off_and_say_so_once(
    always: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = service(always, shadow_share=1.0)
    with caplog.at_level(logging.WARNING, logger="autoglm_backend.engine.shadow"):
        for number in range(12):
            stream = Stream()
            engine.add(ask(f"a{number}", prompt(9, number), exit_mode=CERTIFIED, sampling=greedy(12)), stream)
            stream.end()
    last = Stream()
    engine.add(ask("last", prompt(9, 77), exit_mode=CERTIFIED, sampling=greedy(12)), last)
    assert last.ids() == Dense(always).certified(prompt(9, 77), 12, {}).ids
    stats = engine.stats()
    engine.shutdown()
    assert finished(last).dynamic_graph["certified"]["active"] is False
    assert not stats.certified_active
    assert stats.shadow_agreed < stats.shadow_checked
    assert len(caplog.records) == 1


def test_shadow_checks_of_a_careful_gate_agree(tmp_path: Path) -> None:
    directory = certified_checkpoint(tmp_path / "c", NEVER)
    engine = service(directory, shadow_share=1.0)
    for number in range(4):
        stream = Stream()
        params = SamplingParams(temperature=1.1, seed=None, max_tokens=12, ignore_eos=True)
        engine.add(ask(f"a{number}", prompt(9, number), exit_mode=CERTIFIED, sampling=params), stream)
        stream.end()
    engine.shutdown()
    stats = engine.stats()
    assert stats.certified_active
    assert stats.shadow_checked == stats.shadow_agreed >= 2


def test_the_risk_monitor_rarely_cries_wolf() -> None:
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(400):
        monitor = RiskMonitor(0.05)
        for mismatch in rng.random(400) < 0.05:
            monitor.record(agreed=not mismatch)
            if monitor.is_alarmed:
                alarms += 1
                break
    # At most 1 % of lives; 11 of 400 would have a chance of 1 in 500 at exactly 1 %.
    assert alarms <= 10


def test_the_risk_monitor_notices_a_late_drift_soon() -> None:
    rng = np.random.default_rng(2)
    monitor = RiskMonitor(0.02)
    for mismatch in rng.random(3000) < 0.01:
        monitor.record(agreed=not mismatch)
    assert not monitor.is_alarmed
    noticed = 0
    while not monitor.is_alarmed:
        monitor.record(agreed=rng.random() > 0.2)
        noticed += 1
    assert noticed < 80


@settings(max_examples=50, deadline=None)
@given(st.floats(0.001, 0.4), st.lists(st.booleans(), max_size=200))
def test_the_risk_monitors_wealth_never_grows_on_average_at_delta(delta: float, agreements: list[bool]) -> None:
    monitor = RiskMonitor(delta)
    for agreed in agreements:
        up, down = RiskMonitor(delta), RiskMonitor(delta)
        for other, outcome in ((up, True), (down, False)):
            other.num_checked, other._wealth = monitor.num_checked, list(monitor._wealth)
            other.record(agreed=outcome)
        assert (1 - delta) * up.wealth + delta * down.wealth <= monitor.wealth * (1 + 1e-9)
        monitor.record(agreed=agreed)
