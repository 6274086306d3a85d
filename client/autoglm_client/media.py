"""Pictures and sounds to the content parts of a chat message. Files go as they are, nothing is re-encoded."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from PIL.Image import Image

    ImageSource = str | os.PathLike[str] | bytes | Image
    Images = ImageSource | Sequence[ImageSource]
else:
    ImageSource = Images = object
AudioSource = str | os.PathLike[str] | bytes

ContentPart = dict[str, Any]


class MediaError(ValueError):
    """A file that is missing, or is no picture or sound that the server takes."""


def image_part(source: ImageSource) -> ContentPart:
    """An `image_url` part with a data URL; `source` is a path, a file's bytes, or a Pillow image (sent as PNG)."""
    data, name = _read_image(source)
    kind = _image_type(data)
    if kind is None:
        raise MediaError(f"{name} is not a PNG, JPEG or WebP picture")
    return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{_base64(data)}"}}


def audio_part(source: AudioSource) -> ContentPart:
    """An `input_audio` part; `source` is a path or a file's bytes."""
    data, name = _read(source, "the audio")
    kind = _audio_type(data)
    if kind is None:
        raise MediaError(f"{name} is not a WAV or MP3 file")
    return {"type": "input_audio", "input_audio": {"data": _base64(data), "format": kind}}


def user_content(text: str, *, images: Sequence[ContentPart] = (), audio: ContentPart | None = None) -> Any:
    """Content of a user message: a string when there is only text, otherwise pictures first, as phone agents do."""
    if not images and audio is None:
        return text
    parts = [*images, *(() if audio is None else (audio,))]
    return [*parts, {"type": "text", "text": text}] if text else parts


def image_parts(images: Images | None) -> tuple[ContentPart, ...]:
    if images is None:
        return ()
    if isinstance(images, list | tuple):
        return tuple(image_part(source) for source in cast("Sequence[ImageSource]", images))
    return (image_part(cast("ImageSource", images)),)


def _read_image(source: ImageSource) -> tuple[bytes, str]:
    if isinstance(source, str | bytes | os.PathLike):
        return _read(source, "the image")
    buffer = io.BytesIO()
    source.save(buffer, "PNG")
    return buffer.getvalue(), "the image"


def _read(source: str | bytes | os.PathLike[str], name: str) -> tuple[bytes, str]:
    if isinstance(source, bytes):
        return source, name
    path = Path(source)
    try:
        return path.read_bytes(), str(path)
    except OSError as error:
        raise MediaError(f"{path} cannot be read: {error.strerror}") from error


def _image_type(data: bytes) -> str | None:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return None


def _audio_type(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return "wav"
    # An MP3 begins with an ID3 tag or with a frame: eleven set bits, then a layer that is not the reserved 00.
    is_frame = len(data) > 1 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0 and data[1] & 0x06 != 0
    return "mp3" if data.startswith(b"ID3") or is_frame else None


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
