"""Textures of weather: plasma, frost, flakes and drops."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kintsugi.imperfect.seeds import stable_key, uniforms

# Mean colour and standard deviation of the grey of 224-pixel crops of the five pictures that ImageNet-C draws from.
LOOKS = (
    ((0.31, 0.58, 0.65), 0.06),
    ((0.78, 0.80, 0.84), 0.075),
    ((0.78, 0.80, 0.84), 0.075),
    ((0.56, 0.62, 0.67), 0.105),
    ((0.40, 0.44, 0.48), 0.135),
)
LARGEST = 224  # pixels that frost is computed for; larger pictures get it enlarged
ANGLES = 12  # of the needles of ice


def plasma(drawn: Tensor, decay: float) -> Tensor:
    """Heights in [0, 1], ``[R, S, S]``, by the diamond-square algorithm on a torus; S a power of 2.

    ``drawn``: ``[R, S, S]`` uniform in [0, 1); changed in place. Each level of half the step adds a draw of
    ``100² / decay^(2 level)`` to the mean of four neighbours, as ImageNet-C has it (the size of a draw is squared there).
    """
    # NumPy: most levels are small, and its calls cost a fifth of PyTorch's.
    noise = drawn.mul_(2).sub_(1).flatten(1).numpy()
    heights, used, wobble = np.zeros((len(noise), 1, 1), np.float32), 0, 1.0
    while heights.shape[-1] < drawn.shape[-1]:
        rows, count, _ = heights.shape
        scaled = noise[:, used : used + 3 * count * count].reshape(rows, 3, count, count)
        scaled *= np.float32(wobble)  # a view: reshape copies nothing here, and what was drawn is not needed again
        used += 3 * count * count
        centres = _added(_pairs(_pairs(heights, 1, 1), 2, 1), None, scaled[:, 0])
        across = _added(_pairs(centres, 1, -1), _pairs(heights, 2, 1), scaled[:, 1])
        down = _added(_pairs(centres, 2, -1), _pairs(heights, 1, 1), scaled[:, 2])
        finer = np.empty((rows, 2 * count, 2 * count), np.float32)
        finer[:, ::2, ::2], finer[:, 1::2, 1::2], finer[:, ::2, 1::2], finer[:, 1::2, ::2] = (
            heights,
            centres,
            across,
            down,
        )
        heights, wobble = finer, wobble / decay**2
    low, high = heights.min((1, 2), keepdims=True), heights.max((1, 2), keepdims=True)
    heights -= low
    heights /= np.where(high > low, high - low, np.float32(1))  # of one pixel there is one height
    return torch.from_numpy(heights)


Floats = NDArray[np.float32]


def _added(four: Floats, others: Floats | None, noise: Floats) -> Floats:
    """A quarter of a sum of four, in place, plus noise."""
    if others is not None:
        four += others
    four *= np.float32(0.25)
    four += noise
    return four


def _pairs(x: Floats, axis: int, way: int) -> Floats:
    """Sum of each value and the one after it (``way`` 1) or before it (-1) along an axis that is closed to a ring."""
    out = np.empty_like(x)
    given, to = (x.swapaxes(0, axis), out.swapaxes(0, axis))
    np.add(given[1:], given[:-1], out=to[:-1] if way == 1 else to[1:])
    np.add(given[0], given[-1], out=to[-1 if way == 1 else 0])
    return out


def normals(key: int, rows: int, columns: int) -> Tensor:
    """Standard normal numbers ``[rows, columns]`` that belong to ``key`` and to nothing else, by Box and Muller's method."""
    drawn = torch.from_numpy(uniforms(key, torch.arange(rows), 2 * columns)).float()
    return (-2 * torch.log1p(-drawn[:, ::2])).sqrt() * torch.cos(6.283185307 * drawn[:, 1::2])


@lru_cache(maxsize=4)
def frost_pictures(side: int) -> Tensor:
    """Five windows with ice flowers, float32 ``[5, 3, S, S]`` in [0, 1], for crops of ``side``; S = 5/2 ``side``.

    Needles of ice are ridges in noise that is smooth along one of 12 directions; which direction prevails changes over the
    picture, as do thickness and light. Colour and contrast are those of :data:`LOOKS`.
    """
    size = max(16, side * 5 // 2)
    return torch.stack([_frosted(size, side, look) for look in range(len(LOOKS))])


def _frosted(size: int, side: int, look: int) -> Tensor:
    colour, contrast = LOOKS[look]
    across = torch.fft.fftfreq(size) * side  # cycles a crop
    down, right = torch.meshgrid(across, torch.fft.rfftfreq(size) * side, indexing="ij")
    white = torch.fft.rfft2(normals(stable_key("frost", look), size, size))
    coarse = torch.fft.rfft2(normals(stable_key("frost light", look), size, size))
    distance = (down**2 + right**2).sqrt()
    needles, strongest = torch.zeros(size, size), torch.full((size, size), -9.0)
    for each in range(ANGLES):
        angle = torch.tensor(each * torch.pi / ANGLES)
        along = down * angle.sin() + right * angle.cos()
        thin = (-0.5 * (along / 4) ** 2).exp() * (distance > 4) / (1 + (distance / 18) ** 1.1)
        ridges = _unit(torch.fft.irfft2(white * torch.polar(thin, 0 * thin), s=(size, size)))
        patch = _unit(
            torch.fft.irfft2(
                coarse * torch.polar((-0.5 * (distance / 4) ** 2).exp(), each * 2.4 * distance), s=(size, size)
            )
        )
        here = torch.sigmoid(6 * (patch - strongest))
        needles = torch.lerp(needles, 1 - 1.6 * ridges.abs(), here)
        strongest = torch.maximum(strongest, patch)
    light = _unit(torch.fft.irfft2(coarse * (distance + 1) ** -1.6, s=(size, size)))
    grey = _unit(_unit(needles) + light)
    depth = grey[None] * contrast * torch.tensor([1.05, 1.0, 0.95])[:, None, None]
    return (torch.tensor(colour)[:, None, None] + depth).clamp(0, 1)


def _unit(x: Tensor) -> Tensor:
    """Of mean 0 and standard deviation 1; 0 where all is the same, as needles are in pictures that are too small for any."""
    spread = x.std()
    return (x - x.mean()) / torch.where(spread > 0, spread, 1)
