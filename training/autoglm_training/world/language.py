"""The two languages of the phone."""

from __future__ import annotations

from typing import Literal

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")


def is_chinese(text: str) -> bool:
    """Whether `text` needs a font with Chinese glyphs."""
    return any(ord(character) > 0x2E7F for character in text)
