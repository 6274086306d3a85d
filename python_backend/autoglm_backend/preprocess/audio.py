"""Spoken commands: bytes of an audio file -> mono 16 kHz samples -> log-mel frames.

Everything that the bytes claim (length, channels, rate) is checked before a sample is decoded, so a small file cannot
ask for much memory. The log-mel is Whisper's (openai/whisper, whisper/audio.py), but never padded to 30 s.

Shape legend: T samples at 16 kHz, F mel frames of 10 ms.
"""

from __future__ import annotations

import functools
import io

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from autoglm_backend.preprocess.media_error import MediaError
from autoglm_protocol.media_limits import MAX_AUDIO_S

SAMPLE_RATE = 16_000
N_FFT = 400
"""Window of the short-time Fourier transform: 25 ms."""
HOP = 160
"""Samples between two mel frames: 10 ms."""
MAX_CHANNELS = 8
MIN_RATE, MAX_RATE = 4_000, 192_000
MAX_AMPLITUDE = 1_000.0
"""Float files may leave [-1, 1]; beyond this they are damaged, and resampling would overflow."""

Wave = NDArray[np.float32]

_FORMATS = {"WAV": "wav", "WAVEX": "wav", "RF64": "wav", "MP3": "mp3", "FLAC": "flac", "OGG": "ogg"}
# Writers that stream do not know the length yet and claim (nearly) the largest one: ffmpeg, espeak-ng, arecord.
_UNKNOWN_WAV_BYTES = 0x7FFF_0000
# libsndfile's count for a FLAC stream of open length; it fails at the end of such a stream (1.2.2).
_UNKNOWN_FRAMES = 1 << 62


def decode_audio(data: bytes, *, declared_format: str | None = None, max_audio_s: float = MAX_AUDIO_S) -> Wave:
    """Decode a WAV, MP3, FLAC or OGG file to mono samples [T] at 16 kHz.

    declared_format: what the request calls it ("wav", "mp3", "flac", "ogg"); None takes any of them.
    Raises MediaError: audio_empty, audio_invalid, audio_format_mismatch, audio_unsupported, audio_too_long,
    audio_truncated.
    """
    if not data:
        raise MediaError("audio_empty", "the audio is empty (0 bytes)")
    if declared_format is not None and declared_format not in _FORMATS.values():
        raise MediaError(
            "audio_unsupported", f"audio format {declared_format!r} is not supported; send wav, mp3, flac or ogg"
        )
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            samples, rate = _read(file, data, declared_format, max_audio_s)
    except soundfile.LibsndfileError as error:
        kind = declared_format.upper() if declared_format else "WAV, MP3, FLAC or OGG"
        raise MediaError("audio_invalid", f"the audio is not a valid {kind} file") from error
    if not np.isfinite(samples).all() or np.abs(samples).max() > MAX_AMPLITUDE:
        raise MediaError("audio_invalid", "the audio holds samples that are not numbers or far out of range")
    mono = samples.mean(axis=1, dtype=np.float32)
    if rate != SAMPLE_RATE:
        mono = soxr.resample(mono, rate, SAMPLE_RATE)
    if len(mono) < N_FFT:
        raise MediaError("audio_empty", f"the audio is shorter than {1000 * N_FFT // SAMPLE_RATE} ms")
    return np.ascontiguousarray(mono, dtype=np.float32)


def num_mel_frames(num_samples: int) -> int:
    """Mel frames of a clip of `num_samples` at 16 kHz."""
    return num_samples // HOP


