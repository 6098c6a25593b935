"""Log-mel spectrograms, differentiable, without a dependency."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from kintsugi.core.errors import ConfigError

WINDOW, HOP = 0.032, 0.016  # seconds: 62.5 frames a second
FLOOR = 1e-6  # white noise of this variance has this power in each bin; that of 8-bit sound is about 5e-6
DEPTH = 40.0  # decibels below the loudest frame at which the background is taken to lie at most


def mel_filters(rate: float, n_fft: int, bands: int) -> np.ndarray:
    """Triangular filters ``[n_fft // 2 + 1, bands]``, equally spaced in mel between 0 Hz and half the sampling rate.

    ``mel = 2595 log10(1 + f / 700)``: O'Shaughnessy, "Speech communication", 1987, as in the HTK Book (Young et al.).
    Peaks have height 1. A band narrower than the spacing of the bins takes the bin nearest to its centre.
    """
    top = 2595 * np.log10(1 + rate / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    bins = np.fft.rfftfreq(n_fft, 1 / rate)[:, None]
    low, centre, high = corners[:-2], corners[1:-1], corners[2:]
    filters = np.clip(np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)), 0, None)
    empty = np.flatnonzero(filters.sum(0) == 0)
    filters[np.abs(bins - centre[empty]).argmin(0), empty] = 1
    return np.asarray(filters, dtype=np.float32)


class LogMel(nn.Module):
    """Waveform ``[R, S]`` in [-1, 1] -> log-mel frames ``[R, 1 + S // hop, bands]`` in float32.

    Hann windows of 32 ms every 16 ms, padded with silence at both ends; ``log(1e-6 + power)`` of each band, natural
    logarithm; then each clip has mean 0 in every band and variance 1 over all, which takes out loudness and the colour
    of the microphone (the log-mel form of cepstral mean normalisation: Atal, JASA 1974). Silence gives zeros.

    Args:
        rate: samples a second.
        bands: number of mel bands.
        stretch: the sounding part of a clip fills the whole clip, see :func:`sounding`; for clips that hold one event.
        normalise: off: plain log power.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, rate: float, bands: int = 32, stretch: bool = False, normalise: bool = True) -> None:
        super().__init__()
        self.length, self.hop = round(WINDOW * rate), round(HOP * rate)
        if self.hop < 1:
            raise ConfigError(f"a sampling rate of {rate} Hz leaves no sample within {HOP * 1000:.0f} ms")
        self.n_fft = 1 << (self.length - 1).bit_length()
        self.bands, self.stretch, self.normalise = bands, stretch, normalise
        self.register_buffer("window", torch.hann_window(self.length), persistent=False)
        self.register_buffer("filters", torch.from_numpy(mel_filters(rate, self.n_fft, bands)), persistent=False)

    def frames(self, samples: int) -> int:
        """Number of frames of a clip of this many samples."""
        return 1 + samples // self.hop

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as in the class."""
        with torch.autocast(x.device.type, enabled=False):  # neither FFT nor the floor of the logarithm bear bfloat16
            level = self._level(x.float())
            if self.stretch:
                level = stretch(level, *sounding(level.detach()))
            if self.normalise:
                level = level - level.mean(1, keepdim=True)
                level = level * torch.rsqrt(level.square().mean((1, 2), keepdim=True) + 1e-3)
        return level

    def _level(self, x: Tensor) -> Tensor:
        window, frames = self.window.float(), self.frames(x.shape[1])
        x = functional.pad(x, (self.length // 2, self.length))
        spectrum = torch.fft.rfft(x.unfold(1, self.length, self.hop)[:, :frames] * window, self.n_fft)
        power = (spectrum.real.square() + spectrum.imag.square()) / window.square().sum()
        return torch.log(FLOOR + power @ self.filters.float())


def sounding(level: Tensor) -> tuple[Tensor, Tensor]:
    """First and last frame, int ``[R]`` each, of what sounds in log power ``[R, frames, bands]``.

    Loudness of a frame: power of all bands. The threshold lies half way, in decibels, between the loudest and the
    quietest frame, the latter taken as no more than 40 dB down; so it rises with background noise, in the spirit of the
    endpoint detector of Rabiner and Sambur, Bell System Technical Journal 1975. In silence everything sounds.
    """
    loudness = level.logsumexp(2)
    loud = loudness.amax(1, keepdim=True)
    quiet = torch.maximum(loudness.amin(1, keepdim=True), loud - DEPTH * math.log(10) / 10)
    on = (loudness > (loud + quiet) / 2).to(torch.uint8)
    return on.argmax(1), level.shape[1] - 1 - on.flip(1).argmax(1)


def stretch(level: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """The frames ``first`` to ``last`` of each clip, linearly interpolated to its length: ``[R, frames, bands]``."""
    frames = level.shape[1]
    at = first[:, None] + (last - first)[:, None] * torch.linspace(0, 1, frames, device=level.device)
    low = at.long().clamp(max=frames - 1)
    share = (at - low)[..., None]

    def take(index: Tensor) -> Tensor:
        return level.gather(1, index[..., None].expand(-1, -1, level.shape[2]))

    return torch.lerp(take(low), take((low + 1).clamp(max=frames - 1)), share)
