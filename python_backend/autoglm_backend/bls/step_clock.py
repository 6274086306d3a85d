"""Takes the times of a request's steps, for those who ask for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from autoglm_protocol.steps import Step, Steps


class StepClock:
    """One request's clock, from now on. Steps may run in several threads."""

    def __init__(self) -> None:
        self._start_ns = time.time_ns()
        self._start_monotonic_ns = time.monotonic_ns()
        self._taken: list[StepNotes] = []

    def now_ns(self) -> int:
        # Wall time that nobody can set back meanwhile.
        return self._start_ns + time.monotonic_ns() - self._start_monotonic_ns

    def begin(self, name: str) -> StepNotes:
        notes = StepNotes(name, self.now_ns)
        self._taken.append(notes)
        return notes

    def finish(self) -> Steps:
        """A step that still runs ends now: the decoder's hands over its last event from within."""
        end_ns = self.now_ns()
        steps = tuple(notes.step(end_ns) for notes in sorted(self._taken, key=lambda notes: notes.start_ns))
        return Steps(start_ns=self._start_ns, end_ns=end_ns, steps=steps)


class StepNotes:
    """What a step says about itself while it runs."""

    def __init__(self, name: str, now_ns: Callable[[], int]) -> None:
        self.attributes: dict[str, str | int] = {}
        self.start_ns = now_ns()
        self._name = name
        self._now_ns = now_ns
        self._first_token_ns: int | None = None
        self._end_ns: int | None = None

    def saw_token(self) -> None:
        if self._first_token_ns is None:
            self._first_token_ns = self._now_ns()

    def end(self) -> None:
        self._end_ns = self._now_ns()

    def step(self, latest_ns: int) -> Step:
        return Step(
            name=self._name,
            start_ns=self.start_ns,
            end_ns=latest_ns if self._end_ns is None else self._end_ns,
            attributes=dict(self.attributes),
            first_token_ns=self._first_token_ns,
        )


@contextmanager
def timed(clock: StepClock | None, name: str) -> Generator[StepNotes, None, None]:
    """What runs inside is a step, also when it fails; without a clock the notes lead nowhere."""
    notes = StepNotes(name, time.monotonic_ns) if clock is None else clock.begin(name)
    try:
        yield notes
    finally:
        notes.end()
