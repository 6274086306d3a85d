"""Instructions that need no screen: direct commands and small talk."""

from __future__ import annotations

import random

from autoglm_training.world import tasks
from autoglm_training.world.copy_text import copy_text, simple_text
from autoglm_training.world.elements import Split
from autoglm_training.world.labels import APPS, names
from autoglm_training.world.language import LANGUAGES, Language
from autoglm_training.world.phrases import NUMBER_WORDS, phrase
from autoglm_training.world.sayings import answer, thought
from autoglm_training.world.tasks import Task

_WEIGHTS: dict[str, float] = {
    "launch": 0.26, "type": 0.2, "swipe_up": 0.045, "swipe_down": 0.04, "swipe_left": 0.03, "swipe_right": 0.03,
    "notifications": 0.015, "back": 0.06, "home": 0.06, "wait": 0.05, "wait_default": 0.015, "wait_minutes": 0.015,
    "stop": 0.02, "finish": 0.02, "danger": 0.025, "impossible": 0.025, "identity": 0.025, "ability": 0.015,
    "greeting": 0.025, "thanks": 0.01, "farewell": 0.008, "how_are_you": 0.01, "take_over": 0.012,
}  # fmt: skip
TEXT_FAMILIES: tuple[str, ...] = tuple(_WEIGHTS)
_TALK = ("stop", "finish", "danger", "impossible", "identity", "ability", "greeting", "thanks", "farewell",
         "how_are_you")  # fmt: skip
_LONG_WAITS_S = (12, 15, 20, 30, 45, 60)


def text_task(
    rng: random.Random,
    split: Split,
    *,
    family: str | None = None,
    language: Language | None = None,
    app: str | None = None,
) -> Task:
    """A task without a screen. `app` is the app in front; it is never the one to launch.

    Raises:
        ValueError: the family is unknown.
    """
    chosen = family or rng.choices(TEXT_FAMILIES, list(_WEIGHTS.values()))[0]
    if chosen not in _WEIGHTS:
        raise ValueError(f"family must be one of {TEXT_FAMILIES}, not {chosen!r}")
    tongue = language or rng.choice(LANGUAGES)
    front = app or "System Home"
    instruction, think, action, speakable = _compose(rng, chosen, tongue, split, front)
    return Task(
        family=chosen,
        language=tongue,
        instruction=instruction,
        think=think,
        action=action,
        speakable=speakable,
        app=front,
    )


def _compose(
    rng: random.Random, family: str, language: Language, split: Split, front: str
) -> tuple[str, str, str, bool]:
    if family == "launch":
        # The Chinese speaker also uses apps that only have a Latin name, and the English one sometimes a Chinese name.
        column = language if rng.random() < 0.95 else LANGUAGES[1 - LANGUAGES.index(language)]
        app = rng.choice([name for name in names(APPS, column) if name != front])
        sentence = phrase(rng, "launch", language, split, {"x": app})
        return sentence, thought("launch", language, x=app), tasks.launch(app), True
    if family == "type":
        spoken = rng.random() < 0.35
        text = simple_text(rng, language) if spoken else copy_text(rng, language)
        if any(mark in text for mark in "'\"“”「」"):
            text = simple_text(rng, language)
        sentence = phrase(rng, "type", language, split, {"x": text}, verbatim=frozenset("x"))
        return sentence, thought("type", language), tasks.type_text(text), spoken
    if family in ("wait", "wait_minutes"):
        return _waiting(rng, family, language, split)
    sentence = phrase(rng, family, language, split)
    think = thought(family, language)
    if family.startswith("swipe_"):
        return sentence, think, tasks.swipe(family[len("swipe_") :]), True
    if family in _TALK:
        return sentence, think, tasks.finish(answer(family, language)), True
    actions = {
        "back": tasks.BACK,
        "home": tasks.HOME,
        "notifications": tasks.swipe("notifications"),
        "wait_default": tasks.wait(2),
        "take_over": tasks.take_over(answer("take_over", language)),
    }
    return sentence, think, actions[family], True


def _waiting(rng: random.Random, family: str, language: Language, split: Split) -> tuple[str, str, str, bool]:
    minutes = family == "wait_minutes"
    count = rng.randint(2, 5) if minutes else rng.choice((*range(2, 11), *range(2, 6), *_LONG_WAITS_S))
    seconds = count * 60 if minutes else count
    words = NUMBER_WORDS[language]
    number = str(count)
    if count < len(words) and rng.random() < 0.35:
        number = "两" if language == "zh" and count == 2 else words[count]
    sentence = phrase(rng, family, language, split, {"n": number})
    return sentence, thought("wait", language, n=str(seconds)), tasks.wait(seconds), True
