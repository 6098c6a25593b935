"""Readers of columns: how cells of a table become the tensors of a modality."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
import pandas as pd
import torch

from kintsugi.core.errors import ConfigError, DataError
from kintsugi.core.schema import Modality
from kintsugi.data.cells import (
    READERS,
    Decoded,
    Reader,
    ReadError,
    array,
    check_column,
    finite,
    fitted,
    is_list,
    nothing,
    path_of,
    place,
    reader_from_json,
    single,
)
from kintsugi.data.foreign_cells import plain
from kintsugi.data.media import AudioReader, ImageReader, audio, image, spread
from kintsugi.data.tabular import TabularReader, tabular

__all__ = [
    "AudioReader", "ImageReader", "ReadError", "Reader", "SeriesReader", "TabularReader", "TextReader", "VectorReader",
    "audio", "image", "reader_from_json", "series", "tabular", "text", "vector",
]  # fmt: skip

Fill = Literal["forward", "zero"]
MUCH_LOST = 0.5  # share of the steps from which on it is said that they are lost to some of their channels
BYTES = 257  # the 256 byte values, moved up by one, and 0 for padding


@dataclass(frozen=True)
class TextReader(Reader):
    """See :func:`text`."""

    column: str
    length: int = 64

    kind: ClassVar[str] = "text"

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def fit(self, frame: pd.DataFrame, root: Path | None) -> Self:
        return self

    def modality(self, name: str) -> Modality:
        return Modality(name, "text", (self.length,), vocab=BYTES)

    def hole(self, cell: Any, root: Path | None) -> bool:
        if isinstance(cell, (bytearray, memoryview)):
            cell = bytes(cell)
        return nothing(cell) or (isinstance(cell, bytes) and not cell.strip())

    def read(self, cells: Sequence[Any], root: Path | None) -> Decoded:
        where = f"column {self.column!r}"
        try:
            words = _words(cells[0], where)
            data = unicodedata.normalize("NFC", words).encode("utf-8")[: self.length]
        except UnicodeError as error:
            raise ReadError(where, f"is not UTF-8 text ({error})") from error
        whole = data.decode("utf-8", errors="ignore").encode("utf-8")  # no half of a character at the end
        padded = np.zeros(self.length, dtype=np.int64)
        padded[: len(whole)] = np.frombuffer(whole, dtype=np.uint8).astype(np.int64) + 1
        ids = torch.from_numpy(padded)
        return ids, ids > 0


def text(column: str, length: int = 64) -> TextReader:
    """Text as its UTF-8 bytes plus one, int64 ``[length]``, 0 after the end; blank text is a hole.

    Cells are strings (brought to Unicode's NFC), UTF-8 bytes and buffers, numbers (whole ones without a point: 7.0 is "7",
    since pandas makes floats of whole numbers wherever a column has a hole), dates and such. Lists, arrays and mappings
    are refused.

    Args:
        column: name of the column.
        length: bytes that are read of each text.
    """
    if length < 4:
        raise ConfigError(f"length must be 4 bytes or more (a character may take four), not {length!r}")
    return TextReader(check_column(column), int(length))


def _words(cell: Any, where: str) -> str:
    cell = plain(cell)
    if isinstance(cell, (bytes, bytearray, memoryview)):
        return bytes(cell).decode("utf-8")
    if isinstance(cell, (list, tuple, set, frozenset, dict, np.ndarray)):
        raise ReadError(where, f"is a {type(cell).__name__}, not text; join its words first")
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell)


@dataclass(frozen=True)
class SeriesReader(Reader):
    """See :func:`series`."""

    column: str
    length: int | None = None
    channels: int | None = None
    fill: Fill | None = None

    kind: ClassVar[str] = "series"

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def fit(self, frame: pd.DataFrame, root: Path | None) -> Self:
        if self.length is not None and self.channels is not None:
            return self
        longest, channels = 0, self.channels
        for cell in frame[self.column].array:
            if _listed_hole(cell) or (_file(cell) and super().hole(cell, root)):
                continue
            try:
                values = self._steps(cell, root)
            except ReadError:  # reported when its row is read
                continue
            longest, channels = max(longest, len(values)), channels or values.shape[1]
            if self.length is not None:
                break
        return replace(self, length=self.length or max(longest, 1), channels=channels or 1)

    def modality(self, name: str) -> Modality:
        return Modality(name, "series", (fitted(self.length), fitted(self.channels)))

    def hole(self, cell: Any, root: Path | None) -> bool:
        if _listed_hole(cell) or (_file(cell) and super().hole(cell, root)):
            return True
        if _file(cell):
            return False
        try:  # an array that holds nothing but NaN where it would be read is a hole too
            return not self._seen(self._steps(cell, root)[: self.length]).any()
        except ReadError:
            return False

    def read(self, cells: Sequence[Any], root: Path | None) -> Decoded:
        values, where = self._cut(cells[0], root)
        if np.isinf(values).any():
            raise ReadError(where, "infinity in present data")
        return self._delivered(values, single(values, where))

    def read_leniently(self, cells: Sequence[Any], root: Path | None) -> tuple[Decoded, list[ReadError]]:
        """The steps that can be used; infinite numbers, and those beyond float32, count as NaN."""
        values, where = self._cut(cells[0], root)
        with np.errstate(over="ignore"):
            bad = np.isinf(values.astype(np.float32))
        problems = []
        if bad.any():
            steps = np.flatnonzero(bad.any(1))
            shown = ", ".join(map(str, steps[:10])) + (", …" if len(steps) > 10 else "")
            number = values[bad][0]
            what = (
                "infinity in present data"
                if np.isinf(number)
                else f"holds {number:g}, which is beyond float32 (3.4e38)"
            )
            problems.append(ReadError(where, f"{what}: {len(steps)} of {len(values)} steps ({shown})"))
            values = np.where(bad, np.nan, values)
        return self._delivered(values, values.astype(np.float32)), problems

    def doubts(self, frame: pd.DataFrame, root: Path | None) -> Iterator[str]:
        steps = lost = lacking = numbers = 0
        for cell in spread(frame[self.column]) if self.fill is None else ():
            try:
                values = self._cut(cell, root)[0]
            except ReadError:
                continue
            gone = np.isnan(values)
            whole = gone.all(1)
            steps += int((~whole).sum())
            lost += int((gone.any(1) & ~whole).sum())
            numbers += gone.size
            lacking += int(gone.sum())
        if steps and lost > MUCH_LOST * steps:
            yield (
                f"column {self.column!r}: {lost / steps:.0%} of the steps that hold something are lost, since a step counts "
                f"where all its channels are there ({lacking / numbers:.0%} of the numbers are not). To keep them: "
                f"series({self.column!r}, fill='forward') or fill='zero'"
            )

    def to_json(self) -> dict[str, Any]:
        saved = super().to_json()
        return saved if self.fill else {key: value for key, value in saved.items() if key != "fill"}  # as before it was

    def _cut(self, cell: Any, root: Path | None) -> tuple[np.ndarray, str]:
        """Float64 ``[T, C]``, T at most ``length``, and where it is."""
        length, channels = fitted(self.length), fitted(self.channels)
        values = self._steps(cell, root)[:length]
        where = place(cell, self.column, root)
        if values.shape[1] != channels:
            raise ReadError(where, f"has {values.shape[1]} channels; {channels} were expected")
        return values, where

    def _seen(self, values: np.ndarray) -> np.ndarray:
        """Bool ``[T]``: steps that count."""
        there = ~np.isnan(values)
        seen: np.ndarray = there.all(1) if self.fill is None else there.any(1)
        return seen

    def _delivered(self, values: np.ndarray, narrow: np.ndarray) -> Decoded:
        """``narrow``: the values in float32."""
        length, channels = fitted(self.length), fitted(self.channels)
        seen = self._seen(values)
        if self.fill is not None and len(narrow):
            narrow = _filled(narrow, self.fill)
        out, mask = torch.zeros(length, channels), torch.zeros(length, dtype=torch.bool)
        out[: len(values)] = torch.from_numpy(np.where(seen[:, None], narrow, np.float32(0)))
        mask[: len(values)] = torch.from_numpy(seen)
        return out, mask

    def _steps(self, cell: Any, root: Path | None) -> np.ndarray:
        """Float64 ``[T, C]``."""
        values = array(cell, self.column, root, self.kind)
        if values.ndim not in (1, 2):
            where = place(cell, self.column, root)
            raise ReadError(where, f"has shape {list(values.shape)}; a series is (T,) or (T, C)")
        return values.astype(np.float64).reshape(len(values), -1)


def _filled(values: np.ndarray, fill: Fill) -> np.ndarray:
    """The same ``[T, C]`` without NaN: the last number of the channel before it, or 0 where there is none."""
    gone = np.isnan(values)
    if fill == "zero":
        return np.where(gone, np.float32(0), values)
    last = np.maximum.accumulate(np.where(gone, -1, np.arange(len(values))[:, None]), axis=0)
    return np.where(last < 0, np.float32(0), np.take_along_axis(values, np.maximum(last, 0), axis=0))


def series(
    column: str, length: int | None = None, channels: int | None = None, fill: Fill | None = None
) -> SeriesReader:
    """Steps in time, float32 ``[length, channels]``, with a mask of the steps that are there.

    Cells are arrays, tensors or lists ``(T,)`` or ``(T, channels)``, JSON lists, or paths of ``.npy`` files of at most
    ``cells.MOST_BYTES``. What is shorter than ``length`` is filled and masked, what is longer is cut at its end. A step
    with a NaN in any channel is masked; with ``fill`` only one with a NaN in all of them. With ``on_error="missing"``
    infinite numbers count as NaN, and their steps are listed.

    Args:
        column: name of the column.
        length: steps; None: the longest that the reader was fitted on.
        channels: numbers a step; None: as the first readable cell.
        fill: what a channel reads where it is NaN and others of the step are not: ``"forward"`` its last number before (0
            where there is none), ``"zero"`` 0; None: the step is masked.
    """
    if fill not in (None, *get_args(Fill)):
        raise ConfigError(f"fill must be 'forward', 'zero' or None, not {fill!r}")
    for what, value in (("length", length), ("channels", channels)):
        if value is not None and value < 1:
            raise ConfigError(f"{what} must be above 0, not {value!r}")
    return SeriesReader(check_column(column), length, channels, fill)


@dataclass(frozen=True)
class VectorReader(Reader):
    """See :func:`vector`."""

    column: str
    standardise: bool = False
    length: int | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    kind: ClassVar[str] = "vector"

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def fit(self, frame: pd.DataFrame, root: Path | None) -> Self:
        length, count = self.length, 0
        total = square = np.zeros(0)
        for cell in frame[self.column].array:
            if self.hole(cell, root):
                continue
            try:
                values = self._values(cell, root, length)
            except ReadError:  # reported when its row is read
                continue
            if length is None:
                length, total, square = len(values), np.zeros(len(values)), np.zeros(len(values))
            if not self.standardise:
                break
            count += 1  # Welford's update: no cancellation where the mean is large
            with np.errstate(over="ignore", invalid="ignore"):  # looked at below
                step = values - total
                total = total + step / count
                square = square + step * (values - total)
        if not self.standardise or not count:
            return replace(self, length=length or 1, mean=(), std=())
        std = np.sqrt(square / count)
        if not np.isfinite(std).all():
            raise DataError(f"column {self.column!r} holds numbers too large to standardise; divide them first")
        std[std <= 1e-12 * np.maximum(1, np.abs(total))] = 1  # a number that never varies
        return replace(self, length=length, mean=tuple(total.tolist()), std=tuple(std.tolist()))

    def modality(self, name: str) -> Modality:
        return Modality(name, "vector", (fitted(self.length),))

    def hole(self, cell: Any, root: Path | None) -> bool:
        return _listed_hole(cell) or (_file(cell) and super().hole(cell, root))

    def read(self, cells: Sequence[Any], root: Path | None) -> Decoded:
        values = self._values(cells[0], root, self.length)
        if self.mean:
            values = (values - np.asarray(self.mean)) / np.asarray(self.std)
        return torch.from_numpy(single(values, place(cells[0], self.column, root))), None

    def _values(self, cell: Any, root: Path | None, length: int | None) -> np.ndarray:
        values = array(cell, self.column, root, self.kind)
        where = place(cell, self.column, root)
        if values.ndim != 1:
            raise ReadError(where, f"has shape {list(values.shape)}; a vector has one axis")
        values = finite(values.astype(np.float64), where)
        if length is not None and len(values) != length:
            raise ReadError(where, f"has {len(values)} numbers; {length} were expected")
        return values


def vector(column: str, standardise: bool = False) -> VectorReader:
    """Numbers of a fixed count, float32 ``[D]``; D is that of the first readable cell that the reader is fitted on.

    Cells are arrays, tensors or lists (of numbers, decimals, scalars of NumPy or Arrow), JSON lists, or paths of ``.npy``
    files of at most ``cells.MOST_BYTES``.

    Args:
        column: name of the column.
        standardise: by the mean and standard deviation of the rows that the reader is fitted on.
    """
    return VectorReader(check_column(column), bool(standardise))


def _file(cell: Any) -> bool:
    """A path, and not a JSON list."""
    return not is_list(cell) and path_of(cell) is not None


def _listed_hole(cell: Any) -> bool:
    """Nothing, as JSON writes it too; or a list as JSON has it, of which no path is to be looked for: False."""
    return nothing(cell) or (is_list(cell) and cell.strip().strip("[]").strip() == "" and cell.count("[") == 1)


READERS |= {"text": TextReader, "series": SeriesReader, "vector": VectorReader}
