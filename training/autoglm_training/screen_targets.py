"""Screens as the ViT sees them, with dense ground truth per merged token."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from autoglm_training.world.elements import Element, Screen, Split
from autoglm_training.world.episodes import Episode, make_episode
from autoglm_training.world.grids import TOKEN_PX
from autoglm_training.world.phrases_en import ICON_NAMES
from autoglm_training.world.screens import build_screen, make_scene, render
from autoglm_training.world.standing import standings
from autoglm_training.world.tasks import Task

KINDS = ("icon", "button", "switch", "tab", "field", "row", "key", "card", "bar", "text", "slider")
ICONS = tuple(ICON_NAMES)
COMPARED_TEMPLATES = ("shop", "shop", "results", "chart")
"""Those whose screens hold prices or bars, to practise what only these can teach."""
MIN_OVERLAP_PX2 = 0.2 * TOKEN_PX * TOKEN_PX
# Screenshots come at phone resolution and are scaled down; screens drawn at size 1 look crisper than those.
PHONE_SCALE_SHARE = 0.6
PHONE_SCALES = (1.5, 2.0, 2.57, 27 / 7)


SpokenTask = tuple[Task, tuple[int, ...]]
"""A task, and the token ids that the speech encoder heard of its instruction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScreenSample:
    """One screen. Grids are [rows, columns] of merged tokens unless named otherwise; 0 is "none" in class grids.

    centres_RC2: centre of the tap box of the element under the token, in 0..1 of the screen; NaN where there is none.
    facts_RCF, names_RC3: the element's `Standing`: its facts, and the labels above it, left of it and
    its own (`_after_its_label`).
    turn: the episode that the screen is part of, and which of its steps it waits for; None for a screen of its own.
    spoken: tasks about it that were said aloud.
    """

    screen: Screen
    image_HW3: np.ndarray
    char_patch_ids: np.ndarray
    word_token_ids: np.ndarray
    number_token_ids: np.ndarray
    kinds_RC: np.ndarray
    states_RC: np.ndarray
    icons_RC: np.ndarray
    centres_RC2: np.ndarray
    facts_RCF: np.ndarray
    names_RC3: np.ndarray
    turn: tuple[Episode, int] | None = None
    spoken: tuple[SpokenTask, ...] = ()


def draw_screen(
    rng: random.Random, split: Split, size_px: tuple[int, int] | None = None, template: str | None = None
) -> ScreenSample:
    """A fresh screen, sometimes drawn at phone resolution and scaled down as the server does it."""
    scene = make_scene(rng, split, template=template)
    if size_px is not None:
        scene = replace(scene, width_px=size_px[0], height_px=size_px[1])
    return screen_sample(rng, build_screen(scene))


def draw_episode_screen(rng: random.Random, split: Split) -> ScreenSample:
    """The screen of some step of a fresh episode."""
    episode = make_episode(rng, split)
    index = rng.randrange(len(episode.steps))
    return replace(screen_sample(rng, build_screen(episode.steps[index].scene)), turn=(episode, index))


def screen_sample(rng: random.Random, screen: Screen) -> ScreenSample:
    """The picture of `screen` at size 1 and its ground truth."""
    scale = rng.choice(PHONE_SCALES) if rng.random() < PHONE_SCALE_SHARE else 1.0
    drawn = render(screen, scale)
    image = drawn.image
    if image.size != (screen.width_px, screen.height_px):
        image = image.resize((screen.width_px, screen.height_px), Image.Resampling.BICUBIC)
    elements_RC = element_grid(screen)
    kinds, states, icons, centres = element_grids(screen, elements_RC)
    facts_RCF, names_RC3 = standing_grids(screen, elements_RC)
    names_RC3[..., 2] = _after_its_label(names_RC3[..., 2], drawn.word_token_ids)
    return ScreenSample(
        screen=screen,
        image_HW3=np.ascontiguousarray(np.asarray(image.convert("RGB"))),
        char_patch_ids=drawn.char_patch_ids,
        word_token_ids=drawn.word_token_ids,
        number_token_ids=drawn.number_token_ids,
        kinds_RC=kinds,
        states_RC=states,
        icons_RC=icons,
        centres_RC2=centres,
        facts_RCF=facts_RCF,
        names_RC3=names_RC3,
    )


def element_grid(screen: Screen) -> np.ndarray:
    """[rows, columns]: index of the element under each merged token, -1 for none; small ones win over large ones."""
    rows, columns = screen.height_px // TOKEN_PX, screen.width_px // TOKEN_PX
    grid = np.full((rows, columns), -1, dtype=np.int64)
    for index in sorted(range(len(screen.elements)), key=lambda i: -_area(screen.elements[i])):
        element = screen.elements[index]
        if element.kind not in KINDS:
            continue
        x0, y0, x1, y1 = element.box_px
        for row in range(max(0, y0 // TOKEN_PX), min(rows, -(-y1 // TOKEN_PX))):
            height = min(y1, (row + 1) * TOKEN_PX) - max(y0, row * TOKEN_PX)
            for column in range(max(0, x0 // TOKEN_PX), min(columns, -(-x1 // TOKEN_PX))):
                width = min(x1, (column + 1) * TOKEN_PX) - max(x0, column * TOKEN_PX)
                if height * width >= MIN_OVERLAP_PX2:
                    grid[row, column] = index
    return grid


def element_grids(screen: Screen, elements_RC: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(kind, state, icon, centre) of the element under each merged token."""
    kinds, states, icons, centres = [], [], [], []
    for element in screen.elements:
        x, y = element.center_px
        kinds.append(KINDS.index(element.kind) + 1 if element.kind in KINDS else 0)
        states.append(0 if element.on is None else 1 + int(element.on))
        icons.append(ICONS.index(element.icon) + 1 if element.icon in ICONS else 0)
        centres.append((x / screen.width_px, y / screen.height_px))
    classes = (_under(np.array(table, dtype=np.int64), elements_RC, 0) for table in (kinds, states, icons))
    kinds_RC, states_RC, icons_RC = classes
    return kinds_RC, states_RC, icons_RC, _under(np.array(centres, dtype=np.float32), elements_RC, np.nan)


def standing_grids(screen: Screen, elements_RC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(facts, labels above, left and its own) of the element under each merged token, 0 where there is none."""
    found = standings(screen)
    facts = np.array([standing.facts() for standing in found], dtype=np.int64)
    names = np.array([(standing.above, standing.left, standing.own) for standing in found], dtype=np.int64)
    return _under(facts, elements_RC, 0), _under(names, elements_RC, 0)


def _under(table: np.ndarray, elements_RC: np.ndarray, nothing: float) -> np.ndarray:
    """Each token's row of `table`, one row per element."""
    grid = table[elements_RC]
    grid[elements_RC < 0] = nothing
    return grid


def _after_its_label(own_RC: np.ndarray, words_RC: np.ndarray) -> np.ndarray:
    """`own_RC` where an earlier token showed the label and this one does not: a decoder looks back only."""
    words, places = np.unique(words_RC, return_index=True)
    first = dict(zip(words.tolist(), places.tolist(), strict=True))
    shown_at = np.array([first.get(label, own_RC.size) for label in own_RC.ravel().tolist()]).reshape(own_RC.shape)
    later = np.arange(own_RC.size).reshape(own_RC.shape) > shown_at
    return np.where(later & (words_RC == 0), own_RC, 0)


def _area(element: Element) -> int:
    x0, y0, x1, y1 = element.box_px
    return (x1 - x0) * (y1 - y0)
