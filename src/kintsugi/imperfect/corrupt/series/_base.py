"""What faults of sensors have in common. Sources: Ni et al., "Sensor network data fault types", ACM TOSN 2009."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from kintsugi.core.data import Data
from kintsugi.core.schema import Modality
from kintsugi.imperfect.operator import Operator
from kintsugi.imperfect.scales import scale

NI = 'fault: Ni et al., "Sensor network data fault types", ACM Transactions on Sensor Networks 2009; '


class Fault(Operator):
    """A fault of a series. Its unit is each channel's standard deviation over the reference rows, ``tensors["sd"]``."""

    kind = "series"
    block = (
        1 << 22
    )  # most batches of windows of a sensor in one piece: they fit a CPU's last cache, and calls cost more

    def look(self, data: Data, modality: Modality, values: dict[str, Any], seed: int) -> dict[str, Tensor]:
        return {"sd": scale(data, modality.name).sd}


def lengths(x: Tensor, mask: Tensor | None) -> Tensor:
    """Steps up to the last one that is seen, int64 ``[R]``: what fills a row up does not count."""
    rows, steps = x.shape[:2]
    if mask is None:
        return torch.full((rows,), steps, device=x.device)
    return (mask * torch.arange(1, steps + 1, device=x.device)).amax(1) if steps else mask.sum(1)


def neighbours(mask: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest seen step not after and not before each step, int64 ``[R, T]`` twice; at the ends the only one."""
    steps = mask.shape[1]
    at = torch.arange(steps, device=mask.device)
    before = torch.where(mask, at, -1).cummax(1).values
    after = torch.where(mask, at, steps).flip(1).cummin(1).values.flip(1)
    first = after[:, :1].clamp(max=steps - 1)
    last = before[:, -1:].clamp(min=0)
    return torch.where(before < 0, first, before), torch.where(after == steps, last, after)


def blank(x: Tensor, gone: Tensor) -> Tensor:
    """``x`` ``[R, T, C]``, in place where that is possible, with NaN in steps that are ``gone``, bool ``[R, T]`` on the CPU."""
    if x.requires_grad or x.device.type != "cpu" or not x.is_contiguous() or x.numel() == 0:
        return x.masked_fill(gone.to(x.device)[..., None], torch.nan)
    # A step as one item of so many bytes: an eighth of the time of masked_fill with a mask that is to be expanded.
    one = _nothing(x.shape[2], x.dtype)
    np.putmask(x.numpy().reshape(-1, x.shape[2]).view(one.dtype)[:, 0], gone.numpy().reshape(-1), one[0, 0])
    return x


@cache
def _nothing(channels: int, dtype: torch.dtype) -> NDArray[np.void]:
    """A step of NaN as one item of so many bytes, ``[1, 1]``."""
    values = torch.full((1, channels), torch.nan, dtype=dtype).numpy()
    return values.view(np.dtype((np.void, values.itemsize * channels)))


def read_at(x: Tensor, at: Tensor, mask: Tensor | None) -> Tensor:
    """The values ``[R, T, C]`` at other times, linear between seen steps.

    at: float ``[R, T]``, in steps, 0 to T - 1. A time within a gap is read between the seen steps around it. Rows
    without a seen step hold whatever they held.
    """
    rows, steps, channels = x.shape
    low = at.floor().long().clamp_(0, steps - 1)
    high = (low + 1).clamp_(max=steps - 1)
    part = at - low
    if mask is not None:
        before, after = neighbours(mask)
        high = torch.where(part > 0, high, low)
        low, high = before.gather(1, low), after.gather(1, high)
        part = ((at - low) / (high - low).clamp(min=1)).clamp(0, 1)
    start = torch.arange(0, rows * steps, steps, device=x.device)[:, None]
    where = torch.stack([low + start, high + start], 2).view(-1, 2)
    weights = torch.stack([1 - part, part], 2).view(-1, 2).to(x.dtype)
    # One pass that reads and mixes two steps: a quarter of the time of two index_select and a lerp.
    out = functional.embedding_bag(where, x.reshape(-1, channels), mode="sum", per_sample_weights=weights)
    return out.view(rows, steps, channels)
