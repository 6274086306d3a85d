"""Looks of a screen: faces, sizes, spacings, colours. Each split has spacings of its own, the test split titles too."""

from __future__ import annotations

import colorsys
import random
import zlib
from dataclasses import dataclass

from autoglm_training.world.draw import Colour
from autoglm_training.world.elements import Split
from autoglm_training.world.fonts import CHINESE_FACE, installed_fonts
from autoglm_training.world.language import Language

# (regular, bold) faces; the second half of a pair may be missing where fonts-dejavu-extra is not installed.
_FACE_PAIRS = (
    ("LiberationSans-Regular.ttf", "LiberationSans-Bold.ttf"),
    ("LiberationSans-Regular.ttf", "LiberationSans-Bold.ttf"),
    ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf"),
    ("DejaVuSansCondensed.ttf", "DejaVuSansCondensed-Bold.ttf"),
    ("DejaVuSansCondensed.ttf", "DejaVuSansCondensed-Bold.ttf"),
    (CHINESE_FACE, CHINESE_FACE),
    ("LiberationSerif-Regular.ttf", "LiberationSerif-Bold.ttf"),
)
NARROW_FACE = "LiberationSansNarrow-Regular.ttf"
SMALL_PX = 13.0

# No value of one split is another's.
_ROW_HEIGHTS: dict[Split, tuple[int, ...]] = {
    "train": tuple(sorted({*range(37, 65)} - {40, 42, 46, 48, 50, 54, 57})),
    "validation": (40, 48, 57),
    "test": (42, 46, 50, 54),
}
_MARGINS: dict[Split, tuple[int, ...]] = {
    "train": tuple(sorted({*range(5, 20)} - {8, 10, 14, 16})),
    "validation": (8, 16),
    "test": (10, 14),
}
_TITLE_STYLES: dict[Split, tuple[str, ...]] = {
    "train": ("left", "middle"),
    "validation": ("left", "middle"),
    "test": ("large",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Theme:
    """Faces, sizes in px at scale 1, and colours of one screen."""

    dark: bool
    face: str
    bold_face: str
    bold_weight: float
    body_px: float
    title_px: float
    small_px: float
    margin: int
    row_height: int
    radius: int
    title_style: str
    background: Colour
    card: Colour
    ink: Colour
    faint: Colour
    divider: Colour
    accent: Colour
    switch_on: Colour
    switch_off: Colour


def make_theme(rng: random.Random, split: Split, language: Language, dark: bool | None) -> Theme:
    """Draws a theme; `dark` forces light or dark."""
    is_dark = rng.random() < 0.35
    if dark is not None:
        is_dark = dark
    found = installed_fonts()
    pairs = [pair for pair in _FACE_PAIRS if pair[0] in found and pair[1] in found]
    face, bold_face = rng.choice(pairs)
    if language == "zh":
        face = bold_face = CHINESE_FACE
    hue = rng.random()
    accent = readable_accent(hsv(hue, rng.uniform(0.55, 0.9), rng.uniform(0.6, 0.85)))
    level, tint = rng.randint(236, 250), rng.randint(-4, 4)
    deep = rng.randint(10, 26)
    green = rng.random() < 0.4
    radius = rng.choice((8, 10, 12, 14))
    body_px = float(rng.choice((14, 15, 15, 16, 17)))
    title_px = float(rng.choice((18, 19, 20)))
    margin, row_height = rng.choice(_MARGINS[split]), rng.choice(_ROW_HEIGHTS[split])
    title_style = rng.choice(_TITLE_STYLES[split])
    if is_dark:
        background, card = (deep, deep, deep + 3), (deep + 22, deep + 22, deep + 26)
        ink, faint, divider = (240, 240, 242), (160, 162, 168), (deep + 40, deep + 40, deep + 44)
        switch_off = (96, 96, 102)
    else:
        background, card = (level, level + min(tint, 255 - level), min(255, level + 4)), (255, 255, 255)
        ink, faint, divider = (24, 25, 28), (110, 113, 120), (226, 227, 231)
        switch_off = (200, 201, 206)
    return Theme(
        dark=is_dark,
        face=face,
        bold_face=bold_face,
        bold_weight=0.35 if bold_face == CHINESE_FACE else 0.0,
        body_px=body_px,
        title_px=title_px,
        small_px=SMALL_PX,
        margin=margin,
        row_height=row_height,
        radius=radius,
        title_style=title_style,
        background=background,
        card=card,
        ink=ink,
        faint=faint,
        divider=divider,
        accent=accent,
        switch_on=(52, 186, 92) if green else accent,
        switch_off=switch_off,
    )


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """A colour from hue, saturation and value in 0..1."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def readable_accent(colour: Colour) -> Colour:
    """The colour, darkened until white text stands out on it."""
    while 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 135:
        colour = mix(colour, (0, 0, 0), 0.12)
    return colour


def colour_of(name: str) -> Colour:
    """A fixed strong colour for a name, such as an app's."""
    code = zlib.crc32(name.encode())
    return readable_accent(hsv((code % 360) / 360, 0.55 + (code >> 9) % 40 / 100, 0.62 + (code >> 17) % 28 / 100))


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """`first` with `share` of `second`."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue
