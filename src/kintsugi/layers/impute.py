"""What may stand in unseen cells of a table, learned from rows in closed form; float64, without gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kintsugi.core.errors import ConfigError
from kintsugi.layers.moments import ridge


def nan_euclidean(x: Tensor, seen: Tensor, others: Tensor, others_seen: Tensor) -> Tensor:
    """Distance of rows with holes: ``sqrt(P / P_common * sum of squares over common cells)``, ``[B, N]``.

    Infinite where two rows have no cell in common (Dixon, "Pattern recognition with partly missing data", IEEE Transactions on
    Systems, Man and Cybernetics 1979; ``nan_euclidean_distances`` of scikit-learn). Rounded to float32, so that equal distances
    stay equal whatever else is asked.

    Args:
        x: ``[B, P]``; seen: bool ``[B, P]``. What stands in unseen cells is never read.
        others: ``[N, P]``; others_seen: bool ``[N, P]``.
    """
    x, others = torch.where(seen, x.double(), 0), torch.where(others_seen, others.double(), 0)
    a, b = seen.double(), others_seen.double()
    common = a @ b.T
    squares = x.square() @ b.T + a @ others.square().T - 2 * x @ others.T
    scaled = squares.clamp(min=0) * x.shape[1] / common.clamp(min=1)
    return torch.where(common > 0.5, scaled.sqrt(), torch.inf).float()


def neighbour_fill(
    x: Tensor, seen: Tensor, donors: Tensor, donors_seen: Tensor, counts: Sequence[int], others: Tensor | None = None
) -> list[Tensor]:
    """Unseen cells as means over the k nearest donors that have the cell, for several k: a ``[B, P]`` for each.

    Of donors at one distance the earlier come first; where fewer than k have the cell, all that do count, and where none has,
    or none shares a seen cell with the row, the cell is 0. As ``KNNImputer`` of scikit-learn, but for the mean in the last case.

    Args:
        x, seen: rows to fill, ``[B, P]``, bool ``[B, P]``.
        donors, donors_seen: ``[N, P]``, bool ``[N, P]``.
        counts: k of 1 or more.
        others: bool ``[B, N]``, the donors that a row may take from, such as ``bank.others(identity)``; None: all.

    Raises:
        ConfigError: a k below 1.
    """
    if min(counts, default=0) < 1:
        raise ConfigError(f"neighbours are counted from 1, not {list(counts)}")
    donors = torch.where(donors_seen, donors.double(), 0)
    filled = [torch.where(seen, x.double(), 0) for _ in counts]
    lacking = (~seen).any(1).nonzero().flatten()
    if not len(lacking) or not len(donors):
        return filled
    distance = nan_euclidean(x[lacking], seen[lacking], donors, donors_seen)
    if others is not None:
        distance = distance.masked_fill(~others[lacking], torch.inf)
    patterns, which = donors_seen.unique(dim=1, return_inverse=True)
    for number, owns in enumerate(patterns.T):
        columns = (which == number).nonzero().flatten()
        some = (~seen[lacking][:, columns]).any(1)
        if not bool(some.any()) or not bool(owns.any()):
            continue
        near, row = distance[some][:, owns].sort(stable=True, dim=1)
        row, usable = row[:, : max(counts)], (near < torch.inf)[:, : max(counts), None]
        values = torch.where(usable, donors[owns][:, columns][row], 0).cumsum(1)  # [R, k, C]
        found = usable.cumsum(1)
        for each, k in zip(filled, counts, strict=True):
            last = min(k, row.shape[1]) - 1
            at = lacking[some]
            mean = values[:, last] / found[:, last].clamp(min=1)
            each[at[:, None], columns] = torch.where(seen[at][:, columns], x[at][:, columns].double(), mean)
    return filled


class Chain(NamedTuple):
    """A regression of each column on all that are not of its unit.

    weight ``[P, P]``: ``filled @ weight + offset`` ``[P]``; unit: int64 ``[P]``, numbered in the order of filling.
    """

    weight: Tensor
    offset: Tensor
    unit: Tensor


def fit_chain(x: Tensor, seen: Tensor, group: Tensor, strength: float = 0.1) -> Chain:
    """One round of chained equations: units of columns are regressed on all others, in which holes are filled meanwhile.

    A unit is made of the columns of one group that the same rows have; those that fewest rows lack come first, as in
    ``IterativeImputer`` of scikit-learn with ``max_iter=1``, of which each column is a unit. Holes start at 0. Columns that
    every row has get a regression too, since rows in use may lack them.

    Args:
        x: standardised columns ``[N, P]``; seen: bool ``[N, P]``.
        group: int ``[P]``, such as the modality of each column.
        strength: of the ridge, times the number of rows; 0.1 is proposed here.
    """
    x = torch.where(seen, x.double(), 0)
    size = x.shape[1]
    absent = (~seen).sum(0)
    marked = torch.cat([absent[None], group[None], seen.long()])  # sorted by the first line, then the second
    units, unit = marked.unique(dim=1, return_inverse=True)
    weight, offset, filled = x.new_zeros(size, size), x.new_zeros(size), x.clone()
    for number in range(units.shape[1]):
        own, rows = unit == number, units[2:, number].bool()
        if bool(own.all()) or not bool(rows.any()):
            continue
        lines, start = ridge(filled[rows][:, ~own], x[rows][:, own], strength)
        weight[(~own).nonzero(), own.nonzero().T] = lines
        offset[own] = start
        guess = filled @ weight[:, own] + start
        filled[:, own] = torch.where(seen[:, own], x[:, own], guess)
    return Chain(weight, offset, unit)


def chain_fill(x: Tensor, seen: Tensor, chain: Chain) -> Tensor:
    """Rows ``[B, P]``, seen bool ``[B, P]``, with unseen cells filled by :func:`fit_chain` in its order: ``[B, P]``."""
    x = torch.where(seen, x.double(), 0)
    filled = x.clone()
    for number in range(int(chain.unit.max()) + 1):
        own = chain.unit == number
        guess = filled @ chain.weight[:, own] + chain.offset[own]
        filled[:, own] = torch.where(seen[:, own], x[:, own], guess)
    return filled
