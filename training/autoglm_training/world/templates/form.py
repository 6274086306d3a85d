"""A sign-in form: fields and buttons."""

from __future__ import annotations

from autoglm_training.world.canvas import Canvas
from autoglm_training.world.labels import FIELDS
from autoglm_training.world.templates.parts import pill, status_bar, title_bar
from autoglm_training.world.theme import colour_of

_BUTTONS = (("Log In", "登录"), ("Sign Up", "注册"), ("Skip", "跳过"), ("Help", "帮助"), ("Next", "下一步"))


def build(canvas: Canvas) -> None:
    rng, theme = canvas.rng, canvas.theme
    status_bar(canvas)
    y = title_bar(canvas, canvas.scene.app, back=rng.random() < 0.5, icons=rng.choice(((), ("close",), ("menu",))))
    if rng.random() < 0.7:
        canvas.disc(canvas.width / 2, y + 50, 34, colour_of(canvas.scene.app))
        initial = canvas.scene.app[0]
        canvas.text(initial, canvas.width / 2, y + 50, 34, (255, 255, 255), bold=True, align="middle")
        y += 106
    for index in rng.sample((3, 4, 5), rng.choice((2, 3))):
        label = canvas.word(FIELDS[index])
        box = (theme.margin + 8, y, canvas.width - theme.margin - 8, y + theme.row_height)
        canvas.fill(box, theme.card, theme.radius)
        typed = canvas.scene.typed if not any(e.value for e in canvas.elements) else None
        middle = y + theme.row_height / 2
        canvas.text(typed or label, box[0] + 14, middle, None, theme.ink if typed else theme.faint, max_width=190)
        canvas.element("field", label, box, value=typed, group="fields")
        y += theme.row_height + 12
    y += 14
    room = int((canvas.bottom - 6 - y + 10) // 54)
    labels = rng.sample(_BUTTONS, min(room, rng.choice((2, 3))))
    for index, pair in enumerate(labels):
        box = (theme.margin + 8, y, canvas.width - theme.margin - 8, y + 44)
        canvas.button(canvas.word(pair), box, primary=index == 0)
        y += 54
    pill(canvas)
