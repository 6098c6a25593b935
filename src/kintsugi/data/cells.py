"""What every column reader shares: cells, paths, holes, and the way to JSON and back."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import pandas as pd
from torch import Tensor

from kintsugi.core.errors import ConfigError, DataError, UnknownName
from kintsugi.core.schema import Modality

Decoded = tuple[Tensor, Tensor | None]


class ReadError(DataError):
    """A cell that exists and cannot be used: where it is and what is wrong with it."""

    def __init__(self, where: str, reason: str) -> None:
        self.where, self.reason = where, reason
        super().__init__(f"{where}: {reason}")


@dataclass(frozen=True)
class Reader(ABC):
    """How one modality is read from one or more columns of a table.

    A reader is made without data (``image("scan", size=64)``) and learns what it leaves open, such as sizes and
    categories, in :meth:`fit`. What it has learned is plain data, so that a saved model reads new rows as it read its
    training rows.
    """

    kind: ClassVar[str]

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """The columns of the table that it reads."""

    @abstractmethod
    def fit(self, frame: pd.DataFrame, root: Path | None) -> Self:
        """The same reader with everything open settled by these rows. Nothing to learn from: the smallest shape."""

    @abstractmethod
    def modality(self, name: str) -> Modality:
        """What it delivers, once fitted."""

    @abstractmethod
    def read(self, cells: Sequence[Any], root: Path | None) -> Decoded:
        """One row, as a tensor of the modality's shape and, for kinds with steps, bool ``[T]`` of the steps seen.

        Raises:
            ReadError: a cell exists but cannot be used.
        """

    def hole(self, cell: Any, root: Path | None) -> bool:
        """There is nothing in this cell. Looks at the cell and, for a path, whether it exists; decodes nothing."""
        return nothing(cell) or (is_path(cell) and not resolve(cell, root).exists())

    def holes(self, frame: pd.DataFrame, root: Path | None) -> np.ndarray:
        """Bool ``[N]``: rows in which the modality is absent."""
        (column,) = self.columns
        return np.fromiter((self.hole(cell, root) for cell in frame[column].array), bool, len(frame))

    def to_json(self) -> dict[str, Any]:
        """Plain data; :func:`reader_from_json` is the way back."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {"kind": self.kind, **json.loads(json.dumps(values))}


READERS: dict[str, type[Reader]] = {}


def reader_from_json(saved: Mapping[str, Any]) -> Reader:
    """The reader that ``to_json`` wrote."""
    values = {name: _tuples(value) for name, value in saved.items()}
    kind = values.pop("kind")
    if kind not in READERS:
        raise UnknownName("kind of reader", kind, READERS)
    return READERS[kind](**values)


def _tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_tuples(v) for v in value)
    if isinstance(value, dict):
        return {k: _tuples(v) for k, v in value.items()}
    return value


T = TypeVar("T")


def fitted(value: T | None) -> T:
    """A value that ``fit`` settles."""
    if value is None:
        raise RuntimeError("this reader has to be fitted before it can read")
    return value


def check_column(column: Any) -> str:
    """A column's name, or an error for anything else."""
    if not isinstance(column, str) or not column:
        raise ConfigError(f"a column is named by a string, not {column!r}")
    return column


def nothing(cell: Any) -> bool:
    """None, NaN, NA, NaT, empty or blank text, an empty array."""
    if cell is None or cell is pd.NA or cell is pd.NaT:
        return True
    if isinstance(cell, str):
        return not cell.strip()
    if isinstance(cell, (bytes, list, tuple)):
        return len(cell) == 0
    if isinstance(cell, np.ndarray):
        return cell.size == 0
    return isinstance(cell, (float, np.floating)) and bool(cell != cell)


def is_path(cell: Any) -> bool:
    """Text counts as a path wherever a reader expects a file."""
    return isinstance(cell, (str, os.PathLike))


def resolve(cell: Any, root: Path | None) -> Path:
    """A path; a relative one starts at the table's folder."""
    path = Path(cell)
    return path if path.is_absolute() or root is None else root / path


def place(cell: Any, column: str, root: Path | None) -> str:
    """The words that say where a cell is."""
    return str(resolve(cell, root)) if is_path(cell) else f"column {column!r}"


def content(cell: Any, column: str, root: Path | None) -> bytes | None:
    """Bytes of a cell that is a path or bytes; None: the cell is something else."""
    if isinstance(cell, (bytes, bytearray, memoryview)):
        return bytes(cell)
    if not is_path(cell):
        return None
    path = resolve(cell, root)
    try:
        return path.read_bytes()
    except OSError as error:
        raise ReadError(str(path), error.strerror or str(error)) from error


def array(cell: Any, column: str, root: Path | None = None) -> np.ndarray:
    """A numeric array from an array, nested lists, a JSON list (as CSV holds it) or the path of a ``.npy`` file.

    Raises:
        ReadError: not numeric, ragged, or not readable.
    """
    where = column
    try:
        if isinstance(cell, str) and cell.lstrip().startswith("["):
            where, cell = f"column {column!r}", json.loads(cell)
        elif is_path(cell):
            where = place(cell, column, root)
            with open(resolve(cell, root), "rb") as file:
                cell = np.load(file, allow_pickle=False)
        else:
            where = place(cell, column, root)
        values = np.asarray(cell)
        while values.dtype == object and values.ndim and len(values):  # arrow gives arrays of arrays
            deeper = np.stack([np.asarray(np.nan if v is None else v) for v in values])
            if deeper.shape == values.shape and deeper.dtype == object:
                raise ValueError(f"holds {type(values.flat[0]).__name__}, not numbers")
            values = deeper
    except (ValueError, TypeError, OSError, EOFError) as error:
        raise ReadError(where, f"is no array of numbers ({error})") from error
    if values.dtype.kind not in "biuf":
        raise ReadError(where, f"is no array of numbers: it holds {values.dtype}")
    return values


def finite(values: np.ndarray, where: str) -> np.ndarray:
    """The same values, or an error where one is NaN or infinite."""
    if not np.isfinite(values).all():
        bad = "NaN" if np.isnan(values).any() else "infinity"
        raise ReadError(where, f"{bad} in present data")
    return values
