"""How many tokens a picture may take: the deployment's say, and below it the request's."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from autoglm_backend.bls.embedding_cache import EmbeddingCache
from autoglm_backend.bls.media import LOW_DETAIL_PIXELS, MediaReader
from autoglm_backend.preprocess.image import ImageProcessorConfig
from autoglm_protocol.chat import ChatOptions, ImagePart
from autoglm_protocol.errors import InvalidRequestError

PIXELS_PER_TOKEN = 784
CONFIG = ImageProcessorConfig(
    patch_size=14,
    temporal_patch_size=2,
    merge_size=2,
    shortest_edge=12544,
    longest_edge=2 * 1000 * PIXELS_PER_TOKEN,
    image_mean=(0.5, 0.5, 0.5),
    image_std=(0.3, 0.3, 0.3),
)


def screenshot(detail: str | None = None) -> ImagePart:
    out = io.BytesIO()
    Image.new("RGB", (1080, 2400), "navy").save(out, format="PNG")
    return ImagePart(data=out.getvalue(), detail=detail)


def tokens(part: ImagePart, **options: int) -> int:
    reader = MediaReader(CONFIG, None, EmbeddingCache(1 << 20))
    return reader.read_image(part, ChatOptions(**options), "messages[0].content[0]").num_tokens


def test_the_deployment_alone_decides_when_nobody_asks() -> None:
    assert 900 < tokens(screenshot()) <= 1000


def test_a_request_may_ask_for_less() -> None:
    assert 80 < tokens(screenshot(), max_pixels=100 * PIXELS_PER_TOKEN) <= 100


def test_a_request_for_more_is_clamped() -> None:
    assert tokens(screenshot(), max_pixels=5_000_000) == tokens(screenshot())


def test_low_detail_takes_no_more_than_a_picture_of_512_by_512() -> None:
    assert 250 < tokens(screenshot("low")) <= LOW_DETAIL_PIXELS // PIXELS_PER_TOKEN


@pytest.mark.parametrize("detail", ["high", "auto"])
def test_other_details_are_the_deployments(detail: str) -> None:
    assert tokens(screenshot(detail)) == tokens(screenshot())


def test_a_budget_below_one_token_names_the_field() -> None:
    with pytest.raises(InvalidRequestError, match="one image token takes 784") as refused:
        tokens(screenshot(), max_pixels=700)
    assert refused.value.param == "max_pixels"


def test_another_budget_is_another_item_of_the_cache() -> None:
    reader = MediaReader(CONFIG, None, EmbeddingCache(1 << 20))
    asked = [(None, None), ("low", None), (None, 80_000), ("low", 80_000)]
    keys = {reader.read_image(screenshot(detail), ChatOptions(max_pixels=most), "m").key for detail, most in asked}

    assert len(keys) == 3  # 80,000 pixels are below low detail's
