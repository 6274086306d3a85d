"""Pixels to ViT patches, as transformers' Glm4vImageProcessor does it, with Pillow and numpy only.

`size.longest_edge` and `size.shortest_edge` are pixel counts over frames * height * width, where a still picture
counts as `temporal_patch_size` frames. Reference: transformers `models/glm4v/image_processing_glm4v.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from autoglm_backend.models.json_table import CheckpointError, read_json_object
from autoglm_backend.preprocess.media_error import MediaError

MAX_ASPECT = 200
# What the checkpoint may not ask for otherwise; absent is transformers' default, which is the same.
_FIXED = {"do_resize": True, "do_rescale": True, "do_normalize": True, "do_convert_rgb": True, "resample": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageProcessorConfig:
    """As the checkpoint's `preprocessor_config.json` says. Raises ValueError naming the field."""

    patch_size: int
    temporal_patch_size: int
    merge_size: int
    shortest_edge: int
    """Least frames * height * width after resizing."""
    longest_edge: int
    """Most frames * height * width after resizing."""
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]

    def __post_init__(self) -> None:
        for name in ("patch_size", "temporal_patch_size", "merge_size", "shortest_edge", "longest_edge"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} is {value!r}, must be a whole number from 1")
        for name in ("image_mean", "image_std"):
            value = getattr(self, name)
            if len(value) != 3 or not all(isinstance(part, int | float) for part in value):
                raise ValueError(f"{name} is {list(value)}, must be three numbers")
        if self.longest_edge < self.factor**2 * self.temporal_patch_size:
            raise ValueError(f"longest_edge is {self.longest_edge}, which leaves no image token")
        if not all(self.image_std):
            raise ValueError(f"image_std is {list(self.image_std)}, must not hold 0")

    @property
    def factor(self) -> int:
        """Sides are multiples of this many pixels."""
        return self.patch_size * self.merge_size

    @property
    def max_pixels(self) -> int:
        """Most height * width of a still picture after resizing."""
        return self.longest_edge // self.temporal_patch_size

    def within(self, max_pixels: int | None, min_pixels: int | None = None) -> ImageProcessorConfig:
        """With at most `max_pixels` and at least `min_pixels` (height * width) to a still picture; None leaves it so.

        The upper bound is only ever lowered, and wins over the lower one. Raises ValueError when it leaves no token.
        """
        least, frames = self.factor**2, self.temporal_patch_size
        if max_pixels is not None and max_pixels < least:
            raise ValueError(f"max_pixels is {max_pixels}, one image token takes {least}")
        longest = self.longest_edge if max_pixels is None else min(self.longest_edge, frames * max_pixels)
        shortest = self.shortest_edge if min_pixels is None else frames * min_pixels
        return replace(self, longest_edge=longest, shortest_edge=min(shortest, longest))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePatches:
    """One picture: patches_PK float32 in merge order, and its grid (rows, columns) in patches."""

    patches_PK: NDArray[np.float32]
    grid: tuple[int, int]
    num_tokens: int
    """Merged tokens: rows * columns / merge_size^2."""


def load_image_config(checkpoint_dir: Path) -> ImageProcessorConfig:
    """Read `preprocessor_config.json`. Raises CheckpointError naming the file and the field."""
    path = checkpoint_dir / "preprocessor_config.json"
    raw = read_json_object(path)
    for name, supported in _FIXED.items():
        if raw.get(name, supported) not in (supported, None):
            raise CheckpointError(f"{path}: {name} is {raw[name]!r}, this server does {supported!r} only")
    if abs(raw.get("rescale_factor", 1 / 255) - 1 / 255) > 1e-9:
        raise CheckpointError(f"{path}: rescale_factor is {raw['rescale_factor']!r}, this server does 1/255 only")
    try:
        return ImageProcessorConfig(
            patch_size=raw["patch_size"],
            temporal_patch_size=raw["temporal_patch_size"],
            merge_size=raw["merge_size"],
            shortest_edge=raw["size"]["shortest_edge"],
            longest_edge=raw["size"]["longest_edge"],
            image_mean=tuple(raw["image_mean"]),
            image_std=tuple(raw["image_std"]),
        )
    except KeyError as missing:
        raise CheckpointError(f"{path}: {missing.args[0]} is missing") from missing
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def smart_resize(height: int, width: int, config: ImageProcessorConfig) -> tuple[int, int]:
    """Height and width in pixels that a picture is resized to. Raises MediaError on extreme aspect ratios."""
    factor, frames = config.factor, config.temporal_patch_size
    if height < 1 or width < 1:
        raise MediaError("image_parse_error", f"a picture of {width}x{height} pixels holds nothing")
    if height < factor or width < factor:
        scale = max(factor / height, factor / width)
        height, width = int(height * scale), int(width * scale)
    aspect = max(height, width) / min(height, width)
    if aspect > MAX_ASPECT:
        raise MediaError(
            "image_too_large", f"the picture's sides differ {aspect:.0f} times; at most {MAX_ASPECT} times is supported"
        )
    new_height, new_width = round(height / factor) * factor, round(width / factor) * factor
    pixels = frames * new_height * new_width
    if pixels > config.longest_edge:
        beta = math.sqrt(frames * height * width / config.longest_edge)
        new_height = max(factor, math.floor(height / beta / factor) * factor)
        new_width = max(factor, math.floor(width / beta / factor) * factor)
        # of a strip, transformers keeps the long side: the budget would not hold
        most = config.longest_edge // (frames * factor**2) * factor
        new_height = min(new_height, most) if new_width == factor else new_height
        new_width = min(new_width, most) if new_height == factor else new_width
    elif pixels < config.shortest_edge:
        beta = math.sqrt(config.shortest_edge / (frames * height * width))
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
    """Convert to RGB, resize (bicubic, antialiased), normalise and cut into patches. Raises MediaError."""
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    height, width = smart_resize(rgb.height, rgb.width, config)
    if (width, height) != rgb.size:
        rgb = rgb.resize((width, height), Image.Resampling.BICUBIC)
    grid = (height // config.patch_size, width // config.patch_size)
    tokens = grid[0] * grid[1] // config.merge_size**2
    return ImagePatches(patches_PK=patchify(np.asarray(rgb), config), grid=grid, num_tokens=tokens)
