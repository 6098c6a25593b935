"""Filters by FFT: SciPy's on a CPU, where it takes a third of the time, PyTorch's where gradients flow."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Response = NDArray[Any]
_BLOCK = 4096  # at least: 27 FFTs of 4,096 samples take a third of the time of one of 82,944


@lru_cache(4096)
def good_size(least: int) -> int:
    """The smallest even number from ``least`` on that has no prime factor above 5, for which an FFT is fast."""
    best = 1 << max(1, (least - 1).bit_length())
    five = 1
    while five < best:
        three = five
        while three < best:
            size = three << max(1, (-(-least // three) - 1).bit_length())
            best = min(best, size) if size >= least else best
            three *= 3
        five *= 5
    return best


def filtered(sound: Tensor, response: Callable[[int], Response], taps: int, before: int = 0) -> Tensor:
    """``[n]`` filtered by a kernel of so many taps, of which ``before`` stand before the present sample: new, ``[n]``.

    ``response(size)`` is the real FFT of the kernel, filled up by zeros to ``size`` samples. A long sound is filtered in
    blocks that overlap (overlap-save); they depend on the lengths alone, so the result does too.
    """
    count = len(sound)
    whole = good_size(count + taps - 1)
    size = min(whole, good_size(max(_BLOCK, 4 * taps)))
    if size == whole:
        frames, hop, skip = sound[None], count, before
    else:
        hop, skip = size - taps + 1, taps - 1
        blocks = -(-count // hop)
        left = taps - 1 - before
        padded = torch.nn.functional.pad(sound, (left, blocks * hop + taps - 1 - left - count))
        frames = padded.unfold(0, size, hop)
    return _product(frames, response(size), size)[:, skip : skip + hop].reshape(-1)[:count]


def _product(frames: Tensor, response: Response, size: int) -> Tensor:
    if frames.requires_grad or frames.device.type != "cpu":
        spectrum = torch.fft.rfft(frames, size) * torch.from_numpy(response).to(frames.device)
        return torch.fft.irfft(spectrum, size).to(frames.dtype)
    from scipy.fft import irfft, rfft

    values = rfft(frames.numpy(), size)
    values *= response
    return torch.from_numpy(irfft(values, size, overwrite_x=True))


def response_of(kernel: NDArray[Any], size: int) -> Response:
    """The real FFT of a kernel, filled up by zeros: complex64 ``[size // 2 + 1]``."""
    from scipy.fft import rfft

    made: Response = rfft(kernel.astype(np.float32), size)
    return made
