"""Kernels that are not separable: disks by running sums, lines by taps, pixels that change places."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from kintsugi.imperfect.corrupt.image._common import Filter, padded
from kintsugi.imperfect.seeds import stable_key, uniforms


def disk(x: Tensor, radius: float, alias: float, taps: int) -> Tensor:
    """Mean over the pixels within ``radius`` of each, ``[..., H, W]``, its rim softened: another tensor than ``x``.

    ``alias``: standard deviation, in pixels, of the gaussian of ``taps`` by ``taps`` that softens it. Edges are mirrored.
    Differences of cumulative sums along each row of the disk, rows of the same length together: four additions for two
    rows, whatever their length.
    """
    rows, soft = int(radius), taps // 2
    half = [math.isqrt(int(radius * radius - dy * dy)) for dy in range(rows + 1)]
    height, width = x.shape[-2:]
    wide = _softened(padded(x, rows + soft, rows + soft, "mirror"), alias, taps)
    if not rows:
        return wide
    sums = torch.nn.functional.pad(wide.cumsum(-1), (1, 0))
    out: Tensor | None = None
    for reach in sorted(set(half)):
        downs = [dy for dy in range(-rows, rows + 1) if half[abs(dy)] == reach]
        bands = [sums[..., rows + dy : rows + dy + height, :] for dy in downs]
        band = bands[0] if len(bands) == 1 else bands[0] + bands[1]
        for other in bands[2:]:
            band = band.add_(other)
        right, left = rows + reach + 1, rows - reach
        if out is None:
            out = band[..., right : right + width] - band[..., left : left + width]
        else:
            out = out.add_(band[..., right : right + width]).sub_(band[..., left : left + width])
    assert out is not None
    return out.div_(sum((2 * reach + 1) * (2 if dy else 1) for dy, reach in enumerate(half)))


def _softened(wide: Tensor, sigma: float, taps: int) -> Tensor:
    """A gaussian of few taps, renormalised, as OpenCV's GaussianBlur: smaller by ``taps`` - 1 rows and columns."""
    soft = taps // 2
    weights = [math.exp(-0.5 * (at / sigma) ** 2) for at in range(soft + 1)]
    total = weights[0] + 2 * sum(weights[1:])
    for axis in (-2, -1):
        size = wide.shape[axis] - 2 * soft
        out = wide.narrow(axis, soft, size).contiguous() if weights[1] / total < 1e-9 else None
        if out is None:
            out = wide.narrow(axis, soft, size) * (weights[0] / total)
            for at in range(1, soft + 1):
                for start in (soft - at, soft + at):
                    out = out.add_(wide.narrow(axis, start, size), alpha=weights[at] / total)
        wide = out
    return wide


def line_taps(radius: int, sigma: float) -> list[float]:
    """Weights of 0 … 2 ``radius`` steps from a pixel: one side of a gaussian, of sum 1."""
    weights = np.exp(-0.5 * (np.arange(2 * radius + 1) / sigma) ** 2)
    return [float(w) for w in weights / weights.sum()]


def steps(count: int, degrees: float) -> list[tuple[int, int]]:
    """The pixels (down, right) that a line meets at an angle, one for each of ``count`` unit steps."""
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    return [(math.ceil(i * sine - 0.5), math.ceil(i * cosine - 0.5)) for i in range(count)]


def streak(x: Tensor, radius: int, sigma: float, degrees: Tensor) -> Tensor:
    """Each row of ``[R, ..., H, W]`` smeared along its own angle ``[R]``, its edge pixels repeated outside."""
    height, width = x.shape[-2:]
    taps = line_taps(radius, sigma)
    reach = len(taps) - 1
    wide = padded(x, reach, reach, "nearest")
    out = torch.zeros_like(x)
    for at_row, angle in enumerate(degrees.tolist()):
        row, source = out[at_row], wide[at_row]
        merged: dict[tuple[int, int], float] = {}
        for at, weight in zip(steps(len(taps), angle), taps, strict=True):
            merged[at] = merged.get(at, 0.0) + weight
        for (down, right), weight in merged.items():
            top, left = reach + down, reach + right
            row.add_(source[..., top : top + height, left : left + width], alpha=weight)
    return out


@lru_cache(maxsize=256)
def zoom_filter(factor: float, size: int, dtype: torch.dtype, device: torch.device) -> Filter:
    """The middle of an axis, ``ceil(size / factor)`` pixels of it, enlarged by linear interpolation and cut to ``size``.

    Its end points stay where they are (``grid_mode=False`` of scipy.ndimage.zoom, which the reference calls).
    """
    part = math.ceil(size / factor)
    start, made = (size - part) // 2, max(round(part * factor), size)
    at = (torch.arange(size, dtype=torch.float64) + (made - size) // 2) * ((part - 1) / max(made - 1, 1))
    low = at.floor().long().clamp(max=max(part - 2, 0))
    high = (low + 1).clamp(max=part - 1)
    to = torch.arange(size)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    matrix.index_put_((start + low, to), 1 - (at - low), accumulate=True)
    matrix.index_put_((start + high, to), at - low, accumulate=True)
    return Filter(matrix.to(device, dtype))


@lru_cache(maxsize=32)
def displacements(reach: int, rounds: int, side: int = 256) -> tuple[Tensor, Tensor]:
    """From how far (down, right) a pixel comes in ``rounds`` rounds of exchanges: int32 ``[N]`` each, near ones first.

    A round visits the pixels from the last to the first, as the reference does, and each takes the value of one at most
    ``reach`` away, which may have been replaced before it; so values travel. Along a skewed front the visits cannot
    meet, which is how they are made many at a time.
    """
    rows, columns = np.divmod(np.arange(side * side), side)
    source = np.arange(side * side)
    inner = (rows > reach) & (rows <= side - reach) & (columns > reach) & (columns <= side - reach)
    moment = (side - columns) + (side - rows) * (2 * reach + 1)
    order = np.argsort(moment, kind="stable")
    order = order[inner[order]]
    fronts = np.split(order, np.flatnonzero(np.diff(moment[order])) + 1)
    every = torch.arange(side * side)
    for each in range(rounds):
        drawn = uniforms(stable_key("exchanges", reach, each), every, 2)
        down, right = np.floor((2 * drawn - 1) * reach).astype(np.int64).T  # -reach to reach - 1, as randint there
        for front in fronts:
            source[front] = source[(rows[front] + down[front]) * side + columns[front] + right[front]]
    kept = inner & (np.abs(rows - side // 2) < side // 4) & (np.abs(columns - side // 2) < side // 4)
    far_down, far_right = source[kept] // side - rows[kept], source[kept] % side - columns[kept]
    near = np.argsort(far_down**2 + far_right**2, kind="stable")
    down_, right_ = (torch.from_numpy(far[near].astype(np.int32)) for far in (far_down, far_right))
    return down_, right_
