"""Folds for cross-validation: stratified and grouped by scikit-learn's own splitters."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from kintsugi.core.errors import ConfigError, DataError
from kintsugi.data.dataset import Dataset
from kintsugi.data.splits import strata


def folds(
    data: Dataset, n: int = 5, *, seed: int = 0, stratify: bool = True, by_group: bool = True
) -> Iterator[tuple[Dataset, Dataset]]:
    """Pairs of training and test rows; every row is a test row once.

    The splitters are scikit-learn's ``StratifiedGroupKFold``, ``StratifiedKFold``, ``GroupKFold`` and ``KFold``, shuffled.
    Strata are those of :func:`~kintsugi.data.splits.strata`: classes, quantile bins of a regression, rows without a label.
    The statistics of :attr:`~kintsugi.data.dataset.Dataset.reference` are of the training rows of a pair. What the readers
    of a table learned (scales, categories) is of the rows that the table was made from: give scikit-learn's
    ``cross_val_score`` the frame itself where they are to learn anew in each fold.

    Args:
        data: the rows.
        n: how many pairs.
        seed: of the order.
        stratify: keep the shares of the classes alike.
        by_group: rows of one group (a patient, a speaker) are never on both sides, where the data has groups.

    Raises:
        ConfigError: fewer than two folds; or the data fixes test rows and holds some of them.
        DataError: fewer rows, groups or rows of every class than folds.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 2:
        raise ConfigError(f"n is the number of folds, 2 or more, not {n!r}")
    fixed = (data.source.split or {}).get("test")
    if fixed is not None and bool(torch.isin(data.index, fixed).any()):
        raise ConfigError(
            f"{data.name} fixes which rows are for testing, and folds would train on them; take folds of the training rows: "
            "data.split()[0].folds()"
        )
    groups = data.groups.numpy() if by_group and data.groups is not None else None
    parts, what = (len(data), "rows") if groups is None else (len(np.unique(groups)), "groups")
    if parts < n:
        raise DataError(f"{data.name}: {parts} {what} cannot be split into {n} folds")
    labels = strata(data).numpy() if stratify else np.zeros(len(data), dtype=np.int64)
    if stratify:
        _check_strata(labels, n, data)
    places = _splits(labels, groups, n, seed, stratify, data.name)
    return (_pair(data, train, test) for train, test in places)


def _pair(data: Dataset, train: np.ndarray, test: np.ndarray) -> tuple[Dataset, Dataset]:
    first, second = data.pieces(torch.from_numpy(train), torch.from_numpy(test))
    return first, second


def _splits(
    labels: np.ndarray, groups: np.ndarray | None, n: int, seed: int, stratify: bool, name: str
) -> list[tuple[np.ndarray, np.ndarray]]:
    from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

    kinds: dict[tuple[bool, bool], Any] = {
        (True, True): StratifiedGroupKFold, (True, False): StratifiedKFold,
        (False, True): GroupKFold, (False, False): KFold,
    }  # fmt: skip
    splitter = kinds[stratify, groups is not None](n_splits=n, shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # rare classes were told of by their names
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        found = list(splitter.split(np.zeros((len(labels), 1)), labels, groups))
    if any(not len(train) or not len(test) for train, test in found):
        raise DataError(f"{name}: {n} folds by group leave one of them empty; ask for fewer, or for stratify=False")
    return found


def _check_strata(labels: np.ndarray, n: int, data: Dataset) -> None:
    strata_there, counts = np.unique(labels, return_counts=True)
    if counts.max() < n:
        raise DataError(
            f"{data.name}: no class has as many rows as there are folds, {n}; ask for fewer, or for stratify=False"
        )
    names = data.schema.task.names
    rare = [(k, c) for k, c in zip(strata_there.tolist(), counts.tolist(), strict=True) if k >= 0 and c < n]
    if rare and data.schema.task.exclusive:
        shown = ", ".join(f"{names[k]!r} ({c})" for k, c in rare[:5]) + (", …" if len(rare) > 5 else "")
        warnings.warn(
            f"{data.name}: some folds hold no row of a class, since it has fewer rows than there are folds, {n}: {shown}",
            stacklevel=4,
        )
