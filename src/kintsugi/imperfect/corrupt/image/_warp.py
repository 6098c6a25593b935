"""Images at moved positions: affine maps, smooth random displacements, and one bilinear look-up for both."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from kintsugi.imperfect.corrupt.image._common import gaussian_taps

SMALLEST = 0.01  # a frequency whose amplitude a smoothing leaves less of is left out: 1e-4 of its energy


def sample(x: Tensor, grid: Tensor, border: str) -> Tensor:
    """``x`` ``[R, C, H, W]`` at ``grid`` ``[R, H, W, 2]`` of :func:`positions`, bilinear, in [0, 1].

    border: ``reflection`` (about the centres of the outermost pixels, OpenCV's BORDER_REFLECT_101) or ``zeros``.
    """
    return F.grid_sample(x, grid, "bilinear", border, align_corners=True).clamp_(0, 1)


def positions(maps: Tensor, x: Tensor, moved: Tensor | None = None) -> Tensor:
    """Where each pixel of a result is read from, as ``[R, H, W, 2]`` in units of ``grid_sample``: -1 to 1 over a side.

    maps: float64 ``[R, 2, 3]``, from a pixel (x, y, 1) of the result to one of ``x`` ``[R, C, H, W]``.
    moved: ``[R, 2, H, W]`` pixels (dx, dy), added before the map.
    """
    height, width = x.shape[-2:]
    scale = torch.tensor([2 / max(width - 1, 1), 2 / max(height - 1, 1)], dtype=torch.float64)
    maps = maps.cpu() * scale[:, None]
    maps[:, :, 2] -= 1
    parts = maps.to(x.device, x.dtype)[..., None, None]  # [R, 2, 3, 1, 1]
    across = torch.arange(width, device=x.device, dtype=x.dtype)
    down = torch.arange(height, device=x.device, dtype=x.dtype)[:, None]
    grid = x.new_empty(len(x), height, width, 2)
    for axis in range(2):
        to_x, to_y, shift = parts[:, axis].unbind(1)
        if moved is None:
            torch.add(to_x * across, to_y * down + shift, out=grid[..., axis])
        else:
            at = to_x * (moved[:, 0] + across)
            torch.add(at, to_y * (moved[:, 1] + down) + shift, out=grid[..., axis])
    return grid


def about_centre(matrix: Tensor, x: Tensor) -> Tensor:
    """Maps ``[R, 2, 3]`` with the linear part ``[R, 2, 2]`` that keep the centre of ``x`` ``[R, C, H, W]`` where it is."""
    height, width = x.shape[-2:]
    centre = torch.tensor([(width - 1) / 2, (height - 1) / 2], dtype=torch.float64)
    return torch.cat([matrix, (centre - matrix @ centre)[..., None]], -1)


def three_points(jitter: Tensor, x: Tensor) -> Tensor:
    """Maps ``[R, 2, 3]`` that undo a move of three points by ``jitter`` ``[R, 3, 2]`` pixels.

    The points are three corners of a centred square of two thirds of the smaller side, as ImageNet-C takes them.
    """
    height, width = x.shape[-2:]
    centre = torch.tensor([width // 2, height // 2], dtype=torch.float64)
    third = min(height, width) // 3
    corners = centre + third * torch.tensor([[1, 1], [1, -1], [-1, -1]], dtype=torch.float64)
    moved = corners + jitter
    (ax, ay), (bx, by) = ((moved[:, i] - moved[:, 0]).unbind(1) for i in (1, 2))
    area = ax * by - ay * bx
    area = torch.where(area.abs() < 1e-6, 1e-6, area)  # three points on a line: a picture seen edge-on
    inverse = torch.stack([by, -bx, -ay, ax], 1).view(-1, 2, 2) / area[:, None, None]
    matrix = (corners[1:] - corners[0]).T @ inverse
    shift = corners[0] - (matrix @ moved[:, 0, :, None]).squeeze(-1)
    return torch.cat([matrix, shift[..., None]], -1)


def frequencies(size: int, sigma: float) -> int:
    """How many cosines of a side of ``size`` pixels :func:`smooth_noise` takes."""
    return smoothing(size, sigma).shape[1]


@lru_cache(maxsize=64)
def smoothing(size: int, sigma: float) -> Tensor:
    """White noise's cosines to smooth noise: float32 ``[size, K]``; the cosines, times what a gaussian leaves of them.

    Smoothing with reflected edges (``scipy.ndimage``'s ``reflect``, cut at 3 sigma) is a product in the basis of the
    cosine transform DCT-II, and white noise is white in it. So K numbers a side make the field, and a wide gaussian
    costs less than a narrow one instead of more. Both sides are filled with zeros to multiples of 16: MKL adds up
    other matrices in an order that depends on the number of threads.
    """
    taps = gaussian_taps(sigma, 3.0)
    at = torch.arange(len(taps), dtype=torch.float64) - len(taps) // 2
    turns = math.pi * torch.arange(size, dtype=torch.float64) / size
    left = (taps * torch.cos(turns[:, None] * at)).sum(1)
    small = (left.abs() < SMALLEST).nonzero()
    count = max(1, int(small[0]) if len(small) else size)
    cosines = torch.cos((torch.arange(size, dtype=torch.float64)[:, None] + 0.5) * turns[:count]) * math.sqrt(2 / size)
    cosines[:, 0] /= math.sqrt(2)
    return F.pad(cosines * left[:count], (0, -count % 16, 0, -size % 16)).float()


def smooth_noise(drawn: Tensor, size: tuple[int, int], sigma: float) -> Tensor:
    """Unit white noise after a gaussian of ``sigma`` pixels: ``[R, 2, H, W]`` from normal ``drawn`` ``[R, 2, K, K']``.

    One row at a time: a matrix product of another shape may add up in another order.
    """
    down, across = smoothing(size[0], sigma), smoothing(size[1], sigma)
    out = drawn.new_empty(len(drawn), 2, len(down), len(across))
    for field, each in zip(out.flatten(0, 1), drawn.flatten(0, 1), strict=True):
        torch.mm(down, each[: down.shape[1], : across.shape[1]] @ across.T, out=field)
    return out[..., : size[0], : size[1]]
