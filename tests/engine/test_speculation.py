"""The draft controller against simulated machines: what it gains, and what it may never cost."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest

from autoglm_backend.engine.scheduler import Row
from autoglm_backend.engine.sequence import Prompt, Sequence
from autoglm_backend.engine.speculation import MAX_RIDES, DraftController, DraftPlan, TimeCurve
from autoglm_protocol.sampling import SamplingParams

LAYERS, EXITS = 24, (6, 12, 18)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Seconds of a pass: weights are read once, every token computes; noise is a share of the whole."""

    read_s: float
    per_token_s: float
    head_s: float = 1.0
    noise: float = 0.1

    def pass_s(self, layers: int, tokens: int) -> float:
        return self.head_s + layers * (self.read_s + self.per_token_s * tokens)


def simulate(machine: Machine, num_rows: int, acceptance: dict[int, float], num_steps: int, seed: int) -> float:
    """Speed against plain decoding."""
    rng = np.random.default_rng(seed)
    controller = DraftController(EXITS, LAYERS)
    seconds = tokens = 0.0
    for _ in range(num_steps):
        plan = controller.choose(num_rows)
        k, depth = plan.num_drafts, plan.exit_depth
        noise = 1 + machine.noise * abs(rng.standard_normal(2))
        if k == 0:
            spent = machine.pass_s(LAYERS, num_rows) * noise[0]
            controller.record_pass(LAYERS, num_rows, spent)
            tokens += num_rows
        else:
            shallow = machine.pass_s(depth, num_rows) * noise[0]
            deep = machine.pass_s(LAYERS - depth, num_rows * (k + 1)) * noise[1]
            spent = (k + 1) * shallow + deep
            controller.record_pass(depth, num_rows, shallow)
            controller.record_pass(LAYERS - depth, num_rows * (k + 1), deep)
            for _ in range(num_rows):
                right = rng.random(k) < acceptance[depth]
                accepted = k if right.all() else int(right.argmin())
                controller.record_acceptance(depth, accepted, min(accepted + 1, k))
                tokens += accepted + 1
        controller.record_time(spent)
        seconds += spent
    plain = num_rows / (machine.pass_s(LAYERS, num_rows) * (1 + machine.noise * (2 / np.pi) ** 0.5))
    return tokens / seconds / plain


MEMORY_BOUND = Machine(read_s=1.0, per_token_s=0.01)
COMPUTE_BOUND = Machine(read_s=0.05, per_token_s=0.3)


@pytest.mark.parametrize("machine", [MEMORY_BOUND, COMPUTE_BOUND], ids=["memory", "compute"])
@pytest.mark.parametrize("num_rows", [1, 16])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.95])
def test_drafting_never_costs_more_than_two_percent(machine: Machine, num_rows: int, share: float) -> None:
    speeds = [simulate(machine, num_rows, dict.fromkeys(EXITS, share), 1000, seed) for seed in range(3)]
    # Single lives scatter by a percent or so: the first looks at a plan, and the machine's noise.
    assert sum(speeds) / len(speeds) >= 0.98


def test_good_drafts_on_an_idle_machine_are_taken() -> None:
    assert simulate(MEMORY_BOUND, 1, {6: 0.9, 12: 0.92, 18: 0.95}, 1000, 0) > 1.8


def test_the_exit_with_the_better_drafts_is_found() -> None:
    controller = DraftController(EXITS, LAYERS)
    rng = np.random.default_rng(0)
    for _ in range(3000):
        plan = controller.choose(1)
        for layers in (plan.exit_depth, LAYERS - plan.exit_depth) if plan.num_drafts else (LAYERS,):
            controller.record_pass(layers, plan.num_drafts + 1 if layers > 6 else 1, 1.0 + layers)
        if plan.num_drafts:
            hit = rng.random() < {6: 0.05, 12: 0.97, 18: 0.97}[plan.exit_depth]
            controller.record_acceptance(plan.exit_depth, int(hit), 1)
        controller.record_time(26.0)
    chosen = [controller.choose(1) for _ in range(20)]
    assert sum(plan.exit_depth == 12 for plan in chosen) >= 18


def test_load_turns_drafts_off_and_quiet_turns_them_on_again() -> None:
    controller = DraftController((6,), LAYERS)
    for tokens in (1, 2, 4, 8, 16, 32, 64, 128, 256):
        for layers in (6, 18, 24):
            # One token is as dear as eight; beyond, every token counts.
            controller.record_pass(layers, tokens, layers * max(1.0, tokens / 8))
    for _ in range(100):
        controller.record_acceptance(6, 4, 5)
    assert controller.choose(1).num_drafts > 0
    assert controller.choose(32).num_drafts == 0
    assert controller.choose(1).num_drafts > 0


