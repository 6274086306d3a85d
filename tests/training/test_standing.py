"""What the elements of a screen are to one another, as tasks speak of it."""

from __future__ import annotations

import random

import pytest

from autoglm_training.screen_targets import draw_screen
from autoglm_training.world.elements import Screen
from autoglm_training.world.labels import label_vocabulary
from autoglm_training.world.positions import neighbours, positions
from autoglm_training.world.screens import make_screen
from autoglm_training.world.standing import FACT_CLASSES, Standing, standings


def screen(template: str, seed: int = 0) -> Screen:
    return make_screen(random.Random(seed), "train", template=template, language="en")


def by_label(shown: Screen) -> dict[str, Standing]:
    return {element.label: standing for element, standing in zip(shown.elements, standings(shown), strict=True)}


@pytest.mark.parametrize("seed", range(5))
def test_ranks_are_the_places_that_tasks_name(seed: int) -> None:
    shown = screen("settings", seed)
    found = by_label(shown)
    for name, element in positions(shown):
        if name == "the second switch":
            assert found[element.label].switch_rank == 2
        if name == "the third row":
            assert found[element.label].rank == 3


def test_things_in_a_grid_have_a_line_and_a_column() -> None:
    shown = screen("home")
    name, element = next((n, e) for n, e in positions(shown) if n == "the second app in the second row")
    standing = by_label(shown)[element.label]
    assert (standing.line, standing.column, standing.rank) == (2, 2, 0), name


def test_switches_tell_their_state() -> None:
    shown = screen("settings")
    found = by_label(shown)
    assert all(found[e.label].state == 1 + int(bool(e.on)) for e in shown.elements if e.kind == "switch")


@pytest.mark.parametrize("seed", range(5))
def test_neighbours_are_those_that_tasks_name(seed: int) -> None:
    shown, vocabulary = screen("settings", seed), label_vocabulary()
    found = by_label(shown)
    pairs = [(below, above) for side, below, above in neighbours(shown) if side == "above"]
    assert pairs
    assert all(vocabulary[found[below.label].above - 1] == above.label for below, above in pairs)


def test_a_dearer_thing_is_never_worth_less() -> None:
    shown = screen("shop", 3)
    priced = sorted((e.price, by_label(shown)[e.label].worth) for e in shown.elements if e.price is not None)
    assert len(priced) > 2
    worths = [worth for _, worth in priced]
    assert worths == sorted(worths)


def test_a_higher_bar_is_never_worth_less() -> None:
    shown = screen("chart")
    bars = sorted(
        (e.box_px[3] - e.box_px[1], by_label(shown)[e.label].worth) for e in shown.elements if e.kind == "bar"
    )
    worths = [worth for _, worth in bars]
    assert len(set(worths)) > 1
    assert worths == sorted(worths)


@pytest.mark.parametrize("template", ["shop", "chart"])
def test_the_least_and_the_most_of_what_is_compared_are_told(template: str) -> None:
    shown = screen(template, 3)
    found = {standing.extreme: label for label, standing in by_label(shown).items() if standing.extreme in (1, 2)}
    compared = [e for e in shown.elements if e.price is not None or e.kind == "bar"]
    ordered = sorted(compared, key=lambda e: e.price if e.price is not None else e.box_px[3] - e.box_px[1])
    assert found == {1: ordered[0].label, 2: ordered[-1].label}


def test_a_pictures_tokens_have_the_standing_of_the_element_under_them() -> None:
    sample = draw_screen(random.Random(4), "train")
    found = standings(sample.screen)
    told = {tuple(facts) for facts in sample.facts_RCF.reshape(-1, sample.facts_RCF.shape[-1]).tolist()}
    assert told <= {standing.facts() for standing in found} | {(0,) * len(FACT_CLASSES)}
    assert len(told) > 2


def test_tokens_that_do_not_show_their_elements_label_are_taught_it() -> None:
    sample = draw_screen(random.Random(4), "train", template="shop")
    own_RC = sample.names_RC3[..., 2]
    labels = {label_vocabulary()[index - 1] for index in set(own_RC.ravel().tolist()) - {0}}
    assert labels & {e.label for e in sample.screen.elements if e.kind == "card"}
    assert not (own_RC[sample.word_token_ids > 0]).any(), "these are taught what they show"


def test_a_bars_element_holds_its_day_and_its_tap_box_does_not() -> None:
    shown = screen("chart")
    bars = [e for e in shown.elements if e.kind == "bar"]
    assert bars
    assert all(e.box_px[3] > e.tap_box_px[3] and e.box_px[:3] == e.tap_box_px[:3] for e in bars)
