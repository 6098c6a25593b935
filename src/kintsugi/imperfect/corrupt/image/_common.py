"""What image operators share: presets by size, lengths in pixels, and separable filters that are fast on a CPU."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from kintsugi.core.schema import Modality
from kintsugi.imperfect.operator import Operator

BLOCK = 32  # output columns of one small matrix product; 32 keeps the filter's band wide against the zeros around it


def preset_by_size(modality: Modality) -> str:
    """``imagenet`` from 64 pixels on; below: ``mnist`` for one channel, ``cifar`` for several.

    Parameters that suit 224 pixels are other severities at 32, so benchmarks of small images have tables of their own.
    """
    channels, *sides = modality.shape
    if any(side is None or side >= 64 for side in sides):
        return "imagenet"
    return "mnist" if channels == 1 else "cifar"


SMALLEST = 32  # lengths of a pixel or less would do nothing in pictures that are smaller still


class Picture(Operator):
    """An operator on images whose parameters depend on what the images look like: see :func:`preset_by_size`."""

    kind = "image"

    def preset(self, modality: Modality) -> str:
        found = preset_by_size(modality)
        return found if found in self.parameters else next(iter(self.parameters))


def relative(x: Tensor, side: float) -> float:
    """By how much lengths in pixels grow: the smaller side of ``x`` ``[..., H, W]`` over ``side``; 1 where that is 0.

    Pictures below 32 pixels (or below ``side``) count as so large.
    """
    return max(min(x.shape[-2:]), min(side, SMALLEST)) / side if side else 1.0


def gaussian_taps(sigma: float, truncate: float = 4.0) -> Tensor:
    """Float64 ``[2r + 1]`` weights of sum 1, r = ``truncate`` sigma, rounded as scipy.ndimage does it."""
    radius = int(truncate * sigma + 0.5)
    at = torch.arange(-radius, radius + 1, dtype=torch.float64)
    taps = torch.exp(-0.5 * (at / max(sigma, 1e-12)) ** 2)
    return taps / taps.sum()


def inside(at: Tensor, size: int, edge: str) -> Tensor:
    """Positions, int64, folded into 0 … ``size`` - 1.

    ``edge``: ``nearest`` (aaa|abc|ccc), ``reflect`` (cba|abc|cba) or ``mirror`` (cb|abc|ba), the names of scipy.ndimage;
    OpenCV calls the last BORDER_REFLECT_101.
    """
    if edge == "nearest" or size == 1:
        return at.clamp(0, size - 1)
    if edge == "reflect":
        at = at % (2 * size)
        return torch.minimum(at, 2 * size - 1 - at)
    at = at % (2 * size - 2)
    return torch.minimum(at, 2 * size - 2 - at)


class Filter:
    """A linear map along one axis, with its edge rule, as a few small dense matrices.

    A product with a dense band of a matrix takes a fifth of the time of a loop over the taps on a CPU.
    """

    def __init__(self, matrix: Tensor) -> None:
        """``matrix``: ``[size in, size out]``; which rows of it a block of columns needs is found here."""
        self.parts: list[tuple[slice, slice, Tensor]] = []
        for start in range(0, matrix.shape[1], BLOCK):
            columns = matrix[:, start : start + BLOCK]
            used = columns.any(1).nonzero().flatten()
            low, high = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 1)
            out = slice(start, start + columns.shape[1])
            # MKL adds up a matrix whose sides are no multiples of 16 in an order that depends on the threads.
            wide = torch.nn.functional.pad(columns[low:high], (0, -columns.shape[1] % 16))
            self.parts.append((out, slice(low, high), wide.contiguous()))
        self.size = matrix.shape[1]

    def across(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """``[..., H, W]`` -> ``[..., H, W out]``, contiguous. ``out``: where to; not with gradients."""
        flat = x.reshape(-1, x.shape[-1])
        if flat.requires_grad:
            made = [(flat[:, i] @ m)[:, : o.stop - o.start] for o, i, m in self.parts]
            return torch.cat(made, 1).view(*x.shape[:-1], self.size)
        out = x.new_empty(*x.shape[:-1], self.size) if out is None else out
        to = out.view(-1, self.size)
        for o, i, m in self.parts:
            if o.stop - o.start == m.shape[1]:
                torch.mm(flat[:, i], m, out=to[:, o])
            else:
                to[:, o] = (flat[:, i] @ m)[:, : o.stop - o.start]
        return out

    def down(self, x: Tensor) -> Tensor:
        """``[..., H, W]`` -> ``[..., H out, W]``, contiguous."""
        flat = x.reshape(-1, *x.shape[-2:])
        shape = (*x.shape[:-2], self.size, x.shape[-1])
        if flat.requires_grad:
            made = [(m.t() @ flat[:, i])[:, : o.stop - o.start] for o, i, m in self.parts]
            return torch.cat(made, 1).view(shape)
        out = x.new_empty(shape)
        to = out.view(-1, self.size, x.shape[-1])
        for o, i, m in self.parts:
            left = m.t().expand(len(flat), -1, -1)
            if o.stop - o.start == m.shape[1]:
                torch.bmm(left, flat[:, i], out=to[:, o])
            else:
                to[:, o] = torch.bmm(left, flat[:, i])[:, : o.stop - o.start]
        return out

    def first(self, x: Tensor, out: Tensor) -> Tensor:
        """``out`` ``[H out, N]`` plus what is made of ``[H, N]``; changed in place but where gradients are wanted."""
        if x.requires_grad or out.requires_grad:
            return out + torch.cat([(m.t() @ x[i])[: o.stop - o.start] for o, i, m in self.parts])
        for o, i, m in self.parts:
            if o.stop - o.start == m.shape[1]:
                out[o].addmm_(m.t(), x[i])
            else:
                out[o] += (m.t() @ x[i])[: o.stop - o.start]
        return out


@lru_cache(maxsize=64)
def gaussian_filter(sigma: float, size: int, edge: str, dtype: torch.dtype, device: torch.device) -> Filter:
    """The gaussian of standard deviation ``sigma`` pixels, cut at 4, along an axis of ``size``; see :func:`inside`."""
    taps = gaussian_taps(sigma)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    to = torch.arange(size)
    for shift, weight in zip(range(-(len(taps) // 2), len(taps) // 2 + 1), taps, strict=True):
        matrix.index_put_((inside(to + shift, size, edge), to), weight, accumulate=True)
    return Filter(matrix.to(device, dtype))


def gaussian(x: Tensor, sigma: float, edge: str = "nearest") -> Tensor:
    """Smoothed pictures, ``[..., H, W]``, as of scikit-image's and scipy's gaussian: another tensor than ``x``."""
    height, width = x.shape[-2:]
    across = gaussian_filter(sigma, width, edge, x.dtype, x.device).across(x)
    return gaussian_filter(sigma, height, edge, x.dtype, x.device).down(across)


def padded(x: Tensor, rows: int, columns: int, edge: str) -> Tensor:
    """``[..., H + 2 rows, W + 2 columns]``, folded at the edges as :func:`inside` says, however far."""
    height, width = x.shape[-2:]
    at = [inside(torch.arange(-n, size + n), size, edge).to(x.device) for n, size in ((rows, height), (columns, width))]
    if max(rows, columns) >= min(height, width) or edge == "reflect":
        return x.index_select(-2, at[0]).index_select(-1, at[1])
    mode = "replicate" if edge == "nearest" else "reflect"
    return torch.nn.functional.pad(x, (columns, columns, rows, rows), mode=mode)


LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as OpenCV's conversion to grey


def grey(x: Tensor) -> Tensor:
    """``[R, C, H, W]`` -> ``[R, 1, H, W]``: the luma of three channels, the mean of any other number; a new tensor."""
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    return x[:, :1].mul(LUMA[0]).add_(x[:, 1:2], alpha=LUMA[1]).add_(x[:, 2:], alpha=LUMA[2])


def tinted(x: Tensor, colour: tuple[float, float, float]) -> Tensor:
    """``[C, 1, 1]``: the colour where there are three channels, its luma for any other number."""
    luma = sum(part * weight for part, weight in zip(colour, LUMA, strict=True))
    return torch.tensor(colour if x.shape[1] == 3 else [luma] * x.shape[1]).to(x)[:, None, None]
