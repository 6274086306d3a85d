"""An action drawn on a copy of the screenshot: what a person checks at a glance. Needs Pillow only."""

from __future__ import annotations

import math
import re

from PIL import Image, ImageDraw, ImageFont

from autoglm_client.agent import to_pixels
from autoglm_protocol.actions import Action

ACCENT = (255, 59, 92)
HALO = (255, 255, 255)
LABEL_TEXT = (255, 255, 255)
LABEL_FILL = (24, 24, 32)

_OVERSAMPLING = 2  # Pillow draws without anti-aliasing: draw larger, then shrink
_CJK_FONTS = ("NotoSansCJK-Regular.ttc", "wqy-microhei.ttc", "DroidSansFallbackFull.ttf", "PingFang.ttc", "msyh.ttc")

Point = tuple[float, float]
Colour = tuple[int, int, int]

_STROKES: tuple[tuple[Colour, float], ...] = ((HALO, 4), (ACCENT, 0))
"""Everything is drawn twice: wider in white, so that it shows on any screenshot, then in colour."""


def draw_action(image: Image.Image, action: Action) -> Image.Image:
    """A copy of `image`, RGB, with the action on it: a ring and crosshair where it taps, an arrow where it swipes, and
    a label with its name. An action without a point is a label at the bottom."""
    pen = _Pen(image)
    width, height = pen.size
    if action.name == "Swipe":
        start, end = (to_pixels(action.arguments[key], width, height) for key in ("start", "end"))
        pen.arrow(start, end)
        pen.label(describe(action), beside=end, is_above=end[1] < start[1])
    elif action.point is not None:
        at = to_pixels(action.point, width, height)
        pen.target(at, rings=2 if action.name == "Double Tap" else 1, is_filled=action.name == "Long Press")
        pen.label(describe(action), beside=at)
    else:
        pen.label(describe(action), beside=None)
    return pen.finish()


def describe(action: Action) -> str:
    """The action in a few words: `Tap (512, 340)`, `Launch WeChat`, `finish: ...`."""
    if action.name == "Swipe":
        return f"Swipe {_pair(action.arguments['start'])} to {_pair(action.arguments['end'])}"
    if action.point is not None:
        return f"{action.name} {_pair(action.point)}"
    words = " ".join(str(value) for value in action.arguments.values())
    separator = ": " if action.name == "finish" else " "
    return f"{action.name}{separator}{words}" if words else action.name


def _pair(point: tuple[int, int]) -> str:
    return f"({point[0]}, {point[1]})"


