"""What operators share that work on whole rows: tables of rows, exact shares, classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kintsugi.core.batch import Batch
from kintsugi.core.data import Data
from kintsugi.core.errors import DataError
from kintsugi.imperfect.seeds import stable_key, uniforms
from kintsugi.imperfect.spec import share as as_share


def table(data: Data) -> tuple[Tensor, Tensor]:
    """The sorted row numbers of a data set, each once, and a position in it of each: int64 ``[N]``, ``[N]``."""
    rows, first = np.unique(data.index.numpy(), return_index=True)
    return torch.from_numpy(rows), torch.from_numpy(first.astype(np.int64))


def sorted_rows(data: Data) -> Data:
    """The same rows in the order of :func:`table`, so that a place in the table is a position."""
    return data.subset(table(data)[1])


def draws(seed: int, key: str, modalities: Sequence[str], rows: Tensor, columns: int = 1) -> Tensor:
    """Uniform numbers that belong to rows: float64 ``[N, columns]``; those of ``Plan.uniforms`` with the stream ``look``."""
    plan_key = stable_key(seed, key, "+".join(modalities))
    return torch.from_numpy(uniforms(stable_key(plan_key, "look"), rows, columns))


def spread_order(draw: Tensor, group: Tensor) -> Tensor:
    """An order in which every beginning holds each group in its share of all, to the nearest row.

    Args:
        draw: float64 ``[N]``: decides within a group, and between groups where they are level.
        group: int64 ``[N]``.

    Returns:
        Positions, int64 ``[N]``. A longer beginning holds a shorter one.
    """
    at = torch.empty(len(draw), dtype=torch.float64)
    for each in group.unique():
        here = (group == each).nonzero().flatten()
        at[here[draw[here].argsort()]] = (torch.arange(len(here), dtype=torch.float64) + 0.5) / max(len(here), 1)
    return torch.from_numpy(np.lexsort((draw.numpy(), at.numpy())))


def nearest(share: float, rows: int) -> int:
    """``share`` of ``rows`` to the nearest row, a half upwards."""
    return int(share * rows + 0.5 + 1e-9)


def check_share(key: str, given: Mapping[str, Any]) -> None:
    """Raise ConfigError where a ``share`` is given that is none."""
    if "share" in given:
        as_share(f"share of {key}", given["share"])


def classes(data: Data, positions: Tensor) -> Tensor:
    """The class of these rows, int64 ``[N]``: a label, the first label that is set, or the quantile bin of a value.

    Raises:
        DataError: the data has no labels.
    """
    if data.target is None:
        raise DataError(f"{data.name} has no labels, so rows of one class and of others cannot be told apart")
    target = data.target[positions]
    rows = Batch(data.schema.names, {}, data.present[positions], data.index[positions], target)
    return data.schema.task.classes(rows).long()
