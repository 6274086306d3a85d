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

KINDS = ("icon", "button", "switch", "tab", "field", "row", "key", "card", "bar", "text", "slider")
ICONS = tuple(ICON_NAMES)
MIN_OVERLAP_PX2 = 0.2 * TOKEN_PX * TOKEN_PX
# Screenshots come at phone resolution and are scaled down; screens drawn at size 1 look crisper than those.
PHONE_SCALE_SHARE = 0.6
PHONE_SCALES = (1.5, 2.0, 2.57, 27 / 7)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScreenSample:
    """One screen. Grids are [rows, columns] of merged tokens unless named otherwise; 0 is "none" in class grids.

    centres_RC2: centre of the tap box of the element under the token, in 0..1 of the screen; NaN where there is none.
    turn: the episode that the screen is part of, and which of its steps it waits for; None for a screen of its own.
    """

    screen: Screen
    image_HW3: np.ndarray
    char_patch_ids: np.ndarray
    word_token_ids: np.ndarray
    kinds_RC: np.ndarray
    states_RC: np.ndarray
    icons_RC: np.ndarray
    centres_RC2: np.ndarray
    turn: tuple[Episode, int] | None = None


def draw_screen(rng: random.Random, split: Split, size_px: tuple[int, int] | None = None) -> ScreenSample:
    """A fresh screen, sometimes drawn at phone resolution and scaled down as the server does it."""
    scene = make_scene(rng, split)
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
    kinds, states, icons, centres = element_grids(screen)
    return ScreenSample(
        screen=screen,
        image_HW3=np.ascontiguousarray(np.asarray(image.convert("RGB"))),
        char_patch_ids=drawn.char_patch_ids,
        word_token_ids=drawn.word_token_ids,
        kinds_RC=kinds,
        states_RC=states,
        icons_RC=icons,
        centres_RC2=centres,
    )


def element_grids(screen: Screen) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(kind, state, icon, centre) of the element under each merged token; small elements win over large ones."""
    rows, columns = screen.height_px // TOKEN_PX, screen.width_px // TOKEN_PX
    kinds, states, icons = (np.zeros((rows, columns), dtype=np.int64) for _ in range(3))
    centres = np.full((rows, columns, 2), np.nan, dtype=np.float32)
    for element in sorted(screen.elements, key=lambda e: -_area(e)):
        if element.kind not in KINDS:
            continue
        x0, y0, x1, y1 = element.box_px
        for row in range(max(0, y0 // TOKEN_PX), min(rows, -(-y1 // TOKEN_PX))):
            height = min(y1, (row + 1) * TOKEN_PX) - max(y0, row * TOKEN_PX)
            for column in range(max(0, x0 // TOKEN_PX), min(columns, -(-x1 // TOKEN_PX))):
                width = min(x1, (column + 1) * TOKEN_PX) - max(x0, column * TOKEN_PX)
                if height * width < MIN_OVERLAP_PX2:
                    continue
                kinds[row, column] = KINDS.index(element.kind) + 1
                states[row, column] = 0 if element.on is None else 1 + int(element.on)
                icons[row, column] = ICONS.index(element.icon) + 1 if element.icon in ICONS else 0
                x, y = element.center_px
                centres[row, column] = x / screen.width_px, y / screen.height_px
    return kinds, states, icons, centres


def _area(element: Element) -> int:
    x0, y0, x1, y1 = element.box_px
    return (x1 - x0) * (y1 - y0)
