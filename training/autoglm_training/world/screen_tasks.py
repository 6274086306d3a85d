"""Instructions about a screen: what to tap by label, picture, place or comparison, and what to answer from it."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable

from autoglm_training.world import tasks
from autoglm_training.world.comparison_tasks import (
    app_question,
    chart,
    compare_prices,
    state_question,
    switch,
    tap_task,
    unique,
    value_question,
)
from autoglm_training.world.copy_text import simple_text
from autoglm_training.world.elements import Screen, Split
from autoglm_training.world.labels import APPS, CONTACTS, PAGES, PLACES, PRODUCTS, SONGS, TOGGLES, Pairs, names
from autoglm_training.world.language import Language
from autoglm_training.world.phrases import ICON_NAMES, phrase
from autoglm_training.world.positions import neighbours, noun, place_beside, positions
from autoglm_training.world.sayings import thought
from autoglm_training.world.tasks import Task
from autoglm_training.world.text_tasks import text_task

Maker = Callable[[random.Random, Screen, Split], "Task | None"]
# What the list of a template holds; only lists can be scrolled for more.
_SCROLLS: dict[str, Pairs] = {
    "settings": TOGGLES + PAGES, "chats": CONTACTS, "shop": PRODUCTS, "results": PRODUCTS + PLACES + SONGS,
}  # fmt: skip
PLACE_AS_NAME_SHARE = 0.5
_TWO_ARTICLES = re.compile(r"\b(the) the\b", re.IGNORECASE)
_CLICKABLE = ("icon", "button", "switch", "tab", "field", "row", "key", "card", "bar")


def screen_tasks(rng: random.Random, screen: Screen, split: Split, count: int, *, practice: bool = False) -> list[Task]:
    """`count` tasks about the screen, different where it offers enough; some are direct commands.

    practice: more of what has to be counted, compared or looked up, as training wants it; else the natural mix.
    """
    found: list[Task] = []
    seen: set[tuple[str, str]] = set()
    makers, weights = _makers_for(screen, practice)
    for _ in range(count * 12):
        if len(found) == count:
            return found
        task = rng.choices(makers, weights)[0](rng, screen, split)
        if task is None or (task.family, task.action) in seen:
            continue
        seen.add((task.family, task.action))
        found.append(task)
    while len(found) < count:
        found.append(text_task(rng, split, language=screen.language, app=screen.app))
    return found


def _makers_for(screen: Screen, practice: bool) -> tuple[list[Maker], list[float]]:
    kinds = Counter(element.kind for element in screen.elements)
    priced = sum(element.price is not None for element in screen.elements)
    field_shown = kinds["field"] > 0
    # (maker, whether the screen offers it, weight in the natural mix and in practice)
    table: list[tuple[Maker, bool, float, float]] = [
        (tap_label, True, 3.0, 2.0),
        (tap_icon, any(element.icon for element in screen.elements), 1.6, 1.0),
        (tap_position, True, 1.6, 4.0),
        (tap_neighbour, True, 0.9, 3.0),
        (switch, kinds["switch"] > 0, 3.0, 5.0),
        (state_question, kinds["switch"] > 0, 1.6, 2.0),
        (compare_prices, priced > 1, 2.6, 6.0),
        (value_question, screen.template in ("shop", "results"), 1.4, 1.0),
        (chart, kinds["bar"] > 0, 4.0, 6.0),
        (gesture, True, 0.9, 0.9),
        (field, field_shown, 0.9, 0.9),
        (search, field_shown and screen.template in ("shop", "results", "keyboard", "map"), 1.0, 0.7),
        (scroll_find, screen.template in _SCROLLS, 1.0, 1.0),
        (app_question, True, 0.2, 0.2),
        (direct, True, 1.4, 0.7),
    ]
    usable = [(maker, practised if practice else natural) for maker, offered, natural, practised in table if offered]
    return [maker for maker, _ in usable], [weight for _, weight in usable]


def tap_label(rng: random.Random, screen: Screen, split: Split) -> Task | None:
    """Tap, open or press something by the text on it."""
    textual = [e for e in unique(screen, _CLICKABLE) if e.label != e.icon]
    keys = [e for e in textual if e.kind == "key"]
    others = [e for e in textual if e.kind != "key"]
    pool = others if others and (not keys or rng.random() < 0.65) else keys
    if not pool:
        return None
    target = rng.choice(pool)
    tongue = screen.language
    label = target.label
    apps = names(APPS, tongue)
    family = "tap"
    if target.kind == "tab" and rng.random() < 0.7:
        family = "tab"
    elif target.kind == "button":
        family = "button"
    elif target.kind == "field":
        family = "field"
    elif target.kind == "row" and target.value is not None and screen.template == "chats" and rng.random() < 0.7:
        family = "chat_row"
    elif target.kind in ("row", "card") and label not in apps and rng.random() < 0.5:
        family = "open_row"
    verbatim = frozenset("x") if target.kind == "key" else frozenset()
    sentence = phrase(rng, family, tongue, split, {"x": label}, verbatim=verbatim)
    return tap_task(
        screen, "tap_label", sentence, thought("tap", tongue, x=label), target, speakable=target.kind != "key"
    )


def tap_icon(rng: random.Random, screen: Screen, split: Split) -> Task | None:
    """Tap a pictogram by what it shows."""
    counts = Counter(element.icon for element in screen.elements)
    called = ICON_NAMES[screen.language]
    pool = [e for e in screen.elements if e.icon in called and counts[e.icon] == 1]
    if not pool:
        return None
    target = rng.choice(pool)
    assert target.icon is not None
    name = rng.choice(called[target.icon])
    sentence = phrase(rng, "icon", screen.language, split, {"x": name})
    canonical = called[target.icon][0]
    think = thought("icon", screen.language, x=canonical)
    return tap_task(screen, "tap_icon", sentence, think, target, named=((canonical, target),))


def tap_position(rng: random.Random, screen: Screen, split: Split) -> Task | None:
    """Tap the n-th thing of its kind."""
    pool = positions(screen)
    if not pool:
        return None
    name, target = rng.choice(pool)
    tongue = screen.language
    sentence = _tap_place(rng, "position", tongue, split, {"x": name}, name)
    shown = name[:1].upper() + name[1:]
    return tap_task(screen, "tap_position", sentence, thought("position", tongue, p=shown, x=target.label), target)


def tap_neighbour(rng: random.Random, screen: Screen, split: Split) -> Task | None:
    """Tap what is above, below, left or right of something."""
    clear = {e.label for e in unique(screen, ("row", "switch", "card", "icon"))}
    pool = [n for n in neighbours(screen) if n[1].label in clear and n[2].label in clear]
    if not pool:
        return None
    side, anchor, target = rng.choice(pool)
    tongue = screen.language
    kind = noun(target, tongue)
    place = place_beside(rng, side, anchor.label, kind, tongue)
    sentence = _tap_place(rng, side, tongue, split, {"x": anchor.label, "k": kind}, place)
    think = thought(side, tongue, y=anchor.label, x=target.label)
    named = ((anchor.label, anchor), (target.label, target))
    return tap_task(screen, "tap_relation", sentence, think, target, named=named)


def _tap_place(
    rng: random.Random, family: str, language: Language, split: Split, slots: dict[str, str], place: str
) -> str:
    """A wording of the family; in training often one of "tap" with the place for a name, so that places are learnt
    apart from the sentences that they stand in."""
    if split == "train" and rng.random() < PLACE_AS_NAME_SHARE:
        return _TWO_ARTICLES.sub(r"\1", phrase(rng, "tap", language, split, {"x": place}))
    return phrase(rng, family, language, split, slots)


def gesture(rng: random.Random, screen: Screen, split: Split) -> Task | None:
    """Long press or double tap."""
    pool = unique(screen, ("icon", "row", "card", "switch")) + [e for e in screen.elements if e.group == "bubbles"]
    pool = [e for e in pool if e.label != e.icon]
    counts = Counter(e.label for e in pool)
    pool = [e for e in pool if counts[e.label] == 1]
    if not pool:
        return None
    target = rng.choice(pool)
    tongue = screen.language
    family, verb = rng.choice((("long_press", "Long Press"), ("double_tap", "Double Tap")))
    slot = target.label
    if target.group == "bubbles":
        slot = f"消息“{slot}”" if tongue == "zh" else f'the message "{slot}"'
    sentence = phrase(rng, family, tongue, split, {"x": slot})
    think = thought(family, tongue, x=target.label)
    return tap_task(screen, family, sentence, think, target, verb, speakable=target.group != "bubbles")


def field(rng: random.Random, screen: Screen, split: Split) -> Task | None:
    """Fill in a field: it has to be tapped first, unless the keyboard is up."""
    pool = [e for e in unique(screen, ("field",)) if e.value is None]
    if not pool:
        return None
    target = rng.choice(pool)
    tongue = screen.language
    text = simple_text(rng, tongue)
    slots = {"x": target.label, "t": text}
    sentence = phrase(rng, "field_type", tongue, split, slots, verbatim=frozenset("t"))
    if screen.template == "keyboard":
        return _type_task(screen, sentence, text)
    return tap_task(screen, "field", sentence, thought("field", tongue, x=target.label), target, speakable=False)


def _type_task(screen: Screen, sentence: str, text: str) -> Task:
    return Task(
        family="type_field",
        language=screen.language,
        instruction=sentence,
        think=thought("type", screen.language),
        action=tasks.type_text(text),
        speakable=False,
        app=screen.app,
    )


def search(rng: random.Random, screen: Screen, split: Split) -> Task | None:
    """Search for something that is not on the screen."""
    pool = [e for e in unique(screen, ("field",)) if e.value is None]
    if len(pool) != 1:
        return None
    tongue = screen.language
    shown = {element.label for element in screen.elements}
    text = rng.choice(names(PLACES if screen.template == "map" else PRODUCTS, tongue))
    if rng.random() < 0.4:
        text = simple_text(rng, tongue)
    if text in shown:
        return None
    sentence = phrase(rng, "search", tongue, split, {"t": text}, verbatim=frozenset("t"))
    if screen.template == "keyboard":
        return _type_task(screen, sentence, text)
    return tap_task(screen, "search", sentence, thought("field", tongue, x=pool[0].label), pool[0])


def scroll_find(rng: random.Random, screen: Screen, split: Split) -> Task | None:
    """Something the list may hold further down: swipe up to look for it."""
    if screen.template not in _SCROLLS:
        return None
    tongue = screen.language
    shown = {element.label for element in screen.elements}
    label = rng.choice(names(_SCROLLS[screen.template], tongue))
    if label in shown:
        return None
    family = "scroll_find"
    if label in names(TOGGLES, tongue) and rng.random() < 0.5:
        family = rng.choice(("switch_on", "switch_off"))
    sentence = phrase(rng, family, tongue, split, {"x": label})
    return Task(
        family="scroll_find",
        language=tongue,
        instruction=sentence,
        think=thought("scroll_find", tongue, x=label),
        action=tasks.swipe("up"),
        app=screen.app,
    )


def direct(rng: random.Random, screen: Screen, split: Split) -> Task | None:
    """A command that does not depend on the screen, given with it in view."""
    return text_task(rng, split, language=screen.language, app=screen.app)