def log_mel(wave_T: Wave, num_mels: int = 80) -> NDArray[np.float32]:
    """Whisper's log-mel frames [F, num_mels], F = T // 160, not padded. Raises MediaError on fewer than 400 samples."""
    if len(wave_T) < N_FFT:
        raise MediaError("audio_empty", f"the audio is shorter than {1000 * N_FFT // SAMPLE_RATE} ms")
    padded = np.pad(wave_T, N_FFT // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP][: num_mel_frames(len(wave_T))]
    power = np.abs(np.fft.rfft(frames * _hann_window(), axis=1)) ** 2
    log_spec = np.log10(np.maximum(power @ _mel_filters(num_mels), 1e-10))
    log_spec = np.maximum(log_spec, log_spec.max() - 8.0)
    return ((log_spec + 4.0) / 4.0).astype(np.float32)


def _read(
    file: soundfile.SoundFile, data: bytes, declared_format: str | None, max_audio_s: float
) -> tuple[NDArray[np.float32], int]:
    found = _FORMATS.get(file.format)
    if found is None:
        raise MediaError("audio_unsupported", f"{file.format} audio is not supported; send wav, mp3, flac or ogg")
    if declared_format is not None and found != declared_format:
        raise MediaError("audio_format_mismatch", f"the audio is declared as {declared_format}, but it is {found}")
    if not MIN_RATE <= file.samplerate <= MAX_RATE:
        raise MediaError(
            "audio_unsupported", f"a sample rate of {file.samplerate} Hz is outside {MIN_RATE} to {MAX_RATE} Hz"
        )
    if not 1 <= file.channels <= MAX_CHANNELS:
        raise MediaError("audio_unsupported", f"{file.channels} channels are more than {MAX_CHANNELS}")
    max_frames = int(max_audio_s * file.samplerate)
    if file.frames >= _UNKNOWN_FRAMES:
        raise MediaError("audio_unsupported", f"the {found.upper()} file does not say how long it is")
    if file.frames > max_frames:
        raise _too_long(file.frames / file.samplerate, max_audio_s)
    if found == "wav" and _wav_is_truncated(data):
        raise MediaError("audio_truncated", "the WAV file ends before the length that its header claims")
    # One frame more than allowed: a header that understates the length is caught below.
    try:
        samples = np.asarray(file.read(max_frames + 1, "float32", always_2d=True), np.float32)
    except soundfile.LibsndfileError as error:
        raise MediaError("audio_truncated", f"the {found.upper()} file is damaged or ends too early") from error
    if len(samples) > max_frames:
        raise _too_long(len(samples) / file.samplerate, max_audio_s)
    if len(samples) == 0:
        raise MediaError("audio_empty", "the audio holds no samples")
    if len(samples) < file.frames:
        raise MediaError(
            "audio_truncated", f"the audio ends after {len(samples)} of the {file.frames} frames that its header claims"
        )
    return samples, file.samplerate


def _too_long(duration_s: float, max_audio_s: float) -> MediaError:
    return MediaError("audio_too_long", f"the audio lasts {duration_s:.1f} s, the limit is {max_audio_s:g} s")


def _wav_is_truncated(data: bytes) -> bool:
    """Whether the data chunk claims more bytes than follow it (libsndfile silently reads what is there)."""
    position = 12
    while position + 8 <= len(data):
        name, size = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
        if name == b"data":
            return size < _UNKNOWN_WAV_BYTES and position + 8 + size > len(data)
        position += 8 + size + size % 2
    return True


@functools.cache
def _hann_window() -> NDArray[np.float64]:
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)


@functools.cache
def _mel_filters(num_mels: int) -> NDArray[np.float64]:
    """Slaney's filter bank [201, num_mels], 0 to 8 kHz, each triangle of unit area (librosa.filters.mel)."""
    bins_hz = np.linspace(0, SAMPLE_RATE / 2, N_FFT // 2 + 1)
    edges_hz = _mel_to_hz(np.linspace(0, _hz_to_mel(SAMPLE_RATE / 2), num_mels + 2))
    widths = np.diff(edges_hz)
    slopes = edges_hz[None, :] - bins_hz[:, None]
    rising, falling = -slopes[:, :-2] / widths[:-1], slopes[:, 2:] / widths[1:]
    return np.maximum(0, np.minimum(rising, falling)) * (2 / (edges_hz[2:] - edges_hz[:-2]))


# Slaney's scale: linear to 1 kHz (15 mel), logarithmic above (27 mel for each factor of 6.4).
_LOG_STEP = np.log(6.4) / 27


def _hz_to_mel(hz: float) -> float:
    return 15 + float(np.log(hz / 1000)) / _LOG_STEP if hz >= 1000 else hz * 3 / 200


def _mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(mel >= 15, 1000 * np.exp(_LOG_STEP * (mel - 15)), mel * 200 / 3)
