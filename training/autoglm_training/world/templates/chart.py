"""A bar chart of a week."""

from __future__ import annotations

from autoglm_training.world.canvas import Canvas
from autoglm_training.world.labels import DAYS, names
from autoglm_training.world.templates.parts import card, pill, status_bar, title_bar, top_tabs
from autoglm_training.world.theme import hsv, mix

_TITLES = (("Statistics", "统计"), ("Steps", "步数"), ("Screen Time", "屏幕时间"), ("Spending", "消费"))
_PERIODS = (("Day", "日"), ("Week", "周"), ("Month", "月"))


def build(canvas: Canvas) -> None:
    rng, theme = canvas.rng, canvas.theme
    status_bar(canvas)
    title = canvas.word(rng.choice(_TITLES))
    y = title_bar(canvas, title, back=rng.random() < 0.7, icons=rng.choice(((), ("menu",), ("plus",))))
    if rng.random() < 0.6:
        y = top_tabs(canvas, y, [canvas.word(pair) for pair in _PERIODS], 1)
    count = rng.choice((5, 7, 7) if not canvas.held_out else (4, 6))
    days = list(names(DAYS, canvas.language))[:count]
    height = min(canvas.bottom - y - 24, rng.choice((240, 280, 320)))
    box = (theme.margin, y + 4, canvas.width - theme.margin, y + 4 + height)
    card(canvas, box)
    _bars(canvas, days, box)
    y = box[3] + 12
    if canvas.bottom - y > 70:
        card(canvas, (theme.margin, y, canvas.width - theme.margin, y + 56))
        total = canvas.word(("Total", "合计"))
        canvas.text(total, theme.margin + 14, y + 28)
        value = sum(int(element.value or 0) for element in canvas.elements if element.kind == "bar")
        right = canvas.width - theme.margin - 14
        canvas.text(str(value), right, y + 28, theme.title_px, bold=True, align="right")
        box = (theme.margin, y, canvas.width - theme.margin, y + 56)
        canvas.element("text", total, box, value=str(value), group="texts")
    pill(canvas)


def _bars(canvas: Canvas, days: list[str], box: tuple[float, float, float, float]) -> None:
    rng, theme = canvas.rng, canvas.theme
    x0, y0, x1, y1 = box
    base, ceiling = y1 - 32, y0 + 34
    # Heights differ by at least 5 % of the axis, so that the tallest and the lowest can be seen.
    levels = rng.sample(range(2, 21), len(days))
    top_value = rng.choice((20, 60, 100, 200))
    pitch = (x1 - x0 - 12) / len(days)
    width = pitch * rng.uniform(0.42, 0.66)
    numbered = rng.random() < 0.6
    one_colour = rng.random() < 0.6
    hue = rng.random()
    for line in range(4):
        y = ceiling + (base - ceiling) * line / 3
        canvas.fill((x0 + 10, y, x1 - 10, y + 1), theme.divider)
    accent = mix(theme.accent, (255, 255, 255), 0.25) if theme.dark else theme.accent
    for index, (day, level) in enumerate(zip(days, levels, strict=True)):
        cx = x0 + 6 + (index + 0.5) * pitch
        top = base - (base - ceiling) * level / 20
        colour = accent if one_colour else hsv(hue + index * 0.11, 0.6, 0.8)
        bar = (cx - width / 2, top, cx + width / 2, base)
        canvas.fill(bar, colour, min(5.0, (base - top) / 2))
        value = str(round(top_value * level / 20))
        if numbered:
            canvas.text(value, cx, top - 10, theme.small_px, align="middle", max_width=pitch - 1)
        canvas.text(day, cx, base + 15, theme.small_px, theme.faint, align="middle", max_width=pitch - 1)
        # Its day belongs to a bar, but a tap must land on the bar itself.
        canvas.element("bar", day, (*bar[:3], base + 26), tap_box=bar, value=value, group="bars")
