"""How far to guess: the exit to draft at and the number of drafts, from measured acceptance and measured times.

Lossless mode drafts with the layers below an exit and checks all drafts of all rows in one deep pass. Whether that
pays depends on how often a draft is right and on what each pass costs at the present load, so both are measured while
serving and the best expected tokens per second win; under a load that makes drafts useless that is "none". No torch.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_DRAFTS = 7
SMOOTHING = 0.1
"""Weight of the newest measurement in the running means."""
PRIOR_ACCEPTANCE = 0.7
PROBE_EVERY = 64
"""Steps between two looks at a choice that does not seem best: acceptance and load change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftPlan:
    """What one step does: `num_drafts` guesses with the layers below `exit_depth`; 0 drafts is plain decoding."""

    exit_depth: int
    num_drafts: int


@dataclass(slots=True)
class _Mean:
    value: float | None = None

    def add(self, sample: float) -> None:
        self.value = sample if self.value is None else (1 - SMOOTHING) * self.value + SMOOTHING * sample


class DraftController:
    """Chooses (exit, drafts) for a batch size, learning from every step it is told about."""

    def __init__(self, exits: tuple[int, ...], num_layers: int, *, max_drafts: int = MAX_DRAFTS) -> None:
        self.exits = exits
        self.num_layers = num_layers
        self.max_drafts = max_drafts
        self._acceptance = {depth: _Mean(PRIOR_ACCEPTANCE) for depth in exits}
        self._layer_s: dict[int, _Mean] = {}
        self._steps = 0

    def choose(self, num_rows: int) -> DraftPlan:
        """The plan with the best expected tokens per second for `num_rows` decoding rows."""
        none = DraftPlan(exit_depth=self.num_layers, num_drafts=0)
        if not self.exits or num_rows == 0 or self.max_drafts == 0:
            return none
        self._steps += 1
        candidates = [
            DraftPlan(exit_depth=depth, num_drafts=k) for depth in self.exits for k in range(1, self.max_drafts + 1)
        ]
        best = max([none, *candidates], key=lambda plan: self.expected_rate(plan, num_rows))
        if self._steps % PROBE_EVERY == 0:
            # One draft at each exit in turn: cheap, and it keeps both acceptance and times fresh.
            turn = self._steps // PROBE_EVERY % len(self.exits)
            return DraftPlan(exit_depth=self.exits[turn], num_drafts=max(1, min(best.num_drafts, 2)))
        return best

    def expected_rate(self, plan: DraftPlan, num_rows: int) -> float:
        """Expected tokens per row and second."""
        k = plan.num_drafts
        if k == 0:
            return 1.0 / self._pass_s(self.num_layers, num_rows)
        a = min(self.acceptance(plan.exit_depth), 0.999)
        tokens = (1 - a ** (k + 1)) / (1 - a)
        seconds = (k + 1) * self._pass_s(plan.exit_depth, num_rows)
        seconds += self._pass_s(self.num_layers - plan.exit_depth, num_rows * (k + 1))
        return tokens / seconds

    def acceptance(self, depth: int) -> float:
        """Running share of drafts of this exit that the deep pass confirmed, of those it got to judge."""
        mean = self._acceptance[depth].value
        return PRIOR_ACCEPTANCE if mean is None else mean

    def record_acceptance(self, depth: int, accepted: int, judged: int) -> None:
        for i in range(judged):
            self._acceptance[depth].add(1.0 if i < accepted else 0.0)

    def record_time(self, num_layers: int, num_tokens: int, seconds: float) -> None:
        """One pass of `num_layers` layers over `num_tokens` tokens, head included."""
        self._layer_s.setdefault(_bucket(num_tokens), _Mean()).add(seconds / (num_layers + HEAD_LAYERS))

    def _pass_s(self, num_layers: int, num_tokens: int) -> float:
        return (num_layers + HEAD_LAYERS) * self._layer_time(_bucket(num_tokens))

    def _layer_time(self, bucket: int) -> float:
        """Seconds of one layer at about 2^bucket tokens; unmeasured sizes are taken from the nearest measured one."""
        measured = {b: mean.value for b, mean in self._layer_s.items() if mean.value is not None}
        if not measured:
            return 1.0 + 0.05 * 2**bucket
        nearest = min(measured, key=lambda b: (abs(b - bucket), b))
        # Upwards of what was measured, hope that extra tokens are nearly free: a hope is tried, and then measured,
        # while a fear would keep a lone stream from ever drafting.
        growth = 1.1 ** (bucket - nearest) if bucket > nearest else 1.0
        return measured[nearest] * growth


HEAD_LAYERS = 1.5
"""Output head, sampling and host work of a pass, in layers: a start value that only shifts the first choices."""


def _bucket(num_tokens: int) -> int:
    return max(num_tokens - 1, 0).bit_length()
