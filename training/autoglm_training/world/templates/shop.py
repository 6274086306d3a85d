"""A shop: products with prices, as a list or as a grid of cards."""

from __future__ import annotations

from autoglm_training.world.canvas import Canvas
from autoglm_training.world.draw import Colour
from autoglm_training.world.grids import Box
from autoglm_training.world.labels import PRODUCTS
from autoglm_training.world.templates.parts import (
    bottom_tabs,
    card,
    pill,
    search_field,
    status_bar,
    title_bar,
    top_tabs,
)
from autoglm_training.world.theme import colour_of, mix, readable_accent

_TABS = (
    (("Home", "首页"), "home"),
    (("Category", "分类"), "menu"),
    (("Cart", "购物车"), "cart"),
    (("Me", "我的"), "person"),
)
_FILTERS = (("All", "全部"), ("Sales", "销量"), ("Price", "价格"), ("Latest", "最新"))
_PRICE_RED: Colour = (208, 52, 44)


def build(canvas: Canvas) -> None:
    rng = canvas.rng
    status_bar(canvas)
    y = 30.0
    if rng.random() < 0.6:
        y = title_bar(canvas, canvas.scene.app, back=rng.random() < 0.3, icons=rng.choice(((), ("cart",), ("search",))))
    if rng.random() < 0.7:
        y = search_field(canvas, y, canvas.word(("Search here", "搜索内容")))
    if rng.random() < 0.5:
        count = rng.choice((3, 4))
        y = top_tabs(canvas, y, [canvas.word(pair) for pair in _FILTERS[:count]], rng.randrange(count))
    floor = bottom_tabs(canvas, [(canvas.word(pair), icon) for pair, icon in _TABS], 0)
    if rng.random() < 0.5:
        _list(canvas, y, floor)
    else:
        _grid(canvas, y, floor)
    pill(canvas)


def price_text(canvas: Canvas, price: float) -> str:
    """The price with its currency; whole numbers have no decimals."""
    sign = "¥" if canvas.language == "zh" else "$"
    return f"{sign}{price:.0f}" if price == int(price) else f"{sign}{price:.2f}"


def prices(canvas: Canvas, count: int) -> list[float]:
    """Different prices, far enough apart to tell."""
    rng = canvas.rng
    whole = rng.random() < 0.4
    top = rng.choice((20, 60, 200, 999))
    chosen = rng.sample(range(1, max(top, count + 1)), count)
    return [float(price) if whole else price + rng.choice((0.5, 0.9, 0.99, 0.25)) for price in chosen]


def _list(canvas: Canvas, y: float, floor: float) -> None:
    rng, theme = canvas.rng, canvas.theme
    pitch = theme.row_height + 32
    count = max(2, int((floor - y) // pitch))
    left = theme.margin + pitch - 4
    right = canvas.width - theme.margin - 10
    labels = canvas.pick(PRODUCTS, count, right - left)
    costs = prices(canvas, len(labels))
    sold = rng.random() < 0.5
    plus = rng.random() < 0.5
    for index, (label, cost) in enumerate(zip(labels, costs, strict=True)):
        top = y + index * pitch
        box: Box = (theme.margin, top, canvas.width - theme.margin, top + pitch - 8)
        card(canvas, box)
        _picture(canvas, label, (box[0] + 8, top + 8, box[0] + pitch - 16, top + pitch - 16), 8)
        middle = (top + box[3]) / 2
        canvas.text(label, left, middle - 14, max_width=right - left)
        _price(canvas, cost, left, middle + 14)
        if plus:
            canvas.disc(right - 12, middle + 14, 12, theme.accent)
            canvas.icon("plus", right - 12, middle + 14, 12, (255, 255, 255))
        elif sold:
            canvas.text(_sold(canvas), right, middle + 14, theme.small_px, theme.faint, align="right", max_width=70)
        canvas.element("card", label, box, price=cost, value=price_text(canvas, cost), group="products")


def _grid(canvas: Canvas, y: float, floor: float) -> None:
    theme = canvas.theme
    gap = 8
    width = (canvas.width - 2 * theme.margin - gap) / 2
    pitch = theme.row_height + (canvas.rng.choice((70, 76, 80, 88)) if not canvas.held_out else 84)
    rows = max(1, int((floor - y) // pitch))
    labels = canvas.pick(PRODUCTS, rows * 2, width - 18)
    costs = prices(canvas, len(labels))
    for index, (label, cost) in enumerate(zip(labels, costs, strict=True)):
        row, column = divmod(index, 2)
        left, top = theme.margin + column * (width + gap), y + row * pitch
        box: Box = (left, top, left + width, top + pitch - gap)
        card(canvas, box)
        _picture(canvas, label, (left, top, left + width, box[3] - 56), theme.radius)
        canvas.text(label, left + 9, box[3] - 41, max_width=width - 18)
        _price(canvas, cost, left + 9, box[3] - 17)
        canvas.element("card", label, box, price=cost, value=price_text(canvas, cost), group="products")


def _price(canvas: Canvas, cost: float, x: float, cy: float) -> None:
    colour = mix(_PRICE_RED, (255, 255, 255), 0.35) if canvas.theme.dark else _PRICE_RED
    canvas.text(price_text(canvas, cost), x, cy, canvas.theme.body_px + 2, colour, bold=True)


def _sold(canvas: Canvas) -> str:
    count = canvas.rng.randint(2, 99) * 10
    return f"已售{count}件" if canvas.language == "zh" else f"{count} sold"


def _picture(canvas: Canvas, label: str, box: Box, radius: float) -> None:
    """A stylised product photo: a tinted tile with a simple object on it."""
    colour = colour_of(label)
    light, deep = mix(colour, (255, 255, 255), 0.72), mix(colour, (255, 255, 255), 0.5)
    canvas.gradient(box, (light, light, deep, deep), radius)
    x0, y0, x1, y1 = box
    cx, cy, size = (x0 + x1) / 2, (y0 + y1) / 2, min(x1 - x0, y1 - y0) * 0.56
    kind = sum(map(ord, label)) % 3
    if kind == 0:
        canvas.disc(cx, cy, round(size / 2), colour)
        canvas.disc(cx - size * 0.12, cy - size * 0.12, round(size / 6), mix(colour, (255, 255, 255), 0.4))
    elif kind == 1:
        canvas.fill((cx - size * 0.32, cy - size / 2, cx + size * 0.32, cy + size / 2), colour, size * 0.14)
        strip = mix(colour, (255, 255, 255), 0.5)
        canvas.fill((cx - size * 0.32, cy - size * 0.1, cx + size * 0.32, cy + size * 0.2), strip)
    else:
        canvas.fill((cx - size / 2, cy - size * 0.3, cx + size / 2, cy + size * 0.3), colour, size * 0.12)
        canvas.disc(cx, cy, round(size * 0.2), readable_accent(mix(colour, (0, 0, 0), 0.3)))
