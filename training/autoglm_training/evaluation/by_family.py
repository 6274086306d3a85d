"""A fixed number of each kind of task that a natural mix holds few of, each on a screen of its own."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from autoglm_training.evaluation.held_out import Sample, look, screen_sample
from autoglm_training.loading import LoadedCheckpoint
from autoglm_training.samples import RowBuilder
from autoglm_training.world.comparison_tasks import chart, compare_prices, state_question, switch, value_question
from autoglm_training.world.elements import Screen, Split
from autoglm_training.world.instructions import Task
from autoglm_training.world.screen_tasks import tap_neighbour, tap_position
from autoglm_training.world.screens import make_screen

BY_FAMILY = "screen, by family"
"""Its rows' modality."""
TRIES = 2000

Maker = Callable[[random.Random, Screen, Split], "Task | None"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """templates: where such tasks are found, empty for all; family: of the tasks that `make` may return, the one.

    cheapest: whether the target must be the cheapest thing (True) or the most expensive (False).
    """

    name: str
    make: Maker
    family: str
    templates: tuple[str, ...] = ()
    cheapest: bool | None = None

    def fits(self, screen: Screen, task: Task) -> bool:
        if task.family != self.family or self.cheapest is None:
            return task.family == self.family
        priced = sorted((e for e in screen.elements if e.price is not None), key=lambda e: e.price or 0.0)
        return task.named[0][0] == priced[0 if self.cheapest else -1].label


PRICED, SWITCHED = ("shop", "results"), ("settings", "alarms")
_RELATIONAL = (
    Part(name="neighbours", make=tap_neighbour, family="tap_relation"),
    Part(name="tap the cheapest", make=compare_prices, family="tap_relation", templates=PRICED, cheapest=True),
    Part(name="tap the dearest", make=compare_prices, family="tap_relation", templates=PRICED, cheapest=False),
    Part(name="which is cheapest", make=compare_prices, family="cheapest_ask", templates=PRICED),
    Part(name="tap a chart's bar", make=chart, family="chart", templates=("chart",)),
    Part(name="ask about a chart", make=chart, family="chart_ask", templates=("chart",)),
)
RELATIONAL = tuple(part.name for part in _RELATIONAL)
"""The parts of the aim "relational and chart tasks"."""
PARTS = (
    *_RELATIONAL,
    Part(name="positions", make=tap_position, family="tap_position"),
    Part(name="prices", make=value_question, family="price", templates=PRICED),
    Part(name="distances", make=value_question, family="distance", templates=("results",)),
    Part(name="switches to turn", make=switch, family="switch", templates=SWITCHED),
    Part(name="switches already so", make=switch, family="switch_done", templates=SWITCHED),
    Part(name="is it on", make=state_question, family="state", templates=SWITCHED),
)


def family_samples(
    builder: RowBuilder,
    loaded: LoadedCheckpoint,
    rng: random.Random,
    count: int,
    split: Split = "test",
    parts: Sequence[Part] = PARTS,
) -> list[Sample]:
    """`count` samples of every part, whose name is their family; no two share a screen.

    Raises:
        ValueError: the world has not enough screens for a part.
    """
    samples: list[Sample] = []
    for part in parts:
        for _ in range(count):
            screen, task = _found(part, rng, split)
            sample = screen_sample(builder, rng, task, look(loaded, screen), BY_FAMILY)
            samples.append(replace(sample, task=replace(task, family=part.name)))
    return samples


def _found(part: Part, rng: random.Random, split: Split) -> tuple[Screen, Task]:
    for _ in range(TRIES):
        screen = make_screen(rng, split, template=rng.choice(part.templates) if part.templates else None)
        task = part.make(rng, screen, split)
        if task is not None and part.fits(screen, task):
            return screen, task
    raise ValueError(f"no task of {part.name!r} on {TRIES} screens")
