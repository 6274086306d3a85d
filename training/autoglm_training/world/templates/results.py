"""Search results: places or products under a search field and filters."""

from __future__ import annotations

from autoglm_training.world.canvas import Canvas
from autoglm_training.world.labels import PLACES, PRODUCTS, SONGS
from autoglm_training.world.templates.parts import card, chevron, pill, search_field, status_bar, title_bar, top_tabs
from autoglm_training.world.templates.shop import price_text, prices
from autoglm_training.world.theme import colour_of, mix

_FILTERS = (("All", "全部"), ("Hot", "热门"), ("Nearby", "附近"), ("Latest", "最新"))


def build(canvas: Canvas) -> None:
    rng, theme = canvas.rng, canvas.theme
    status_bar(canvas)
    y = 32.0
    if rng.random() < 0.6:
        title = canvas.word(("Results", "搜索结果"))
        y = title_bar(canvas, title, back=True, icons=rng.choice(((), ("mic",), ("camera",), ("close",))))
    y = search_field(canvas, y, canvas.word(("Search here", "搜索内容")))
    if rng.random() < 0.7:
        count = rng.choice((3, 4))
        y = top_tabs(canvas, y, [canvas.word(pair) for pair in _FILTERS[:count]], rng.randrange(count))
    kind = rng.choice(("places", "products", "songs"))
    pitch = theme.row_height + 18
    count = min(7, int((canvas.bottom - 6 - y) // pitch))
    room = canvas.width - 2 * theme.margin - 120
    labels = canvas.pick({"places": PLACES, "products": PRODUCTS, "songs": SONGS}[kind], count, room)
    costs = prices(canvas, len(labels))
    for index, label in enumerate(labels):
        top = y + index * pitch
        box = (theme.margin, top, canvas.width - theme.margin, top + pitch - 8)
        _row(canvas, label, box, kind, costs[index])
    pill(canvas)


def _row(canvas: Canvas, label: str, box: tuple[float, float, float, float], kind: str, cost: float) -> None:
    rng, theme = canvas.rng, canvas.theme
    card(canvas, box)
    cy = (box[1] + box[3]) / 2
    canvas.fill((box[0] + 10, cy - 16, box[0] + 42, cy + 16), mix(colour_of(label), theme.card, 0.25), 8)
    picture = {"places": "pin", "products": "cart", "songs": "play"}[kind]
    canvas.icon(picture, box[0] + 26, cy, 18, (255, 255, 255))
    left, right = box[0] + 52, box[2] - 12
    if kind == "products":
        value = price_text(canvas, cost)
        colour = (240, 130, 120) if theme.dark else (208, 52, 44)
        canvas.text(value, right, cy, theme.body_px, colour, bold=True, align="right")
        canvas.text(label, left, cy, max_width=right - left - 68)
        canvas.element("card", label, box, price=cost, value=value, group="results")
        return
    if kind == "places":
        value = f"{rng.randint(1, 30)}.{rng.randint(0, 9)}" + ("公里" if canvas.language == "zh" else " km")
    else:
        value = f"{rng.randint(2, 5)}:{rng.randint(0, 59):02d}"
    chevron(canvas, right + 4, cy)
    canvas.text(value, right - 14, cy, theme.small_px, theme.faint, align="right")
    canvas.text(label, left, cy, max_width=right - left - 76)
    canvas.element("card", label, box, value=value, group="results")
