"""Our Pillow preprocessing against transformers' Glm4vImageProcessor, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers.models.glm4v.image_processing_pil_glm4v import Glm4vImageProcessorPil

from autoglm_backend.models.config import CheckpointError
from autoglm_backend.preprocess.image import (
    ImageProcessorConfig,
    load_image_config,
    preprocess_image,
    smart_resize,
)
from autoglm_backend.preprocess.media_error import MediaError

CHECKPOINT = Path(__file__).parents[2] / "checkpoints" / "autoglm-phone-tiny"
CONFIG = ImageProcessorConfig(
    patch_size=14,
    temporal_patch_size=2,
    merge_size=2,
    shortest_edge=12544,
    longest_edge=368640,
    image_mean=(0.48145466, 0.4578275, 0.40821073),
    image_std=(0.26862954, 0.26130258, 0.27577711),
)
# One 8-bit step of the darkest-scaled channel: the libraries may round a resized pixel differently.
ONE_LEVEL = 1 / 255 / 0.26


def picture(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width * 10007 + height)
    small = Image.fromarray(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BILINEAR)


@pytest.mark.parametrize("size", [(1080, 2400), (720, 1280), (280, 616), (30, 20), (61, 497), (400, 90)], ids=str)
def test_patches_equal_transformers(size: tuple[int, int]) -> None:
    reference = Glm4vImageProcessorPil(size={"shortest_edge": 12544, "longest_edge": 368640})
    expected = reference(images=[picture(*size)], return_tensors="np")
    ours = preprocess_image(picture(*size), CONFIG)
    assert [1, *ours.grid] == expected["image_grid_thw"][0].tolist()
    np.testing.assert_allclose(ours.patches_PK, expected["pixel_values"], atol=ONE_LEVEL + 1e-4)


def test_phone_screenshot_becomes_220_tokens() -> None:
    assert smart_resize(2400, 1080, CONFIG) == (616, 280)
    assert preprocess_image(picture(1080, 2400), CONFIG).num_tokens == 220


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "1", "CMYK"])
def test_other_modes_become_rgb(mode: str) -> None:
    patches = preprocess_image(picture(280, 616).convert(mode), CONFIG)
    assert patches.patches_PK.shape == (880, 1176)


def test_extreme_aspect_ratio_is_refused() -> None:
    with pytest.raises(MediaError, match="at most 200 times"):
        smart_resize(28, 28 * 300, CONFIG)


def test_config_is_read_from_the_checkpoint(tmp_path: Path) -> None:
    fields = {
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "size": {"shortest_edge": 12544, "longest_edge": 368640},
        "image_mean": list(CONFIG.image_mean),
        "image_std": list(CONFIG.image_std),
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(fields))
    assert load_image_config(tmp_path) == CONFIG


@pytest.mark.parametrize("max_tokens", [1, 40, 84, 219])
def test_a_pixel_budget_holds_for_any_shape_of_picture(max_tokens: int) -> None:
    within = CONFIG.within(max_tokens * 28 * 28)
    for size in ((1080, 2400), (2400, 1080), (300, 300), (5000, 60)):
        assert preprocess_image(picture(*size), within).num_tokens <= max_tokens


def test_a_lower_bound_scales_a_small_picture_up() -> None:
    assert preprocess_image(picture(60, 60), CONFIG.within(None, 100 * 28 * 28)).num_tokens >= 100


def test_the_upper_bound_wins_over_the_lower_one() -> None:
    both = CONFIG.within(50 * 28 * 28, 200 * 28 * 28)
    assert preprocess_image(picture(1080, 2400), both).num_tokens <= 50


def test_a_budget_above_the_checkpoints_changes_nothing() -> None:
    assert CONFIG.within(10_000_000) == CONFIG


def test_a_budget_below_one_token_is_refused() -> None:
    with pytest.raises(ValueError, match="max_pixels is 783, one image token takes 784"):
        CONFIG.within(783)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"do_normalize": False}, "do_normalize is False"),
        ({"resample": 2}, "resample is 2"),
        ({"rescale_factor": 1.0}, "rescale_factor is 1.0"),
        ({"patch_size": "14"}, "patch_size is '14', must be a whole number"),
        ({"image_std": [0.2, 0.2]}, "image_std is .*must be three numbers"),
    ],
)
def test_a_processor_that_this_server_does_not_run_is_refused(
    tmp_path: Path, change: dict[str, object], complaint: str
) -> None:
    fields = json.loads((CHECKPOINT / "preprocessor_config.json").read_text(encoding="utf-8"))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**fields, **change}))
    with pytest.raises(CheckpointError, match=complaint):
        load_image_config(tmp_path)


def test_missing_field_is_named(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="patch_size is missing"):
        load_image_config(tmp_path)
