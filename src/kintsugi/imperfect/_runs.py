"""Runs of loss: when one step is lost, the next one probably is too."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kintsugi.core.errors import ConfigError


def gilbert_elliott(draws: Tensor, rate: float, length: float) -> Tensor:
    """What is lost, by the two-state chain of Gilbert (1960) and Elliott (1963): bool ``[R, T]``, True = lost.

    A lost step is followed by a good one with probability ``1 / length``, a good one by a lost one with ``rate / (length
    (1 - rate))``; the first is drawn from the stationary distribution. So the expected share of lost steps is ``rate``
    at every step, and the mean length of a run ``length``. Where ``length >= 1 / (1 - rate)``, the same draws with a
    higher rate and no shorter runs lose all that they lost before.

    Args:
        draws: uniform in [0, 1), ``[R, T]``, on any device. rate: share that is lost, in [0, 1].
        length: mean length of a run in steps, at least 1.

    Raises:
        ConfigError: no such chain exists: runs so short cannot add up to such a rate.
    """
    if not 0 <= rate <= 1 or not length >= 1:
        raise ConfigError(f"runs need a rate in [0, 1] and a mean length of 1 or more, not {rate!r} and {length!r}")
    if rate in (0, 1) or draws.numel() == 0:
        return torch.full(draws.shape, rate == 1, device=draws.device)
    enter, leave = rate / (length * (1 - rate)), 1 / length
    if enter > 1 + 1e-9:
        raise ConfigError(f"a rate of {rate:g} needs runs of {rate / (1 - rate):g} steps or more, not {length:g}")
    # A draw below both thresholds loses the step whatever was before, one above both keeps it. Between them the state
    # stays (or, where runs are so short that the thresholds cross, changes). So a state is that of the last draw which
    # decided, and rows need no loop over their steps.
    u, steps = draws.detach().cpu().numpy(), draws.shape[1]
    low, high = sorted((enter, 1 - leave))
    lost = u < low
    decided = lost | (u >= high)
    lost[:, 0], decided[:, 0] = u[:, 0] < rate, True
    small = np.int16 if steps < 1 << 14 else np.int32  # a quarter of the time of int64
    codes = (np.arange(0, 2 * steps, 2, dtype=small) + lost) * decided
    last = torch.from_numpy(codes).cummax(1).values.numpy()  # twice the step that decided, plus what it decided
    state = (last & 1).astype(bool)
    if enter > 1 - leave:
        turns = np.cumsum(~decided, axis=1)
        state ^= (turns - np.take_along_axis(turns, last.astype(np.int64) >> 1, 1)) % 2 == 1
    return torch.from_numpy(state).to(draws.device)
