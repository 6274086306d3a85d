"""Pixels to ViT patches, as transformers' Glm4vImageProcessor does it, with Pillow and numpy only.

`size.longest_edge` and `size.shortest_edge` are pixel counts over frames * height * width, where a still picture
counts as `temporal_patch_size` frames. Reference: transformers `models/glm4v/image_processing_glm4v.py`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAX_ASPECT = 200


class ImageError(ValueError):
    """A picture that the model cannot take; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageProcessorConfig:
    patch_size: int
    temporal_patch_size: int
    merge_size: int
    min_pixels: int
    """Least frames * height * width after resizing."""
    max_pixels: int
    """Most frames * height * width after resizing."""
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]

    @property
    def factor(self) -> int:
        """Sides are multiples of this many pixels."""
        return self.patch_size * self.merge_size


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePatches:
    """One picture: patches_PK float32 in merge order, and its grid (rows, columns) in patches."""

    patches_PK: NDArray[np.float32]
    grid: tuple[int, int]
    num_tokens: int
    """Merged tokens: rows * columns / merge_size^2."""


def load_image_config(checkpoint_dir: Path) -> ImageProcessorConfig:
    """Read `preprocessor_config.json`. Raises ImageError naming the file and the field."""
    path = checkpoint_dir / "preprocessor_config.json"
    try:
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return ImageProcessorConfig(
            patch_size=raw["patch_size"],
            temporal_patch_size=raw["temporal_patch_size"],
            merge_size=raw["merge_size"],
            min_pixels=raw["size"]["shortest_edge"],
            max_pixels=raw["size"]["longest_edge"],
            image_mean=tuple(raw["image_mean"]),
            image_std=tuple(raw["image_std"]),
        )
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except json.JSONDecodeError as error:
        raise ImageError(f"{path}: not valid JSON ({error})") from error
    except KeyError as missing:
        raise ImageError(f"{path}: {missing.args[0]} is missing") from missing


def smart_resize(height: int, width: int, config: ImageProcessorConfig) -> tuple[int, int]:
    """Height and width in pixels that a picture is resized to. Raises ImageError on extreme aspect ratios."""
    factor, frames = config.factor, config.temporal_patch_size
    if height < 1 or width < 1:
        raise ImageError(f"a picture of {width}x{height} pixels holds nothing")
    if height < factor or width < factor:
        scale = max(factor / height, factor / width)
        height, width = int(height * scale), int(width * scale)
    aspect = max(height, width) / min(height, width)
    if aspect > MAX_ASPECT:
        raise ImageError(f"the picture's sides differ {aspect:.0f} times; at most {MAX_ASPECT} times is supported")
    new_height, new_width = round(height / factor) * factor, round(width / factor) * factor
    pixels = frames * new_height * new_width
    if pixels > config.max_pixels:
        beta = math.sqrt(frames * height * width / config.max_pixels)
        new_height = max(factor, math.floor(height / beta / factor) * factor)
        new_width = max(factor, math.floor(width / beta / factor) * factor)
    elif pixels < config.min_pixels:
        beta = math.sqrt(config.min_pixels / (frames * height * width))
        new_height = math.ceil(height * beta / factor) * factor
        new_width = math.ceil(width * beta / factor) * factor
    return new_height, new_width


def patchify(image_HW3: np.ndarray, config: ImageProcessorConfig) -> np.ndarray:
    """Normalised patches [P, 3 * temporal * patch * patch], float32, in merge order, of a uint8 picture.

    The sides must already be multiples of `config.factor`.
    """
    patch, merge, frames = config.patch_size, config.merge_size, config.temporal_patch_size
    height, width, channels = image_HW3.shape
    rows, columns = height // patch, width // patch
    mean = np.asarray(config.image_mean, dtype=np.float32) * np.float32(255.0)
    std = np.asarray(config.image_std, dtype=np.float32) * np.float32(255.0)
    normed = (image_HW3.astype(np.float32) - mean) / std
    blocks = normed.reshape(rows // merge, merge, patch, columns // merge, merge, patch, channels)
    patches = blocks.transpose(0, 3, 1, 4, 6, 2, 5)[:, :, :, :, :, None]
    repeated = np.broadcast_to(patches, (*patches.shape[:5], frames, patch, patch))
    return np.ascontiguousarray(repeated).reshape(rows * columns, channels * frames * patch * patch)


def preprocess_image(image: Image.Image, config: ImageProcessorConfig) -> ImagePatches:
    """Convert to RGB, resize (bicubic, antialiased), normalise and cut into patches. Raises ImageError."""
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    height, width = smart_resize(rgb.height, rgb.width, config)
    if (width, height) != rgb.size:
        rgb = rgb.resize((width, height), Image.Resampling.BICUBIC)
    grid = (height // config.patch_size, width // config.patch_size)
    tokens = grid[0] * grid[1] // config.merge_size**2
    return ImagePatches(patches_PK=patchify(np.asarray(rgb), config), grid=grid, num_tokens=tokens)
