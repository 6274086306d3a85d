"""A question with two or three buttons over a dimmed screen."""

from __future__ import annotations

from autoglm_training.world.canvas import Canvas
from autoglm_training.world.labels import BUTTONS
from autoglm_training.world.running_text import QUESTIONS
from autoglm_training.world.templates.parts import pill, status_bar
from autoglm_training.world.theme import mix


def build(canvas: Canvas) -> None:
    rng, theme = canvas.rng, canvas.theme
    canvas.background = mix(theme.background, (0, 0, 0), 0.5)
    canvas.fill((0, 0, canvas.width, canvas.height), canvas.background)
    _dimmed_rows(canvas)
    status_bar(canvas, mix(theme.ink, canvas.background, 0.3))
    question, (refuse, accept) = rng.choice(QUESTIONS[canvas.language])
    labels = [canvas.word(BUTTONS[refuse]), canvas.word(BUTTONS[accept])]
    extra = canvas.word(rng.choice((("Not Now", "暂不"), ("Skip", "跳过"), ("Edit", "编辑"))))
    stacked = rng.random() < 0.4
    if rng.random() < 0.3 and extra not in labels:
        labels.append(extra)
        stacked = True
    side = theme.margin + rng.choice((6, 8, 10, 12, 14, 17) if not canvas.held_out else (4, 20))
    height = 96 + (len(labels) * 48 if stacked else 56)
    top = rng.choice(((canvas.height - height) / 2, canvas.bottom - height - 14))
    box = (side, top, canvas.width - side, top + height)
    canvas.fill(box, theme.card, theme.radius + 6)
    middle, room = canvas.width / 2, canvas.width - 2 * side - 28
    heading = canvas.scene.app
    canvas.text(heading, middle, top + 30, theme.title_px, bold=True, align="middle", max_width=room)
    canvas.text(question, middle, top + 64, theme.body_px, theme.ink, align="middle", max_width=room)
    canvas.element("text", question, (side + 14, top + 52, canvas.width - side - 14, top + 76), group="texts")
    y, inner = top + 90, side + 14
    if stacked:
        for index, label in enumerate(reversed(labels)):
            line = y + index * 48
            canvas.button(label, (inner, line, canvas.width - inner, line + 40), primary=index == len(labels) - 2)
    else:
        width = (canvas.width - 2 * inner - 10) / 2
        for index, label in enumerate(labels):
            left = inner + index * (width + 10)
            canvas.button(label, (left, y + 6, left + width, y + 46), primary=index == 1)
    pill(canvas, mix(theme.ink, canvas.background, 0.3))


def _dimmed_rows(canvas: Canvas) -> None:
    rng = canvas.rng
    surface = mix(canvas.theme.card, (0, 0, 0), 0.5)
    mark = mix(surface, canvas.theme.ink, 0.18)
    y = 60.0
    while y < canvas.height - 60:
        canvas.fill((12, y, canvas.width - 12, y + 46), surface, 10)
        canvas.disc(34, y + 23, 12, mark)
        canvas.fill((56, y + 13, 56 + rng.randint(60, 150), y + 20), mark, 3)
        canvas.fill((56, y + 27, 56 + rng.randint(40, 170), y + 33), mark, 3)
        y += 56
