"""Where a token stands, told by fixed sinusoids, so that no length or size is built in."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sinusoid(grid: tuple[int, ...], dim: int, device: torch.device | None = None) -> Tensor:
    """Sinusoidal positions of all cells of a grid, row-major: ``[prod(grid), dim]`` in float32.

    Vaswani et al., "Attention is all you need", NeurIPS 2017, section 3.5. Several axes share the channels out in
    equal parts; channels left over stay zero.
    """
    half = dim // (2 * len(grid))
    rate = torch.exp(torch.arange(half, device=device) * (-math.log(10000.0) / max(half, 1)))
    axes = torch.meshgrid(*(torch.arange(n, device=device) for n in grid), indexing="ij")
    angles = [axis.flatten()[:, None] * rate for axis in axes]
    table = torch.cat([part for a in angles for part in (a.sin(), a.cos())], 1)
    return torch.nn.functional.pad(table, (0, dim - table.shape[1]))
