"""The clock app's alarms: a time, when it repeats, and a switch each."""

from __future__ import annotations

from autoglm_training.world.canvas import Canvas
from autoglm_training.world.running_text import CAPTIONS
from autoglm_training.world.templates.parts import bottom_tabs, card, pill, status_bar, title_bar

_TABS = (
    (("Alarm", "闹钟"), "bell"),
    (("World Clock", "世界时钟"), "globe"),
    (("Stopwatch", "秒表"), "clock"),
    (("Timer", "计时器"), "pause"),
)


def build(canvas: Canvas) -> None:
    rng, theme = canvas.rng, canvas.theme
    status_bar(canvas)
    floating = rng.random() < 0.5
    icons = () if floating else ("plus",)
    y = title_bar(canvas, canvas.word(("Alarm", "闹钟")), back=rng.random() < 0.3, icons=icons)
    pitch = theme.row_height + 26
    floor = canvas.bottom - 52
    count = min(6, int((floor - y - (60 if floating else 0)) // pitch))
    minutes = rng.sample(range(0, 1440, 5), count)
    if rng.random() < 0.7:
        minutes.sort()
    left, right = theme.margin + 14, canvas.width - theme.margin - 14
    repeats = CAPTIONS[canvas.language]
    for index, minute in enumerate(minutes):
        top = y + index * pitch
        box = (theme.margin, top, canvas.width - theme.margin, top + pitch - 8)
        middle = (top + box[3]) / 2
        card(canvas, box)
        label = f"{minute // 60:02d}:{minute % 60:02d}"
        on = canvas.state(label, rng.random() < 0.5)
        canvas.text(label, left, middle - 11, theme.title_px + 4, theme.ink if on else theme.faint)
        canvas.text(rng.choice(_repeats(repeats, canvas.language)), left, middle + 16, theme.small_px, theme.faint)
        knob = canvas.switch(right, middle, on)
        canvas.element("switch", label, box, knob, on=on, value=label, group="rows")
    tabs_top = bottom_tabs(canvas, [(canvas.word(pair), icon) for pair, icon in _TABS], 0)
    if floating:
        cx, cy = canvas.width / 2, tabs_top - 34
        canvas.disc(cx, cy, 24, theme.accent)
        canvas.icon("plus", cx, cy, 22, (255, 255, 255))
        canvas.element("icon", "plus", (cx - 24, cy - 24, cx + 24, cy + 24), group="glyphs", icon="plus")
    pill(canvas)


def _repeats(captions: tuple[str, ...], language: str) -> tuple[str, ...]:
    first = captions.index("每天" if language == "zh" else "every day")
    return captions[first : first + 4]
