"""The builder that templates draw on: it collects the display list and the elements of one screen."""

from __future__ import annotations

import random
from collections.abc import Sequence

from autoglm_training.world.draw import Align, Colour, Fill, Gradient, Icon, Line, Op, Text, ink_span, text_width
from autoglm_training.world.elements import Element, Kind, PixelBox, Scene, Screen
from autoglm_training.world.fonts import CHINESE_FACE, installed_fonts
from autoglm_training.world.grids import Box
from autoglm_training.world.labels import Pairs, names
from autoglm_training.world.language import Language, is_chinese
from autoglm_training.world.theme import NARROW_FACE, Theme, make_theme, mix

STATUS_HEIGHT = 24
PILL_HEIGHT = 16
_LATIN_SAMPLE, _CHINESE_SAMPLE = "Hx", "国"
_SMALLEST_PX = 12.0


class Canvas:
    """Collects ops and elements. Lengths are px at scale 1; `rng` is the scene's own stream."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.rng = random.Random(f"{scene.template}/{scene.seed}")
        self.width, self.height = scene.width_px, scene.height_px
        self.language: Language = scene.language
        self.theme: Theme = make_theme(self.rng, scene.split, scene.language, scene.dark)
        self.background: Colour = self.theme.background
        self.ops: list[Op] = []
        self.elements: list[Element] = []
        self._states = dict(scene.states)

    @property
    def held_out(self) -> bool:
        """Whether this screen takes the layouts reserved for the test split."""
        return self.scene.split == "test"

    @property
    def bottom(self) -> int:
        """Where the content ends, above the gesture pill."""
        return self.height - PILL_HEIGHT

    def finish(self) -> Screen:
        """The finished screen."""
        return Screen(
            width_px=self.width,
            height_px=self.height,
            app=self.scene.app,
            language=self.language,
            dark=self.theme.dark,
            template=self.scene.template,
            elements=tuple(self.elements),
            background=self.background,
            ops=tuple(self.ops),
            scene=self.scene,
        )

    def state(self, label: str, drawn: bool) -> bool:
        """The state of a switch: the scene's where it says one, else the drawn one."""
        return self._states.get(label, drawn)

    def pick(self, pairs: Pairs, count: int, max_width: float | None = None, size: float | None = None) -> list[str]:
        """Up to `count` different labels that fit in `max_width`, those the scene insists on among them."""
        everything = names(pairs, self.language)
        body_px = size or self.theme.body_px
        allowed = [n for n in dict.fromkeys(everything) if max_width is None or self.fits(n, body_px, max_width)]
        chosen = self.rng.sample(allowed, min(count, len(allowed)))
        places = list(range(len(chosen)))
        self.rng.shuffle(places)
        for label in self.scene.must_show:
            if label in everything and label not in chosen and places:
                while places and chosen[places[-1]] in self.scene.must_show:
                    places.pop()
                if places:
                    chosen[places.pop()] = label
        return chosen

    def word(self, pair: tuple[str, str]) -> str:
        """The pair's word in this screen's language."""
        return pair[1] if self.language == "zh" else pair[0]

    # Drawing ------------------------------------------------------------------------------------------------------

    def fill(self, box: Box, colour: Colour, radius: float = 0.0) -> None:
        self.ops.append(Fill(box=box, colour=colour, radius=radius))

    def gradient(self, box: Box, corners: tuple[Colour, Colour, Colour, Colour], radius: float = 0.0) -> None:
        self.ops.append(Gradient(box=box, corners=corners, radius=radius))

    def disc(self, cx: float, cy: float, radius: float, colour: Colour) -> None:
        self.fill((cx - radius, cy - radius, cx + radius, cy + radius), colour, radius)

    def line(self, points: Sequence[tuple[float, float]], colour: Colour, width: float = 1.0) -> None:
        self.ops.append(Line(points=tuple(points), colour=colour, width=width))

    def icon(self, kind: str, cx: float, cy: float, side: float, colour: Colour) -> None:
        self.ops.append(Icon(kind=kind, x=cx - side / 2, y=cy - side / 2, side=side, colour=colour))

    def fits(self, text: str, size: float, max_width: float, bold: bool = False) -> bool:
        """Whether `_fitted` finds a face and size no wider than `max_width`."""
        face, fitted = self._fitted(text, size, max_width, bold)
        return text_width(face, fitted, text) <= max_width

    def width_of(self, text: str, size: float, bold: bool = False) -> float:
        """Advance width of `text` in the theme's face."""
        return text_width(self._face(text, bold), size, text)

    def text(
        self,
        text: str,
        x: float,
        cy: float,
        size: float | None = None,
        colour: Colour | None = None,
        *,
        bold: bool = False,
        align: Align = "left",
        max_width: float | None = None,
    ) -> PixelBox:
        """Draws one line centred on `cy`, smaller or narrower where it must be, and returns its box."""
        face, fitted = self._fitted(text, size or self.theme.body_px, max_width, bold)
        top, bottom = ink_span(face, fitted, _CHINESE_SAMPLE if face == CHINESE_FACE else _LATIN_SAMPLE)
        y = cy - (top + bottom) / 2
        weight = self.theme.bold_weight if bold and face == CHINESE_FACE else 0.0
        self.ops.append(
            Text(
                text=text, x=x, y=y, face=face, size=fitted, colour=colour or self.theme.ink, align=align, weight=weight
            )
        )
        width = text_width(face, fitted, text)
        left = x - (0 if align == "left" else width / 2 if align == "middle" else width)
        return round(left), round(y + top), round(left + width), round(y + bottom)

    def _face(self, text: str, bold: bool) -> str:
        return CHINESE_FACE if is_chinese(text) else self.theme.bold_face if bold else self.theme.face

    def _fitted(self, text: str, size: float, max_width: float | None, bold: bool) -> tuple[str, float]:
        face = self._face(text, bold)
        if max_width is None or text_width(face, size, text) <= max_width:
            return face, size
        fitted = size
        while fitted > _SMALLEST_PX and text_width(face, fitted, text) > max_width:
            fitted -= 1
        if text_width(face, fitted, text) > max_width and face != CHINESE_FACE and NARROW_FACE in installed_fonts():
            return NARROW_FACE, max(fitted, _SMALLEST_PX)
        return face, fitted

    # Elements -----------------------------------------------------------------------------------------------------

    def element(
        self,
        kind: Kind,
        label: str,
        box: Box,
        tap_box: Box | None = None,
        *,
        on: bool | None = None,
        price: float | None = None,
        value: str | None = None,
        group: str = "",
        icon: str | None = None,
    ) -> None:
        """Records an element; boxes are rounded to whole px and kept inside the screen."""
        self.elements.append(
            Element(
                kind=kind,
                label=label,
                box_px=self._inside(box),
                tap_box_px=self._inside(tap_box or box),
                on=on,
                price=price,
                value=value,
                group=group,
                icon=icon,
            )
        )

    def _inside(self, box: Box) -> PixelBox:
        x0, y0, x1, y1 = (round(side) for side in box)
        return max(0, x0), max(0, y0), min(self.width, x1), min(self.height, y1)

    def glyph(self, kind: str, cx: float, cy: float, side: float = 22, colour: Colour | None = None) -> None:
        """A tappable pictogram without text."""
        self.icon(kind, cx, cy, side, colour or self.theme.ink)
        half = side / 2 + 4
        self.element("icon", kind, (cx - half, cy - half, cx + half, cy + half), group="glyphs", icon=kind)

    def switch(self, right: float, cy: float, on: bool) -> Box:
        """A toggle whose right edge is at `right`; returns its box."""
        width, height = 40, 24
        box = (right - width, cy - height / 2, right, cy + height / 2)
        self.fill(box, self.theme.switch_on if on else self.theme.switch_off, height / 2)
        knob = right - height / 2 if on else right - width + height / 2
        self.disc(knob, cy, height / 2 - 3, (255, 255, 255))
        return box

    def input_text(self, placeholder: str, x: float, cy: float, max_width: float) -> None:
        """The scene's typed text or the placeholder, with a cursor where the field is focused."""
        typed, theme = self.scene.typed, self.theme
        ink = theme.ink if typed else theme.faint
        box = self.text(typed or placeholder, x, cy, theme.body_px, ink, max_width=max_width)
        if self.scene.focused:
            cursor = box[2] + 1 if typed else x - 4
            self.fill((cursor, cy - 9, cursor + 2, cy + 9), theme.accent)

    def button(self, label: str, box: Box, *, primary: bool, group: str = "buttons") -> None:
        """A rounded button with its label in the middle."""
        theme = self.theme
        colour = theme.accent if primary else mix(theme.card, theme.ink, 0.1)
        self.fill(box, colour, min((box[3] - box[1]) / 2, theme.radius + 4))
        ink = (255, 255, 255) if primary else theme.ink
        middle, cy = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        self.text(label, middle, cy, None, ink, bold=True, align="middle", max_width=box[2] - box[0] - 12)
        self.element("button", label, box, group=group)
