"""What the encoders share: how many tokens, where they stand, at which scale they come."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from kintsugi.core.errors import DataError
from kintsugi.core.features import Stream
from kintsugi.layers.positions import sinusoid

MOST = 16  # tokens a row that an encoder of a known shape hands on; fusion by attention costs their square


def ceil_div(a: int, b: int) -> int:
    """``a / b``, rounded up."""
    return -(-a // b)


def window(steps: int | None, default: int = 1) -> int:
    """How many of ``steps`` make one token, so that there are at most ``MOST``.

    It follows from the declared shape, never from the batch at hand: a row must not change with the padding of others.
    """
    return default if steps is None else max(1, ceil_div(steps, MOST))


class Tokens(nn.Module):
    """The last step of an encoder: projection, positions, LayerNorm, so that all modalities come at one scale.

    Positions are fixed sinusoids under a learned gain that starts small: content first. Where the number of tokens is
    fixed, a linear view of all of them is added to each: heads and fusions that average tokens lose what stands where,
    and this keeps it (measured with 900 rows: MNIST 0.94 without, 0.95 with; built-in spoken digits 0.53 and 0.73).

    Args:
        width: width of what comes in.
        dim: width of a token.
        count: number of tokens, if it is always the same and none is ever masked; None: no such view.
    """

    def __init__(self, width: int, dim: int, count: int | None = None) -> None:
        super().__init__()
        self.count = count
        self.project = nn.Linear(width, dim)
        self.overview = None if count is None else nn.Linear(count * width, dim, bias=False)
        self.gain = nn.Parameter(torch.full((dim,), 0.1))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, mask: Tensor | None = None, grid: tuple[int, ...] | None = None) -> Stream:
        """x ``[R, T, width]``, mask bool ``[R, T]`` (None: all) -> a stream of width ``dim``, zero where masked."""
        y = self.project(x)
        if self.overview is not None:
            if x.shape[1] != self.count:
                raise DataError(f"rows of another size than declared: {x.shape[1]} tokens instead of {self.count}")
            y = y + self.overview(x.flatten(1))[:, None]
        place = sinusoid(grid or (y.shape[1],), y.shape[2], y.device).to(y.dtype)
        y = self.norm(y + place * self.gain)
        if mask is None:
            mask = torch.ones(y.shape[:2], dtype=torch.bool, device=y.device)
        return Stream(torch.where(mask[..., None], y, 0), mask, grid)


def pool_steps(x: Tensor, mask: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Means over windows of ``size`` steps, of those that exist: ``[R, ceil(T / size), D]`` and its mask.

    x ``[R, T, D]``, zero where masked; mask bool ``[R, T]``.
    """
    if size == 1:
        return x, mask
    parts = ceil_div(x.shape[1], size)
    spare = parts * size - x.shape[1]
    mask = functional.pad(mask, (0, spare)).view(-1, parts, size)
    sums = functional.pad(x, (0, 0, 0, spare)).view(-1, parts, size, x.shape[2]).sum(2)
    return sums / mask.sum(2, keepdim=True).clamp(min=1).to(x.dtype), mask.any(2)
