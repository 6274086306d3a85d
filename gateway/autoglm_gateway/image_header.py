"""Format, size and completeness of a picture file from its container alone; no pixel is ever decoded here.

A picture that claims 40000 x 40000 is refused from its header, and a cut-off file is found without inflating it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from autoglm_protocol.errors import InvalidRequestError

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG_STANDALONE = frozenset((0x01, *range(0xD0, 0xD9)))
_JPEG_NOT_A_FRAME = frozenset((0xC4, 0xC8, 0xCC))
_OTHER_FORMATS = ((b"GIF8", "GIF"), (b"BM", "BMP"), (b"II*\x00", "TIFF"), (b"MM\x00*", "TIFF"), (b"%PDF", "PDF"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHeader:
    format: str
    width_px: int
    height_px: int


def read_image_header(data: bytes, *, max_pixels: int, param: str) -> ImageHeader:
    """The header of a complete PNG, JPEG or WebP file.

    Raises InvalidRequestError: empty_image_file, unsupported_image_media_type, image_too_large or image_parse_error.
    """
    if not data:
        raise InvalidRequestError(f"{param} holds no bytes", code="empty_image_file", param=param)
    try:
        for matches, read, check_complete in (
            (data.startswith(_PNG), _png, _check_png_complete),
            (data.startswith(b"\xff\xd8\xff"), _jpeg, _check_jpeg_complete),
            (data[:4] == b"RIFF" and data[8:12] == b"WEBP", _webp, _check_webp_complete),
        ):
            if matches:
                header = read(data)
                _check_size(header, max_pixels, param)
                check_complete(data)
                return header
    except (struct.error, IndexError, ValueError) as error:
        raise InvalidRequestError(
            f"{param} is a damaged picture: {error}", code="image_parse_error", param=param
        ) from error
    other = next((name for magic, name in _OTHER_FORMATS if data.startswith(magic)), None)
    if other is None and data[:256].lstrip()[:5].lower() in (b"<svg ", b"<?xml"):
        other = "SVG"
    if other is not None:
        raise InvalidRequestError(
            f"{param} is a {other} file, supported are PNG, JPEG and WebP",
            code="unsupported_image_media_type",
            param=param,
        )
    raise InvalidRequestError(f"{param} is no PNG, JPEG or WebP file", code="image_parse_error", param=param)


def _check_size(header: ImageHeader, max_pixels: int, param: str) -> None:
    if header.width_px == 0 or header.height_px == 0:
        raise ValueError("a side of it is 0 pixels long")
    if header.width_px * header.height_px > max_pixels:
        raise InvalidRequestError(
            f"{param} has {header.width_px}x{header.height_px} pixels, at most {max_pixels} are allowed",
            code="image_too_large",
            param=param,
        )


def _png(data: bytes) -> ImageHeader:
    width, height = struct.unpack_from(">II", data, 16)
    if data[12:16] != b"IHDR":
        raise ValueError("the PNG does not begin with IHDR")
    return ImageHeader(format="png", width_px=width, height_px=height)


def _check_png_complete(data: bytes) -> None:
    position = len(_PNG)
    while data[position + 4 : position + 8] != b"IEND":
        if position + 12 > len(data):
            raise ValueError("the PNG ends before its IEND chunk")
        (length,) = struct.unpack_from(">I", data, position)
        position += 12 + length


def _jpeg(data: bytes) -> ImageHeader:
    position = 2
    while True:
        if data[position] != 0xFF:
            raise ValueError("a JPEG marker is missing")
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
        elif marker in _JPEG_STANDALONE:
            position += 2
        elif 0xC0 <= marker <= 0xCF and marker not in _JPEG_NOT_A_FRAME:
            height, width = struct.unpack_from(">HH", data, position + 5)
            return ImageHeader(format="jpeg", width_px=width, height_px=height)
        else:
            (length,) = struct.unpack_from(">H", data, position + 2)
            position += 2 + length


def _check_jpeg_complete(data: bytes) -> None:
    # The last end marker, not the first: a thumbnail in the metadata has its own.
    scan = data.rfind(b"\xff\xda")
    if scan < 0 or data.find(b"\xff\xd9", scan) < 0:
        raise ValueError("the JPEG ends before its end marker")


def _webp(data: bytes) -> ImageHeader:
    chunk = data[12:16]
    if chunk == b"VP8X":
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
    elif chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif chunk == b"VP8 ":
        width, height = (value & 0x3FFF for value in struct.unpack_from("<HH", data, 26))
    else:
        raise ValueError("the WebP holds no picture")
    return ImageHeader(format="webp", width_px=width, height_px=height)


def _check_webp_complete(data: bytes) -> None:
    (riff_size,) = struct.unpack_from("<I", data, 4)
    if riff_size + 8 > len(data):
        raise ValueError("the WebP is shorter than its header says")
