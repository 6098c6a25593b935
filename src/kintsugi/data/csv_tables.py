"""CSV files as data frames: names as they are written, numbers as pandas reads them, and no column moved by a comma."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import os
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

import numpy as np
import pandas as pd

from kintsugi.core.errors import DataError, UnknownName
from kintsugi.data.cells import Reader
from kintsugi.data.column_kinds import FEW, sort_of
from kintsugi.data.names import KnownNames
from kintsugi.data.tabular import TabularReader
from kintsugi.io.files import open_bounded

# what pandas takes for a hole by default (documented at pandas.read_csv, na_values); columns of names are exempt from it
HOLES = [
    "", " ", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null",
]  # fmt: skip
MOST_BYTES = 1 << 36  # of a table's file: 64 GiB; a table has to fit into memory
MOST_UNPACKED = 1 << 34  # of a compressed one once it is unpacked: 16 GiB, since a few bytes may unpack to any size
PACKED = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
PIECE = 1 << 23  # bytes that are looked at together
FILES = ("image", "audio", "series", "vector")

_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(?:\.0+)?")
_SURE_DIGITS = 15  # of a whole number that float64 holds exactly
_ZEROS = re.compile(r"\s*[+-]?0[0-9]")
_TRUTHS = frozenset(("True", "TRUE", "true", "False", "FALSE", "false"))


@dataclass(frozen=True)
class Roles:
    """What the columns of a file are for, as far as it decides how they are read.

    Args:
        names: columns of labels and groups -> the names that are known already, or None.
        target: a target for which no task was said: few whole numbers are classes as they are written, others numbers.
        numbers: columns that are read as pandas reads them, its holes included: targets of a regression, weights, splits.
    """

    names: Mapping[str, Sequence[str] | None] = field(default_factory=dict)
    target: str | None = None
    numbers: Collection[str] = ()


def is_csv(path: Path) -> bool:
    """By its name: ``.csv`` or ``.tsv``, also packed as ``.gz``, ``.bz2`` or ``.xz``."""
    return _suffix(path) in (".csv", ".tsv")


def _suffix(path: Path) -> str:
    packed = path.suffix.lower() in PACKED
    return (path.with_suffix("") if packed else path).suffix.lower()


def read_frame(
    source: Path | bytes,
    name: str,
    columns: Sequence[str] | None,
    readers: Sequence[Reader],
    roles: Roles,
    tabs: bool = False,
) -> pd.DataFrame:
    """The table in a CSV file in UTF-8; see :func:`kintsugi.data.frames.read_csv`.

    Args:
        source: a path, or what an open file held.
        name: for messages.
        columns: the only ones; None: all.
        readers: of the columns. roles: of the others.
        roles: see ``readers``.
        tabs: cells are divided by tabs, not commas; of a path its name says so.

    Raises:
        DataError: not UTF-8, no table, two columns of one name, a row longer than the head.
        UnknownName: a column that it does not have.
    """
    sep = "\t" if tabs or (isinstance(source, Path) and _suffix(source) == ".tsv") else ","
    content = _content(source)
    try:
        file = _File(source, content, sep, name, columns)
        written = file.head()
        for column in columns or ():
            if column not in written:
                raise UnknownName("column", column, written)
        plan = _Plan.of(readers, roles)
        _check_head(written, (list(plan.used) or written) if columns is None else columns, name)
        zeros = _check_lengths(content, sep, len(written), name)
        return file.read(written, plan, zeros)
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is not UTF-8 ({error}); save it as UTF-8") from error
    except (UnknownName, DataError):
        raise
    except Exception as error:  # whatever the parser of pandas raises
        raise DataError(f"{name} is no readable CSV file ({error})") from error


def _content(source: Path | bytes) -> np.ndarray:
    """The bytes of the file, mapped or unpacked, uint8 ``[bytes]``."""
    if isinstance(source, bytes):
        return np.frombuffer(source, dtype=np.uint8)
    packed = PACKED.get(source.suffix.lower())
    with open_bounded(source, MOST_BYTES, "CSV file") as file:
        if packed is not None:
            return np.frombuffer(_unpacked(source, file, packed), dtype=np.uint8)
        if os.fstat(file.fileno()).st_size == 0:
            return np.zeros(0, dtype=np.uint8)
        return np.memmap(file, dtype=np.uint8, mode="r")


def _unpacked(path: Path, file: BinaryIO, opener: Any) -> bytes:
    try:
        with opener(file) as unpacked:
            content: bytes = unpacked.read(MOST_UNPACKED + 1)
    except Exception as error:  # whatever the module that unpacks raises
        raise DataError(f"{path} cannot be unpacked ({error})") from error
    if len(content) > MOST_UNPACKED:
        raise DataError(f"{path} unpacks to more than {MOST_UNPACKED:,} bytes; split it, or save it as Parquet")
    return content


def _check_head(written: Sequence[str], wanted: Sequence[str], name: str) -> None:
    for column in wanted:
        if written.count(column) > 1 and not column.startswith("Unnamed: "):
            raise DataError(f"{name}: the table has two columns named {column!r}")


def _check_lengths(content: np.ndarray, sep: str, width: int, name: str) -> bool:
    """Whether a cell begins with a zero and another digit, which numbers do not.

    Raises:
        DataError: a row has more cells than the head. pandas would move all columns by one, or drop the last cells.
    """
    suspicious, zeros = _shape(content, sep, width)
    if suspicious:  # Python's parser has the last word
        try:
            _check_rows(content, sep, width, name)
        except csv.Error:  # cells beyond its measure: what the parser of pandas makes of them has to do
            return zeros
    return zeros


def _check_rows(content: np.ndarray, sep: str, width: int, name: str) -> None:
    rows = (row for row in csv.reader(_lines(content), delimiter=sep) if row)
    for number, row in enumerate(rows):
        if len(row) > width:
            cut = " or take the comma from its end" if not row[-1] else ""
            raise DataError(
                f"{name}: row {max(number - 1, 0)} (counted from 0) has {len(row)} cells, and the head names {width} "
                f"columns: name all columns{cut}, and put cells that hold a comma in quotes"
            )


def _lines(content: np.ndarray) -> Iterator[str]:
    return iter(io.TextIOWrapper(io.BytesIO(content.tobytes()), encoding="utf-8-sig", newline=""))


def _shape(content: np.ndarray, sep: str, width: int) -> tuple[bool, bool]:
    """Whether a row may be longer than ``width``, and whether a cell begins as "01" does.

    Counts what divides cells outside of quotes. A quote that opens within a cell stands for itself, and from there on the
    count is void: that is a doubt too.
    """
    carried, odd, last = 0, 0, ord("\n")
    zeros = quotes = False
    for start in range(0, len(content), PIECE):
        wider = np.asarray(content[start : start + PIECE + 2])  # two bytes more, of a cell that begins at the end
        piece = wider[:PIECE]
        ends = (piece == ord(sep)) | (piece == ord("\n"))
        quote = np.flatnonzero(piece == ord('"'))
        if quotes or len(quote):
            quotes = True
            inside: np.ndarray = np.zeros(len(piece), dtype=np.uint8)
            inside[quote] = 1
            inside = (np.cumsum(inside, dtype=np.uint8) + odd) & 1
            opening = quote[inside[quote] == 1]
            before = piece[opening[opening > 0] - 1]
            before = np.append(before, last) if len(opening) and opening[0] == 0 else before
            allowed = (ord(sep), ord("\n"), ord("\r"), ord('"'), 0xBF)  # the last one ends the mark of byte order
            if not np.isin(before, allowed).all():
                return True, True
            odd = int(inside[-1])
            ends &= inside == 0
            zeros = zeros or _begins_with_zero(wider, quote)
        last = int(piece[-1])
        at = np.flatnonzero(ends)
        zeros = zeros or _begins_with_zero(wider, at)
        lines = np.flatnonzero(piece[at] == ord("\n"))
        if len(lines):
            cells = np.diff(lines, prepend=-1)
            cells[0] += carried
            if bool((cells > width).any()):
                return True, True
            carried = len(at) - 1 - int(lines[-1])
        else:
            carried += len(at)
    return carried >= width or odd == 1, zeros


def _begins_with_zero(piece: np.ndarray, ends: np.ndarray) -> bool:
    after = ends[ends < len(piece) - 2] + 1
    after = after[piece[after] == ord("0")]
    digit = piece[after + 1]
    return bool(((digit >= ord("0")) & (digit <= ord("9"))).any())


class _Plan(NamedTuple):
    """How each column is read. words, files: as text; names: as text, with what is known of them; numbers: as pandas does."""

    words: set[str]
    files: set[str]
    names: dict[str, Sequence[str] | None]
    numbers: set[str]
    used: set[str]
    target: str | None

    @classmethod
    def of(cls, readers: Sequence[Reader], roles: Roles) -> Self:
        """From what readers and roles say."""
        words = {c for r in readers if r.kind == "text" for c in r.columns}
        files = {c for r in readers if r.kind in FILES for c in r.columns} - words
        names: dict[str, Sequence[str] | None] = dict(roles.names)
        numbers = set(roles.numbers)
        for reader in readers:
            if isinstance(reader, TabularReader):
                names |= dict.fromkeys(reader.categories)
                names |= reader.known
                numbers |= set(reader.numbers)
                numbers |= set(reader.columns) - reader.known.keys() if reader.mean else set()
        numbers -= words | files
        used = {c for r in readers for c in r.columns} | names.keys() | numbers
        used |= {roles.target} if roles.target is not None else set()
        return cls(words, files, names, numbers, used, roles.target)


class _File:
    """One CSV file while it is read."""

    def __init__(
        self, source: Path | bytes, content: np.ndarray, sep: str, name: str, columns: Sequence[str] | None
    ) -> None:
        self.sep, self.name, self.columns = sep, name, columns
        packed = isinstance(source, bytes) or source.suffix.lower() in PACKED
        self._open: Callable[[], Any] = (lambda: io.BytesIO(content.tobytes())) if packed else (lambda: source)

    def head(self) -> list[str]:
        """Names of the columns as they are written; nameless ones as pandas calls them."""
        called = pd.read_csv(self._open(), sep=self.sep, nrows=0, index_col=False, keep_default_na=False).columns
        row = pd.read_csv(self._open(), sep=self.sep, nrows=1, header=None, dtype="str", keep_default_na=False).iloc[0]
        return [str(word) if str(word) else str(name) for word, name in zip(row, called, strict=True)]

    def read(self, head: Sequence[str], plan: _Plan, zeros: bool) -> pd.DataFrame:
        """The frame, each column by the plan. zeros: a cell somewhere begins as "01" does."""
        exact = (plan.words | plan.files | plan.names.keys() | {plan.target}) - plan.numbers
        frame = self._parse(
            self.columns,
            {c: "str" for c in head if c in exact},
            {c: HOLES if c in plan.numbers else [""] for c in head if c not in plan.words},
        )
        used = [c for c in frame.columns if c in plan.used or self.columns is not None or not plan.used]
        coded = self._codes(frame, [c for c in used if c not in exact and c not in plan.numbers]) if zeros else {}
        for column in used:
            if column in plan.words or column in plan.numbers:
                continue
            values = coded.get(column, frame[column])
            if column in plan.files:
                frame[column] = values.mask(values.str.strip() == "")
            elif not pd.api.types.is_numeric_dtype(values.dtype):
                named = column in plan.names
                frame[column] = self._settled(values, plan.names.get(column), named, column == plan.target)
        return frame

    def _parse(
        self, columns: Sequence[str] | None, dtype: Mapping[str, str], holes: Mapping[str, list[str]]
    ) -> pd.DataFrame:
        frame: pd.DataFrame = pd.read_csv(
            self._open(),
            sep=self.sep,
            usecols=None if columns is None else list(columns),
            index_col=False,
            dtype=dict(dtype),
            keep_default_na=False,
            na_values=dict(holes),
            low_memory=False,
        )
        return frame

    def _codes(self, frame: pd.DataFrame, columns: Sequence[str]) -> dict[str, pd.Series]:
        """Columns whose numbers are codes such as 007, as they are written."""
        whole = [c for c in columns if pd.api.types.is_numeric_dtype(frame[c].dtype) and _is_whole(frame[c])]
        if not whole:
            return {}
        written = self._parse(whole, dict.fromkeys(whole, "str"), {c: [""] for c in whole})
        return {c: written[c] for c in whole if any(_ZEROS.match(text) for text in _texts(written[c]))}

    def _settled(self, values: pd.Series, known: Sequence[str] | None, named: bool, target: bool) -> pd.Series:
        """A column of text: numbers again where no name is lost by it, else the names with holes where cells are empty.

        Words such as "NA" are holes where all other cells are numbers or truth values, and where names are known and this
        is none of them; otherwise they are names, and a warning counts them.
        """
        texts = _texts(values)
        blank = [text for text in texts if not text.strip()]
        odd = [text for text in texts if text in HOLES and text.strip()]
        rest = [text for text in texts if text.strip() and text not in HOLES]
        holes = bool(values.isna().any()) or bool(blank) or bool(odd)
        if rest and (_lossless(rest, holes) or _truths(rest) or ((target or not named) and _plain(rest, few=target))):
            return _parsed_again(values)
        if known is not None:
            names = KnownNames(known)
            gone = [text for text in odd if names.place(text) is None]
        else:
            gone = []
            self._warn(values, odd)
        lost = {*blank, *gone}
        return values.mask(values.isin(list(lost))) if lost else values

    def _warn(self, values: pd.Series, odd: Sequence[str]) -> None:
        if not odd:
            return
        counts = values[values.isin(list(odd))].value_counts()
        shown = ", ".join(f"{word!r} in {count} row{'s' * (count != 1)}" for word, count in counts.head(5).items())
        warnings.warn(
            f"{self.name}: column {values.name!r} holds words that look like holes ({shown}); they are names there, as all "
            "others. Empty these cells where nothing is known",
            stacklevel=6,
        )


def _texts(values: pd.Series) -> list[str]:
    return [str(text) for text in values.dropna().unique()]


def _is_whole(values: pd.Series) -> bool:
    if pd.api.types.is_integer_dtype(values.dtype):
        return True
    numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    there = numbers[~np.isnan(numbers)]
    return bool(np.all(there == np.round(there)))


def _lossless(texts: Sequence[str], holes: bool) -> bool:
    """As numbers these are called as they are as text, also by pandas, which holds whole numbers with holes as floats."""
    most = _SURE_DIGITS + 1 if holes or any("." in text for text in texts) else 19
    return all(_WHOLE.fullmatch(text) is not None and len(text.partition(".")[0]) <= most for text in texts)


def _truths(texts: Sequence[str]) -> bool:
    return _TRUTHS.issuperset(texts)


def _plain(texts: Sequence[str], few: bool) -> bool:
    """All are numbers; ``few``: and so many or such that they are no class ids."""
    if not all(sort_of(text) == "plain" for text in texts):
        return False
    return not few or len(texts) > FEW or any(not float(text).is_integer() for text in texts)


def _parsed_again(values: pd.Series) -> pd.Series:
    """Text as pandas reads it in a column of numbers or truth values, to the last bit."""
    text = "\n".join("" if pd.isna(cell) else str(cell).strip() for cell in values.array)
    read = pd.read_csv(
        io.StringIO("c\n" + text + "\n"),
        dtype=None,
        skip_blank_lines=False,
        keep_default_na=False,
        na_values=HOLES,
        low_memory=False,
    )["c"]
    return pd.Series(read.array, index=values.index, name=values.name)
