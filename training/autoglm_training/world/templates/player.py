"""A music player: cover, song, progress and controls, sometimes a queue."""

from __future__ import annotations

from autoglm_training.world.canvas import Canvas
from autoglm_training.world.labels import CONTACTS, SONGS
from autoglm_training.world.templates.parts import card, pill, status_bar, title_bar
from autoglm_training.world.theme import hsv, mix


def build(canvas: Canvas) -> None:
    rng, theme = canvas.rng, canvas.theme
    status_bar(canvas)
    right = rng.choice((("menu",), ("search",), ("heart",), ("star",), ()))
    title = canvas.word(("Now Playing", "正在播放")) if rng.random() < 0.6 else canvas.scene.app
    y = title_bar(canvas, title, back=rng.random() < 0.7, icons=right)
    songs = canvas.pick(SONGS, 6)
    queue = rng.choice((0, 2, 3)) if canvas.height >= 616 else rng.choice((0, 2))
    side = min(canvas.width - 2 * theme.margin - 40, canvas.bottom - y - 190 - queue * 46)
    hue = rng.random()
    corners = [hsv(hue + rng.uniform(-0.2, 0.2), rng.uniform(0.3, 0.8), rng.uniform(0.4, 0.95)) for _ in range(4)]
    left = canvas.width / 2 - side / 2
    canvas.gradient((left, y + 4, left + side, y + 4 + side), (corners[0], corners[1], corners[2], corners[3]), 16)
    canvas.disc(canvas.width / 2, y + 4 + side / 2, round(side * 0.18), mix(corners[1], (255, 255, 255), 0.5))
    y += side + 28
    canvas.text(songs[0], canvas.width / 2, y, theme.title_px, bold=True, align="middle", max_width=canvas.width - 40)
    artist = rng.choice(CONTACTS)
    canvas.text(canvas.word(artist), canvas.width / 2, y + 24, theme.small_px, theme.faint, align="middle")
    y = _progress(canvas, y + 50)
    y = _controls(canvas, y + 30, hearted="heart" not in right)
    if queue:
        _queue(canvas, songs[1 : 1 + queue], y)
    pill(canvas)


def _progress(canvas: Canvas, y: float) -> float:
    rng, theme = canvas.rng, canvas.theme
    left, right = theme.margin + 12, canvas.width - theme.margin - 12
    share = rng.uniform(0.08, 0.92)
    knob = left + (right - left) * share
    accent = mix(theme.accent, (255, 255, 255), 0.3) if theme.dark else theme.accent
    canvas.fill((left, y - 2, right, y + 2), mix(theme.background, theme.ink, 0.18), 2)
    canvas.fill((left, y - 2, knob, y + 2), accent, 2)
    canvas.disc(knob, y, 6, accent)
    canvas.element(
        "slider", canvas.word(("Music", "音乐")), (left, y - 9, right, y + 9), value=f"{round(share * 100)}%"
    )
    total = rng.randint(150, 320)
    now = int(total * share)
    for seconds, x, align in ((now, left, "left"), (total, right, "right")):
        time = f"{seconds // 60}:{seconds % 60:02d}"
        canvas.text(time, x, y + 17, theme.small_px, theme.faint, align="left" if align == "left" else "right")
    return y + 26


def _controls(canvas: Canvas, y: float, hearted: bool) -> float:
    rng, theme = canvas.rng, canvas.theme
    middle = "play" if rng.random() < 0.5 else "pause"
    outer = ("heart", "plus") if hearted else ("star", "plus")
    kinds = (outer[0], "previous", middle, "next", outer[1]) if rng.random() < 0.6 else ("previous", middle, "next")
    pitch = (canvas.width - 2 * theme.margin) / len(kinds)
    for index, kind in enumerate(kinds):
        cx = theme.margin + (index + 0.5) * pitch
        if kind == middle:
            canvas.disc(cx, y, 26, theme.accent)
            canvas.icon(kind, cx, y, 24, (255, 255, 255))
            canvas.element("icon", kind, (cx - 26, y - 26, cx + 26, y + 26), group="glyphs", icon=kind)
        else:
            canvas.glyph(kind, cx, y, 24)
    return y + 36


def _queue(canvas: Canvas, songs: list[str], y: float) -> None:
    theme = canvas.theme
    card(canvas, (theme.margin, y, canvas.width - theme.margin, y + 42 * len(songs)))
    for index, song in enumerate(songs):
        top = y + 42 * index
        if index:
            canvas.fill((theme.margin + 12, top, canvas.width - theme.margin - 12, top + 1), theme.divider)
        canvas.text(song, theme.margin + 14, top + 21, max_width=150)
        length = f"{canvas.rng.randint(2, 5)}:{canvas.rng.randint(0, 59):02d}"
        right = canvas.width - theme.margin - 14
        canvas.text(length, right, top + 21, theme.small_px, theme.faint, align="right")
        canvas.element("row", song, (theme.margin, top, canvas.width - theme.margin, top + 42), group="rows")
