"""Small text crops that teach a vision tower to read: characters per patch, words per merged token."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from autoglm_training.world.fonts import CHINESE_FACE, font, latin_faces
from autoglm_training.world.grids import PATCH_PX, TOKEN_PX, GridPainter
from autoglm_training.world.labels import (
    ASCII_CHARACTERS,
    OTHER_PUNCTUATION,
    character_vocabulary,
    chinese_characters,
    label_vocabulary,
)
from autoglm_training.world.language import is_chinese

__all__ = ["ReadingSample", "character_vocabulary", "label_vocabulary", "reading_crop"]

RANDOM_STRING_SHARE = 0.25
PRICE_SHARE = 0.3
"""Numbers are learnt far slower than labels: two digits share a patch, and every one of them counts."""
_NOISE_BANK_PX = 512
# Drawing scales and how often each is taken; 27/7 is a 1080 px phone shown at 280 px.
_SCALES = (1.0, 2.0, 27 / 7)
_SCALE_WEIGHTS = (0.6, 0.2, 0.2)
Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingSample:
    """One crop.

    image_HW3: uint8 [height, width, 3]
    char_patch_ids: int16 [height/14, width/14], class in `character_vocabulary()`, 0 = background
    word_token_ids: int16 [height/28, width/28], index in `label_vocabulary()` + 1, 0 = none
    number_token_ids: int16 [height/28, width/28], `number_class`, 0 = none
    """

    image_HW3: np.ndarray
    char_patch_ids: np.ndarray
    word_token_ids: np.ndarray
    number_token_ids: np.ndarray


def reading_crop(rng: random.Random, width_px: int, height_px: int) -> ReadingSample:
    """Draws labels and random strings on a plain, slightly noisy background.

    Part of the crops are drawn larger and shrunk, as text on a real phone's screenshot is.

    Raises:
        ValueError: a side is not a positive multiple of 28.
    """
    if width_px <= 0 or height_px <= 0 or width_px % TOKEN_PX or height_px % TOKEN_PX:
        raise ValueError(f"a crop's sides must be positive multiples of {TOKEN_PX}, not {width_px}x{height_px}")
    sheet = _Sheet(rng, width_px, height_px, scale=rng.choices(_SCALES, _SCALE_WEIGHTS)[0])
    if rng.random() < 0.3:
        sheet.distractor()
    y = rng.uniform(0, 10)
    while True:
        size_px = rng.randint(11, 26) if rng.random() < 0.4 else rng.randint(12, 18)
        if y + size_px > height_px:
            break
        sheet.text_row(y, size_px)
        y += size_px * rng.uniform(1.2, 2.2)
    pixels = sheet.pixels_HW3()
    if rng.random() < 0.5:
        pixels = _with_noise(rng, pixels)
    return ReadingSample(
        image_HW3=np.ascontiguousarray(pixels),
        char_patch_ids=sheet.grids.char_patch_ids(),
        word_token_ids=sheet.grids.word_token_ids(),
        number_token_ids=sheet.grids.number_token_ids(),
    )


class _Sheet:
    """One crop while it is drawn. Lengths are px of the finished crop; `scale` is how much larger it is drawn."""

    def __init__(self, rng: random.Random, width_px: int, height_px: int, scale: float) -> None:
        self._rng, self._scale = rng, scale
        self._width_px, self._height_px = width_px, height_px
        self._background = _background(rng)
        self._image = Image.new("RGB", (round(width_px * scale), round(height_px * scale)), self._background)
        self._draw = ImageDraw.Draw(self._image)
        self.grids = GridPainter(width_px, height_px)

    def pixels_HW3(self) -> np.ndarray:
        """uint8 [height, width, 3]."""
        if self._scale == 1.0:
            return np.asarray(self._image)
        return np.asarray(self._image.resize((self._width_px, self._height_px), Image.Resampling.BICUBIC))

    def text_row(self, y: float, size_px: int) -> None:
        """Fills a line with strings from left to right."""
        rng = self._rng
        x = rng.uniform(0, 24)
        while x < self._width_px - size_px:
            text = _string(rng)
            face = CHINESE_FACE if is_chinese(text) or rng.random() < 0.12 else rng.choice(latin_faces())
            letters = font(face, size_px)
            # Cut words would carry a class the pixels do not show in full, so only what fits is drawn.
            while text and x + letters.getlength(text) > self._width_px:
                text = text[:-1].rstrip()
            if not text:
                return
            at = (round(x), round(y))
            shown = letters if self._scale == 1.0 else font(face, size_px * self._scale)
            place = (round(at[0] * self._scale), round(at[1] * self._scale))
            self._draw.text(place, text, font=shown, fill=_ink(rng, self._background))
            self.grids.add_text(text, at[0], at[1], letters)
            x += letters.getlength(text) + rng.uniform(0.7, 4.0) * size_px

    def distractor(self) -> None:
        """A frame or a line that is no text."""
        rng = self._rng
        left, top = rng.randint(-20, self._width_px), rng.randint(-20, self._height_px)
        box = (left, top, left + rng.randint(8, 90), top + rng.randint(8, 60))
        x0, y0, x1, y1 = (side * self._scale for side in box)
        colour = _background(rng)
        stroke = round(rng.randint(1, 3) * self._scale)
        if rng.random() < 0.5:
            self._draw.rounded_rectangle(
                (x0, y0, x1, y1), radius=rng.randint(0, 12) * self._scale, outline=colour, width=stroke
            )
        else:
            self._draw.line((0, y0, self._image.width, y0), fill=colour, width=max(1, round(self._scale)))


def _string(rng: random.Random) -> str:
    kind = rng.random()
    if kind < PRICE_SHARE:
        return _price(rng)
    return _random_string(rng) if kind < PRICE_SHARE + RANDOM_STRING_SHARE else rng.choice(label_vocabulary())


def _random_string(rng: random.Random) -> str:
    length = rng.randint(1, 9)
    kind = rng.random()
    if kind < 0.4:
        return "".join(rng.choices(chinese_characters(), k=min(length, 6)))
    if kind < 0.55:
        return "".join(rng.choices("0123456789", k=length))
    if kind < 0.7:
        return "".join(rng.choices(ASCII_CHARACTERS + OTHER_PUNCTUATION, k=length))
    letters = rng.choices("abcdefghijklmnopqrstuvwxyz", k=length)
    if kind < 0.8:
        return "".join(letters).upper()
    return "".join(letters).capitalize() if kind < 0.9 else "".join(letters)


def _price(rng: random.Random) -> str:
    """Prices of every size alike: drawn evenly, most would have three digits."""
    whole = rng.randint(1, rng.choice((9, 20, 60, 200, 999)))
    cents = rng.choice(("", "", ".50", ".90", ".99", f".{rng.randint(0, 99):02d}"))
    return f"{rng.choice(('$', '¥', '$', '¥', '€', ''))}{whole}{cents}"


def _background(rng: random.Random) -> Colour:
    kind = rng.random()
    if kind < 0.4:
        level = rng.randint(225, 255)
        return level, min(255, level + rng.randint(-6, 6)), min(255, level + rng.randint(-6, 6))
    if kind < 0.65:
        level = rng.randint(0, 45)
        return level, level + rng.randint(0, 6), level + rng.randint(0, 10)
    return rng.randint(0, 255), rng.randint(0, 255), rng.randint(0, 255)


def luminance(colour: Colour) -> float:
    """Perceived brightness, 0 to 255 (Rec. 601 weights)."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def _ink(rng: random.Random, background: Colour) -> Colour:
    base = luminance(background)
    if rng.random() < 0.6:
        level = rng.randint(0, 70) if base > 128 else rng.randint(185, 255)
        return level, level, level
    for _ in range(8):
        colour = (rng.randint(0, 255), rng.randint(0, 255), rng.randint(0, 255))
        if abs(luminance(colour) - base) > 95:
            return colour
    return (0, 0, 0) if base > 128 else (255, 255, 255)


@lru_cache(maxsize=1)
def _noise_bank() -> np.ndarray:
    generator = np.random.default_rng(20261121)
    return generator.normal(0.0, 1.0, (_NOISE_BANK_PX, _NOISE_BANK_PX, 3)).astype(np.float32)


def _with_noise(rng: random.Random, pixels_HW3: np.ndarray) -> np.ndarray:
    height, width, _ = pixels_HW3.shape
    bank = _noise_bank()
    tiles = (-(-height // (_NOISE_BANK_PX // 2)), -(-width // (_NOISE_BANK_PX // 2)), 1)
    if tiles != (1, 1, 1):
        bank = np.tile(bank, tiles)
    y, x = rng.randrange(bank.shape[0] - height + 1), rng.randrange(bank.shape[1] - width + 1)
    noise = bank[y : y + height, x : x + width] * rng.uniform(1.0, 6.0)
    return np.clip(pixels_HW3 + noise, 0, 255).astype(np.uint8)


assert TOKEN_PX == 2 * PATCH_PX
