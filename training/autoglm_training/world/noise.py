"""What happens to some screenshots on their way: grain, strong compression, a dimmed display, a night tint."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image

from autoglm_training.world.elements import Scene

NOISY_SHARE = 0.25
_BANK_PX = 512

Disturb = Callable[[random.Random, Image.Image], Image.Image]


def disturbed(scene: Scene, image: Image.Image) -> Image.Image:
    """The picture of `scene`, RGB: as it is for most scenes, for some always disturbed in the same way."""
    rng = random.Random(f"noise/{scene.template}/{scene.seed}")
    return rng.choice(KINDS)(rng, image) if rng.random() < NOISY_SHARE else image


def grain(rng: random.Random, image: Image.Image) -> Image.Image:
    """Normal noise of 4 to 12 grey levels, the same in all three channels."""
    bank = _bank()
    rows, columns = (rng.randrange(_BANK_PX) for _ in range(2))
    levels = (bank * rng.uniform(4, 12)).astype(np.int16)
    down, across = (
        np.arange(start, start + length) % _BANK_PX for start, length in ((rows, image.height), (columns, image.width))
    )
    pixels = np.asarray(image, dtype=np.int16) + levels[down][:, across, None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def compressed(rng: random.Random, image: Image.Image) -> Image.Image:
    """JPEG of quality 20 to 60."""
    packed = io.BytesIO()
    image.save(packed, "JPEG", quality=rng.randint(20, 60))
    return Image.open(packed).convert("RGB")


def dimmed(rng: random.Random, image: Image.Image) -> Image.Image:
    """A display at 45 to 85 % of its brightness."""
    return image.point(_scaled(rng.uniform(0.45, 0.85)) * 3)


def tinted(rng: random.Random, image: Image.Image) -> Image.Image:
    """A night mode: less green and much less blue."""
    green, blue = rng.uniform(0.8, 0.95), rng.uniform(0.55, 0.8)
    return image.point([*range(256), *_scaled(green), *_scaled(blue)])


KINDS: tuple[Disturb, ...] = (grain, compressed, dimmed, tinted)


def _scaled(factor: float) -> list[int]:
    return [round(level * factor) for level in range(256)]


@lru_cache(maxsize=1)
def _bank() -> np.ndarray:
    return np.random.default_rng(20261121).normal(0.0, 1.0, (_BANK_PX, _BANK_PX)).astype(np.float32)