class _Pen:
    """Strokes in proportion to the screen: 1 unit is a thousandth of its shorter side, at least a third of a pixel."""

    def __init__(self, image: Image.Image) -> None:
        self.size = image.size
        self._base = image.convert("RGB")
        large = (image.width * _OVERSAMPLING, image.height * _OVERSAMPLING)
        self._layer = Image.new("RGBA", large, (*HALO, 0))
        self._draw = ImageDraw.Draw(self._layer)
        self._unit = max(min(image.size) / 1000, 1 / 3) * _OVERSAMPLING

    def target(self, at: Point, *, rings: int, is_filled: bool) -> None:
        x, y = self._scaled(at)
        if is_filled:
            self._disc((x, y), 46, (*ACCENT, 90))
        for colour, grown in _STROKES:
            for ring in range(rings):
                self._ring((x, y), 51 + ring * 26, colour, grown)
            for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
                inner, outer = ((reach * self._unit) for reach in (14 - grown, 74 + grown))
                self._line((x + dx * inner, y + dy * inner), (x + dx * outer, y + dy * outer), 7 + 2 * grown, colour)
            self._disc((x, y), 5 + grown, (*colour, 255))

    def arrow(self, start: Point, end: Point) -> None:
        (x0, y0), (x1, y1) = self._scaled(start), self._scaled(end)
        length = math.hypot(x1 - x0, y1 - y0)
        ux, uy = ((x1 - x0) / length, (y1 - y0) / length) if length else (0.0, 0.0)
        head = min(70 * self._unit, length)
        from_ring = min(31 * self._unit, length)
        for colour, grown in _STROKES:
            self._ring((x0, y0), 31, colour, grown)
            tail, neck = (x0 + ux * from_ring, y0 + uy * from_ring), (x1 - ux * head * 0.9, y1 - uy * head * 0.9)
            self._line(tail, neck, 14 + 2 * grown, colour)
            more = grown * self._unit
            half = head * 0.55 + 1.6 * more  # the outline of a triangle grows fastest at its corners
            back = (x1 - ux * (head + more), y1 - uy * (head + more))
            tip = (x1 + ux * more * 2, y1 + uy * more * 2)
            self._draw.polygon(
                [tip, (back[0] - uy * half, back[1] + ux * half), (back[0] + uy * half, back[1] - ux * half)],
                fill=(*colour, 255),
            )

    def label(self, text: str, *, beside: Point | None, is_above: bool = False) -> None:
        """A dark pill, below `beside` or above it, whichever has room; at the bottom without one."""
        width, height = self._layer.size
        font = _font(text, 38 * self._unit)
        margin, pad = 24 * self._unit, 20 * self._unit
        lines = _wrap(text, font, width - 2 * (margin + pad))
        box = self._draw.multiline_textbbox((0, 0), lines, font=font, spacing=8 * self._unit)
        text_width, text_height = box[2] - box[0], box[3] - box[1]
        pill_width, pill_height = text_width + 2 * pad, text_height + 2 * pad
        if beside is None:
            left, top = (width - pill_width) / 2, height - pill_height - 4 * margin
        else:
            x, y = self._scaled(beside)
            gap = 100 * self._unit
            left = x - pill_width / 2
            above, below = y - gap - pill_height, y + gap
            has_room = above >= margin if is_above else below + pill_height + margin <= height
            top = above if is_above == has_room else below
        left = min(max(left, margin), max(width - pill_width - margin, margin))
        top = min(max(top, margin), max(height - pill_height - margin, margin))
        self._draw.rounded_rectangle(
            (left, top, left + pill_width, top + pill_height),
            radius=min(pill_height / 2, 32 * self._unit),
            fill=(*LABEL_FILL, 230),
            outline=(*ACCENT, 255),
            width=round(4 * self._unit),
        )
        origin = (left + pad - box[0], top + pad - box[1])
        self._draw.multiline_text(origin, lines, font=font, fill=(*LABEL_TEXT, 255), spacing=8 * self._unit)

    def finish(self) -> Image.Image:
        # Premultiplied, so that the white behind transparent pixels does not bleed into the edges.
        small = self._layer.convert("RGBa").resize(self.size, Image.Resampling.BOX).convert("RGBA")
        self._base.paste(small, (0, 0), small)
        return self._base

    def _scaled(self, at: Point) -> Point:
        return (at[0] + 0.5) * _OVERSAMPLING, (at[1] + 0.5) * _OVERSAMPLING

    def _ring(self, at: Point, radius: float, colour: Colour, grown: float) -> None:
        width = 10 + 2 * grown
        outline = _around(at, (radius + width / 2) * self._unit)
        self._draw.ellipse(outline, outline=(*colour, 255), width=round(width * self._unit))

    def _disc(self, at: Point, radius: float, colour: tuple[int, int, int, int]) -> None:
        self._draw.ellipse(_around(at, radius * self._unit), fill=colour)

    def _line(self, start: Point, end: Point, width: float, colour: Colour) -> None:
        self._draw.line((start, end), fill=(*colour, 255), width=max(round(width * self._unit), 1))


def _around(at: Point, radius: float) -> tuple[float, float, float, float]:
    return at[0] - radius, at[1] - radius, at[0] + radius, at[1] + radius


def _font(text: str, size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font for Latin text; a font of the system for other scripts, where there is one."""
    if any(ord(char) > 0x2E7F for char in text):  # from here on: CJK
        for name in _CJK_FONTS:
            try:
                return ImageFont.truetype(name, size)
            except OSError:
                continue
    return ImageFont.load_default(size)


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float, max_lines: int = 3) -> str:
    """Lines that fit into `width`, broken at spaces and between Chinese characters; an ellipsis where text is left."""
    lines = [""]
    for word in re.findall(r"[\u2e80-\uffef]|[^\s\u2e80-\uffef]+\s*|\s+", text):
        pieces = [word] if font.getlength(word.rstrip()) <= width else list(word)
        for piece in pieces:
            if lines[-1] and font.getlength((lines[-1] + piece).rstrip()) > width:
                lines.append("")
            lines[-1] += piece.replace("\n", " ")
    if len(lines) > max_lines:
        lines = [*lines[: max_lines - 1], lines[max_lines - 1].rstrip()[:-1] + "…"]
    return "\n".join(line.strip() for line in lines)
