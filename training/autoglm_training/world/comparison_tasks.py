"""Tasks that need something read or compared first: states, prices, bars. Also the helpers all screen tasks share."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from autoglm_training.world import tasks
from autoglm_training.world.elements import Element, PixelBox, Screen, Split
from autoglm_training.world.labels import DAY_NAMES_EN
from autoglm_training.world.phrases import phrase
from autoglm_training.world.positions import noun
from autoglm_training.world.sayings import answer, thought
from autoglm_training.world.tasks import Task


def unique(screen: Screen, kinds: Sequence[str]) -> list[Element]:
    """Elements of these kinds whose label occurs once, whatever its case."""
    counts = Counter(element.label.lower() for element in screen.elements)
    return [e for e in screen.elements if e.kind in kinds and counts[e.label.lower()] == 1]


def tap_task(
    screen: Screen,
    family: str,
    sentence: str,
    think: str,
    target: Element,
    verb: str = "Tap",
    speakable: bool = True,
    named: Sequence[tuple[str, Element]] = (),
) -> Task:
    """A tap on `target`; `named` is what the thought names, the target's label unless told."""
    return Task(
        family=family,
        language=screen.language,
        instruction=sentence,
        think=think,
        action=tasks.tap(screen.point_999(target), verb),
        target_box=screen.box_999(target.tap_box_px),
        named=_boxes(screen, named or ((target.label, target),)),
        speakable=speakable,
        app=screen.app,
    )


def answer_task(
    screen: Screen, family: str, sentence: str, think: str, message: str, told_by: Element | None = None
) -> Task:
    """An answer; `told_by` is the element that it is read from and that the thought names."""
    return Task(
        family=family,
        language=screen.language,
        instruction=sentence,
        think=think,
        action=tasks.finish(message),
        named=_boxes(screen, ((told_by.label, told_by),)) if told_by is not None else (),
        app=screen.app,
    )


def _boxes(screen: Screen, named: Sequence[tuple[str, Element]]) -> tuple[tuple[str, PixelBox], ...]:
    return tuple((text, screen.box_999(element.box_px)) for text, element in named)


def switch(rng: random.Random, screen: Screen, split: Split) -> Task | None:
    """Turn a switch on or off; where it already is, say so."""
    pool = unique(screen, ("switch",))
    if not pool:
        return None
    target = rng.choice(pool)
    tongue = screen.language
    label = target.label
    alarm = screen.template == "alarms"
    if not alarm and rng.random() < 0.12:
        sentence = phrase(rng, "toggle", tongue, split, {"x": label})
        return tap_task(screen, "switch", sentence, thought("toggle", tongue, x=label), target)
    wanted = target.on if rng.random() < 0.25 else not target.on
    state = "on" if wanted else "off"
    sentence = phrase(rng, f"alarm_{state}" if alarm else f"switch_{state}", tongue, split, {"x": label})
    if wanted == target.on:
        think, message = thought(f"is_{state}", tongue, x=label), answer(f"is_{state}", tongue, x=label)
        return answer_task(screen, "switch_done", sentence, think, message, target)
    return tap_task(screen, "switch", sentence, thought(f"switch_{state}", tongue, x=label), target)


def state_question(rng: random.Random, screen: Screen, split: Split) -> Task | None:
    """Whether a switch is on."""
    pool = unique(screen, ("switch",))
    if not pool:
        return None
    target = rng.choice(pool)
    tongue = screen.language
    sentence = phrase(rng, "state_ask", tongue, split, {"x": target.label})
    think = thought("is_on" if target.on else "is_off", tongue, x=target.label)
    message = answer("yes_on" if target.on else "no_off", tongue, x=target.label)
    return answer_task(screen, "state", sentence, think, message, target)


def compare_prices(rng: random.Random, screen: Screen, split: Split) -> Task | None:
    """The cheapest or the most expensive thing: tap it or name it."""
    priced = [e for e in screen.elements if e.price is not None]
    if len(priced) < 2:
        return None
    tongue = screen.language
    kind = noun(priced[0], tongue)
    by_price = sorted(priced, key=lambda e: e.price or 0.0)
    roll = rng.random()
    if roll < 0.2:
        target = by_price[0]
        sentence = phrase(rng, "cheapest_ask", tongue, split, {"k": kind})
        message = answer("cheapest", tongue, x=target.label, v=target.value or "")
        return answer_task(
            screen, "cheapest_ask", sentence, thought("cheapest", tongue, x=target.label), message, target
        )
    family, target = ("cheapest", by_price[0]) if roll < 0.65 else ("dearest", by_price[-1])
    sentence = phrase(rng, family, tongue, split, {"k": kind})
    return tap_task(screen, "tap_relation", sentence, thought(family, tongue, x=target.label), target)


def value_question(rng: random.Random, screen: Screen, split: Split) -> Task | None:
    """How much something costs or how far it is."""
    distances = ("km", "公里")
    pool = [e for e in unique(screen, ("card",)) if e.price is not None or (e.value or "").endswith(distances)]
    if not pool:
        return None
    target = rng.choice(pool)
    tongue = screen.language
    family = "price" if target.price is not None else "distance"
    slots = {"x": target.label, "v": target.value or ""}
    sentence = phrase(rng, f"{family}_ask", tongue, split, {"x": target.label})
    think, message = thought(family, tongue, **slots), answer(family, tongue, **slots)
    return answer_task(screen, family, sentence, think, message, target)


def chart(rng: random.Random, screen: Screen, split: Split) -> Task | None:
    """The tallest or lowest bar of a chart: tap it or name its day."""
    bars = [e for e in screen.elements if e.kind == "bar"]
    if not bars:
        return None
    tongue = screen.language
    by_height = sorted(bars, key=lambda e: e.height_px)
    family = rng.choice(("tallest", "lowest"))
    target = by_height[-1] if family == "tallest" else by_height[0]
    think = thought(family, tongue, x=target.label)
    if rng.random() < 0.5:
        return tap_task(screen, "chart", phrase(rng, f"{family}_tap", tongue, split), think, target)
    message = DAY_NAMES_EN.get(target.label, target.label)
    return answer_task(screen, "chart_ask", phrase(rng, f"{family}_ask", tongue, split), think, message, target)


def app_question(rng: random.Random, screen: Screen, split: Split) -> Task | None:
    """Which app is in front."""
    tongue = screen.language
    sentence = phrase(rng, "app_ask", tongue, split)
    return answer_task(
        screen, "app", sentence, thought("app", tongue, x=screen.app), answer("app", tongue, x=screen.app)
    )
