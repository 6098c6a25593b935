"""Which rows are hit, when that depends on their values: windows of percentiles."""

from __future__ import annotations

import torch
from torch import Tensor

from kintsugi.core.errors import ConfigError
from kintsugi.imperfect.plan import Plan
from kintsugi.imperfect.scales import Scale
from kintsugi.imperfect.seeds import uniforms

CHOICES = ("uniform", "other", "self")
_BELOW_ONE = 1 - 1e-9


def window(found: Scale, key: int, other: bool) -> dict[str, Tensor]:
    """For each column: the column that decides, where in [0, 1) its window is placed, and all quantiles.

    Raises:
        ConfigError: another column is asked for, and there is none.
    """
    cells = found.quantiles.shape[1]
    drawn = torch.from_numpy(uniforms(key, torch.arange(cells), 2))
    driver = torch.arange(cells)
    if other:
        if cells < 2:
            raise ConfigError("rows='other' needs a second column that decides")
        driver = (driver + 1 + (drawn[:, 1] * (cells - 1)).long()) % cells
    return {"driver": driver, "place": drawn[:, 0], "quantiles": found.quantiles}


def percentiles(values: Tensor, quantiles: Tensor, draws: Tensor) -> Tensor:
    """Where values stand among those of their column, in [0, 1): float64 ``[R, C]``, NaN for NaN.

    The distributional transform ``F(v-) + u (F(v) - F(v-))``, which is uniform also where values repeat, from quantiles
    of evenly spaced shares ``[Q, C]`` and uniform draws ``[R, C]``.
    """
    values, last = values.double(), len(quantiles) - 1
    grid = quantiles.T.contiguous()
    low = torch.searchsorted(grid, values.T.contiguous()).T
    high = torch.searchsorted(grid, values.T.contiguous(), right=True).T
    left, right = (quantiles.gather(0, at.clamp(0, last)) for at in (low - 1, low))
    between = low - 1 + ((values - left) / (right - left).clamp(min=1e-300)).clamp(0, 1)
    # Each grid value of a tie stands for half a step on both sides; a single one is where it is.
    tied = torch.where(high - low > 1, low - 0.5 + draws * (high - low), low)
    rank = torch.where(high > low, tied, between) / last
    return rank.clamp(0, _BELOW_ONE).masked_fill(values.isnan(), torch.nan)


def in_window(x: Tensor, seen: Tensor, draws: Tensor, plan: Plan) -> Tensor:
    """Bool ``[R, C]``: the deciding cell is seen and within the window of its column; all on the CPU.

    Windows of one place with a larger share contain those with a smaller one.
    """
    driver, quantiles, width = plan.tensors["driver"], plan.tensors["quantiles"], plan.parameters["share"]
    rank = percentiles(x[:, driver], quantiles[:, driver], draws)
    start = plan.tensors["place"] * (1 - width)
    return (rank >= start) & (rank < start + width) & seen[:, driver]
