"""How far to guess: the exit to draft at and the number of drafts, from measured acceptance and measured times.

Lossless mode drafts with the layers below an exit and checks all drafts of all rows in one deep pass. Whether that
pays depends on how often a draft is right and on what each pass costs at the present load, so both are measured while
serving and the best expected tokens per second win; under a load that makes drafts useless that is "none". Looking at
plans that do not seem best costs at most PROBE_SHARE of the time.

Shallow rows in a batch with deeper ones would go at the deep rows' pace, since reading weights is what a step costs.
They ride: they go on through the shallow layers while others draft, and for a bounded share of each step. No torch.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace

from autoglm_backend.engine.scheduler import Row

MAX_DRAFTS = 7
SMOOTHING = 0.1
"""Weight of the newest draft in the running acceptance."""
PRIOR_ACCEPTANCE = 0.7
PROBE_SHARE = 0.003
"""Of all decoding time, what looking at other plans may cost: acceptance and load change."""
SWITCH_GAIN = 1.08
"""A plan must promise so much more than the one in use: measurements are noisy, and drafts must never cost speed."""
HEAD_LAYERS = 1.5
"""Output head, sampling and host work of a pass, in layers: a start value until a pass of that depth is measured."""
RIDE_SHARE = 0.5
"""Of a step's time, what shallow rows may add by going on alone: deeper rows keep two thirds of their speed."""
MAX_RIDES = 16
HOPE = 1.1
"""Growth of an unmeasured time per doubling of tokens. A hope is tried, and then measured; a fear never would be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftPlan:
    """What one step does: `num_drafts` guesses with the layers below `exit_depth`; 0 drafts is plain decoding."""

    exit_depth: int
    num_drafts: int
    num_rides: int = 0
    """Further tokens of rows that end at `exit_depth` or above."""


class TimeCurve:
    """Seconds of a pass by its number of tokens, in straight lines between what was measured.

    Of the newest few times of a size the lower quartile counts: set-up and other programs only ever add to a time.
    """

    WINDOW = 9

    def __init__(self) -> None:
        self._samples: dict[int, deque[float]] = {}
        self._seconds: dict[int, float] = {}
        self._tokens: list[int] = []

    def add(self, num_tokens: int, seconds: float) -> None:
        samples = self._samples.setdefault(num_tokens, deque(maxlen=self.WINDOW))
        samples.append(seconds)
        if num_tokens not in self._seconds:
            self._tokens.insert(bisect_left(self._tokens, num_tokens), num_tokens)
        self._seconds[num_tokens] = sorted(samples)[(len(samples) - 1) // 4]

    def at(self, num_tokens: int, growth: Callable[[int], float]) -> float | None:
        """None before any measurement; outside what was measured the nearest time goes on in proportion to `growth`."""
        if not self._tokens:
            return None
        right = bisect_left(self._tokens, num_tokens)
        if right == len(self._tokens) or (right == 0 and self._tokens[0] != num_tokens):
            edge = self._tokens[-1 if right else 0]
            return self._seconds[edge] * growth(num_tokens) / growth(edge)
        high = self._tokens[right]
        if high == num_tokens:
            return self._seconds[high]
        low = self._tokens[right - 1]
        share = (num_tokens - low) / (high - low)
        return self._seconds[low] * (1 - share) + self._seconds[high] * share


class DraftController:
    """Chooses (exit, drafts) for a batch size, learning from every step it is told about."""

    def __init__(self, exits: tuple[int, ...], num_layers: int, *, max_drafts: int = MAX_DRAFTS) -> None:
        self.exits = exits
        self.num_layers = num_layers
        self.none = DraftPlan(exit_depth=num_layers, num_drafts=0)
        self._plans = [self.none] + [
            DraftPlan(exit_depth=depth, num_drafts=k) for depth in exits for k in range(1, max_drafts + 1)
        ]
        self._acceptance = dict.fromkeys(exits, PRIOR_ACCEPTANCE)
        self._num_judged = dict.fromkeys(exits, 0)
        self._curves: dict[int, TimeCurve] = {num_layers: TimeCurve()}
        self._in_use: dict[int, DraftPlan] = {}
        """By number of rows."""
        self._probe_credit_s = 0.0
        self._num_probes = 0

    def choose(self, num_rows: int) -> DraftPlan:
        """The plan with the best expected tokens per second for `num_rows` decoding rows."""
        if len(self._plans) == 1 or num_rows == 0:
            return self.none
        rates = {plan: self.expected_rate(plan, num_rows) for plan in self._plans}
        used = self._in_use.get(num_rows, self.none)
        best = max(self._plans, key=rates.__getitem__)
        if rates[best] < SWITCH_GAIN * rates[used]:
            best = used
        self._in_use[num_rows] = best
        probe = self._next_probe()
        # What the probe takes beyond what the best plan would take for the same tokens.
        cost_s = self._tokens(probe) * (1 / rates[probe] - 1 / rates[best])
        if cost_s > self._probe_credit_s:
            return best
        self._probe_credit_s -= max(cost_s, 0.0)
        self._num_probes += 1
        return probe

    def expected_rate(self, plan: DraftPlan, num_rows: int) -> float:
        """Expected tokens per row and second."""
        return self._tokens(plan) / self._step_s(plan, num_rows)

    def allow_rides(self, plan: DraftPlan, rows: Seq[Row]) -> DraftPlan:
        """The plan with as many rides as its shallow rows get in the company of these rows."""
        depths = {row.sequence.depth for row in rows}
        limit = plan.exit_depth if plan.num_drafts else max(depths, default=0) - 1
        riders = [row.sequence.depth for row in rows if row.count == 1 and row.sequence.depth <= limit]
        if not riders or len(riders) == len(rows):
            return plan
        exit_depth = plan.exit_depth if plan.num_drafts else max(riders)
        num_tokens = sum(row.count for row in rows)
        step_s = self._step_s(plan, num_tokens) if plan.num_drafts else self._pass_s(max(depths), num_tokens)
        extra = int(RIDE_SHARE * step_s / self._pass_s(exit_depth, len(riders)))
        return replace(plan, exit_depth=exit_depth, num_rides=min(plan.num_drafts + extra, MAX_RIDES))

    def acceptance(self, depth: int) -> float:
        """Running share of drafts of this exit that the deep pass confirmed, of those it got to judge."""
        return self._acceptance[depth]

    def record_acceptance(self, depth: int, accepted: int, judged: int) -> None:
        for i in range(judged):
            hit = 1.0 if i < accepted else 0.0
            self._num_judged[depth] += 1
            # The prior counts as one draft: a useless exit is given up after a few.
            weight = max(SMOOTHING, 1 / (self._num_judged[depth] + 1))
            self._acceptance[depth] += weight * (hit - self._acceptance[depth])

    def record_step(self, rows: Seq[Row], plan: DraftPlan, drafting_s: float | None, seconds: float) -> None:
        """Learn from a step that took `seconds`, `drafting_s` of them until its last draft.

        Steps whose rows go to different depths, or draft differently, say nothing about one pass and are left out.
        """
        self.record_time(seconds)
        if any(row.sequence.depth != self.num_layers or row.sequence.certified for row in rows):
            return
        num_tokens = sum(row.count for row in rows)
        if drafting_s is None:
            self.record_pass(self.num_layers, num_tokens, seconds)
        elif all(row.count == 1 and row.num_drafts == plan.num_drafts for row in rows):
            passes = plan.num_drafts + 1
            self.record_pass(plan.exit_depth, num_tokens, drafting_s / passes)
            self.record_pass(self.num_layers - plan.exit_depth, num_tokens * passes, seconds - drafting_s)

    def record_time(self, seconds: float) -> None:
        """Time that went by while decoding; a share of it may be spent on probes."""
        self._probe_credit_s += PROBE_SHARE * seconds

    def record_pass(self, num_layers: int, num_tokens: int, seconds: float) -> None:
        """One pass of `num_layers` layers over `num_tokens` tokens, head and sampling included."""
        self._curves.setdefault(num_layers, TimeCurve()).add(num_tokens, seconds)

    def _next_probe(self) -> DraftPlan:
        """In turn plain decoding, one draft at each exit, and a few at the exit that is right most often.

        The first are the cheapest looks at times and acceptance; the last mends times measured in a bad moment.
        """
        surest = max(self.exits, key=self._acceptance.__getitem__)
        looks = [*((depth, 1) for depth in self.exits), (surest, min(3, self._plans[-1].num_drafts))]
        turn = self._num_probes % (len(looks) + 1)
        return self.none if turn == 0 else DraftPlan(exit_depth=looks[turn - 1][0], num_drafts=looks[turn - 1][1])

    def _tokens(self, plan: DraftPlan) -> float:
        """Expected tokens of one row and step."""
        if plan.num_drafts == 0:
            return 1.0
        a = min(self._acceptance[plan.exit_depth], 0.999)
        return (1 - a ** (plan.num_drafts + 1)) / (1 - a)

    def _step_s(self, plan: DraftPlan, num_tokens: int) -> float:
        """Expected seconds of a step that begins with `num_tokens` tokens."""
        if plan.num_drafts == 0:
            return self._pass_s(self.num_layers, num_tokens)
        passes = plan.num_drafts + 1
        shallow_s = self._pass_s(plan.exit_depth, num_tokens)
        return passes * shallow_s + self._pass_s(self.num_layers - plan.exit_depth, num_tokens * passes)

    def _pass_s(self, num_layers: int, num_tokens: int) -> float:
        curve = self._curves.get(num_layers)
        measured = None if curve is None else curve.at(num_tokens, self._whole_pass_s)
        if measured is not None:
            return measured
        return self._whole_pass_s(num_tokens) * (num_layers + HEAD_LAYERS) / (self.num_layers + HEAD_LAYERS)

    def _whole_pass_s(self, num_tokens: int) -> float:
        """A pass through all layers; prompts measure its large sizes. In units of itself before any measurement."""
        seconds = self._curves[self.num_layers].at(num_tokens, _hoped_growth)
        return _hoped_growth(num_tokens) if seconds is None else seconds


def _hoped_growth(num_tokens: int) -> float:
    return HOPE ** (num_tokens - 1).bit_length()
