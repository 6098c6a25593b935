"""Readers of the numbers and categories of a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch

from kintsugi.core.errors import ConfigError, UnknownName
from kintsugi.core.schema import Modality
from kintsugi.data.cells import READERS, Decoded, Reader, ReadError, check_column, nothing
from kintsugi.data.labels import label, order_labels


@dataclass(frozen=True)
class TabularReader(Reader):
    """See :func:`tabular`."""

    cells: tuple[str, ...]
    categories: tuple[str, ...] = ()
    known: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    kind: ClassVar[str] = "tabular"

    @property
    def columns(self) -> tuple[str, ...]:
        return self.cells

    def fit(self, frame: pd.DataFrame, root: Path | None) -> Self:
        known: dict[str, tuple[str, ...]] = {}
        mean, std = [], []
        for column in self.cells:
            values = frame[column]
            centre, scale = 0.0, 1.0
            if column in self.categories or not _numeric(values, column):
                known[column] = tuple(order_labels({label(v) for v in values.array if not nothing(v)}))
            else:
                numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
                numbers = numbers[np.isfinite(numbers)]
                if len(numbers):
                    centre, spread = float(numbers.mean()), float(numbers.std())
                    scale = spread if spread > 1e-12 * max(1.0, abs(centre)) else 1.0  # a column that never varies
            mean.append(centre)
            std.append(scale)
        return replace(self, known=known, mean=tuple(mean), std=tuple(std))

    @cached_property
    def _codes(self) -> dict[str, dict[str, int]]:
        return {column: {name: code for code, name in enumerate(names, 1)} for column, names in self.known.items()}

    def modality(self, name: str) -> Modality:
        codes = tuple(len(self.known.get(c, ())) for c in self.cells)
        return Modality(name, "tabular", (len(self.cells),), categories=codes)

    def holes(self, frame: pd.DataFrame, root: Path | None) -> np.ndarray:
        absent = np.ones(len(frame), dtype=bool)
        for column in self.cells:
            values = frame[column]
            if pd.api.types.is_numeric_dtype(values.dtype):
                absent &= values.isna().to_numpy()
            else:
                absent &= np.fromiter((nothing(v) for v in values.array), bool, len(frame))
        return absent

    def read(self, cells: Sequence[Any], root: Path | None) -> Decoded:
        values, seen = [0.0] * len(self.cells), [False] * len(self.cells)
        for i, (column, cell) in enumerate(zip(self.cells, cells, strict=True)):
            if nothing(cell):
                continue
            seen[i] = True
            if column in self.known:
                values[i] = self._codes[column].get(label(cell), 0)
                continue
            try:
                number = float(cell)
            except (TypeError, ValueError) as error:
                raise ReadError(f"column {column!r}", f"{cell!r} is no number") from error
            if not math.isfinite(number):
                raise ReadError(f"column {column!r}", "NaN or infinity in present data")
            values[i] = (number - self.mean[i]) / self.std[i]
        return torch.tensor(values, dtype=torch.float32), torch.tensor(seen)


def tabular(columns: Sequence[str], categories: Sequence[str] = ()) -> TabularReader:
    """Cells of one row, float32 ``[cells]``, with a mask of the cells that are there.

    Numbers are standardised by the mean and standard deviation of the rows that the reader was fitted on. Categories
    become codes 1 to n, in the order of their names, n being the entry in ``Modality.categories``; 0 is a category that
    those rows do not have. A cell that is a hole is masked and reads 0.

    Args:
        columns: names; text, booleans and pandas categories are categories, numbers are numbers.
        categories: columns of numbers that are categories all the same.
    """
    if isinstance(columns, str):
        columns = [columns]
    names = tuple(check_column(c) for c in columns)
    if not names or len(set(names)) != len(names):
        raise ConfigError(f"tabular needs one or more columns, each once, not {list(columns)}")
    for column in categories:
        if column not in names:
            raise UnknownName("column in categories=", column, names)
    return TabularReader(names, tuple(categories))


def _numeric(values: pd.Series, column: str) -> bool:
    kind = values.dtype
    if isinstance(kind, pd.CategoricalDtype) or pd.api.types.is_bool_dtype(kind):
        return False
    if pd.api.types.is_numeric_dtype(kind):
        return True
    if pd.api.types.is_datetime64_any_dtype(kind) or pd.api.types.is_timedelta64_dtype(kind):
        raise ConfigError(f"column {column!r} holds times; turn it into numbers, such as days since a date")
    if not pd.api.types.is_object_dtype(kind):
        return False
    there = [v for v in values.array if not nothing(v)]
    for v in there[:1]:
        if isinstance(v, (list, tuple, np.ndarray, bytes)):
            raise ConfigError(f"column {column!r} holds {type(v).__name__}; a table cell is a number or a category")
    return all(isinstance(v, (int, float, np.number)) and not isinstance(v, bool) for v in there)


READERS["tabular"] = TabularReader
