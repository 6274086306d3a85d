from __future__ import annotations

import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from autoglm_backend.bls import media
from autoglm_backend.bls.embedding_cache import EmbeddingCache
from autoglm_backend.preprocess.image import ImageProcessorConfig
from autoglm_protocol.chat import ChatOptions, ImagePart

PICTURES = 6
CONFIG = ImageProcessorConfig(
    patch_size=14,
    temporal_patch_size=2,
    merge_size=2,
    shortest_edge=12544,
    longest_edge=1_568_000,
    image_mean=(0.5, 0.5, 0.5),
    image_std=(0.3, 0.3, 0.3),
)


def test_half_the_cores_decode_pictures_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest is the gateway's and the decoder's, and pixels of many large pictures would fill the memory."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    reader = media.MediaReader(CONFIG, None, EmbeddingCache(1 << 20))
    decode, lock = media.decode_picture, threading.Lock()
    at_once: list[int] = [0]
    pair = threading.Barrier(2)

    def counted(data: bytes) -> Image.Image:
        with lock:
            at_once.append(at_once[-1] + 1)
        try:
            pair.wait(10)
            return decode(data)
        finally:
            with lock:
                at_once.append(at_once[-1] - 1)

    monkeypatch.setattr(media, "decode_picture", counted)
    file = io.BytesIO()
    Image.new("RGB", (56, 56)).save(file, "PNG")
    with ThreadPoolExecutor(PICTURES) as pool:
        part = ImagePart(data=file.getvalue())
        read = [*pool.map(lambda _: reader.read_image(part, ChatOptions(), "x"), range(PICTURES))]
    assert len(read) == PICTURES
    assert max(at_once) == 2
