"""What a microphone in a room does to a clean voice, and the masks that keep the encoder from leaning on one band."""

from __future__ import annotations

import numpy as np
import soxr
from numpy.typing import NDArray

from autoglm_backend.preprocess.audio import SAMPLE_RATE

Wave = NDArray[np.float32]


def augment(wave_T: Wave, rng: np.random.Generator) -> Wave:
    """A randomly distorted copy: tempo, room, band, silence around it, noise (10 to 40 dB) and gain."""
    if rng.random() < 0.5:
        wave_T = soxr.resample(wave_T, SAMPLE_RATE, SAMPLE_RATE * rng.uniform(0.9, 1.1), quality="QQ")
    if rng.random() < 0.3:
        wave_T = _room(wave_T, rng)
    if rng.random() < 0.3:
        wave_T = _band(wave_T, rng)
    wave_T = surround_with_silence(wave_T, rng)
    if rng.random() < 0.8:
        wave_T = add_noise(wave_T, rng.uniform(10, 40), rng)
    peak = float(np.abs(wave_T).max())
    return (wave_T * (10 ** rng.uniform(-1.3, 0) / max(peak, 1e-6))).astype(np.float32)


def surround_with_silence(wave_T: Wave, rng: np.random.Generator, max_s: float = 0.4) -> Wave:
    before, after = rng.integers(0, int(max_s * SAMPLE_RATE), 2)
    return np.pad(wave_T, (before, after))


def add_noise(wave_T: Wave, snr_db: float, rng: np.random.Generator) -> Wave:
    """Noise whose spectrum falls by 0 to 6 dB an octave, `snr_db` below the clip's mean power."""
    spectrum = np.fft.rfft(rng.standard_normal(len(wave_T), dtype=np.float32))
    spectrum *= np.arange(1, len(spectrum) + 1) ** -rng.uniform(0, 1)
    noise = np.fft.irfft(spectrum, len(wave_T))
    ratio = np.sqrt(np.mean(wave_T**2) / max(float(np.mean(noise**2)), 1e-12)) * 10 ** (-snr_db / 20)
    return (wave_T + noise * ratio).astype(np.float32)


def mask_mel(mel_FC: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """SpecAugment (Park et al. 2019), light: up to two bands and two short times set to the clip's mean."""
    mel_FC = mel_FC.copy()
    mean = mel_FC.mean()
    for _ in range(rng.integers(0, 3)):
        width = rng.integers(1, 12)
        start = rng.integers(0, mel_FC.shape[1] - width)
        mel_FC[:, start : start + width] = mean
    for _ in range(rng.integers(0, 3)):
        start = rng.integers(0, mel_FC.shape[0])
        mel_FC[start : start + rng.integers(1, 7)] = mean
    return mel_FC


def _room(wave_T: Wave, rng: np.random.Generator) -> Wave:
    """Decaying noise as impulse response, 50 to 250 ms to -60 dB, mixed below the direct sound."""
    decay_s = rng.uniform(0.05, 0.25)
    num = int(decay_s * SAMPLE_RATE)
    response = rng.standard_normal(num) * 10 ** (-3 * np.arange(num) / num) * rng.uniform(0.02, 0.15)
    response[0] = 1.0
    size = 1 << int(len(wave_T) + num - 1).bit_length()
    wet = np.fft.irfft(np.fft.rfft(wave_T, size) * np.fft.rfft(response, size), size)
    return wet[: len(wave_T)].astype(np.float32)


def _band(wave_T: Wave, rng: np.random.Generator) -> Wave:
    """A small loudspeaker's or a telephone's band."""
    spectrum = np.fft.rfft(wave_T)
    hz = np.fft.rfftfreq(len(wave_T), 1 / SAMPLE_RATE)
    low, high = rng.uniform(50, 300), rng.uniform(3400, 7600)
    spectrum *= 1 / (1 + (low / np.maximum(hz, 1)) ** 4) / (1 + (hz / high) ** 8)
    return np.fft.irfft(spectrum, len(wave_T)).astype(np.float32)
