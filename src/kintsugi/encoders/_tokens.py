"""What the encoders share: how many tokens, where they stand, at which scale they come."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from kintsugi.core.features import Stream
from kintsugi.layers.positions import sinusoid

MOST = 16  # tokens a row that an encoder of a known shape hands on; fusion by attention costs their square


def window(steps: int | None, default: int = 1) -> int:
    """How many of ``steps`` make one token, so that there are at most ``MOST``.

    It follows from the declared shape, never from the batch at hand: a row must not change with the padding of others.
    """
    return default if steps is None else max(1, math.ceil(steps / MOST))


class Tokens(nn.Module):
    """The last step of an encoder: positions, projection, LayerNorm, so that all modalities come at one scale.

    ``[R, T, width]``, mask bool ``[R, T]`` (None: all) -> :class:`Stream` of width ``dim``, zero where masked. Positions are
    fixed sinusoids under a learned gain that starts small: content first.
    """

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, dim)
        self.gain = nn.Parameter(torch.full((dim,), 0.1))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, mask: Tensor | None = None, grid: tuple[int, ...] | None = None) -> Stream:
        x = self.project(x)
        place = sinusoid(grid or (x.shape[1],), x.shape[2], x.device).to(x.dtype)
        x = self.norm(x + place * self.gain)
        if mask is None:
            mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        return Stream(torch.where(mask[..., None], x, 0), mask, grid)


def pool_steps(x: Tensor, mask: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Means over windows of ``size`` steps: x ``[R, T, D]``, zero where ~mask ``[R, T]`` -> ``[R, ceil(T / size), D]``, mask.

    Only steps that exist count in a mean.
    """
    if size == 1:
        return x, mask
    spare = -x.shape[1] % size
    parts = functional.pad(mask, (0, spare)).unflatten(1, (-1, size))
    sums = functional.pad(x, (0, 0, 0, spare)).unflatten(1, (-1, size)).sum(2)
    return sums / parts.sum(2, keepdim=True).clamp(min=1).to(x.dtype), parts.any(2)
