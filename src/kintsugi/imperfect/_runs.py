"""Runs of loss: when one step is lost, the next one probably is too."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
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
    # stays, so it is that of the last draw which decided. Where runs are so short that the thresholds cross, it changes
    # instead; seen from a state that changes at every step by itself, it stays.
    u, steps = draws.detach().cpu().numpy(), draws.shape[1]
    low, high = sorted((enter, 1 - leave))
    lost, decided = u < low, u >= high
    decided |= lost
    lost[:, 0], decided[:, 0] = u[:, 0] < rate, True
    if enter <= 1 - leave:
        return torch.from_numpy(_held(lost, decided)).to(draws.device)
    turns = np.arange(steps) % 2 == 1
    return torch.from_numpy(_held((lost ^ turns) & decided, decided) ^ turns).to(draws.device)


def _held(lost: NDArray[np.bool_], decided: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What the last step said that decided, ``[R, T]``; ``lost`` only where ``decided``.

    That is how a carry runs through an addition: a step that decides for lost makes one, one that decides against ends it,
    and one that does not decide hands it on. So 64 steps take one addition.
    """
    rows, steps = lost.shape
    made, passed = _packed(lost), _packed(~decided)
    state, carry = np.empty_like(made), np.zeros(rows, dtype=np.uint64)
    for word in range(made.shape[1]):
        own, on = made[:, word], passed[:, word]
        into = (own | on) ^ own ^ ((own | on) + own + carry)  # the carry into each place; the sum may run over
        state[:, word] = own | (on & into)
        carry = state[:, word] >> np.uint64(63)
    return np.unpackbits(state.view(np.uint8), axis=1, count=steps, bitorder="little").view(np.bool_)


def _packed(steps: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """``[R, T]`` as bits, the first step the lowest: ``[R, ceil(T / 64)]``."""
    bits = np.packbits(steps, axis=1, bitorder="little")
    wide = np.zeros((len(bits), -(-bits.shape[1] // 8) * 8), dtype=np.uint8)
    wide[:, : bits.shape[1]] = bits
    return wide.view("<u8").astype(np.uint64, copy=False)
