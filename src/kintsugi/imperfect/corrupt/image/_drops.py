"""Drops of water on a lens: from a smooth layer to how much light each pixel gets, as ImageNet-C's spatter makes it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kintsugi.imperfect.corrupt.image._common import padded

STRONG = 150.0  # sum of the two Sobel gradients, of 255 grey levels, from which on a pixel may be an edge
TAN = 0.41421356  # of 22.5 degrees
_EMBOSS = ((-2, -1, 0), (-1, 1, 1), (0, 1, 2))


def edges(layer: Tensor) -> Tensor:
    """Bool ``[R, H, W]``: pixels whose Sobel gradient is strong and the largest across the edge; ``layer`` of 0 to 255.

    This is Canny's detector with one threshold. Drops stand out by 160 grey levels or more, so that the search along
    weaker edges, down to 50, finds little else.
    """
    wide = padded(layer, 2, 2, "nearest")
    smooth = (wide[:, :-2] + wide[:, 2:]).add_(wide[:, 1:-1], alpha=2)
    right = smooth[..., 2:] - smooth[..., :-2]
    smooth = (wide[..., :-2] + wide[..., 2:]).add_(wide[..., 1:-1], alpha=2)
    down = smooth[:, 2:] - smooth[:, :-2]
    size = right.abs().add_(down.abs())
    # Few pixels are steep, so the others are left out of all that follows. The frame is there for its values only.
    steep = size.numpy() > STRONG
    steep[:, 0] = steep[:, -1] = False
    steep[..., 0] = steep[..., -1] = False
    at = np.flatnonzero(steep)
    row = size.shape[-1]
    right_, down_, flat = (each.view(-1).numpy() for each in (right, down, size))
    x, y, here = right_.take(at), down_.take(at), flat.take(at)
    across, along = np.abs(x), np.abs(y)
    beside = np.where(x * y > 0, row + 1, row - 1)
    beside = np.where(along < TAN * across, 1, np.where(across < TAN * along, row, beside))
    steep.reshape(-1)[at] = (here > flat.take(at - beside)) & (here >= flat.take(at + beside))
    return torch.from_numpy(steep)[:, 1:-1, 1:-1]


def distance(marked: Tensor, most: int) -> Tensor:
    """Euclidean distance of each pixel to the nearest marked one, at most ``most``: float32 ``[R, H, W]``.

    First along columns, with steps of 1, 2, 4, … that add up to any length; then squared and eroded along rows with a
    parabola, which is a sequence of steps of 1, 3, 5, … (van den Boomgaard and others, "Quadratic structuring functions
    in mathematical morphology", 1996).
    """
    found = torch.where(marked, 0.0, float(most))
    raised = torch.empty_like(found)
    step = 1
    while step <= min(most, found.shape[1] - 1):
        torch.add(found, step, out=raised)
        _lower(found, raised, 1, step)
        step *= 2
    found.square_()
    for step in range(1, min(most, found.shape[2])):
        if step * step >= float(found.amax()):
            break  # nothing that is this far away is nearer than what is known
        torch.add(found, 2 * step - 1, out=raised)
        _lower(found, raised, 2, 1)
    return found.sqrt_()


def _lower(found: Tensor, raised: Tensor, axis: int, step: int) -> None:
    """Take the smaller of each value and of those ``raised`` ones that are ``step`` away on both sides."""
    size = found.shape[axis] - step
    for to, source in ((step, 0), (0, step)):
        target = found.narrow(axis, to, size)
        torch.minimum(target, raised.narrow(axis, source, size), out=target)


def box(x: Tensor) -> Tensor:
    """Mean of 3x3 pixels, mirrored at the edges: ``[R, H, W]``."""
    wide = padded(x, 1, 1, "mirror")
    rows = wide[:, :-2] + wide[:, 1:-1]
    rows += wide[:, 2:]
    out = rows[..., :-2] + rows[..., 1:-1]
    return out.add_(rows[..., 2:]).div_(9)


def equalised(levels: Tensor, most: int) -> Tensor:
    """Whole numbers from 0 to ``most``, int32 ``[R, H, W]``, spread over 0 … 255 so that each is as frequent."""
    rows = len(levels)
    flat = (levels.flatten(1) + torch.arange(rows, dtype=levels.dtype)[:, None] * (most + 1)).flatten()
    counts = torch.bincount(flat, minlength=rows * (most + 1)).view(rows, most + 1)
    below = counts.cumsum(1)
    first = counts.gather(1, (counts > 0).int().argmax(1, keepdim=True))
    spread = (below - first).clamp(min=0) * 255.0 / (levels[0].numel() - first).clamp(min=1)
    return spread.round_().flatten().index_select(0, flat).view(levels.shape)


def water(layer: Tensor, most: int) -> Tensor:
    """Light of drops, float32 ``[R, H, W]``, at most 1, from a layer in [0, 1] that is 0 where there is no drop.

    Distance from the rims of drops, equalised and embossed, times the layer; the brightest pixel of each picture is 1.
    ``most``: pixels from which on the distance no longer counts.
    """
    far = box(distance(edges(layer * 255), most))
    wide = padded(equalised(far.int(), most), 1, 1, "mirror")
    height, width = layer.shape[-2:]
    embossed = torch.zeros_like(layer)
    for y, row in enumerate(_EMBOSS):
        for x, weight in enumerate(row):
            if weight:
                embossed.add_(wide[:, y : y + height, x : x + width], alpha=weight)
    light = box(embossed.clamp_(0, 255)).mul_(layer)
    return light.div_(light.flatten(1).amax(1).clamp(min=1e-9).view(-1, 1, 1))
