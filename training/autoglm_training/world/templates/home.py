"""The launcher: a grid of apps over a wallpaper, with a dock."""

from __future__ import annotations

from autoglm_training.world.canvas import STATUS_HEIGHT, Canvas
from autoglm_training.world.draw import Colour
from autoglm_training.world.labels import APPS, DAYS
from autoglm_training.world.templates.parts import pill, status_bar
from autoglm_training.world.theme import colour_of, hsv, mix

HOME_APP = "System Home"

# English name to the pictogram on its icon; other apps show their first letter.
_PICTURES: dict[str, str] = {
    "Settings": "gear", "Camera": "camera", "Phone": "phone", "Messages": "chat", "Contacts": "person",
    "Clock": "clock", "Music": "play", "Maps": "pin", "Shop": "cart", "Video": "play", "Browser": "search",
    "Recorder": "mic", "Health": "heart", "QQ Music": "play", "Amap": "pin", "WeChat": "chat", "YouTube": "play",
    "Telegram": "send", "Didi": "pin", "Amazon": "cart", "Taobao": "cart",
}  # fmt: skip
_ENGLISH: dict[str, str] = {name: en for en, zh in reversed(APPS) for name in (zh, en)}


def build(canvas: Canvas) -> None:
    rng, theme = canvas.rng, canvas.theme
    ink = _wallpaper(canvas)
    status_bar(canvas, ink)
    columns = rng.choice((3, 4, 4))
    cell = (canvas.width - 2 * theme.margin) / columns
    side = rng.choice((44, 48)) if columns == 4 else rng.choice((48, 54))
    pitch = side + rng.choice((33, 34, 35, 38, 40, 42, 44) if not canvas.held_out else (36, 46))
    top = float(STATUS_HEIGHT + 14)
    top = _widget(canvas, top, ink) if rng.random() < 0.6 else top
    dock_top = canvas.bottom - side - 36
    rows = max(1, min(6, int((dock_top - 24 - top) // pitch)))
    count = rows * columns - (rng.randint(0, columns - 1) if rows > 2 else 0)
    apps = canvas.pick(APPS, count + columns, cell - 4, theme.small_px)
    wanted = [app for app in apps if app in canvas.scene.must_show]
    apps = (wanted + [app for app in apps if app not in wanted])[: count + columns]
    grid, dock = apps[:count], apps[count:]
    rng.shuffle(grid)
    for index, app in enumerate(grid):
        row, column = divmod(index, columns)
        _app(canvas, app, theme.margin + column * cell, top + row * pitch, cell, side, ink, "apps")
    for dot in range(3):
        shade = ink if dot == 0 else mix(ink, (128, 128, 128), 0.6)
        canvas.disc(canvas.width / 2 + (dot - 1) * 12, dock_top - 12, 3, shade)
    tray = mix(canvas.background, (255, 255, 255) if ink == (255, 255, 255) else (0, 0, 0), 0.12)
    canvas.fill((theme.margin - 4, dock_top - 2, canvas.width - theme.margin + 4, canvas.bottom - 6), tray, 16)
    for column, app in enumerate(dock):
        _app(canvas, app, theme.margin + column * cell, dock_top + 4, cell, side, ink, "dock")
    pill(canvas, ink)


def _wallpaper(canvas: Canvas) -> Colour:
    rng = canvas.rng
    hue, light = rng.random(), not canvas.theme.dark and rng.random() < 0.5
    low, high = (0.82, 1.0) if light else (0.15, 0.5)
    strength = (0.05, 0.3) if light else (0.3, 0.8)
    corners = [hsv(hue + rng.uniform(-0.12, 0.12), rng.uniform(*strength), rng.uniform(low, high)) for _ in range(4)]
    canvas.background = corners[2]
    canvas.gradient((0, 0, canvas.width, canvas.height), (corners[0], corners[1], corners[2], corners[3]))
    return (22, 24, 30) if light else (255, 255, 255)


def _widget(canvas: Canvas, top: float, ink: Colour) -> float:
    rng, theme = canvas.rng, canvas.theme
    if rng.random() < 0.5:
        time = f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"
        canvas.text(time, canvas.width / 2, top + 22, 40, ink, align="middle")
        day = canvas.word(rng.choice(DAYS))
        canvas.text(day, canvas.width / 2, top + 56, theme.body_px, ink, align="middle")
        return top + 80
    box = (theme.margin, top, canvas.width - theme.margin, top + 44)
    canvas.fill(box, (250, 250, 252), 22)
    canvas.icon("search", box[0] + 24, top + 22, 18, (110, 112, 118))
    label = canvas.word(("Search here", "搜索内容"))
    canvas.text(label, box[0] + 42, top + 22, theme.body_px, (110, 112, 118))
    canvas.element("field", label, box, group="fields", icon="search")
    return top + 60


def _app(canvas: Canvas, app: str, x: float, y: float, cell: float, side: float, ink: Colour, group: str) -> None:
    cx = x + cell / 2
    name = _ENGLISH[app]
    box = (cx - side / 2, y, cx + side / 2, y + side)
    colour = colour_of(name)
    light = mix(colour, (255, 255, 255), 0.18)
    canvas.gradient(box, (light, light, colour, colour), side * 0.24)
    if name in _PICTURES:
        canvas.icon(_PICTURES[name], cx, y + side / 2, side * 0.56, (255, 255, 255))
    else:
        canvas.text(app[0], cx, y + side / 2, round(side * 0.5), (255, 255, 255), bold=True, align="middle")
    canvas.text(app, cx, y + side + 12, canvas.theme.small_px, ink, align="middle", max_width=cell - 4)
    reach = max(side / 2, min(cell / 2 - 1, 30))
    canvas.element(
        "icon", app, (cx - reach, y - 2, cx + reach, y + side + 20), box, group=group, icon=_PICTURES.get(name)
    )
