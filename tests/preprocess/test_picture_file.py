from __future__ import annotations

import io
import struct
import zlib

import pytest
from PIL import Image

from autoglm_backend.preprocess.media_error import MediaError
from autoglm_backend.preprocess.picture_file import decode_picture


def file_of(form: str, size: tuple[int, int] = (40, 30), **options: object) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, "red").save(out, format=form, **options)
    return out.getvalue()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_supported_formats_are_decoded(form: str) -> None:
    assert decode_picture(file_of(form)).size == (40, 30)


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"GIF89a" + bytes(20)])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(MediaError, match="not a valid PNG, JPEG or WebP"):
        decode_picture(data)


def test_a_truncated_picture_is_refused() -> None:
    data = file_of("PNG", (300, 300))
    with pytest.raises(MediaError, match="truncated or damaged") as refused:
        decode_picture(data[: len(data) // 2])
    assert refused.value.code == "image_parse_error"


def test_a_picture_that_claims_too_many_pixels_is_refused_before_decoding() -> None:
    data = file_of("PNG")
    header = b"IHDR" + struct.pack(">II", 40_000, 40_000) + data[24:29]
    claims = data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]
    with pytest.raises(MediaError, match="pixels"):
        decode_picture(claims)


def test_a_photo_held_sideways_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_picture(file_of("JPEG", exif=exif)).size == (30, 40)
