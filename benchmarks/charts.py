"""Bar charts for benchmarks, with Pillow alone. No benchmark by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

_PANEL_WIDTH, _HEIGHT, _MARGIN = 460, 380, 24
_TOP, _BOTTOM = 84, 44
_INK, _FAINT = (34, 38, 46), (208, 212, 219)
_COLOURS = ((152, 160, 174), (38, 132, 116), (222, 133, 62))


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    title: str
    groups: tuple[str, ...]
    """Names along the axis."""
    series: Mapping[str, Sequence[float]]
    """By name, one value a group, from 0 up."""


def draw_panels(panels: Sequence[Panel], path: Path) -> None:
    """Panels side by side, each on its own scale from 0. Raises OSError where `path` cannot be written."""
    image = Image.new("RGB", (_PANEL_WIDTH * len(panels) + _MARGIN, _HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    for index, panel in enumerate(panels):
        _draw_panel(draw, panel, _MARGIN + index * _PANEL_WIDTH)
    image.save(path)


def _draw_panel(draw: ImageDraw.ImageDraw, panel: Panel, left: int) -> None:
    width, floor = _PANEL_WIDTH - _MARGIN, _HEIGHT - _BOTTOM
    draw.text((left, 14), panel.title, fill=_INK, font=ImageFont.load_default(19))
    x = left
    for name, colour in zip(panel.series, _COLOURS, strict=False):
        draw.rectangle((x, 48, x + 12, 60), fill=colour)
        draw.text((x + 18, 46), name, fill=_INK, font=ImageFont.load_default(14))
        x += 36 + int(draw.textlength(name, font=ImageFont.load_default(14)))
    highest = max(max(values) for values in panel.series.values()) or 1.0
    group_width = width / len(panel.groups)
    bar_width = 0.8 * group_width / len(panel.series)
    for g, group in enumerate(panel.groups):
        begin = left + (g + 0.1) * group_width
        for s, values in enumerate(panel.series.values()):
            x0 = begin + s * bar_width
            y0 = floor - (floor - _TOP - 18) * values[g] / highest
            draw.rectangle((x0, y0, x0 + bar_width - 3, floor), fill=_COLOURS[s % len(_COLOURS)])
            _centred(draw, x0 + bar_width / 2, y0 - 16, _short(values[g]), 12)
        _centred(draw, begin + 0.4 * group_width, floor + 10, group, 14)
    draw.line((left, floor, left + width, floor), fill=_FAINT, width=2)


def _centred(draw: ImageDraw.ImageDraw, x: float, y: float, text: str, size: int) -> None:
    font = ImageFont.load_default(size)
    draw.text((x - draw.textlength(text, font=font) / 2, y), text, fill=_INK, font=font)


def _short(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:.2f}M"
    if value >= 10_000:
        return f"{value / 1e3:.0f}k"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
