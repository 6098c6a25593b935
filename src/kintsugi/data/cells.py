"""What every column reader shares: cells, paths, holes, and the way to JSON and back."""

from __future__ import annotations

import errno
import io
import json
import math
import numbers
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import pandas as pd
from torch import Tensor

from kintsugi.core.errors import ConfigError, DataError, UnknownName
from kintsugi.core.schema import Modality
from kintsugi.data.foreign_cells import PLAIN, plain
from kintsugi.data.path_text import no_path
from kintsugi.io.files import read_bounded

MOST_BYTES = 1 << 30  # of a file that a cell names: an hour of stereo sound of 24 bits at 48 kHz has 1.04e9
MOST_DEPTH = 64  # lists within lists: as many axes as NumPy has
BUFFERS = (bytes, bytearray, memoryview)
_LARGEST = float(np.finfo(np.float32).max)
_NO_PATHS = frozenset({list, tuple, bytes, bytearray, memoryview, int, float, bool, type(None)})
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

    def read_leniently(self, cells: Sequence[Any], root: Path | None) -> tuple[Decoded, list[ReadError]]:
        """As :meth:`read`; where a part of the row cannot be used, the rest of it, and what is wrong with the part.

        Readers whose rows have a mask override this: a cell of a table or a step of a series is masked alone.

        Raises:
            ReadError: nothing of it can be used.
        """
        return self.read(cells, root), []

    def doubts(self, frame: pd.DataFrame, root: Path | None) -> Iterator[str]:
        """What a user should know before rows such as these are read: a sentence each. Looks at some rows alone."""
        yield from ()

    def hole(self, cell: Any, root: Path | None) -> bool:
        """There is nothing in this cell, or the path of a file that is not there. Decodes nothing.

        Text that can be no path (:func:`~kintsugi.data.path_text.no_path`) is no hole: reading it is an error.
        """
        if nothing(cell):
            return True
        path = path_of(cell)
        return path is not None and not exists(path, root) and no_path(path, root, self.kind) is None

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
    """None, NaN, NA, NaT, empty or blank text, empty bytes, an empty array or mapping, a mapping of nothing but None.

    Scalars of NumPy, Arrow and decimal, tensors, and arrays without axes count as what they hold.
    """
    if cell is None or cell is pd.NA or cell is pd.NaT:
        return True
    if isinstance(cell, str):
        return not cell.strip()
    if type(cell) is np.ndarray and cell.ndim:
        return cell.size == 0
    if type(cell) not in PLAIN:
        cell = plain(cell)
        if cell is None or cell is pd.NaT:
            return True
        if isinstance(cell, str):
            return not cell.strip()
    if isinstance(cell, (bytes, bytearray, list, tuple)):
        return len(cell) == 0
    if isinstance(cell, np.ndarray):
        return cell.size == 0
    if isinstance(cell, (float, np.floating)):
        return bool(cell != cell)
    if isinstance(cell, memoryview):
        return cell.nbytes == 0
    if isinstance(cell, Mapping):
        return all(nothing(value) for key, value in cell.items() if key != "sampling_rate")
    return (isinstance(cell, Decimal) and cell.is_nan()) or (isinstance(cell, np.datetime64) and bool(np.isnat(cell)))


def is_path(cell: Any) -> bool:
    """Text counts as a path wherever a reader expects a file."""
    return isinstance(cell, (str, os.PathLike))


def path_of(cell: Any) -> str | os.PathLike[Any] | None:
    """The path in a cell: text, a path, or a mapping ``{"bytes": None, "path": …}`` of Hugging Face; None: there is none."""
    if type(cell) in _NO_PATHS or (type(cell) is np.ndarray and cell.ndim):
        return None
    if not isinstance(cell, str) and type(cell) not in PLAIN:
        cell = plain(cell)
    if isinstance(cell, Mapping):
        cell = cell.get("path") if cell.get("bytes") is None and cell.get("array") is None else None
    if isinstance(cell, str):
        return cell if cell.strip() else None
    return cell if isinstance(cell, os.PathLike) else None


def resolve(cell: Any, root: Path | None) -> Path:
    """A path; a relative one starts at the table's folder."""
    path = Path(os.fsdecode(cell))
    return path if path.is_absolute() or root is None else root / path


def exists(path: str | os.PathLike[Any], root: Path | None) -> bool:
    """Something is at this path. What cannot be a path, such as text longer than a name may be, is nowhere."""
    try:
        text = os.fsdecode(path)
        os.stat(text if root is None else os.path.join(root, text))  # noqa: PTH116, PTH118 - for each of many cells
    except ValueError:  # holds NUL, or half of a surrogate pair
        return False
    except OSError as error:  # what is there and cannot be looked at is said when it is read
        return error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)
    return True


def place(cell: Any, column: str, root: Path | None) -> str:
    """The words that say where a cell is."""
    path = path_of(cell)
    return f"column {column!r}" if path is None or is_list(path) else str(resolve(path, root))


def content(cell: Any, column: str, root: Path | None, kind: str = "image") -> bytes | None:
    """Bytes of a cell that is a path, bytes, or a mapping with either; None: the cell is something else.

    Raises:
        ReadError: the path leads to no regular file of at most ``MOST_BYTES``, or the text is no path.
    """
    cell = plain(cell)
    if isinstance(cell, Mapping) and cell.get("bytes") is not None:
        cell = cell["bytes"]
    if isinstance(cell, BUFFERS):
        return bytes(cell)
    path = path_of(cell)
    return None if path is None else file_content(path, column, root, kind)


