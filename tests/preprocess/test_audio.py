"""Audio files to 16 kHz samples and log-mel frames: Whisper's figures, and a clear error for each kind of bad file."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from transformers import WhisperFeatureExtractor

from autoglm_backend.preprocess.audio import decode_audio, log_mel, num_mel_frames
from autoglm_backend.preprocess.media_error import MediaError


def tone(seconds: float, rate: int = 16_000, channels: int = 1) -> np.ndarray:
    wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)
    return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


def encoded(wave: np.ndarray, container: str = "WAV", rate: int = 16_000, subtype: str | None = None) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, wave, rate, format=container, subtype=subtype)
    return out.getvalue()


def error_of(data: bytes, **options: object) -> MediaError:
    with pytest.raises(MediaError) as caught:
        decode_audio(data, **options)  # type: ignore[arg-type]
    return caught.value


@pytest.mark.parametrize("container", ["WAV", "MP3", "FLAC", "OGG"])
def test_every_container_becomes_mono_16_khz(container: str) -> None:
    wave = decode_audio(encoded(tone(0.5, 44_100, 2), container, 44_100), declared_format=container.lower())
    assert wave.dtype == np.float32
    assert wave.shape == (8_000,)
    middle = wave[2_000:6_000] - tone(0.5)[2_000:6_000, 0]
    # MP3 keeps its encoder delay; the others line up with the source.
    assert container == "MP3" or np.abs(middle).max() < 0.02


def test_channels_are_averaged() -> None:
    left_only = np.stack([tone(0.1)[:, 0], np.zeros(1_600, np.float32)], axis=1)
    np.testing.assert_allclose(decode_audio(encoded(left_only)), tone(0.1)[:, 0] / 2, atol=1e-4)


def test_a_wav_that_was_streamed_may_claim_an_unknown_length() -> None:
    data = bytearray(encoded(tone(0.5)))
    at = data.index(b"data") + 4
    for claim in (0x7FFF_F000, 0xFFFF_FFFF):
        data[at : at + 4] = claim.to_bytes(4, "little")
        assert decode_audio(bytes(data)).shape == (8_000,)


def test_nothing_is_empty() -> None:
    assert error_of(b"").code == "audio_empty"


def test_a_file_without_samples_is_empty() -> None:
    assert error_of(encoded(tone(0))).code == "audio_empty"


def test_less_than_one_window_is_empty() -> None:
    assert error_of(encoded(tone(0.02))).code == "audio_empty"


@pytest.mark.parametrize("declared", ["wav", "mp3", None])
def test_a_text_file_is_invalid(declared: str | None) -> None:
    error = error_of(b"this is no sound at all\n" * 99, declared_format=declared)
    assert error.code == "audio_invalid"
    assert declared is None or declared.upper() in error.message


@pytest.mark.parametrize("seed", range(8))
def test_random_bytes_are_invalid(seed: int) -> None:
    assert error_of(np.random.default_rng(seed).bytes(4_000)).code == "audio_invalid"


@pytest.mark.parametrize(("container", "declared"), [("WAV", "mp3"), ("MP3", "wav"), ("FLAC", "wav")])
def test_content_other_than_declared_is_a_mismatch(container: str, declared: str) -> None:
    error = error_of(encoded(tone(0.5), container), declared_format=declared)
    assert error.code == "audio_format_mismatch"
    assert declared in error.message
    assert container.lower() in error.message


def test_an_unknown_declared_format_is_unsupported() -> None:
    assert error_of(encoded(tone(0.5)), declared_format="aac").code == "audio_unsupported"


def test_other_containers_are_unsupported() -> None:
    assert error_of(encoded(tone(0.5), "AIFF")).code == "audio_unsupported"


@pytest.mark.parametrize("container", ["WAV", "MP3", "FLAC"])
def test_a_cut_file_is_truncated(container: str) -> None:
    data = encoded(tone(1), container)
    assert error_of(data[: len(data) // 2]).code == "audio_truncated"


def test_a_cut_header_is_invalid() -> None:
    assert error_of(encoded(tone(1))[:20]).code == "audio_invalid"


@pytest.mark.parametrize("container", ["WAV", "MP3", "FLAC", "OGG"])
def test_a_long_clip_is_refused(container: str) -> None:
    assert error_of(encoded(tone(2), container), max_audio_s=1.5).code == "audio_too_long"


def test_a_claimed_length_is_refused_before_decoding() -> None:
    data = bytearray(encoded(tone(0.1), "FLAC"))
    data[21:26] = bytes([data[21] | 0x0F, 0xFF, 0xFF, 0xFF, 0xFF])  # STREAMINFO: 2^36 - 1 samples
    assert error_of(bytes(data)).code == "audio_too_long"


def test_a_flac_of_open_length_is_unsupported() -> None:
    data = bytearray(encoded(tone(0.1), "FLAC"))
    data[21:26] = bytes([data[21] & 0xF0, 0, 0, 0, 0])
    assert error_of(bytes(data)).code == "audio_unsupported"


@pytest.mark.parametrize("rate", [1, 2**31 - 1])
def test_absurd_sample_rates_are_unsupported(rate: int) -> None:
    data = bytearray(encoded(tone(0.5)))
    data[24:28] = rate.to_bytes(4, "little")
    assert error_of(bytes(data)).code == "audio_unsupported"


def test_many_channels_are_unsupported() -> None:
    assert error_of(encoded(tone(0.1, channels=32))).code == "audio_unsupported"


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_samples_that_are_no_sound_are_invalid(value: float) -> None:
    wave = tone(0.5)
    wave[100] = value
    assert error_of(encoded(wave, subtype="FLOAT")).code == "audio_invalid"


def test_log_mel_is_whispers() -> None:
    wave = (np.random.default_rng(0).standard_normal(32_123) * np.linspace(0, 0.1, 32_123)).astype(np.float32)
    reference = WhisperFeatureExtractor(feature_size=80)
    padded = reference(wave, sampling_rate=16_000, return_tensors="np")["input_features"][0].T
    exact = reference(wave, sampling_rate=16_000, padding="do_not_pad", return_tensors="np")["input_features"][0].T
    ours = log_mel(wave, 80)
    assert ours.shape == (num_mel_frames(len(wave)), 80)
    np.testing.assert_allclose(ours, exact[: len(ours)], atol=1e-5)
    # The last two frames see our end and not the reference's half minute of zeros.
    np.testing.assert_allclose(ours[:-2], padded[: len(ours) - 2], atol=1e-5)


def test_log_mel_of_silence_is_finite() -> None:
    assert np.isfinite(log_mel(np.zeros(16_000, np.float32), 80)).all()


def test_log_mel_needs_one_window() -> None:
    with pytest.raises(MediaError, match="25 ms"):
        log_mel(np.zeros(399, np.float32), 80)
