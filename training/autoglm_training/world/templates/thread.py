"""One conversation: bubbles and an input bar."""

from __future__ import annotations

from autoglm_training.world.canvas import Canvas
from autoglm_training.world.labels import CONTACTS
from autoglm_training.world.running_text import MESSAGES
from autoglm_training.world.templates.parts import avatar, pill, status_bar, title_bar
from autoglm_training.world.theme import mix


def build(canvas: Canvas) -> None:
    rng = canvas.rng
    status_bar(canvas)
    name = canvas.pick(CONTACTS, 1)[0]
    y = title_bar(canvas, name, back=True, icons=rng.choice((("menu",), ("phone",), ("phone", "menu"), ("camera",))))
    floor = _input_bar(canvas)
    y += 6
    sent = [label for label in canvas.scene.must_show if not _is_contact(label)]
    while True:
        mine = rng.random() < 0.5
        gap = rng.randint(10, 22)
        text = rng.choice(MESSAGES[canvas.language])
        if y + 38 * (2 if sent else 1) > floor - 6 or rng.random() < 0.04:
            break
        _bubble(canvas, name, text, y, mine)
        y += 38 + gap
    for text in sent:
        _bubble(canvas, name, text, min(y, floor - 44), True)
    pill(canvas)


def _is_contact(label: str) -> bool:
    return any(label in pair for pair in CONTACTS)


def _bubble(canvas: Canvas, name: str, text: str, y: float, mine: bool) -> None:
    theme = canvas.theme
    cy = y + 18
    width = min(canvas.width_of(text, theme.body_px), canvas.width - 130) + 22
    if mine:
        right = canvas.width - theme.margin
        box = (right - width, y, right, y + 36)
        canvas.fill(box, theme.accent, 14)
        canvas.text(text, box[0] + 11, cy, theme.body_px, (255, 255, 255), max_width=width - 22)
    else:
        left = theme.margin + 38
        avatar(canvas, name, theme.margin + 15, cy, 15)
        box = (left, y, left + width, y + 36)
        canvas.fill(box, theme.card, 14)
        canvas.text(text, left + 11, cy, theme.body_px, max_width=width - 22)
    canvas.element("text", text, box, group="bubbles", value="sent" if mine else "received")


def _input_bar(canvas: Canvas) -> float:
    rng, theme = canvas.rng, canvas.theme
    top = canvas.bottom - 52
    canvas.fill((0, top, canvas.width, canvas.height), theme.card)
    canvas.fill((0, top, canvas.width, top + 1), theme.divider)
    cy = top + 26
    left, right = theme.margin + 2.0, canvas.width - theme.margin - 2.0
    if rng.random() < 0.6:
        canvas.glyph("mic", left + 11, cy)
        left += 34
    kinds = rng.choice((("send",), ("plus",), ("send", "plus"), ("camera", "send")))
    for kind in ("send",) if canvas.scene.typed or canvas.scene.focused else kinds:
        canvas.glyph(kind, right - 11, cy, colour=theme.accent if kind == "send" and not theme.dark else None)
        right -= 36
    box = (left, cy - 18, right, cy + 18)
    canvas.fill(box, mix(theme.card, theme.ink, 0.08), 18)
    label = canvas.word(("Type a message", "输入消息"))
    canvas.input_text(label, left + 14, cy, right - left - 24)
    canvas.element("field", label, box, value=canvas.scene.typed, group="fields")
    return float(top)
