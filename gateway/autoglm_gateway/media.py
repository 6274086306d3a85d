"""Media references to bytes: data URLs and base64 are decoded, http URLs fetched, and every limit checked on the way.

No pixel or sample is decoded here. Runs only after admission.
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass, replace
from functools import partial

from autoglm_gateway.audio_header import read_audio_header
from autoglm_gateway.draft import DraftMessage, MediaKind, MediaRef
from autoglm_gateway.image_header import read_image_header
from autoglm_gateway.media_fetch import MediaFetcher
from autoglm_gateway.media_store import MediaStore
from autoglm_gateway.option import option
from autoglm_gateway.turns import Turns
from autoglm_protocol.chat import AudioPart, ImagePart, Message, Part, TextPart
from autoglm_protocol.errors import InvalidRequestError
from autoglm_protocol.media_limits import MAX_AUDIO_S, MAX_IMAGE_PIXELS

_PIECE_CHARACTERS = 1 << 20
"""Base64 that is decoded in one turn of the event loop: about a millisecond. A multiple of four."""
_IMAGE_TYPES = ("image/png", "image/jpeg", "image/jpg", "image/webp", "application/octet-stream", "")
_AUDIO_TYPES = {
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/wave": "wav",
    "audio/vnd.wave": "wav",
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
    "application/octet-stream": None,
    "": None,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaLimits:
    max_images: int = option(10, "pictures in one request")
    max_image_bytes: int = option(20 << 20, "size of one picture file")
    max_image_pixels: int = option(MAX_IMAGE_PIXELS, "pixels of one picture, checked before it is decoded")
    max_audios: int = option(4, "sounds in one request")
    max_audio_bytes: int = option(25 << 20, "size of one sound file")
    max_audio_s: float = option(MAX_AUDIO_S, "length of one sound; a WAV's is checked before it is decoded")
    media_hosts: tuple[str, ...] = option(
        ("*",), "hosts that http(s) media may come from; *.example.com takes subdomains, empty allows none"
    )
    media_timeout_s: float = option(10.0, "time for fetching one http(s) medium, redirects included")
    media_store_bytes: int = option(256 << 20, "memory for media that callers gave a uuid; 0 keeps none")
    media_private_addresses: bool = option(False, "let http(s) media come from private addresses, for test networks")

    def __post_init__(self) -> None:
        for name, limit in (("max_image_pixels", MAX_IMAGE_PIXELS), ("max_audio_s", MAX_AUDIO_S)):
            if not 0 < getattr(self, name) <= limit:
                raise ValueError(f"--{name.replace('_', '-')} must be above 0 and at most {limit:g}")


class MediaReader:
    def __init__(self, limits: MediaLimits, turns: Turns) -> None:
        self._limits = limits
        self._turns = turns
        self._store = MediaStore(limits.media_store_bytes)
        self._fetcher = MediaFetcher(
            hosts=limits.media_hosts,
            timeout_s=limits.media_timeout_s,
            private_addresses=limits.media_private_addresses,
        )

    async def close(self) -> None:
        await self._fetcher.close()

    async def read(self, messages: tuple[DraftMessage, ...], *, owner: str | None) -> tuple[Message, ...]:
        """Messages with every medium as bytes, order kept. Raises InvalidRequestError naming the field.

        owner: whose uuids are meant, None where nobody needs a key.
        """
        self._check_counts(messages)
        read: list[Message] = []
        for message in messages:
            parts: list[Part] = []
            for part in message.parts:
                if isinstance(part, TextPart):
                    parts.append(part)
                else:
                    parts.append(await self._part_of(part, owner))
            read.append(
                Message(
                    role=message.role,
                    parts=tuple(parts),
                    tool_calls=message.tool_calls,
                    tool_call_id=message.tool_call_id,
                )
            )
        return tuple(read)

    def _check_counts(self, messages: tuple[DraftMessage, ...]) -> None:
        refs = [part for message in messages for part in message.parts if isinstance(part, MediaRef)]
        for kind, limit in ((MediaKind.IMAGE, self._limits.max_images), (MediaKind.AUDIO, self._limits.max_audios)):
            of_kind = [ref for ref in refs if ref.kind is kind]
            if len(of_kind) > limit:
                raise InvalidRequestError(
                    f"the request holds {len(of_kind)} {kind.value} parts, at most {limit} are allowed",
                    code=f"too_many_{kind.value}s",
                    param=of_kind[limit].param,
                )

    async def _part_of(self, ref: MediaRef, owner: str | None) -> ImagePart | AudioPart:
        if ref.uuid is None:
            return await self._read_part(ref)
        is_inline = ref.base64 is not None or ref.data is not None or (ref.url or "")[:5].lower() == "data:"
        known = None if is_inline else self._store.get(owner, ref)
        if known is not None:
            return replace(known, detail=ref.detail) if isinstance(known, ImagePart) else known
        if not is_inline and ref.url is None:
            raise InvalidRequestError(
                f"{ref.param} names a medium that is not here (any more); send it again with its uuid",
                code="unknown_media_uuid",
                param=ref.param,
            )
        part = await self._read_part(ref)
        self._store.put(owner, ref, part)
        return part

    async def _read_part(self, ref: MediaRef) -> ImagePart | AudioPart:
        data, declared = await self._bytes_of(ref)
        if ref.kind is MediaKind.IMAGE:
            self._check_bytes(data, self._limits.max_image_bytes, "image_file_too_large", ref)
            read_image_header(data, max_pixels=self._limits.max_image_pixels, param=ref.param)
            return ImagePart(data=data, detail=ref.detail)
        self._check_bytes(data, self._limits.max_audio_bytes, "audio_file_too_large", ref)
        header = read_audio_header(data, declared=declared, param=ref.param)
        if header.duration_s is not None and header.duration_s > self._limits.max_audio_s:
            raise InvalidRequestError(
                f"{ref.param} lasts {header.duration_s:.1f} s, at most {self._limits.max_audio_s:g} s are allowed",
                code="audio_too_long",
                param=ref.param,
            )
        return AudioPart(data=data, format=header.format)

    async def _bytes_of(self, ref: MediaRef) -> tuple[bytes, str | None]:
        """The file and, for a sound, the format it was declared as."""
        if ref.data is not None:
            return ref.data, ref.format
        if ref.base64 is not None:
            return await self._decode(ref.base64, 0, ref), ref.format
        assert ref.url is not None
        if ref.url[:5].lower() != "data:":
            data, media_type = await self._fetcher.fetch(ref, max_bytes=self._max_bytes(ref))
            return data, self._check_type(media_type, ref)
        comma = ref.url.find(",")  # not partition, which would copy megabytes
        media_type, *attributes = ref.url[5 : max(comma, 5)].lower().split(";")
        if comma < 0 or "base64" not in attributes:
            raise InvalidRequestError(
                f"{ref.param} must be a data URL with base64 data", code=self._bad_base64(ref), param=ref.param
            )
        declared = self._check_type(media_type.strip(), ref)
        return await self._decode(ref.url, comma + 1, ref), declared

    def _check_type(self, media_type: str, ref: MediaRef) -> str | None:
        if ref.kind is MediaKind.AUDIO:
            if media_type in _AUDIO_TYPES:
                return _AUDIO_TYPES[media_type]
            raise InvalidRequestError(
                f"{ref.param} has media type {media_type[:80]!r}, supported are audio/wav and audio/mpeg",
                code="invalid_audio",
                param=ref.param,
            )
        if media_type not in _IMAGE_TYPES:
            raise InvalidRequestError(
                f"{ref.param} has media type {media_type[:80]!r}, supported are image/png, image/jpeg and image/webp",
                code="unsupported_image_media_type",
                param=ref.param,
            )
        return None

    async def _decode(self, text: str, start: int, ref: MediaRef) -> bytes:
        """`text` from `start` on."""
        limit, size = self._max_bytes(ref), (len(text) - start) * 3 // 4
        if size > limit + 3:
            self._refuse_size(size, limit, f"{ref.kind.value}_file_too_large", ref)
        data = await _decode_base64(text, start, self._turns)
        if data is None:
            raise InvalidRequestError(f"{ref.param} is not valid base64", code=self._bad_base64(ref), param=ref.param)
        return data

    def _max_bytes(self, ref: MediaRef) -> int:
        return self._limits.max_image_bytes if ref.kind is MediaKind.IMAGE else self._limits.max_audio_bytes

    def _check_bytes(self, data: bytes, limit: int, code: str, ref: MediaRef) -> None:
        if len(data) > limit:
            self._refuse_size(len(data), limit, code, ref)

    @staticmethod
    def _refuse_size(size: int, limit: int, code: str, ref: MediaRef) -> None:
        raise InvalidRequestError(
            f"{ref.param} holds {size} bytes, at most {limit} are allowed", code=code, param=ref.param
        )

    @staticmethod
    def _bad_base64(ref: MediaRef) -> str:
        return "invalid_base64_image" if ref.kind is MediaKind.IMAGE else "invalid_base64_audio"


async def _decode_base64(text: str, start: int, turns: Turns) -> bytes | None:
    """None when it is no base64. Line breaks are allowed, a missing final padding is not."""
    pieces: list[bytes] = []
    for at in range(start, len(text), _PIECE_CHARACTERS):
        piece = text[at : at + _PIECE_CHARACTERS]
        data = await turns.run(partial(_decode_piece, piece), len(piece))
        is_last = at + len(piece) == len(text)
        if data is None or not (is_last or len(data) == _PIECE_CHARACTERS // 4 * 3):
            break
        pieces.append(data)
    else:
        return await turns.run(partial(b"".join, pieces), len(text) - start)
    compact = await turns.run(lambda: "".join(text[start:].split()), len(text) - start)
    return await _decode_base64(compact, 0, turns) if len(compact) < len(text) - start else None


def _decode_piece(text: str) -> bytes | None:
    try:
        data = binascii.a2b_base64(text)
    except ValueError:
        return None
    # a2b_base64 skips foreign characters: then fewer bytes come out than the length promises.
    if len(text) % 4 == 0 and len(data) == len(text) // 4 * 3 - text[-2:].count("="):
        return data
    return None
