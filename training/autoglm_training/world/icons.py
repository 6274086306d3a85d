"""Simple line icons, drawn once at high resolution and cached as alpha masks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

from PIL import Image, ImageDraw

UNIT = 24.0
_SUPERSAMPLE = 4
Point = tuple[float, float]


class _Pen:
    """Draws in a 24 x 24 unit box."""

    def __init__(self, draw: ImageDraw.ImageDraw, unit_px: float, stroke: float) -> None:
        self._draw, self._unit_px, self._width = draw, unit_px, max(1, round(stroke * unit_px))

    def _at(self, points: Sequence[Point]) -> list[Point]:
        return [(x * self._unit_px, y * self._unit_px) for x, y in points]

    def line(self, *points: Point) -> None:
        placed = self._at(points)
        self._draw.line(placed, fill=255, width=self._width, joint="curve")
        half = self._width / 2
        for x, y in (placed[0], placed[-1]):
            self._draw.ellipse((x - half, y - half, x + half, y + half), fill=255)

    def shape(self, *points: Point, cut: bool = False) -> None:
        self._draw.polygon(self._at(points), fill=0 if cut else 255)

    def disc(self, x: float, y: float, radius: float, cut: bool = False) -> None:
        box = self._at([(x - radius, y - radius), (x + radius, y + radius)])
        self._draw.ellipse((*box[0], *box[1]), fill=0 if cut else 255)

    def ring(self, x: float, y: float, radius: float) -> None:
        box = self._at([(x - radius, y - radius), (x + radius, y + radius)])
        self._draw.ellipse((*box[0], *box[1]), outline=255, width=self._width)

    def arc(self, x: float, y: float, radius: float, start_deg: float, end_deg: float) -> None:
        box = self._at([(x - radius, y - radius), (x + radius, y + radius)])
        self._draw.arc((*box[0], *box[1]), start_deg, end_deg, fill=255, width=self._width)

    def slab(self, x0: float, y0: float, x1: float, y1: float, radius: float, cut: bool = False) -> None:
        box = self._at([(x0, y0), (x1, y1)])
        self._draw.rounded_rectangle((*box[0], *box[1]), radius * self._unit_px, fill=0 if cut else 255)

    def frame(self, x0: float, y0: float, x1: float, y1: float, radius: float) -> None:
        box = self._at([(x0, y0), (x1, y1)])
        self._draw.rounded_rectangle((*box[0], *box[1]), radius * self._unit_px, outline=255, width=self._width)


def _back(pen: _Pen) -> None:
    pen.line((10, 4.5), (3.5, 12), (10, 19.5))
    pen.line((4, 12), (20.5, 12))


def _gear(pen: _Pen) -> None:
    for tooth in range(8):
        angle = tooth * math.pi / 4
        pen.line((12, 12), (12 + 9.3 * math.cos(angle), 12 + 9.3 * math.sin(angle)))
    pen.disc(12, 12, 7.4)
    pen.disc(12, 12, 3.2, cut=True)


def _search(pen: _Pen) -> None:
    pen.ring(10, 10, 7)
    pen.line((15, 15), (21, 21))


def _plus(pen: _Pen) -> None:
    pen.line((12, 3.5), (12, 20.5))
    pen.line((3.5, 12), (20.5, 12))


def _heart(pen: _Pen) -> None:
    pen.disc(7.4, 8.6, 4.9)
    pen.disc(16.6, 8.6, 4.9)
    pen.shape((2.9, 10.9), (12, 21.5), (21.1, 10.9), (12, 7.5))


def _home(pen: _Pen) -> None:
    pen.shape((12, 2.5), (22.5, 12), (1.5, 12))
    pen.slab(4.5, 10.5, 19.5, 21.5, 1)
    pen.slab(9.8, 14.2, 14.2, 22, 0.5, cut=True)


def _mic(pen: _Pen) -> None:
    pen.slab(8.7, 2, 15.3, 14, 3.3)
    pen.arc(12, 11, 7, 0, 180)
    pen.line((12, 18.2), (12, 21.5))


def _camera(pen: _Pen) -> None:
    pen.slab(2, 6.5, 22, 20, 2.6)
    pen.slab(8, 3.6, 16, 8, 1.5)
    pen.disc(12, 13, 4.5, cut=True)
    pen.disc(12, 13, 2.3)


def _send(pen: _Pen) -> None:
    pen.shape((2.5, 3), (22, 12), (2.5, 21), (6.8, 12))
    pen.shape((6, 11.2), (14, 12), (6, 12.8), cut=True)


def _menu(pen: _Pen) -> None:
    for y in (5.5, 12, 18.5):
        pen.line((3.5, y), (20.5, y))


def _star(pen: _Pen) -> None:
    angles = [(-90 + 36 * step) * math.pi / 180 for step in range(10)]
    radii = [10.6 if step % 2 == 0 else 4.3 for step in range(10)]
    pen.shape(*((12 + r * math.cos(a), 12.6 + r * math.sin(a)) for r, a in zip(radii, angles, strict=True)))


def _trash(pen: _Pen) -> None:
    pen.line((3.5, 6), (20.5, 6))
    pen.line((9.5, 3), (14.5, 3))
    pen.frame(5.8, 6, 18.2, 21.5, 1.6)
    pen.line((10, 10), (10, 17.5))
    pen.line((14, 10), (14, 17.5))


def _phone(pen: _Pen) -> None:
    pen.shape((4, 3.2), (8.6, 2.4), (10.6, 8), (7.8, 10), (14, 16.2), (16, 13.4), (21.6, 15.4), (20.8, 20))
    pen.shape((4, 3.2), (7.8, 10), (14, 16.2), (20.8, 20), (18.4, 21.6), (11, 18.6), (5.4, 13), (2.4, 5.6))


def _cart(pen: _Pen) -> None:
    pen.line((1.8, 3.2), (5, 3.2), (8, 15.8), (19, 15.8))
    pen.shape((5.8, 6), (22.2, 6), (19.8, 13.2), (7.4, 13.2))
    pen.disc(9.5, 20, 1.9)
    pen.disc(17.5, 20, 1.9)


def _play(pen: _Pen) -> None:
    pen.shape((6, 3), (21, 12), (6, 21))


def _close(pen: _Pen) -> None:
    pen.line((4.8, 4.8), (19.2, 19.2))
    pen.line((19.2, 4.8), (4.8, 19.2))


def _pause(pen: _Pen) -> None:
    pen.slab(5.5, 3.5, 10, 20.5, 1)
    pen.slab(14, 3.5, 18.5, 20.5, 1)


def _next(pen: _Pen) -> None:
    pen.shape((4.5, 4), (16, 12), (4.5, 20))
    pen.slab(16.5, 4, 19.5, 20, 0.8)


def _previous(pen: _Pen) -> None:
    pen.shape((19.5, 4), (8, 12), (19.5, 20))
    pen.slab(4.5, 4, 7.5, 20, 0.8)


def _pin(pen: _Pen) -> None:
    pen.disc(12, 9, 7)
    pen.shape((5.7, 12), (18.3, 12), (12, 22.5))
    pen.disc(12, 9, 2.8, cut=True)


def _person(pen: _Pen) -> None:
    pen.disc(12, 7.6, 4.6)
    pen.slab(3.4, 14, 20.6, 24, 8)


def _chevron(pen: _Pen) -> None:
    pen.line((9, 5), (16, 12), (9, 19))


def _clock(pen: _Pen) -> None:
    pen.ring(12, 12, 9.5)
    pen.line((12, 6.5), (12, 12), (16, 14.5))


def _chat(pen: _Pen) -> None:
    pen.slab(2, 3.5, 22, 17.5, 5)
    pen.shape((6, 15), (6, 22), (13, 16))


def _bell(pen: _Pen) -> None:
    pen.slab(6, 3.5, 18, 17, 6)
    pen.slab(4, 15, 20, 18.5, 1.2)
    pen.disc(12, 20, 2.2)


def _globe(pen: _Pen) -> None:
    pen.ring(12, 12, 9.5)
    pen.line((2.5, 12), (21.5, 12))
    pen.line((12, 2.5), (8, 7), (7.2, 12), (8, 17), (12, 21.5), (16, 17), (16.8, 12), (16, 7), (12, 2.5))


def _people(pen: _Pen) -> None:
    pen.disc(8.5, 8.4, 4)
    pen.slab(1.5, 14, 15.5, 23, 6.5)
    pen.arc(16.5, 8.4, 3.6, -120, 120)
    pen.arc(15.5, 20.5, 6.4, -70, 0)


# The kinds an instruction may name, then those that only decorate.
ICON_KINDS: tuple[str, ...] = (
    "back", "gear", "search", "plus", "heart", "home", "mic", "camera", "send", "menu", "star", "trash", "phone",
    "cart", "play", "close", "pause", "next", "previous",
)  # fmt: skip
_PICTURES: dict[str, Callable[[_Pen], None]] = {
    "back": _back, "gear": _gear, "search": _search, "plus": _plus, "heart": _heart, "home": _home, "mic": _mic,
    "camera": _camera, "send": _send, "menu": _menu, "star": _star, "trash": _trash, "phone": _phone, "cart": _cart,
    "play": _play, "close": _close, "pause": _pause, "next": _next, "previous": _previous, "pin": _pin,
    "person": _person, "chevron": _chevron, "clock": _clock, "chat": _chat,
    "bell": _bell, "globe": _globe, "people": _people,
}  # fmt: skip


@lru_cache(maxsize=2048)
def icon_mask(kind: str, side_px: int, stroke: float = 2.2) -> Image.Image:
    """The icon as an "L" mask of `side_px` squared.

    Raises:
        ValueError: no icon of that kind exists.
    """
    if kind not in _PICTURES:
        raise ValueError(f"no icon {kind!r}; known: {', '.join(_PICTURES)}")
    large = Image.new("L", (side_px * _SUPERSAMPLE, side_px * _SUPERSAMPLE), 0)
    _PICTURES[kind](_Pen(ImageDraw.Draw(large), side_px * _SUPERSAMPLE / UNIT, stroke))
    return large.resize((side_px, side_px), Image.Resampling.BOX)
