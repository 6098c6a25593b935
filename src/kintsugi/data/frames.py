"""Data frames from files and records, with errors that say what to do."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from kintsugi.core.errors import DataError, UnknownName, nearest
from kintsugi.data.cells import Reader

# what pandas takes for a hole by default (documented at pandas.read_csv, na_values); text columns are exempt from it
HOLES = [
    "", " ", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null",
]  # fmt: skip


class Rows(NamedTuple):
    """A frame, the folder of its relative paths, its name, and whether it was made from dicts."""

    frame: pd.DataFrame
    root: Path | None
    name: str
    records: bool = False


def open_rows(
    rows: pd.DataFrame | str | os.PathLike[str] | Sequence[Mapping[str, Any]],
    readers: Mapping[str, Reader] | None = None,
) -> Rows:
    """Whatever a user may have rows in, as a frame. ``readers`` say which columns of a CSV file are text.

    Raises:
        DataError: none of a data frame, a Parquet or CSV file, dicts; or no rows in it.
    """
    if isinstance(rows, pd.DataFrame):
        opened = Rows(rows, None, "rows")
    elif isinstance(rows, (str, os.PathLike)):
        path = Path(rows)
        if path.suffix.lower() in (".csv", ".tsv"):
            opened = read_csv(path, None, list((readers or {}).values()))
        else:
            opened = read_parquet(path, None)
    elif isinstance(rows, Sequence) and not isinstance(rows, str) and all(isinstance(r, Mapping) for r in rows):
        opened = Rows(_frame(rows), None, "records", True)
    else:
        raise DataError(
            f"rows must be a data frame, a Parquet or CSV file, or a list of dicts, not {type(rows).__name__}"
        )
    if not len(opened.frame):
        raise DataError(f"{opened.name}: the table has no rows")
    return opened


def _frame(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Column by column, so that a list or an array stays one cell."""
    names = list(dict.fromkeys(str(key) for record in records for key in record))
    columns = {}
    for name in names:
        cells = [record.get(name) for record in records]
        if any(isinstance(c, (list, tuple, np.ndarray, bytes, os.PathLike)) or hasattr(c, "__array__") for c in cells):
            column = np.empty(len(cells), dtype=object)
            for i, cell in enumerate(cells):
                column[i] = np.asarray(cell) if hasattr(cell, "__array__") else cell
            columns[name] = pd.Series(column, dtype=object)
        else:
            columns[name] = pd.Series(cells)
    return pd.DataFrame(columns, index=range(len(records)))


def fill_absent(rows: Rows, columns: Iterable[str], name: str, optional: Collection[str] = ()) -> pd.DataFrame:
    """The frame with every column of a trained reading; those of ``optional`` are holes where they are not there.

    Raises:
        DataError: a column is not there, with the nearest that is.
    """
    frame, wanted = rows.frame, list(columns)
    absent = [c for c in wanted if c not in frame.columns]
    extra = [str(c) for c in frame.columns if c not in wanted]
    for column in absent:
        misspelt = get_close_matches(column, extra, n=1, cutoff=0.7)
        if (rows.records or column in optional) and not misspelt:
            frame = frame.assign(**{column: pd.Series([None] * len(frame), dtype=object, index=frame.index)})
        else:
            raise DataError(f"{name}: no column {column!r}, which the model was trained on{nearest(column, extra)}")
    return frame


def read_parquet(path: Path, columns: Sequence[str] | None) -> Rows:
    """A Parquet file, or a folder of them; only these columns.

    Raises:
        DataError: not there or not Parquet.
        UnknownName: a column that it does not have.
    """
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    _there(path)
    try:
        if columns is not None and path.is_file():
            _known(columns, pq.read_schema(path).names)
            frame = pd.read_parquet(path, columns=list(columns))
        else:
            frame = pd.read_parquet(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} is no readable Parquet file ({error})") from error
    return Rows(frame, path if path.is_dir() else path.parent, path.stem)


def read_csv(path: Path, columns: Sequence[str] | None, readers: Sequence[Reader]) -> Rows:
    """A CSV file (``.tsv``: with tabs) in UTF-8; only these columns.

    Raises:
        DataError: not there, not UTF-8 or not a table.
        UnknownName: a column that it does not have.
    """
    _there(path)
    sep = "\t" if path.suffix.lower() == ".tsv" else ","
    words = {c for r in readers if r.kind == "text" for c in r.columns}
    codes = {c for r in readers for c in getattr(r, "categories", ())}
    try:
        head = [str(c) for c in pd.read_csv(path, sep=sep, nrows=0).columns]
        if columns is not None:
            _known(columns, head)
        frame = pd.read_csv(
            path,
            sep=sep,
            usecols=None if columns is None else list(columns),
            dtype={c: "str" for c in words | codes if c in head},
            keep_default_na=False,
            na_values={c: HOLES for c in head if c not in words},
            low_memory=False,
        )
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error}); save it as UTF-8") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"{path} is no readable CSV file ({error})") from error
    return Rows(frame, path.parent, path.stem)


def _there(path: Path) -> None:
    if not path.exists():
        raise DataError(f"{path} does not exist (working directory: {Path.cwd()})")


def _known(columns: Sequence[str], head: Sequence[str]) -> None:
    for column in columns:
        if column not in head:
            raise UnknownName("column", column, head)
