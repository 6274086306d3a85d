"""Finds the installed fonts of three Debian packages and caches Pillow font objects."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

FONT_ROOTS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts")

# File name to the Debian package that ships it. DejaVu's condensed and serif faces are in fonts-dejavu-extra.
_SANS = {
    "DejaVuSans.ttf": "fonts-dejavu-core",
    "DejaVuSans-Bold.ttf": "fonts-dejavu-core",
    "LiberationSans-Regular.ttf": "fonts-liberation",
    "LiberationSans-Bold.ttf": "fonts-liberation",
}
_CHINESE = {"wqy-microhei.ttc": "fonts-wqy-microhei"}
REQUIRED_FILES: dict[str, str] = {**_SANS, **_CHINESE}
OPTIONAL_FILES = (
    "DejaVuSansCondensed.ttf", "DejaVuSansCondensed-Bold.ttf", "DejaVuSans-Oblique.ttf", "DejaVuSerif.ttf",
    "DejaVuSerif-Bold.ttf", "DejaVuSerifCondensed.ttf", "DejaVuSansMono.ttf", "DejaVuSansMono-Bold.ttf",
    "LiberationSans-Italic.ttf", "LiberationSansNarrow-Regular.ttf", "LiberationSansNarrow-Bold.ttf",
    "LiberationSerif-Regular.ttf", "LiberationSerif-Bold.ttf", "LiberationMono-Regular.ttf",
    "LiberationMono-Bold.ttf", "DejaVuSans-BoldOblique.ttf", "LiberationSerif-Italic.ttf",
)  # fmt: skip

CHINESE_FACE = "wqy-microhei.ttc"


class MissingFontError(FileNotFoundError):
    """A font file the world needs is not installed; the message names its Debian package."""


@lru_cache(maxsize=1)
def installed_fonts() -> dict[str, Path]:
    """File name to path of every known font found under `FONT_ROOTS`.

    Raises:
        MissingFontError: a required file is absent.
    """
    wanted = {*REQUIRED_FILES, *OPTIONAL_FILES}
    found: dict[str, Path] = {}
    for root in FONT_ROOTS:
        for folder, _, files in os.walk(os.path.expanduser(root)):
            for name in sorted(wanted.intersection(files)):
                found.setdefault(name, Path(folder) / name)
    missing = sorted({package for name, package in REQUIRED_FILES.items() if name not in found})
    if missing:
        raise MissingFontError(f"fonts not found: install the Debian package(s) {' '.join(missing)}")
    return found


@lru_cache(maxsize=1)
def latin_faces() -> tuple[str, ...]:
    """Names of every installed face without Chinese glyphs, in a fixed order."""
    found = installed_fonts()
    return tuple(name for name in (*_SANS, *OPTIONAL_FILES) if name in found)


@lru_cache(maxsize=4096)
def font(face: str, size_px: float) -> ImageFont.FreeTypeFont:
    """The face at `size_px`, cached. Basic layout: ten times faster than Raqm, and per-character boxes add up."""
    path = installed_fonts()[face]
    return ImageFont.truetype(str(path), size_px, layout_engine=ImageFont.Layout.BASIC)
