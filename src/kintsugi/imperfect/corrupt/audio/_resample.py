"""Another number of samples for the same sound, by band-limited interpolation."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

# A sinc of 6 zero crossings a side under a Hann window, cut off at 0.99 of the lower Nyquist frequency: the interpolation
# of Smith, "Digital Audio Resampling" (CCRMA), with the defaults of torchaudio, which Speech Robust Bench used.
CROSSINGS = 6
ROLLOFF = 0.99


def ratio(value: float, most: int = 100) -> Fraction:
    """``value`` as a fraction with a denominator of at most ``most``; within 0.1 % from 0.1 on."""
    return Fraction(value).limit_denominator(most)


@lru_cache(64)
def _kernel(up: int, down: int) -> tuple[Tensor, int]:
    """One filter for each of ``up`` phases, float64 ``[up, width]``, and how many samples it reaches back."""
    cut = min(up, down) * ROLLOFF
    reach = math.ceil(CROSSINGS * down / cut)
    at = torch.arange(-reach, reach + down, dtype=torch.float64) / down
    time = (at[None] - torch.arange(up, dtype=torch.float64)[:, None] / up) * cut
    time = time.clamp(-CROSSINGS, CROSSINGS)
    window = torch.cos(time * math.pi / (2 * CROSSINGS)) ** 2
    return torch.sinc(time) * window * (cut / down), reach


def resample(sound: Tensor, factor: Fraction) -> Tensor:
    """``[n]`` -> ``[ceil(n * factor)]``: the same sound with ``factor`` times as many samples."""
    up, down = factor.numerator, factor.denominator
    if up == down:
        return sound
    weights, reach = _kernel(up, down)
    weights = weights.to(sound)
    padded = F.pad(sound, (reach, reach + down))
    # a product of the unfolded sound with one kernel would differ in the last bit with the number of threads
    out = F.conv1d(padded[None, None], weights[:, None], stride=down)[0].T.reshape(-1)
    return out[: math.ceil(len(sound) * factor)]
