"""Mel-frequency cepstral coefficients, with librosa's default constants."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

# Defaults of librosa.feature.mfcc and what it calls (librosa 0.10): window and step in samples, mel bands, floor of the
# power, and range below the loudest value in dB.
WINDOW, STEP, BANDS, FLOOR, RANGE = 2048, 512, 128, 1e-10, 80.0


def mfcc(wave: np.ndarray, rate: int, coefficients: int = 20, window: int = WINDOW, step: int = STEP) -> np.ndarray:
    """Float64 ``[coefficients, 1 + len(wave) // step]``, in dB, of samples ``[S]`` in [-1, 1].

    Periodic Hann window on frames centred at multiples of ``step`` (zeros beyond the ends), power spectrum, Slaney's
    mel bands of equal area, dB, orthonormal DCT-II.
    """
    from scipy.fft import dct

    padded = np.pad(np.asarray(wave, dtype=np.float64), window // 2)
    count = 1 + (len(padded) - window) // step
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[: count * step : step]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    power = np.abs(np.fft.rfft(frames * hann)) ** 2
    bands = np.maximum(power @ mel_bands(rate, window).T, FLOOR)
    decibel = 10 * np.log10(bands)
    decibel = np.maximum(decibel, decibel.max() - RANGE)
    cepstrum: np.ndarray = dct(decibel, type=2, norm="ortho", axis=1)[:, :coefficients].T
    return cepstrum


@lru_cache(maxsize=8)
def mel_bands(rate: int, window: int, bands: int = BANDS) -> np.ndarray:
    """Triangular filters of equal area from 0 to rate / 2 Hz, ``[bands, window // 2 + 1]``."""
    edges = _hertz(np.linspace(0, _mel(np.array(rate / 2)), bands + 2))
    at = np.fft.rfftfreq(window, 1 / rate)
    up = (at[None] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    down = (edges[2:, None] - at[None]) / (edges[2:] - edges[1:-1])[:, None]
    filters: np.ndarray = np.clip(np.minimum(up, down), 0, None) * (2 / (edges[2:] - edges[:-2]))[:, None]
    return filters


# Slaney's scale (Auditory Toolbox, 1998): linear with 200/3 Hz a mel below 1 kHz, above it 27 mels for a factor of 6.4.
_LINEAR, _KNEE, _LOG = 200 / 3, 1000.0, np.log(6.4) / 27


def _mel(hertz: np.ndarray) -> np.ndarray:
    above = _KNEE / _LINEAR + np.log(np.maximum(hertz, _KNEE) / _KNEE) / _LOG
    mel: np.ndarray = np.where(hertz < _KNEE, hertz / _LINEAR, above)
    return mel


def _hertz(mel: np.ndarray) -> np.ndarray:
    hertz: np.ndarray = np.where(mel < _KNEE / _LINEAR, mel * _LINEAR, _KNEE * np.exp(_LOG * (mel - _KNEE / _LINEAR)))
    return hertz
