"""Parts many screens share: status bar, title bar, bottom tabs, search field, cards."""

from __future__ import annotations

from collections.abc import Sequence

from autoglm_training.world.canvas import PILL_HEIGHT, STATUS_HEIGHT, Canvas
from autoglm_training.world.draw import Colour
from autoglm_training.world.grids import Box
from autoglm_training.world.theme import colour_of, mix

TABS_HEIGHT = 50


def status_bar(canvas: Canvas, ink: Colour | None = None) -> None:
    """Time at the left, signal and battery at the right."""
    rng, colour = canvas.rng, ink or canvas.theme.ink
    time = f"{rng.randint(0, 23)}:{rng.randint(0, 59):02d}"
    middle = STATUS_HEIGHT / 2 + 1
    canvas.text(time, 16, middle, canvas.theme.small_px, colour)
    right = canvas.width - 14
    level, bars = rng.randint(4, 16), rng.randint(1, 4)
    dim = mix(colour, (128, 128, 128), 0.6)
    canvas.fill((right - 20, middle - 5, right, middle + 5), dim, 3)
    canvas.fill((right - 19, middle - 4, right - 19 + level, middle + 4), colour, 2)
    for bar in range(4):
        left = right - 42 + bar * 5
        canvas.fill((left, middle + 4 - 2 - 2 * bar, left + 3, middle + 5), colour if bar < bars else dim, 1)


def pill(canvas: Canvas, ink: Colour | None = None) -> None:
    """The gesture bar at the bottom edge."""
    cy = canvas.height - PILL_HEIGHT / 2
    canvas.fill((canvas.width / 2 - 45, cy - 2, canvas.width / 2 + 45, cy + 2), ink or canvas.theme.ink, 2)


def title_bar(canvas: Canvas, title: str, *, back: bool, icons: Sequence[str] = ()) -> float:
    """Title with an optional back arrow and pictograms at the right; returns the y below it."""
    theme = canvas.theme
    # Training's titles vary in height: nothing on a screen may sit at places that can be learnt by heart.
    top, height = STATUS_HEIGHT + 2, 46 if canvas.held_out else canvas.rng.randint(38, 84)
    cy = top + height / 2
    left = float(theme.margin + 4)
    if back:
        canvas.glyph("back", left + 11, cy)
        left += 36
    right = float(canvas.width - theme.margin - 4)
    for kind in reversed(icons):
        canvas.glyph(kind, right - 11, cy, 20)
        right -= 36
    if theme.title_style == "large":
        cy = top + height + 14 if (back or icons) else cy
        canvas.text(title, theme.margin + 6, cy, theme.title_px + 4, bold=True, max_width=canvas.width - 40)
        return cy + 24
    if theme.title_style == "middle":
        room = 2 * min(canvas.width / 2 - left, right - canvas.width / 2) - 8
        canvas.text(title, canvas.width / 2, cy, theme.title_px, bold=True, align="middle", max_width=room)
    else:
        canvas.text(title, left + 2, cy, theme.title_px, bold=True, max_width=right - left - 8)
    return float(top + height + 2)


def search_field(canvas: Canvas, y: float, placeholder: str, height: float = 38) -> float:
    """A full-width search field; returns the y below it. It shows the scene's typed text, if any."""
    theme = canvas.theme
    box: Box = (theme.margin, y, canvas.width - theme.margin, y + height)
    surface = mix(theme.card, theme.ink, 0.06) if theme.card == canvas.background else theme.card
    canvas.fill(box, surface, height / 2)
    canvas.icon("search", box[0] + 20, y + height / 2, 17, theme.faint)
    canvas.input_text(placeholder, box[0] + 36, y + height / 2, box[2] - box[0] - 52)
    canvas.element("field", placeholder, box, value=canvas.scene.typed, group="fields", icon="search")
    return y + height + 10


def bottom_tabs(canvas: Canvas, tabs: Sequence[tuple[str, str]], selected: int) -> float:
    """Tabs of (label, icon) along the bottom edge; returns the y of their top."""
    theme = canvas.theme
    top = canvas.bottom - TABS_HEIGHT
    canvas.fill((0, top, canvas.width, canvas.height), theme.card)
    canvas.fill((0, top, canvas.width, top + 1), theme.divider)
    width = canvas.width / len(tabs)
    for index, (label, kind) in enumerate(tabs):
        colour = theme.accent if index == selected else theme.faint
        if theme.dark and index == selected:
            colour = mix(theme.accent, (255, 255, 255), 0.45)
        cx = (index + 0.5) * width
        canvas.icon(kind, cx, top + 16, 20, colour)
        canvas.text(label, cx, top + 38, theme.small_px, colour, align="middle", max_width=width - 4)
        box = (index * width + 1, top + 2, (index + 1) * width - 1, canvas.bottom - 1)
        canvas.element("tab", label, box, on=index == selected, group="tabs", icon=kind)
    return float(top)


def top_tabs(canvas: Canvas, y: float, labels: Sequence[str], selected: int) -> float:
    """Text tabs with an underline or chips; returns the y below them."""
    theme = canvas.theme
    chips = canvas.rng.random() < 0.5
    width = (canvas.width - 2 * theme.margin) / len(labels)
    for index, label in enumerate(labels):
        left = theme.margin + index * width
        on = index == selected
        box: Box = (left + 3, y, left + width - 3, y + 32)
        ink = theme.ink if on else theme.faint
        if chips:
            canvas.fill(box, theme.accent if on else mix(canvas.background, theme.ink, 0.08), 16)
            ink = (255, 255, 255) if on else theme.ink
        elif on:
            canvas.fill((left + width / 2 - 14, y + 29, left + width / 2 + 14, y + 32), theme.accent, 1.5)
        canvas.text(label, left + width / 2, y + 15, theme.body_px - 1, ink, align="middle", max_width=width - 12)
        canvas.element("tab", label, box, on=on, group="top tabs")
    return y + 42


def card(canvas: Canvas, box: Box) -> None:
    """A rounded surface with a hairline under it on light screens."""
    theme = canvas.theme
    if not theme.dark:
        x0, y0, x1, y1 = box
        canvas.fill((x0, y0 + 1, x1, y1 + 1), mix(canvas.background, theme.ink, 0.07), theme.radius)
    canvas.fill(box, theme.card, theme.radius)


def avatar(canvas: Canvas, name: str, cx: float, cy: float, radius: float) -> None:
    """A coloured disc with a person or the name's first letter."""
    colour = colour_of(name)
    canvas.disc(cx, cy, radius, colour)
    if canvas.rng.random() < 0.5:
        canvas.icon("person", cx, cy, radius * 1.3, (255, 255, 255))
    else:
        canvas.text(name[0], cx, cy, round(radius), (255, 255, 255), bold=True, align="middle")


def chevron(canvas: Canvas, right: float, cy: float) -> None:
    """The small arrow at the end of a row."""
    canvas.icon("chevron", right - 7, cy, 14, canvas.theme.faint)
