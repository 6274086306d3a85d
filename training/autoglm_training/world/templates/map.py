"""A map with labelled places, a search field and a sheet of buttons."""

from __future__ import annotations

from autoglm_training.world.canvas import Canvas
from autoglm_training.world.draw import Colour
from autoglm_training.world.labels import PLACES
from autoglm_training.world.templates.parts import pill, search_field, status_bar
from autoglm_training.world.theme import mix

_BUTTONS = (("Directions", "路线"), ("Navigate", "导航"), ("Share", "分享"), ("Save", "保存"), ("Call", "呼叫"))


def build(canvas: Canvas) -> None:
    rng, theme = canvas.rng, canvas.theme
    sheet = canvas.bottom - 104
    _ground(canvas, sheet)
    status_bar(canvas)
    y = search_field(canvas, 32, canvas.word(("Where to?", "你要去哪儿")), 42)
    slots = int((sheet - y - 10) // 62)
    places = canvas.pick(PLACES, min(slots, rng.randint(3, 6)) + 1, 130)
    chosen, shown = places[0], places[1:]
    for slot, label in zip(sorted(rng.sample(range(slots), min(slots, len(shown)))), shown, strict=False):
        width = canvas.width_of(label, theme.body_px) + 34
        left = rng.uniform(8, max(9.0, canvas.width - 64 - width))
        _pin(canvas, label, left, y + 14 + slot * 62, min(width, 170))
    _controls(canvas, y, sheet)
    canvas.fill((0, sheet, canvas.width, canvas.height), theme.card, 0)
    canvas.fill((canvas.width / 2 - 18, sheet + 6, canvas.width / 2 + 18, sheet + 10), theme.divider, 2)
    canvas.text(chosen, theme.margin + 6, sheet + 30, theme.title_px - 1, bold=True, max_width=140)
    distance = f"{rng.randint(1, 29)}.{rng.randint(0, 9)}" + ("公里" if canvas.language == "zh" else " km")
    canvas.text(distance, canvas.width - theme.margin - 6, sheet + 30, theme.small_px, theme.faint, align="right")
    count = rng.choice((2, 3))
    width = (canvas.width - 2 * theme.margin - 8 * (count - 1)) / count
    labels = [canvas.word(pair) for pair in rng.sample(_BUTTONS, count)]
    for index, label in enumerate(labels):
        left = theme.margin + index * (width + 8)
        canvas.button(label, (left, sheet + 52, left + width, sheet + 92), primary=index == 0)
    pill(canvas)


def _ground(canvas: Canvas, sheet: float) -> None:
    rng, theme = canvas.rng, canvas.theme
    land: Colour = (38, 42, 48) if theme.dark else (238, 239, 232)
    road: Colour = (64, 68, 76) if theme.dark else (255, 255, 255)
    green: Colour = (42, 62, 48) if theme.dark else (208, 230, 200)
    water: Colour = (36, 56, 78) if theme.dark else (178, 214, 238)
    canvas.background = land
    canvas.fill((0, 0, canvas.width, sheet), land)
    for _ in range(rng.randint(1, 3)):
        x, y = rng.uniform(-30, canvas.width - 40), rng.uniform(60, sheet - 60)
        canvas.fill((x, y, x + rng.uniform(50, 120), y + rng.uniform(40, 110)), green, 10)
    x = rng.uniform(0, canvas.width)
    canvas.line(((x, 0), (x + rng.uniform(-90, 90), sheet / 2), (x + rng.uniform(-60, 60), sheet)), water, 22)
    for _ in range(rng.randint(3, 5)):
        y, tilt = rng.uniform(40, sheet), rng.uniform(-50, 50)
        canvas.line(((0, y), (canvas.width, y + tilt)), road, rng.choice((5, 8)))
    for _ in range(rng.randint(2, 4)):
        x, tilt = rng.uniform(0, canvas.width), rng.uniform(-40, 40)
        canvas.line(((x, 0), (x + tilt, sheet)), road, rng.choice((4, 7)))
    canvas.fill((0, 0, canvas.width, 26), mix(land, theme.card, 0.6))


def _pin(canvas: Canvas, label: str, left: float, y: float, width: float) -> None:
    theme = canvas.theme
    box = (left, y, left + width, y + 32)
    canvas.fill((left, y + 1, left + width, y + 33), mix(canvas.background, (0, 0, 0), 0.18), 16)
    canvas.fill(box, theme.card, 16)
    canvas.icon("pin", left + 15, y + 16, 18, (220, 60, 52))
    canvas.text(label, left + 27, y + 16, max_width=width - 34)
    canvas.element("card", label, box, group="places")


def _controls(canvas: Canvas, top: float, sheet: float) -> None:
    rng, theme = canvas.rng, canvas.theme
    kinds = rng.choice((("plus",), ("star", "plus"), ("mic", "home"), ("camera",), ("heart", "plus"), ("menu",)))
    for index, kind in enumerate(kinds):
        cy = sheet - 28 - 46 * index
        cx = canvas.width - theme.margin - 18
        if cy < top + 10:
            return
        canvas.disc(cx, cy, 18, theme.card)
        canvas.glyph(kind, cx, cy, 20)
