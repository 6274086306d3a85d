"""A settings list: switches and pages in cards."""

from __future__ import annotations

from autoglm_training.world.canvas import Canvas
from autoglm_training.world.labels import PAGES, TOGGLES
from autoglm_training.world.running_text import CAPTIONS
from autoglm_training.world.templates.parts import card, chevron, pill, search_field, status_bar, title_bar
from autoglm_training.world.theme import colour_of


def build(canvas: Canvas) -> None:
    rng, theme = canvas.rng, canvas.theme
    status_bar(canvas)
    title = next((page for page in canvas.scene.must_show if page == canvas.scene.app), canvas.scene.app)
    y = title_bar(canvas, title, back=rng.random() < 0.7, icons=("search",) if rng.random() < 0.3 else ())
    if rng.random() < 0.5:
        y = search_field(canvas, y, canvas.word(("Search settings", "搜索设置")))
    leading = rng.random() < 0.6
    left = theme.margin + 12 + (34 if leading else 0)
    right = canvas.width - theme.margin - 12
    room = right - left - 52
    gap = 10 if canvas.held_out else rng.randint(4, 24)
    sizes = _group_sizes(canvas, y, gap)
    total = sum(sizes)
    toggle_count = max(1, min(total - 1, round(total * rng.uniform(0.45, 0.8))))
    toggles = canvas.pick(TOGGLES, toggle_count, room)
    pages = canvas.pick(PAGES, total - toggle_count, room)
    rows = [(label, True) for label in toggles] + [(label, False) for label in pages]
    if rng.random() < 0.4:
        rng.shuffle(rows)
    for size in sizes:
        height = size * theme.row_height
        card(canvas, (theme.margin, y, canvas.width - theme.margin, y + height))
        for index, (label, toggles_here) in enumerate(rows[:size]):
            _row(canvas, label, toggles_here, y + index * theme.row_height, left, right, leading)
            if index:
                line = y + index * theme.row_height
                canvas.fill((left, line, canvas.width - theme.margin - 8, line + 1), theme.divider)
        rows = rows[size:]
        y += height + gap
    pill(canvas)


def _group_sizes(canvas: Canvas, y: float, gap: int) -> list[int]:
    """Rows in each card, as many as fit below `y` with `gap` px between cards."""
    sizes: list[int] = []
    while (room := int((canvas.bottom - 6 - y) // canvas.theme.row_height)) >= 1:
        sizes.append(min(room, canvas.rng.randint(2, 5)))
        y += sizes[-1] * canvas.theme.row_height + gap
    if len(sizes) > 2 and canvas.rng.random() < 0.3:
        sizes.pop()
    return sizes


def _row(canvas: Canvas, label: str, toggles: bool, y: float, left: float, right: float, leading: bool) -> None:
    rng, theme = canvas.rng, canvas.theme
    cy = y + theme.row_height / 2
    if leading:
        canvas.disc(left - 22, cy, 11, colour_of(label))
        canvas.disc(left - 22, cy, 5, (255, 255, 255))
    box = (theme.margin, y, canvas.width - theme.margin, y + theme.row_height)
    on = canvas.state(label, rng.random() < 0.5)
    note = rng.random() < 0.4
    if toggles:
        canvas.text(label, left, cy, max_width=right - left - 52)
        knob = canvas.switch(right, cy, on)
        canvas.element("switch", label, box, knob, on=on, group="rows")
        return
    chevron(canvas, right, cy)
    caption = rng.choice(CAPTIONS[canvas.language][:4])
    gap = right - 18 - left - canvas.width_of(label, theme.body_px) - canvas.width_of(caption, theme.small_px)
    canvas.text(label, left, cy, max_width=right - left - 24)
    value = None
    if note and gap > 14:
        canvas.text(caption, right - 18, cy, theme.small_px, theme.faint, align="right")
        value = caption
    canvas.element("row", label, box, value=value, group="rows")