def test_a_time_measured_in_a_bad_moment_is_mended() -> None:
    controller = DraftController((6,), LAYERS)
    for _ in range(3):
        controller.record_pass(24, 1, 25.0)
        # Drafts are nearly free, but other programs ran whenever they were tried.
        for tokens in (2, 4, 8):
            controller.record_pass(18, tokens, 60.0)
    drafted = 0
    for _ in range(6000):
        plan = controller.choose(1)
        k = plan.num_drafts
        if k:
            drafted += 1
            controller.record_pass(6, 1, 7.0)
            controller.record_pass(18, k + 1, 19.0)
            controller.record_acceptance(6, k, k)
        controller.record_time((k + 1) * 7.0 + 19.0 if k else 25.0)
    assert drafted > 3000


def test_a_plan_is_kept_against_noise() -> None:
    controller = DraftController((6, 12), LAYERS)
    rng = np.random.default_rng(3)
    plans: list[DraftPlan] = []
    for _ in range(400):
        plan = controller.choose(4)
        plans.append(plan)
        for layers in (6, 12, 18, 24):
            for tokens in (4, 8, 12, 16, 20, 24, 28, 32):
                controller.record_pass(layers, tokens, layers * (1 + 0.02 * rng.standard_normal()))
        controller.record_acceptance(6, 4, 5)
    changes = sum(a != b for a, b in itertools.pairwise(plans[100:]))
    assert changes <= 6


def test_times_are_lower_quartiles_between_what_was_measured_and_follow_growth_beyond() -> None:
    curve = TimeCurve()
    assert curve.at(4, float) is None
    for seconds in (9.0, 1.0, 1.0, 1.2):
        curve.add(2, seconds)
    curve.add(6, 3.0)
    assert curve.at(2, float) == 1.0
    assert curve.at(4, float) == 2.0
    assert curve.at(12, float) == 6.0
    assert curve.at(1, float) == 0.5


def decoding(depth: int, count: int = 1) -> Row:
    spans = tuple(span for span in ((0, 6), (6, 12), (12, 18), (18, 24)) if span[1] <= depth)
    sequence = Sequence(
        tag="t",
        index=0,
        prompt=Prompt(ids=(1, 2), positions_3T=np.zeros((3, 2), dtype=np.int64), rope_delta=0),
        sampling=SamplingParams(),
        segments=spans,
        max_tokens=99,
        stop_ids=frozenset(),
        emit=lambda event: None,
    )
    return Row(sequence=sequence, start=1, count=count)


def measured(*, num_drafts: int) -> tuple[DraftController, DraftPlan]:
    """Layers cost a second each, whatever the batch."""
    controller = DraftController(EXITS, LAYERS)
    for layers in (6, 12, 18, 24):
        for tokens in (1, 2, 64, 512):
            controller.record_pass(layers, tokens, float(layers))
    return controller, DraftPlan(exit_depth=6 if num_drafts else LAYERS, num_drafts=num_drafts)


@pytest.mark.parametrize(
    ("depths", "num_drafts", "expected"),
    [
        pytest.param([6, 24], 0, (6, 2), id="half of a deep pass"),
        pytest.param([6, 24], 3, (6, 6), id="the guesses and half of the step"),
        pytest.param([6, 12], 0, (6, 1), id="no full row"),
        pytest.param([6, 12, 24], 0, (12, 1), id="two shallow depths"),
        pytest.param([6, 6], 0, (24, 0), id="nobody is deeper"),
        pytest.param([24, 24], 3, (6, 0), id="nobody is shallow"),
        pytest.param([12, 24], 3, (6, 0), id="below the guesses"),
    ],
)
def test_rides_take_a_bounded_share_of_a_step(depths: list[int], num_drafts: int, expected: tuple[int, int]) -> None:
    controller, plan = measured(num_drafts=num_drafts)
    allowed = controller.allow_rides(plan, [decoding(depth) for depth in depths])
    assert (allowed.exit_depth, allowed.num_rides) == expected


def test_rides_beside_a_long_prompt_are_limited() -> None:
    controller, plan = measured(num_drafts=0)
    for _ in range(9):
        controller.record_pass(24, 512, 1000.0)
    assert controller.allow_rides(plan, [decoding(6), decoding(24, 511)]).num_rides == MAX_RIDES
