"""A focused input field over a letter keyboard, or a dial pad."""

from __future__ import annotations

from autoglm_training.world.canvas import Canvas
from autoglm_training.world.labels import CONTACTS, FIELDS, PRODUCTS
from autoglm_training.world.templates.parts import pill, search_field, status_bar, title_bar
from autoglm_training.world.theme import mix

_LETTERS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_PAD = ("123", "456", "789", "*0#")


def build(canvas: Canvas) -> None:
    rng = canvas.rng
    status_bar(canvas)
    if rng.random() < 0.7 or canvas.scene.must_show:
        _letters(canvas)
    else:
        _dial_pad(canvas)
    pill(canvas)


def _letters(canvas: Canvas) -> None:
    rng, theme = canvas.rng, canvas.theme
    y = title_bar(canvas, canvas.scene.app, back=True, icons=rng.choice(((), ("menu",), ("close",))))
    fields = [canvas.word(FIELDS[index]) for index in (2, 5, 6)]
    label = rng.choice(fields)
    y = search_field(canvas, y + 4, label, 42)
    top = canvas.bottom - 4 - 4 * 48
    rows = int((top - y - 4) // 44)
    suggestions = canvas.pick(rng.choice((CONTACTS, PRODUCTS)), min(rows, rng.randint(1, 4)))
    for index, suggestion in enumerate(suggestions):
        line = y + index * 44
        canvas.icon("clock", theme.margin + 18, line + 22, 16, theme.faint)
        canvas.text(suggestion, theme.margin + 36, line + 22)
        canvas.fill((theme.margin, line + 43, canvas.width - theme.margin, line + 44), theme.divider)
        canvas.element("row", suggestion, (theme.margin, line, canvas.width - theme.margin, line + 43), group="rows")
    canvas.fill((0, top - 6, canvas.width, canvas.height), mix(theme.background, theme.ink, 0.1))
    pitch = (canvas.width - 8) / 10
    for row, letters in enumerate(_LETTERS):
        left = canvas.width / 2 - len(letters) * pitch / 2
        for column, letter in enumerate(letters):
            _key(canvas, letter, left + column * pitch, top + row * 48, pitch)
    actions = [canvas.word(pair) for pair in (("Search", "搜索"), ("Done", "完成"), ("Send", "发送"))]
    drawn = rng.choice(actions)
    action = next((label for label in canvas.scene.must_show if label in actions), drawn)
    bottom_row = top + 3 * 48
    space = canvas.word(("space", "空格"))
    width = 78.0
    _key(canvas, ",", 4, bottom_row, pitch * 1.2)
    _key(canvas, space, 4 + pitch * 1.2, bottom_row, canvas.width - 8 - pitch * 2.4 - width)
    _key(canvas, ".", canvas.width - 4 - width - pitch * 1.2, bottom_row, pitch * 1.2)
    box = (canvas.width - 4 - width + 2, bottom_row + 2, canvas.width - 6, bottom_row + 44)
    canvas.fill(box, theme.accent, 6)
    middle = (box[0] + box[2]) / 2
    canvas.text(action, middle, bottom_row + 23, theme.body_px, (255, 255, 255), align="middle", max_width=width - 10)
    canvas.element("button", action, box, group="keys")


def _key(canvas: Canvas, label: str, x: float, y: float, width: float) -> None:
    theme = canvas.theme
    box = (x + 2, y + 2, x + width - 2, y + 44)
    canvas.fill(box, mix(theme.card, theme.ink, 0.16) if theme.dark else theme.card, 6)
    size = theme.small_px if len(label) > 1 else theme.body_px + 1
    canvas.text(label, x + width / 2, y + 23, size, align="middle")
    canvas.element("key", label, box, group="keys")


def _dial_pad(canvas: Canvas) -> None:
    rng, theme = canvas.rng, canvas.theme
    number = canvas.scene.typed or "".join(str(rng.randint(0, 9)) for _ in range(rng.randint(0, 8)))
    label = canvas.word(("Phone number", "手机号"))
    top = canvas.bottom - 70 - 4 * 72
    middle = max(56.0, (top + 24) / 2)
    box = (theme.margin, middle - 22, canvas.width - theme.margin, middle + 22)
    ink = theme.ink if number else theme.faint
    canvas.text(number or label, canvas.width / 2, middle, 24, ink, align="middle", max_width=canvas.width - 40)
    canvas.element("field", label, box, value=number or None, group="fields")
    pitch = (canvas.width - 2 * theme.margin) / 3
    for row, keys in enumerate(_PAD):
        for column, key in enumerate(keys):
            cx, cy = theme.margin + (column + 0.5) * pitch, top + row * 72 + 36
            canvas.disc(cx, cy, 29, theme.card)
            canvas.text(key, cx, cy, 24, align="middle")
            canvas.element("key", key, (cx - 29, cy - 29, cx + 29, cy + 29), group="keys")
    cy = canvas.bottom - 36
    canvas.disc(canvas.width / 2, cy, 28, (46, 168, 84))
    canvas.icon("phone", canvas.width / 2, cy, 26, (255, 255, 255))
    left = canvas.width / 2 - 28
    canvas.element("icon", "phone", (left, cy - 28, left + 56, cy + 28), group="glyphs", icon="phone")
