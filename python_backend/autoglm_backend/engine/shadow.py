"""Shadow checks: some certified answers are run again at full depth, and certified mode goes off when too many differ.

A certificate holds for traffic like that of its calibration. Live traffic drifts, so a share of finished certified
requests is decoded a second time, at the lowest priority, and the two answers are compared as the certificate says: by
the action they parse to. A sequential test watches the mismatches; when it rejects "the risk is at most delta",
certified requests run lossless until the next start. No torch.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger(__name__)

SHADOW_PRIORITY = 15
"""With the default ageing of 2 s a level, a check waits up to 30 s before it stands level with a new request."""
MAX_SHADOWS = 2
"""Checks under way at once; more finished requests are simply not checked."""
FALSE_ALARM = 0.01
"""Probability that certified mode is ever switched off although the risk never exceeds delta."""

SameAnswer = Callable[[list[int], list[int]], bool]
"""Whether two answers, as token ids, count as the same by the certificate's risk."""


class RiskMonitor:
    """Anytime-valid test of "every mismatch has probability at most delta, whatever came before".

    Wealth from bets on mismatches is a nonnegative supermartingale under that hypothesis, so it reaches 1 / FALSE_ALARM
    with probability at most FALSE_ALARM, however often one looks (Ville). Each bet is the likelihood ratio of a
    Bernoulli risk above delta to delta itself (Waudby-Smith and Ramdas 2024, "Estimating means of bounded random
    variables by betting"). Wealth is spread over several such risks and over the check from which the drift may have
    begun, weight 1 / (k (k + 1)) on the k-th: a long good past then costs a late alarm the logarithm of its length, not
    its length (the mixture form of e-detectors, Shin, Ramdas and Rinaldo 2023).
    """

    def __init__(self, delta: float, *, false_alarm: float = FALSE_ALARM) -> None:
        if not 0 < delta < 1:
            raise ValueError(f"delta is {delta}, must lie between 0 and 1")
        self.delta = delta
        self.false_alarm = false_alarm
        self.num_checked = 0
        self.num_agreed = 0
        # Alternatives from twice the bound up to certain mismatch, evenly on the scale of odds.
        self._risks = tuple(r for r in (2 * delta, 4 * delta, 8 * delta, 16 * delta, 0.9) if delta < r < 1)
        self._wealth = [0.0] * len(self._risks)

    @property
    def wealth(self) -> float:
        """Average over the bets, those included that have not begun."""
        not_begun = 1.0 / (self.num_checked + 1)
        return sum(self._wealth) / len(self._wealth) + not_begun

    @property
    def is_alarmed(self) -> bool:
        return self.wealth >= 1.0 / self.false_alarm

    def record(self, *, agreed: bool) -> None:
        self.num_checked += 1
        self.num_agreed += agreed
        begins = 1.0 / (self.num_checked * (self.num_checked + 1))
        for i, risk in enumerate(self._risks):
            factor = (1 - risk) / (1 - self.delta) if agreed else risk / self.delta
            self._wealth[i] = (self._wealth[i] + begins) * factor


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowSettings:
    share: float
    """Of finished certified requests that are checked, 0 to 1."""
    delta: float
    """The certificate's bound on the risk."""
    same_answer: SameAnswer


class ShadowChecks:
    """Which requests are run again, and what came of it. `is_active` is whether certified mode may still be used."""

    def __init__(self, settings: ShadowSettings, *, seed: int = 0) -> None:
        self._settings = settings
        self._random = random.Random(seed)
        self._monitor = RiskMonitor(settings.delta)
        self.num_running = 0
        self.is_active = True

    @property
    def num_checked(self) -> int:
        return self._monitor.num_checked

    @property
    def num_agreed(self) -> int:
        return self._monitor.num_agreed

    def picks(self) -> bool:
        """Whether the certified request that just finished is to be checked."""
        return self.is_active and self.num_running < MAX_SHADOWS and self._random.random() < self._settings.share

    def compare(self, certified_ids: list[int], full_ids: list[int]) -> None:
        """Count one check; a rejected bound switches certified mode off, and says so once."""
        self._monitor.record(agreed=self._settings.same_answer(certified_ids, full_ids))
        if self.is_active and self._monitor.is_alarmed:
            self.is_active = False
            log.warning(
                "certified exits are switched off: %d of %d shadow checks differ from full depth, more than the "
                "certified risk of %g allows; certified requests run lossless from now on",
                self.num_checked - self.num_agreed,
                self.num_checked,
                self._settings.delta,
            )
