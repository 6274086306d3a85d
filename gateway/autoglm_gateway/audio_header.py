"""Format of a sound file from its first bytes, and the length of a WAV from its header; no sample is decoded here."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from autoglm_protocol.errors import InvalidRequestError


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioHeader:
    format: str
    duration_s: float | None
    """None for MP3: its length is only known by reading every frame."""


def read_audio_header(data: bytes, *, declared: str | None, param: str) -> AudioHeader:
    """Raises InvalidRequestError (code invalid_audio) for what is no WAV or MP3, or not what it was declared as."""
    if not data:
        raise InvalidRequestError(f"{param} holds no bytes", code="invalid_audio", param=param)
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        header = AudioHeader(format="wav", duration_s=_wav_duration_s(data, param))
    elif data[:3] == b"ID3" or _is_mp3_frame(data):
        header = AudioHeader(format="mp3", duration_s=None)
    else:
        raise InvalidRequestError(f"{param} is no valid WAV or MP3 file", code="invalid_audio", param=param)
    if declared is not None and declared != header.format:
        raise InvalidRequestError(
            f"{param} was declared as {declared} but is a {header.format} file", code="invalid_audio", param=param
        )
    return header


def _is_mp3_frame(data: bytes) -> bool:
    # 11 sync bits, then version (01 is reserved), layer (01 is layer III), bit rate (15 bad), sample rate (3 bad).
    if len(data) < 4 or data[0] != 0xFF or data[1] & 0xE0 != 0xE0:
        return False
    version, layer = data[1] >> 3 & 3, data[1] >> 1 & 3
    return version != 1 and layer == 1 and data[2] >> 4 != 15 and data[2] >> 2 & 3 != 3


def _wav_duration_s(data: bytes, param: str) -> float:
    position, byte_rate = 12, 0
    while position + 8 <= len(data):
        name = data[position : position + 4]
        (length,) = struct.unpack_from("<I", data, position + 4)
        if name == b"fmt " and position + 20 <= len(data):
            (byte_rate,) = struct.unpack_from("<I", data, position + 16)
        if name == b"data" and byte_rate:
            # Streamed WAVs state a length of 0 or 2^32 - 1: what counts is what came.
            return (len(data) - position - 8) / byte_rate
        position += 8 + length + (length & 1)
    raise InvalidRequestError(f"{param} is a WAV file without sound data", code="invalid_audio", param=param)
