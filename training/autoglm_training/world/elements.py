"""What a screen is: its recipe (Scene), the things one can touch (Element) and the finished Screen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from autoglm_training.world.draw import Colour, Op
from autoglm_training.world.language import Language

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
Kind = Literal["icon", "button", "switch", "tab", "field", "row", "key", "card", "bar", "text", "slider"]
PixelBox = tuple[int, int, int, int]

# The largest coordinate of the action format: 0 is the left or top edge, 999 the right or bottom one.
COORDINATE_MAX = 999


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """One thing on the screen.

    label: the text shown; for a pictogram without text, its icon kind
    icon: the pictogram's kind, None where the label is text
    box_px, tap_box_px: (x0, y0, x1, y1) at scale 1, ends excluded; a tap should land in `tap_box_px`
    on: state of a switch or whether a tab is selected, None where it has none
    price: in the screen's currency; value: what a row, field, bar or slider shows besides its label
    group: elements of one list, grid or bar share it and never overlap
    """

    kind: Kind
    label: str
    box_px: PixelBox
    tap_box_px: PixelBox
    on: bool | None = None
    price: float | None = None
    value: str | None = None
    group: str = ""
    icon: str | None = None

    @property
    def center_px(self) -> tuple[float, float]:
        """Centre of the tap box."""
        x0, y0, x1, y1 = self.tap_box_px
        return (x0 + x1) / 2, (y0 + y1) / 2

    @property
    def height_px(self) -> int:
        """Height of the tap box."""
        return self.tap_box_px[3] - self.tap_box_px[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """The recipe of a screen: the same scene always builds the same screen.

    states: switches forced on or off by label
    typed: what stands in the input field; focused: whether the cursor is in it
    must_show: labels that replace others of their kind where the template has room for them
    """

    template: str
    seed: int
    split: Split
    language: Language
    app: str
    width_px: int = 280
    height_px: int = 616
    states: tuple[tuple[str, bool], ...] = ()
    must_show: tuple[str, ...] = ()
    typed: str | None = None
    focused: bool = False
    dark: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Screen:
    """A laid-out screen; `ops` is its display list at scale 1, `app` its display name."""

    width_px: int
    height_px: int
    app: str
    language: Language
    dark: bool
    template: str
    elements: tuple[Element, ...]
    background: Colour
    ops: tuple[Op, ...]
    scene: Scene

    def find(self, label: str) -> Element | None:
        """The first element with that label."""
        return next((element for element in self.elements if element.label == label), None)

    def box_999(self, box_px: PixelBox) -> PixelBox:
        """A pixel box in the action format's 0..999 coordinates."""
        x0, y0, x1, y1 = box_px
        return (
            _to_999(x0, self.width_px),
            _to_999(y0, self.height_px),
            _to_999(x1, self.width_px),
            _to_999(y1, self.height_px),
        )

    def point_999(self, element: Element) -> tuple[int, int]:
        """The centre of the element's tap box in 0..999."""
        x, y = element.center_px
        return _to_999(x, self.width_px), _to_999(y, self.height_px)

    def at_999(self, x: int, y: int) -> Element | None:
        """The element a tap at (x, y) in 0..999 hits, a tap box before a whole box."""
        # Open-AutoGLM turns a coordinate into pixels by dividing by 1000.
        px, py = x / 1000 * self.width_px, y / 1000 * self.height_px
        for boxes in ("tap_box_px", "box_px"):
            for element in reversed(self.elements):
                x0, y0, x1, y1 = getattr(element, boxes)
                if x0 <= px < x1 and y0 <= py < y1:
                    return element
        return None


def _to_999(px: float, side_px: int) -> int:
    return max(0, min(COORDINATE_MAX, round(px / side_px * 1000)))
