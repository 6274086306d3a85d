"""Bytes of a picture file to a Pillow image, with what the file claims checked before any pixel is decoded."""

from __future__ import annotations

import io

from PIL import Image, ImageOps, UnidentifiedImageError

from autoglm_backend.preprocess.media_error import MediaError
from autoglm_protocol.media_limits import MAX_IMAGE_PIXELS

FORMATS = ("PNG", "JPEG", "WEBP")


def decode_picture(data: bytes, *, max_pixels: int = MAX_IMAGE_PIXELS) -> Image.Image:
    """The picture (of an animation its first frame), upright.

    Raises MediaError: image_parse_error or image_too_large.
    """
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        if isinstance(error, Image.DecompressionBombError):
            raise MediaError("image_too_large", f"the image has more than {max_pixels} pixels") from error
        raise MediaError("image_parse_error", "the image is not a valid PNG, JPEG or WebP file") from error
    if picture.width * picture.height > max_pixels:
        raise MediaError(
            "image_too_large",
            f"the image has {picture.width}x{picture.height} pixels, at most {max_pixels} in all are supported",
        )
    try:
        picture.load()
        return ImageOps.exif_transpose(picture)
    # Pillow's decoders raise whatever their parser met in a damaged file
    except (OSError, SyntaxError, ValueError, IndexError, KeyError, EOFError) as error:
        raise MediaError("image_parse_error", f"the image is truncated or damaged ({error})") from error
