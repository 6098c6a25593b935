"""Log-mel spectrograms, differentiable, without a dependency."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from kintsugi.core.errors import ConfigError

WINDOW, HOP = 0.032, 0.016  # seconds: 62.5 frames a second
FLOOR = 1e-6  # power of a sample; the noise of 8-bit sound is about 5e-6


def mel_filters(rate: float, n_fft: int, bands: int) -> np.ndarray:
    """Triangular filters ``[n_fft // 2 + 1, bands]``, equally spaced in mel between 0 Hz and half the sampling rate.

    ``mel = 2595 log10(1 + f / 700)``: O'Shaughnessy, "Speech communication", 1987, as in the HTK Book (Young et al.),
    section 5.4. Peaks have height 1. A band narrower than the spacing of the bins takes the bin nearest to its centre.
    """

    def hertz(mel: np.ndarray) -> np.ndarray:
        return 700 * (10 ** (mel / 2595) - 1)

    corners = hertz(np.linspace(0, 2595 * np.log10(1 + rate / 2 / 700), bands + 2))
    bins = np.fft.rfftfreq(n_fft, 1 / rate)[:, None]
    low, centre, high = corners[:-2], corners[1:-1], corners[2:]
    filters = np.clip(np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)), 0, None)
    empty = np.flatnonzero(filters.sum(0) == 0)
    filters[np.abs(bins - centre[empty]).argmin(0), empty] = 1
    return filters.astype(np.float32)


class LogMel(nn.Module):
    """Waveform ``[R, S]`` in [-1, 1] -> log-mel frames ``[R, 1 + S // hop, bands]`` in float32.

    Hann windows of 32 ms every 16 ms, padded with silence at both ends; ``log(1e-6 + power)`` of each band, natural
    logarithm; then mean 0 and variance 1 over each clip, which takes out its loudness. Silence gives zeros.

    Args:
        rate: samples a second.
        bands: number of mel bands.
        normalise: off: plain log power.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, rate: float, bands: int = 32, normalise: bool = True) -> None:
        super().__init__()
        self.length, self.hop = round(WINDOW * rate), round(HOP * rate)
        if self.hop < 1:
            raise ConfigError(f"a sampling rate of {rate} Hz leaves no sample within {HOP * 1000:.0f} ms")
        self.n_fft = 1 << (self.length - 1).bit_length()
        self.bands, self.normalise = bands, normalise
        self.register_buffer("window", torch.hann_window(self.length), persistent=False)
        self.register_buffer("filters", torch.from_numpy(mel_filters(rate, self.n_fft, bands)), persistent=False)

    def frames(self, samples: int) -> int:
        """Number of frames of a clip of this many samples."""
        return 1 + samples // self.hop

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # neither FFT nor the floor of the logarithm bear bfloat16
            window, x = self.window.float(), x.float()
            left = self.length // 2
            x = functional.pad(x, (left, self.length - left))
            x = x.unfold(1, self.length, self.hop)[:, : self.frames(x.shape[1] - self.length)] * window
            spectrum = torch.view_as_real(torch.fft.rfft(x, self.n_fft))
            power = spectrum.square().sum(-1) / window.square().sum()
            level = torch.log(FLOOR + power @ self.filters.float())
            if self.normalise:
                level = level - level.mean((1, 2), keepdim=True)
                level = level * torch.rsqrt(level.square().mean((1, 2), keepdim=True) + 1e-3)
        return level
