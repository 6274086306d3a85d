"""A messenger's conversation list."""

from __future__ import annotations

from autoglm_training.world.canvas import Canvas
from autoglm_training.world.labels import CONTACTS
from autoglm_training.world.running_text import MESSAGES
from autoglm_training.world.templates.parts import avatar, bottom_tabs, pill, search_field, status_bar, title_bar

_TABS = (
    (("Chats", "聊天"), "chat"),
    (("Contacts", "通讯录"), "people"),
    (("Discover", "发现"), "globe"),
    (("Me", "我的"), "person"),
)


def build(canvas: Canvas) -> None:
    rng, theme = canvas.rng, canvas.theme
    canvas.background = theme.card
    canvas.fill((0, 0, canvas.width, canvas.height), theme.card)
    status_bar(canvas)
    icons = rng.choice((("search", "plus"), ("plus",), ("search", "menu"), ("camera", "plus")))
    y = title_bar(canvas, canvas.scene.app, back=rng.random() < 0.2, icons=icons)
    if rng.random() < 0.35:
        y = search_field(canvas, y, canvas.word(("Search here", "搜索内容")))
    pitch = theme.row_height + 14
    floor = canvas.bottom - 52
    count = min(8, int((floor - y) // pitch))
    badge = rng.random() < 0.6
    for index, name in enumerate(canvas.pick(CONTACTS, count)):
        _row(canvas, name, y + index * pitch, pitch, badge)
    bottom_tabs(canvas, [(canvas.word(pair), icon) for pair, icon in _TABS], 0)
    pill(canvas)


def _row(canvas: Canvas, name: str, y: float, pitch: float, badge: bool) -> None:
    rng, theme = canvas.rng, canvas.theme
    cy, left = y + pitch / 2, theme.margin + 54
    avatar(canvas, name, theme.margin + 24, cy, 20)
    right = canvas.width - theme.margin - 4
    time = f"{rng.randint(0, 23)}:{rng.randint(0, 59):02d}"
    canvas.text(time, right, cy - 11, theme.small_px, theme.faint, align="right")
    canvas.text(name, left, cy - 11, theme.body_px, bold=rng.random() < 0.4, max_width=right - left - 46)
    message = rng.choice(MESSAGES[canvas.language])
    canvas.text(message, left, cy + 11, theme.small_px, theme.faint, max_width=right - left - 26)
    if badge and rng.random() < 0.3:
        canvas.disc(right - 9, cy + 11, 9, (226, 58, 52))
        canvas.text(str(rng.randint(1, 9)), right - 9, cy + 11, 12, (255, 255, 255), align="middle")
    canvas.fill((left, y + pitch - 1, canvas.width, y + pitch), theme.divider)
    canvas.element("row", name, (0, y, canvas.width, y + pitch - 1), value=message, group="rows")
