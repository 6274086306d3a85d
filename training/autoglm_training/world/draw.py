"""The display list of a screen, and its painter: the same list draws at any scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from autoglm_training.world.fonts import font
from autoglm_training.world.grids import Box, GridPainter
from autoglm_training.world.icons import icon_mask

Colour = tuple[int, int, int]
Align = Literal["left", "middle", "right"]
_ANCHORS: dict[Align, str] = {"left": "la", "middle": "ma", "right": "ra"}
_SUPERSAMPLE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """A filled rectangle with rounded corners."""

    box: Box
    colour: Colour
    radius: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Gradient:
    """A rectangle shaded between its corner colours: top left, top right, bottom left, bottom right."""

    box: Box
    corners: tuple[Colour, Colour, Colour, Colour]
    radius: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A polyline."""

    points: tuple[tuple[float, float], ...]
    colour: Colour
    width: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Icon:
    """A line icon in a square whose top left corner is `(x, y)`."""

    kind: str
    x: float
    y: float
    side: float
    colour: Colour


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """One line; `(x, y)` is its ascender line's left, middle or right point. `weight` thickens faces with no bold."""

    text: str
    x: float
    y: float
    face: str
    size: float
    colour: Colour
    align: Align = "left"
    weight: float = 0.0


Op = Fill | Gradient | Line | Icon | Text


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering:
    """A drawn screen.

    image: RGB, the logical size times the scale
    char_patch_ids: int16 [height/14, width/14] of the logical screen, class in `character_vocabulary()`
    word_token_ids, number_token_ids: int16 [height/28, width/28] of the logical screen, label index + 1, number class
    """

    image: Image.Image
    char_patch_ids: np.ndarray
    word_token_ids: np.ndarray
    number_token_ids: np.ndarray


@lru_cache(maxsize=16384)
def text_width(face: str, size: float, text: str) -> float:
    """Advance width at scale 1, px."""
    return font(face, size).getlength(text)


@lru_cache(maxsize=1024)
def ink_span(face: str, size: float, sample: str) -> tuple[float, float]:
    """Top and bottom of `sample`'s ink below the ascender line, px."""
    _, top, _, bottom = font(face, size).getbbox(sample, anchor="la")
    return top, bottom


@lru_cache(maxsize=512)
def _corner(radius_px: int, right: bool, bottom: bool) -> Image.Image:
    """One quarter disc as an alpha mask."""
    side = radius_px * _SUPERSAMPLE
    large = Image.new("L", (side, side), 0)
    left, top = (-side if right else 0), (-side if bottom else 0)
    ImageDraw.Draw(large).ellipse((left, top, left + 2 * side - 1, top + 2 * side - 1), fill=255)
    return large.resize((radius_px, radius_px), Image.Resampling.BOX)


def _rounded(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], radius_px: int, colour: Colour) -> None:
    x0, y0, x1, y1 = box
    if x1 <= x0 or y1 <= y0:
        return
    r = min(radius_px, (x1 - x0) // 2, (y1 - y0) // 2)
    if r <= 0:
        draw.rectangle((x0, y0, x1 - 1, y1 - 1), fill=colour)
        return
    if x1 - x0 > 2 * r:
        draw.rectangle((x0 + r, y0, x1 - r - 1, y1 - 1), fill=colour)
    if y1 - y0 > 2 * r:
        draw.rectangle((x0, y0 + r, x1 - 1, y1 - r - 1), fill=colour)
    for right in (False, True):
        for bottom in (False, True):
            draw.bitmap((x1 - r if right else x0, y1 - r if bottom else y0), _corner(r, right, bottom), fill=colour)


def _shade(corners: Sequence[Colour], width_px: int, height_px: int) -> Image.Image:
    small = Image.new("RGB", (2, 2))
    small.putdata(list(corners))
    return small.resize((width_px, height_px), Image.Resampling.BILINEAR, box=(0.5, 0.5, 1.5, 1.5))


def paint(ops: Sequence[Op], width_px: int, height_px: int, background: Colour, scale: float) -> Rendering:
    """Draws the display list of a `width_px` x `height_px` screen at `scale`.

    Raises:
        ValueError: the scale is not positive.
    """
    if scale <= 0:
        raise ValueError(f"scale must be positive, not {scale}")
    image = Image.new("RGB", (round(width_px * scale), round(height_px * scale)), background)
    draw = ImageDraw.Draw(image)
    grids = GridPainter(width_px, height_px)
    for op in ops:
        if isinstance(op, Text):
            letters = font(op.face, op.size * scale)
            at = (round(op.x * scale), round(op.y * scale))
            anchor = _ANCHORS[op.align]
            draw.text(at, op.text, font=letters, fill=op.colour, anchor=anchor, stroke_width=op.weight * scale)
            width = text_width(op.face, op.size, op.text)
            left = op.x - (0 if op.align == "left" else width / 2 if op.align == "middle" else width)
            grids.add_text(op.text, left, op.y, font(op.face, op.size))
            continue
        if isinstance(op, Icon):
            side_px = max(1, round(op.side * scale))
            draw.bitmap((round(op.x * scale), round(op.y * scale)), icon_mask(op.kind, side_px), fill=op.colour)
            continue
        if isinstance(op, Line):
            points = [(round(x * scale), round(y * scale)) for x, y in op.points]
            draw.line(points, fill=op.colour, width=max(1, round(op.width * scale)), joint="curve")
            continue
        x0, y0, x1, y1 = (round(side * scale) for side in op.box)
        radius_px = round(op.radius * scale)
        if isinstance(op, Fill):
            _rounded(draw, (x0, y0, x1, y1), radius_px, op.colour)
        else:
            shade = _shade(op.corners, x1 - x0, y1 - y0)
            mask = Image.new("L", shade.size, 0 if radius_px else 255)
            if radius_px:
                _rounded_mask(mask, radius_px)
            image.paste(shade, (x0, y0), mask)
    return Rendering(
        image=image,
        char_patch_ids=grids.char_patch_ids(),
        word_token_ids=grids.word_token_ids(),
        number_token_ids=grids.number_token_ids(),
    )


def _rounded_mask(mask: Image.Image, radius_px: int) -> None:
    width, height = mask.size
    r = min(radius_px, width // 2, height // 2)
    mask.paste(255, (r, 0, width - r, height))
    mask.paste(255, (0, r, width, height - r))
    for right in (False, True):
        for bottom in (False, True):
            mask.paste(_corner(r, right, bottom), (width - r if right else 0, height - r if bottom else 0))
