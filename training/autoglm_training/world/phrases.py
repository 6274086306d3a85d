"""Chooses a wording: the validation and the test split have wordings of their own, which training never sees."""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Iterable
from functools import cache

from autoglm_training.world import (
    phrases_daily_en,
    phrases_daily_zh,
    phrases_en,
    phrases_more_en,
    phrases_more_zh,
    phrases_screen_en,
    phrases_screen_zh,
    phrases_zh,
)
from autoglm_training.world.elements import Split
from autoglm_training.world.language import Language
from autoglm_training.world.phrases_combined import MORE_FRAMES, combined

TEST_SHARE = 0.15
VALIDATION_SHARE = 0.08
COMBINED_SHARE = 0.4
"""Train sentences put together from parts, where a family has them; the others were written one by one."""
_MARKS = str.maketrans("", "", "~.!?,。！？， ")
_CORES = {"en": phrases_en.CORES, "zh": phrases_zh.CORES}
_MORE = {"en": phrases_more_en.MORE_CORES, "zh": phrases_more_zh.MORE_CORES}
# Only training says these; `_MORE` also lends some to validation.
_DAILY = {
    "en": phrases_daily_en.DAILY_CORES | phrases_screen_en.SCREEN_CORES,
    "zh": phrases_daily_zh.DAILY_CORES | phrases_screen_zh.SCREEN_CORES,
}
_FRAMES = {"en": phrases_en.FRAMES, "zh": phrases_zh.FRAMES}
ICON_NAMES = {"en": phrases_en.ICON_NAMES, "zh": phrases_zh.ICON_NAMES}
ORDINALS = {"en": phrases_en.ORDINALS, "zh": phrases_zh.ORDINALS}
NUMBER_WORDS = {"en": phrases_en.NUMBER_WORDS, "zh": phrases_zh.NUMBER_WORDS}


def families() -> tuple[str, ...]:
    """Names of every wording family."""
    return tuple(_CORES["en"])


@cache
def wordings(family: str, language: Language, split: Split) -> tuple[str, ...]:
    """The wordings a split may use. About 15 % of each family,
    chosen by hash among the less common ones, belong to the test split alone, and some 8 % to validation.

    Raises:
        ValueError: no such family.
    """
    if family not in _CORES[language]:
        raise ValueError(f"no wordings for family {family!r} in {language}")
    cores = _CORES[language][family]
    common = _common(language)
    rare = _by_hash(core for core in cores if core not in common)
    num_tested = max(1, math.ceil(TEST_SHARE * len(cores)))
    if split == "test":
        return tuple(rare[:num_tested])
    if split == "validation":
        later = _by_hash(core for core in _MORE[language].get(family, ()) if core not in common and core not in rare)
        return tuple([*rare[num_tested:], *later][: max(1, math.ceil(VALIDATION_SHARE * len(cores)))])
    return tuple(dict.fromkeys(_written(family, language) + _combined(family, language)))


def _by_hash(cores: Iterable[str]) -> list[str]:
    return sorted(cores, key=lambda core: zlib.crc32(core.encode()))


@cache
def _written(family: str, language: Language) -> tuple[str, ...]:
    cores = _CORES[language][family] + _MORE[language].get(family, ()) + _DAILY[language].get(family, ())
    return tuple(core for core in dict.fromkeys(cores) if _bare(core) not in _held_bare(language, "train"))


@cache
def _combined(family: str, language: Language) -> tuple[str, ...]:
    """Sentences from parts for training, none of them a sentence of another split in other punctuation."""
    return tuple(core for core in combined(family, language) if _bare(core) not in _held_bare(language, "train"))


@cache
def _held_bare(language: Language, split: Split) -> frozenset[str]:
    """What the split must never say, whichever family holds it: the wordings of those that judge it."""
    judges: tuple[Split, ...] = {"train": ("validation", "test"), "validation": ("test",), "test": ()}[split]
    judging = [core for judge in judges for family in _CORES[language] for core in wordings(family, language, judge)]
    return frozenset(_bare(core) for core in judging)


def _bare(core: str) -> str:
    return core.lower().translate(_MARKS)


@cache
def _common(language: Language) -> frozenset[str]:
    """Wordings everyone uses (the first third of a family) or that two families share: never held out."""
    seen: set[str] = set()
    kept: set[str] = set()
    for cores in _CORES[language].values():
        kept.update(cores[: max(1, len(cores) // 3)])
        kept.update(core for core in cores if core in seen)
        seen.update(cores)
    return frozenset(kept)


def phrase(
    rng: random.Random, family: str, language: Language, split: Split, slots: dict[str, str] | None = None,
    *, verbatim: frozenset[str] = frozenset(),
) -> str:  # fmt: skip
    """One user sentence; `slots` fill the braces. Slots named in `verbatim` keep their letter case."""
    core, frames = _drawn(rng, family, language, split)
    if core.startswith("~"):
        sentence = core[1:]
    else:
        frame = rng.choice(frames)
        if language == "zh" and core.endswith(("}", "：")) and frame.startswith("{c}") and len(frame) > 3:
            frame = "{c}"
        if ": {" in core or "：{" in core:
            # Text after a colon runs to the end of the sentence.
            frame = frame if frame.endswith("{c}") else "{c}"
        sentence = frame.replace("{c}", core)
        if _bare(sentence) in _held_bare(language, split):
            sentence = core
    values = dict(slots or {})
    if language == "en":
        sentence, values = _cased(rng, sentence, values, verbatim)
    open_ended = ": {" in sentence or "：{" in sentence or (sentence.endswith("{x}") and "x" in verbatim)
    for name, value in values.items():
        sentence = sentence.replace("{" + name + "}", value)
    return sentence if open_ended else _punctuated(rng, sentence, language)


def _drawn(rng: random.Random, family: str, language: Language, split: Split) -> tuple[str, tuple[str, ...]]:
    """A wording, and the polite frames that it may stand in."""
    if split != "train":
        return rng.choice(wordings(family, language, split)), _FRAMES[language]
    combined_here = _combined(family, language)
    from_parts = bool(combined_here) and rng.random() < COMBINED_SHARE
    frames = _FRAMES[language] if rng.random() < 0.7 else MORE_FRAMES[language]
    return rng.choice(combined_here if from_parts else _written(family, language)), frames


def _cased(
    rng: random.Random, sentence: str, values: dict[str, str], verbatim: frozenset[str]
) -> tuple[str, dict[str, str]]:
    kind = rng.random()
    if kind < 0.55:
        return sentence[:1].upper() + sentence[1:] if not sentence.startswith("{") else sentence, values
    if kind < 0.78:
        return sentence, values
    change = str.lower if kind < 0.94 else str.upper
    out: list[str] = []
    rest = sentence
    # Slot names stay as they are; only the words around them change.
    while "{" in rest:
        before, _, rest = rest.partition("{")
        name, _, rest = rest.partition("}")
        out += [change(before), "{" + name + "}"]
    out.append(change(rest))
    return "".join(out), {name: value if name in verbatim else change(value) for name, value in values.items()}


def _punctuated(rng: random.Random, sentence: str, language: Language) -> str:
    end, marks = ("。", ("。", "！")) if language == "zh" else (".", (".", "!"))
    if sentence.endswith(("?", "？")):
        return sentence[:-1] if rng.random() < 0.25 else sentence
    if sentence.endswith((".", "!", "。", "！")):
        return sentence
    kind = rng.random()
    if kind < 0.55:
        return sentence
    return sentence + (end if kind < 0.93 else marks[1])
