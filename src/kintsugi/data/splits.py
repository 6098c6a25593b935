"""Training, validation and test rows: stratified, seeded, groups kept whole."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kintsugi.core.batch import Batch
from kintsugi.core.errors import ConfigError, DataError
from kintsugi.data.dataset import Dataset

Three = tuple[Tensor, Tensor, Tensor]


def split_rows(data: Dataset, val: float, test: float, *, seed: int = 0, by_group: bool = True) -> Three:
    """Sorted positions (int64) of the training, validation and test rows.

    Rows are stratified by :func:`strata`. Groups are kept whole where the data has them; then the shares are met as
    well as the groups allow.

    Args:
        data: the rows.
        val: share of validation rows, at least one row unless 0.
        test: share of test rows, likewise.
        seed: draws the order within a stratum.
        by_group: keep groups whole.

    Raises:
        ConfigError: shares that leave no training row.
        DataError: fewer rows or groups than parts.
    """
    if not (0 <= val < 1 and 0 <= test < 1 and val + test < 1):
        raise ConfigError(f"val and test are shares from 0 that leave rows to train on; val={val}, test={test} do not")
    shares = np.array([1 - val - test, val, test])
    parts = int((shares > 0).sum())
    if len(data) < parts:
        raise DataError(f"{data.name}: {len(data)} rows cannot be split into {parts} parts")
    rng = np.random.default_rng(seed)
    labels = strata(data).numpy()
    if by_group and data.groups is not None:
        part = _by_group(labels, data.groups.numpy(), shares, rng, data.name)
    else:
        part = _by_row(labels, shares, rng)
    train, second, third = (torch.from_numpy(np.flatnonzero(part == p)) for p in range(3))
    return train, second, third


def strata(data: Dataset) -> Tensor:
    """Int64 ``[N]``: class of each row, quantile bin of a regression target, -1 for a row without a label."""
    if data.target is None:
        return torch.full((len(data),), -1)
    empty: dict[str, Tensor] = {}
    batch = Batch(data.schema.names, empty, data.present, data.index, target=data.target)
    return torch.where(data.target_present, data.schema.task.classes(batch).to(torch.int64), -1)


def _by_row(labels: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each stratum is spread evenly over [0, 1); cutting that line cuts every stratum at the same share (±1 row)."""
    n = len(labels)
    place = np.empty(n)
    for stratum in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == stratum))
        place[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    order = np.lexsort((rng.random(n), place))
    counts = np.where(shares > 0, np.maximum(np.round(shares * n), 1), 0).astype(int)
    counts[0] = n - counts[1:].sum()
    while counts[0] < 1:  # small tables, where every other part took its one row
        counts[int(counts[1:].argmax()) + 1] -= 1
        counts[0] += 1
    part = np.zeros(n, dtype=int)
    part[order[: counts[2]]] = 2
    part[order[counts[2] : counts[2] + counts[1]]] = 1
    return part


def _by_group(
    labels: np.ndarray, groups: np.ndarray, shares: np.ndarray, rng: np.random.Generator, name: str
) -> np.ndarray:
    """Groups, the largest first, go where they bring the counts of classes nearest to the shares (least chi-square)."""
    members, group = np.unique(groups, return_inverse=True)
    used = np.flatnonzero(shares > 0)
    if len(members) < len(used):
        raise DataError(
            f"{name}: {len(members)} groups cannot be split into {len(used)} parts without cutting one; ask for fewer "
            "parts, or pass by_group=False if rows of a group may be in several"
        )
    stratum = np.unique(labels, return_inverse=True)[1]
    table = np.zeros((len(members), int(stratum.max()) + 1))
    np.add.at(table, (group, stratum), 1)
    wanted = shares[used, None] * table.sum(0)
    have = np.zeros_like(wanted)
    home = np.zeros(len(members), dtype=int)
    order = np.lexsort((rng.random(len(members)), -table.sum(1)))
    for left, g in zip(range(len(order), 0, -1), order, strict=True):
        cost = (((have + table[g] - wanted) ** 2 - (have - wanted) ** 2) / wanted.clip(1e-9)).sum(1)
        empty = have.sum(1) == 0
        if empty.sum() >= left:  # as many parts without a group as there are groups left
            cost[~empty] = np.inf
        best = int(cost.argmin())
        have[best] += table[g]
        home[g] = used[best]
    return home[group]
