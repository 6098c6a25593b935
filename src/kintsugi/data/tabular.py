"""Readers of the numbers and categories of a table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import pandas as pd
import torch

from kintsugi.core.errors import ConfigError, UnknownName
from kintsugi.core.schema import Modality
from kintsugi.data.cells import READERS, Decoded, Reader, ReadError, check_column, nothing
from kintsugi.data.column_kinds import as_numbers, check_input, decide, distinct_cells
from kintsugi.data.foreign_cells import plain
from kintsugi.data.names import KnownNames, label, order_labels

_FAST = frozenset((float, np.float64, np.int64))  # types whose numbers need no look at what they hold
LARGEST = float(np.finfo(np.float32).max)  # what a standardised number may be


class Unseen(NamedTuple):
    """Cells of one column with a category that the reader was not fitted on.

    rows: their positions. examples: the first of their names. cells: number of cells of the column that are no holes.
    """

    column: str
    rows: np.ndarray
    examples: tuple[str, ...]
    cells: int


@dataclass(frozen=True)
class TabularReader(Reader):
    """See :func:`tabular`."""

    cells: tuple[str, ...]
    categories: tuple[str, ...] = ()
    known: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    numbers: tuple[str, ...] = ()

    kind: ClassVar[str] = "tabular"

    @property
    def columns(self) -> tuple[str, ...]:
        return self.cells

    def to_json(self) -> dict[str, Any]:
        saved = super().to_json()
        if not self.numbers:  # readers without them are written as version 0.1.0 did, so that fingerprints stay
            del saved["numbers"]
        return saved

    def fit(self, frame: pd.DataFrame, root: Path | None) -> Self:
        known: dict[str, tuple[str, ...]] = {}
        mean, std = [], []
        for column in self.cells:
            values = frame[column]
            centre, scale = 0.0, 1.0
            if self._holds_names(values, column):
                known[column] = tuple(order_labels({label(cell) for cell in distinct_cells(values)[1]}))
            else:
                numbers = as_numbers(values)
                numbers = numbers[np.isfinite(numbers)]
                if len(numbers):
                    centre, spread = float(numbers.mean()), float(numbers.std())
                    scale = spread if spread > 1e-12 * max(1.0, abs(centre)) else 1.0  # a column that never varies
            mean.append(centre)
            std.append(scale)
        return replace(self, known=known, mean=tuple(mean), std=tuple(std))

    def _holds_names(self, values: pd.Series, column: str) -> bool:
        if column in self.numbers:
            return False
        if column in self.categories:
            return True
        if isinstance(values.dtype, np.dtype) and values.dtype.kind in "iuf":
            return False
        decided = decide(values, column, rows=_positions(values))
        check_input(decided)
        return decided.kind not in ("numbers", "empty") or isinstance(values.dtype, pd.CategoricalDtype)

    @cached_property
    def _names(self) -> dict[str, KnownNames]:
        return {column: KnownNames(names) for column, names in self.known.items()}

    def modality(self, name: str) -> Modality:
        codes = tuple(len(self.known.get(c, ())) for c in self.cells)
        return Modality(name, "tabular", (len(self.cells),), categories=codes)

    def holes(self, frame: pd.DataFrame, root: Path | None) -> np.ndarray:
        absent = np.ones(len(frame), dtype=bool)
        for column in self.cells:
            values = frame[column]
            if column in self.known:
                codes, places = self._places(values, column)
                absent &= places[codes] < 0
            elif pd.api.types.is_numeric_dtype(values.dtype):
                absent &= values.isna().to_numpy()
            else:
                absent &= np.fromiter((nothing(v) for v in values.array), bool, len(frame))
        return absent

    def _places(self, values: pd.Series, column: str) -> tuple[np.ndarray, np.ndarray]:
        """Which distinct cell each row holds, -1 a hole; and the position of each among the known names, -1: of none."""
        codes, cells = distinct_cells(values)
        names = self._names[column]
        places = [names.place(cell) for cell in cells]
        return codes, np.array([-1 if place is None else place for place in places] + [-1], dtype=np.int64)

    def unseen(self, frame: pd.DataFrame) -> Iterator[Unseen]:
        """Columns of a fitted reader with cells whose category it does not know."""
        for column in self.known:
            values = frame[column]
            codes, places = self._places(values, column)
            rows = np.flatnonzero((codes >= 0) & (places[codes] < 0))
            if len(rows):
                examples = dict.fromkeys(label(values.array[row]) for row in rows[:1000])
                yield Unseen(column, rows, tuple(examples)[:3], int((codes >= 0).sum()))

    def read(self, cells: Sequence[Any], root: Path | None) -> Decoded:
        """As :meth:`~kintsugi.data.cells.Reader.read`; a category that no fitted row had is a cell that is not seen."""
        read, problems = self.read_leniently(cells, root)
        if problems:
            raise problems[0]
        return read

    def read_leniently(self, cells: Sequence[Any], root: Path | None) -> tuple[Decoded, list[ReadError]]:
        """The row with cells that cannot be used masked, and what is wrong with them."""
        values, seen = [0.0] * len(self.cells), [False] * len(self.cells)
        problems: list[ReadError] = []
        for i, ((column, names, mean, std), cell) in enumerate(zip(self._plan, cells, strict=True)):
            if names is not None:
                place = names.exact.get(cell) if type(cell) is str else None
                if place is None:
                    place = None if nothing(cell) else names.place(cell)
                if place is not None:
                    values[i], seen[i] = place + 1.0, True
                continue
            if type(cell) not in _FAST or not math.isfinite(cell):
                if nothing(cell):
                    continue
                try:
                    cell = self._number(cell, column)
                except ReadError as error:
                    problems.append(error)
                    continue
            number = (float(cell) - mean) / std
            if not -LARGEST <= number <= LARGEST:
                problems.append(ReadError(f"column {column!r}", f"{_shortened(cell)} is out of the range of float32"))
                continue
            values[i], seen[i] = number, True
        return (torch.tensor(values, dtype=torch.float32), torch.tensor(seen)), problems

    @cached_property
    def _plan(self) -> list[tuple[str, KnownNames | None, float, float]]:
        """Of each cell the column, the names that it may have (of a number None), mean and standard deviation."""
        return [(column, self._names.get(column), self.mean[i], self.std[i]) for i, column in enumerate(self.cells)]

    @staticmethod
    def _number(cell: Any, column: str) -> float:
        try:
            number = float(plain(cell))
        except (TypeError, ValueError, OverflowError) as error:
            raise ReadError(f"column {column!r}", f"{_shortened(cell)} is no number") from error
        if not math.isfinite(number):
            raise ReadError(f"column {column!r}", "NaN or infinity in present data")
        return number


def _shortened(cell: Any) -> str:
    words = (
        repr(cell) if not isinstance(cell, int) or cell.bit_length() < 200 else f"a number of {cell.bit_length()} bits"
    )
    return words if len(words) <= 80 else words[:77] + "…"


def _positions(values: pd.Series) -> np.ndarray | None:
    """Row numbers in the table: training rows keep those that they have in the whole of it."""
    return values.index.to_numpy() if pd.api.types.is_integer_dtype(values.index.dtype) else None


def tabular(columns: Sequence[str], categories: Sequence[str] = (), numbers: Sequence[str] = ()) -> TabularReader:
    """Cells of one row, float32 ``[cells]``, with a mask of the cells that are there.

    Numbers are standardised by the mean and standard deviation of the rows that the reader was fitted on. Categories
    become codes 1 to n, in the order of their names, n being the entry in ``Modality.categories``. A cell that is a hole is
    masked and reads 0, and so is a category that those rows do not have: a table of new rows says so once.

    Args:
        columns: names. :func:`~kintsugi.data.column_kinds.decide` says what each is: numbers of any type are numbers; text,
            booleans and pandas' categories are categories; times, lists, and text that reads as numbers are refused with
            the first such cell and a remedy.
        categories: columns that are categories whatever they hold.
        numbers: columns that are numbers whatever they hold: a cell that is no plain number is an error where it is read,
            and with ``on_error="missing"`` it is masked and listed in ``problems``.

    Raises:
        ConfigError: no column, a column twice, or one in both ``categories`` and ``numbers``.
        UnknownName: ``categories`` or ``numbers`` name a column that is none of ``columns``.
    """
    if isinstance(columns, str):
        columns = [columns]
    names = tuple(check_column(c) for c in columns)
    if not names or len(set(names)) != len(names):
        raise ConfigError(f"tabular needs one or more columns, each once, not {list(columns)}")
    categories, numbers = ([c] if isinstance(c, str) else list(c) for c in (categories, numbers))
    for keyword, wanted in (("categories", categories), ("numbers", numbers)):
        for column in wanted:
            if column not in names:
                raise UnknownName(f"column in {keyword}=", column, names)
    both = sorted(set(categories) & set(numbers))
    if both:
        raise ConfigError(f"column {both[0]!r} is said to be categories and numbers: choose one")
    return TabularReader(names, tuple(categories), numbers=tuple(numbers))


READERS["tabular"] = TabularReader
