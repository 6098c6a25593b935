"""Exact counts: which places go missing, so that the rate asked for comes out to the nearest unit."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from kintsugi.core.errors import ConfigError

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
KEY_BITS = 40  # of a draw in a burst: two bursts among 10^6 start alike with a chance of 10^-6 each


def lowest(keys: Floats, among: Bools, count: int) -> Bools:
    """The ``count`` places of lowest key among these: what a threshold on the keys gives, to the exact number.

    Of places that tie at the threshold, the first ones.
    """
    if count >= int(among.sum()):
        return among.copy()
    flat = np.where(among, keys, np.inf).ravel()
    if count <= 0:
        return np.zeros(keys.shape, dtype=bool)
    edge = np.partition(flat, count - 1)[count - 1]
    chosen = flat < edge
    chosen[np.flatnonzero(flat == edge)[: count - int(chosen.sum())]] = True
    return chosen.reshape(keys.shape)


def rounded_down(part: int, whole: int) -> float:
    """A share to four places, rounded down, so that the rate that an error names can be asked for."""
    return math.floor(part / max(whole, 1) * 1e4) / 1e4


def check_reach(said: object, count: int, free: int, observed: int, why: str, remedy: str) -> None:
    """Raise ConfigError, which names the largest rate, where ``count`` of ``observed`` are wanted and ``free`` can go."""
    if count > free:
        most = rounded_down(free, observed)
        raise ConfigError(f"{said}: this data can lose at most {most:g} of {why}; {remedy}")


def logit(u: Floats) -> Floats:
    """Log-odds of draws in [0, 1)."""
    inside = np.clip(u, 1e-16, 1 - 1e-16)
    out: Floats = np.log(inside) - np.log1p(-inside)
    return out


def coupled(own: Floats, common: Floats, coupling: float) -> Floats:
    """Draws ``[N, M]`` that hang together: a gaussian copula with ``common`` ``[N]``; each column stays uniform in rank.

    ``sqrt(c) z + sqrt(1 - c) e_m`` of standard normal ``z`` and ``e_m``: two columns have correlation c.
    """
    if coupling == 0:
        return own
    from scipy.special import ndtri

    normal = [ndtri(np.clip(u, 1e-16, 1 - 1e-16)) for u in (common, own)]
    mixed: Floats = math.sqrt(coupling) * normal[0][:, None] + math.sqrt(1 - coupling) * normal[1]
    return mixed


def bursty(u: Floats, length: float) -> Floats:
    """Keys along the last axis whose lowest ones come in bursts of mean length ``length``: a Gilbert-Elliott chain.

    A good step turns bad where its draw is below ``e``; a bad one stays so where it is below ``1 - 1/length``. With the
    same draws the bad steps grow with ``e`` (as long as ``e <= 1 - 1/length``), so each step has an ``e`` from which on
    it is bad: its key. The lowest keys are the bad steps of the chain whose ``e`` gives so many.

    Args:
        u: ``[R, T]`` in [0, 1). length: 1 or more.
    """
    size = max(1, (1 << (62 - KEY_BITS)) // max(u.shape[1], 1) - 1)
    parts = [_bursty(u[start : start + size], length) for start in range(0, len(u), size)]
    return np.concatenate(parts) if parts else u


def _bursty(u: Floats, length: float) -> Floats:
    begins = u >= 1 - 1 / length
    begins[:, :1] = True
    # Later stretches lie below earlier ones, so one running minimum over all of them starts anew at each.
    offset = np.cumsum(begins.ravel(), dtype=np.int64) << KEY_BITS
    drawn = (u.ravel() * 2.0**KEY_BITS).astype(np.int64)
    least = np.minimum.accumulate(drawn - offset) + offset
    keys: Floats = least.astype(np.float64).reshape(u.shape)
    return keys


# every row keeps something, at given rates by column -------------------------------------------------------------------
def exchange(kept: Bools, present: Bools, draws: Floats, order: NDArray[np.int64]) -> None:
    """Empty rows get a slot from rows that keep two or more, in place; columns keep their sums. All are ``[N, M]``.

    Row ``i`` of ``kept`` and ``present`` is row ``order[i]`` of ``draws``.
    """
    columns = kept.shape[1]
    count = kept.sum(1)
    empty = np.flatnonzero((count == 0) & present.any(1))
    before = -1
    while len(empty) and len(empty) != before:
        before = len(empty)
        wish = np.where(present[empty], draws[order[empty]], -1).argsort(1)[
            :, ::-1
        ]  # their columns, each in its own random order
        for turn in range(columns):
            for column in range(columns):
                takers = empty[(count[empty] == 0) & present[empty, column] & (wish[:, turn] == column)]
                if not len(takers):
                    continue
                givers = np.flatnonzero(kept[:, column] & (count > 1))
                moved = min(len(takers), len(givers))
                kept[takers[:moved], column] = True
                kept[givers[:moved], column] = False
                count[takers[:moved]] += 1
                count[givers[:moved]] -= 1
        empty = empty[count[empty] == 0]


def chain(kept: Bools, present: Bools, row: int) -> bool:
    """A slot for an empty row where no row can simply give one: rows pass slots on until one with two gives its second.

    A shortest augmenting path over the columns; False: there is none, so the columns' sums cannot be met.
    """
    columns = kept.shape[1]
    came: dict[int, tuple[int, int | None]] = {c: (row, None) for c in range(columns) if present[row, c]}
    queue = list(came)
    for column in queue:  # grows while it is walked
        donors = (kept[:, column] & (kept.sum(1) > 1)).nonzero()[0]
        if len(donors):
            kept[donors[0], column] = False
            _pass_on(kept, came, column)
            return True
        for other in set(range(columns)) - came.keys():
            movers = (kept[:, column] & present[:, other]).nonzero()[0]
            if len(movers):
                came[other] = (int(movers[0]), column)
                queue.append(other)
    return False


def _pass_on(kept: Bools, came: Mapping[int, tuple[int, int | None]], column: int | None) -> None:
    while column is not None:
        taker, before = came[column]
        kept[taker, column] = True
        if before is not None:
            kept[taker, before] = False
        column = before
