"""Readers of columns: how cells of a table become the tensors of a modality."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch

from kintsugi.core.errors import ConfigError
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
    is_path,
    nothing,
    place,
    reader_from_json,
)
from kintsugi.data.media import AudioReader, ImageReader, audio, image
from kintsugi.data.tabular import TabularReader, tabular

__all__ = [
    "AudioReader", "ImageReader", "ReadError", "Reader", "SeriesReader", "TabularReader", "TextReader", "VectorReader",
    "audio", "image", "reader_from_json", "series", "tabular", "text", "vector",
]  # fmt: skip

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
        return nothing(cell) or (isinstance(cell, bytes) and not cell.strip())

    def read(self, cells: Sequence[Any], root: Path | None) -> Decoded:
        where = f"column {self.column!r}"
        try:
            words = cells[0].decode("utf-8") if isinstance(cells[0], bytes) else str(cells[0])
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

    Cells are strings (brought to Unicode's NFC) or UTF-8 bytes.

    Args:
        column: name of the column.
        length: bytes that are read of each text.
    """
    if length < 4:
        raise ConfigError(f"length must be 4 bytes or more (a character may take four), not {length!r}")
    return TextReader(check_column(column), int(length))


@dataclass(frozen=True)
class SeriesReader(Reader):
    """See :func:`series`."""

    column: str
    length: int | None = None
    channels: int | None = None

    kind: ClassVar[str] = "series"

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def fit(self, frame: pd.DataFrame, root: Path | None) -> Self:
        if self.length is not None and self.channels is not None:
            return self
        longest, channels = 0, self.channels
        for cell in frame[self.column].array:
            if nothing(cell) or (_file(cell) and super().hole(cell, root)):
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
        if nothing(cell) or (_file(cell) and super().hole(cell, root)):
            return True
        if _file(cell):
            return False
        try:  # an array that holds nothing but NaN where it would be read is a hole too
            return bool(np.isnan(self._steps(cell, root)[: self.length]).any(1).all())
        except ReadError:
            return False

    def read(self, cells: Sequence[Any], root: Path | None) -> Decoded:
        length, channels = fitted(self.length), fitted(self.channels)
        where = place(cells[0], self.column, root) if _file(cells[0]) else f"column {self.column!r}"
        values = self._steps(cells[0], root)[:length]
        if values.shape[1] != channels:
            raise ReadError(where, f"has {values.shape[1]} channels; {channels} were expected")
        if np.isinf(values).any():
            raise ReadError(where, "infinity in present data")
        seen = ~np.isnan(values).any(1)
        out, mask = torch.zeros(length, channels), torch.zeros(length, dtype=torch.bool)
        out[: len(values)] = torch.from_numpy(np.where(seen[:, None], values, 0).astype(np.float32))
        mask[: len(values)] = torch.from_numpy(seen)
        return out, mask

    def _steps(self, cell: Any, root: Path | None) -> np.ndarray:
        """Float64 ``[T, C]``."""
        values = array(cell, self.column, root)
        if values.ndim not in (1, 2):
            raise ReadError(f"column {self.column!r}", f"has shape {list(values.shape)}; a series is (T,) or (T, C)")
        return values.astype(np.float64).reshape(len(values), -1)


def series(column: str, length: int | None = None, channels: int | None = None) -> SeriesReader:
    """Steps in time, float32 ``[length, channels]``, with a mask of the steps that are there.

    Cells are arrays or lists ``(T,)`` or ``(T, channels)``, JSON lists, or paths of ``.npy`` files. A step with a NaN
    in any channel is masked; what is shorter than ``length`` is filled and masked, what is longer is cut at its end.

    Args:
        column: name of the column.
        length: steps; None: the longest that the reader was fitted on.
        channels: numbers a step; None: as the first readable cell.
    """
    for what, value in (("length", length), ("channels", channels)):
        if value is not None and value < 1:
            raise ConfigError(f"{what} must be above 0, not {value!r}")
    return SeriesReader(check_column(column), length, channels)


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
            step = values - total
            total = total + step / count
            square = square + step * (values - total)
        if not self.standardise or not count:
            return replace(self, length=length or 1, mean=(), std=())
        std = np.sqrt(square / count)
        std[std <= 1e-12 * np.maximum(1, np.abs(total))] = 1  # a number that never varies
        return replace(self, length=length, mean=tuple(total.tolist()), std=tuple(std.tolist()))

    def modality(self, name: str) -> Modality:
        return Modality(name, "vector", (fitted(self.length),))

    def hole(self, cell: Any, root: Path | None) -> bool:
        return nothing(cell) or (_file(cell) and super().hole(cell, root))

    def read(self, cells: Sequence[Any], root: Path | None) -> Decoded:
        values = self._values(cells[0], root, self.length)
        if self.mean:
            values = (values - np.asarray(self.mean)) / np.asarray(self.std)
        return torch.from_numpy(values.astype(np.float32)), None

    def _values(self, cell: Any, root: Path | None, length: int | None) -> np.ndarray:
        values = array(cell, self.column, root)
        where = place(cell, self.column, root) if _file(cell) else f"column {self.column!r}"
        if values.ndim != 1:
            raise ReadError(where, f"has shape {list(values.shape)}; a vector has one axis")
        if length is not None and len(values) != length:
            raise ReadError(where, f"has {len(values)} numbers; {length} were expected")
        return finite(values.astype(np.float64), where)


def vector(column: str, standardise: bool = False) -> VectorReader:
    """Numbers of a fixed count, float32 ``[D]``; D is that of the first readable cell that the reader is fitted on.

    Cells are arrays or lists, JSON lists, or paths of ``.npy`` files.

    Args:
        column: name of the column.
        standardise: by the mean and standard deviation of the rows that the reader is fitted on.
    """
    return VectorReader(check_column(column), bool(standardise))


def _file(cell: Any) -> bool:
    """A path, and not a JSON list."""
    return is_path(cell) and not (isinstance(cell, str) and cell.lstrip().startswith("["))


READERS |= {"text": TextReader, "series": SeriesReader, "vector": VectorReader}