def file_content(path: str | os.PathLike[Any], column: str, root: Path | None, kind: str) -> bytes:
    """The bytes of the file at a path of a cell.

    Raises:
        ReadError: see :func:`content`.
    """
    if not exists(path, root) and (reason := no_path(path, root, kind)) is not None:
        raise ReadError(f"column {column!r}", reason)
    full = resolve(path, root)
    try:
        return read_bounded(full, MOST_BYTES, "file of a cell")
    except DataError as error:
        words = getattr(error.__cause__, "strerror", None) or str(error)
        reason = words.removeprefix(str(full)).removeprefix(repr(str(full))).lstrip(": ")
        raise ReadError(str(full), reason) from error


def array(cell: Any, column: str, root: Path | None = None, kind: str = "vector") -> np.ndarray:
    """A numeric array from an array, nested lists, a JSON list (as CSV holds it) or the path of a ``.npy`` file.

    Tensors, Arrow lists and buffers of numbers are arrays; None and NA in a list are NaN. Arrays have one axis or more
    and one number or more.

    Raises:
        ReadError: not numeric, ragged, empty, or not readable.
    """
    if type(cell) is np.ndarray and cell.dtype.kind in "biuf" and cell.ndim and cell.size:  # most are
        return cell
    where, cell = f"column {column!r}", plain(cell)
    try:
        if is_list(cell):
            values = _numbers(json.loads(cell))
        elif (path := path_of(cell)) is not None:
            data, where = file_content(path, column, root, kind), str(resolve(path, root))
            values = _npy(data)
        else:
            values = _numbers(cell)
    except ReadError:
        raise
    except RecursionError as error:
        raise ReadError(where, "is no array of numbers (lists within lists without end)") from error
    except (ValueError, TypeError, OverflowError, RuntimeError, SyntaxError, MemoryError) as error:
        raise ReadError(where, f"is no array of numbers ({error or type(error).__name__})") from error
    if values.dtype.kind not in "biuf":
        raise ReadError(where, f"is no array of numbers: it holds {values.dtype}")
    if values.ndim == 0:
        raise ReadError(where, f"is one number, {values}, where numbers or a file are expected")
    if values.size == 0:
        raise ReadError(where, f"holds no numbers (its shape is {list(values.shape)})")
    return values


def is_list(cell: Any) -> bool:
    """Text that holds a list as JSON has it."""
    return isinstance(cell, str) and cell.lstrip().startswith("[")


def _numbers(cell: Any, depth: int = 0) -> np.ndarray:
    """An array of whatever holds numbers; float64 where some of them are None, NA or decimals."""
    if depth > MOST_DEPTH:
        raise ValueError("lists within lists without end")
    cell = plain(cell)
    if isinstance(cell, (list, tuple)):
        kinds = set(map(type, cell))
        if not kinds <= PLAIN:
            cell = [plain(each) for each in cell]
            kinds = set(map(type, cell))
        if kinds & {np.ndarray, bytearray, memoryview}:
            return np.stack([_numbers(each, depth + 1) for each in cell])
    values = np.asarray(cell)
    if values.dtype != object:
        return values
    flat = list(values.flat)
    if values.ndim and any(isinstance(each, (list, tuple, np.ndarray)) for each in flat):
        return np.stack([_numbers(each, depth + 1) for each in values])
    return np.array([_number(each) for each in flat], dtype=np.float64).reshape(values.shape)


def _number(cell: Any) -> float:
    cell = plain(cell)
    if cell is None or cell is pd.NA or cell is pd.NaT:
        return math.nan
    if not isinstance(cell, (numbers.Real, Decimal)):
        raise ValueError(f"holds {type(cell).__name__}, not numbers")
    return float(cell)


def _npy(data: bytes) -> np.ndarray:
    """The array in a ``.npy`` file. Its head says a size, which is compared with that of the file before it is believed.

    Raises:
        ValueError: no such file, or one of objects.
    """
    file = io.BytesIO(data)
    if data[:6] != np.lib.format.MAGIC_PREFIX:
        raise ValueError("is no .npy file")
    try:
        version = np.lib.format.read_magic(file)
        read_head = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_columns, dtype = read_head(file)
    except Exception as error:  # it is read as Python source, whose parsers raise much
        raise ValueError(f"the head of the .npy file is damaged: {error}") from error
    if dtype.kind not in "biuf":
        raise ValueError(f"it holds {dtype}")
    count, start = math.prod(shape), file.tell()
    if min(shape, default=0) < 0 or count * dtype.itemsize > len(data) - start:
        raise ValueError(
            f"the .npy file is truncated: {len(data) - start} bytes for the shape {list(shape)} of {dtype}"
        )
    flat = np.frombuffer(data, dtype, count, start)
    return flat.reshape(shape, order="F" if by_columns else "C")


def finite(values: np.ndarray, where: str) -> np.ndarray:
    """The same values, or an error where one is NaN or infinite."""
    if not np.isfinite(values).all():
        bad = "NaN" if np.isnan(values).any() else "infinity"
        raise ReadError(where, f"{bad} in present data")
    return values


def single(values: np.ndarray, where: str) -> np.ndarray:
    """The same numbers in float32; what was finite and is not there any more is an error.

    Raises:
        ReadError: a number beyond 3.4e38, the largest of float32.
    """
    if not np.fmax.reduce(np.abs(values), axis=None, initial=0) > _LARGEST:  # fmax: whatever is NaN besides
        return values.astype(np.float32)
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    lost = np.isinf(narrow) & np.isfinite(values)
    if lost.any():
        raise ReadError(where, f"holds {values[lost][0]:g}, which is beyond the numbers of float32 (3.4e38)")
    return narrow
