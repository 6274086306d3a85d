"""How the elements of a screen stand to one another: which of its kind each is, what it lies next to, what it is worth.

What "the second switch", "the one below Alarm" and "the cheapest" are about. A picture's tokens can be taught each of
these facts directly. All but worth and extreme can be told from what is above and to the left; those take the vision
tower, which sees the whole screen at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from autoglm_training.world.elements import Element, Screen
from autoglm_training.world.labels import label_ids
from autoglm_training.world.numbers import NUMBER_CLASSES, number_class
from autoglm_training.world.positions import GRID_GROUPS, SWITCH_NOUN, counted, neighbours, rows_of

MAX_RANK = 10
NUM_NAMES = 3
"""Labels that a token is taught: the neighbour's above, the neighbour's to the left, and its own element's."""
FACT_CLASSES = (MAX_RANK, MAX_RANK, MAX_RANK, MAX_RANK, 2, NUMBER_CLASSES, 3)
"""Classes of each fact of `Standing.facts`, none of them counted."""


@dataclass(slots=True)
class Standing:
    """Facts of one element, each from 1 on and 0 where it has none.

    rank: place in its list; switch_rank: place among the switches; line, column: place in its grid; state: off or on;
    worth: price on a scale of octaves, or a bar's height; extreme: least, most or neither worth of those that have one;
    above, left, own: index + 1 in `label_vocabulary()` of its neighbours' labels and its own
    """

    rank: int = 0
    switch_rank: int = 0
    line: int = 0
    column: int = 0
    state: int = 0
    worth: int = 0
    extreme: int = 0
    above: int = 0
    left: int = 0
    own: int = 0

    def facts(self) -> tuple[int, ...]:
        """The classes, in the order of `FACT_CLASSES`."""
        return self.rank, self.switch_rank, self.line, self.column, self.state, self.worth, self.extreme


def standings(screen: Screen) -> list[Standing]:
    """One for each element of the screen, in order."""
    found = {id(element): Standing() for element in screen.elements}
    for pair, members in counted(screen):
        lines = rows_of(members)
        if members[0].group in GRID_GROUPS and len(lines[0]) > 1:
            for line, elements in enumerate(lines, start=1):
                for column, element in enumerate(elements, start=1):
                    found[id(element)].line, found[id(element)].column = _rank(line), _rank(column)
            continue
        for rank, element in enumerate(members, start=1):
            if pair == SWITCH_NOUN:
                found[id(element)].switch_rank = _rank(rank)
            else:
                found[id(element)].rank = _rank(rank)
    labels = label_ids()
    for side, anchor, target in neighbours(screen):
        if side == "above":
            found[id(anchor)].above = labels.get(target.label, -1) + 1
        elif side == "left_of":
            found[id(anchor)].left = labels.get(target.label, -1) + 1
    for element in screen.elements:
        standing = found[id(element)]
        standing.own = labels.get(element.label, -1) + 1
        standing.state = 0 if element.on is None else 1 + int(element.on)
        standing.worth = _worth(screen, element)
    _set_extremes(screen, found)
    return list(found.values())


def _set_extremes(screen: Screen, found: dict[int, Standing]) -> None:
    compared = [element for element in screen.elements if _height_or_price(element) is not None]
    if len(compared) < 2:
        return
    ordered = sorted(compared, key=lambda element: _height_or_price(element) or 0.0)
    for element in ordered:
        found[id(element)].extreme = 3
    found[id(ordered[0])].extreme, found[id(ordered[-1])].extreme = 1, 2


def _height_or_price(element: Element) -> float | None:
    return element.height_px if element.kind == "bar" else element.price


def _rank(place: int) -> int:
    return place if place <= MAX_RANK else 0


def _worth(screen: Screen, element: Element) -> int:
    if element.price is not None:
        return number_class(element.price)
    if element.kind == "bar":
        return min(NUMBER_CLASSES, 1 + round(2 * NUMBER_CLASSES * element.height_px / screen.height_px))
    return 0
