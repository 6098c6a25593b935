"""Data frames from files and records, with errors that say what to do."""

from __future__ import annotations

import io
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from kintsugi.core.errors import DataError, UnknownName, nearest
from kintsugi.data.cells import Reader, nothing
from kintsugi.data.csv_tables import HOLES, MOST_BYTES, PACKED, Roles, is_csv, read_frame
from kintsugi.data.foreign_cells import plain, shaped
from kintsugi.io.files import open_bounded

_SCALARS = frozenset({str, bool, int, float, type(None), pd.Timestamp})

TABLES = "a data frame (pandas, polars, Arrow, datasets), a Parquet, CSV or Excel file, an open file, a dict or a list of dicts"


class Rows(NamedTuple):
    """A frame, the folder of its relative paths, its name, and whether it was made from dicts."""

    frame: pd.DataFrame
    root: Path | None
    name: str
    records: bool = False
    written: bool = False  # names are text because the file has no types


def open_rows(rows: Any, readers: Mapping[str, Reader] | None = None, roles: Roles | None = None) -> Rows:
    """Whatever a user may have rows in, as a frame.

    Args:
        rows: a data frame of pandas, or anything with ``to_pandas`` (polars, Arrow tables, ``datasets.Dataset``); the path
            of a file: ``.csv`` and ``.tsv`` (also ``.gz``, ``.bz2``, ``.xz``), ``.xlsx``, else Parquet; an open file of CSV
            or Parquet; a list of dicts, one a row; one dict, or one row of a data frame.
        readers: which columns of a file are text, names, paths and numbers.
        roles: what its other columns are for.

    Raises:
        DataError: none of these, or no rows in it.
    """
    opened = _opened(rows, list((readers or {}).values()), roles or Roles())
    if not len(opened.frame):
        raise DataError(f"{opened.name}: the table has no rows")
    return opened


def _opened(rows: Any, readers: Sequence[Reader], roles: Roles) -> Rows:
    if isinstance(rows, pd.DataFrame):
        return Rows(shaped(rows), None, "rows")
    if isinstance(rows, str | os.PathLike):
        return read_file(Path(rows), None, readers, roles)
    if isinstance(rows, pd.Series):
        return Rows(_frame([{str(key): rows.array[at] for at, key in enumerate(rows.index)}]), None, "records", True)
    if isinstance(rows, Mapping):
        _check_one_row(rows, readers)
        return Rows(_frame([rows]), None, "records", True)
    if isinstance(rows, Sequence) and all(isinstance(row, Mapping | pd.Series) for row in rows):
        return Rows(_frame([dict(row) for row in rows]), None, "records", True)
    if callable(getattr(rows, "to_pandas", None)):
        return Rows(_to_pandas(rows), None, "rows")
    if callable(getattr(rows, "read", None)):
        return _open_file(rows, readers, roles)
    raise DataError(f"rows must be {TABLES}, not {_kind_of(rows)}")


def _kind_of(rows: Any) -> str:
    kind = type(rows)
    name = (
        kind.__name__
        if kind.__module__ in ("builtins", "__main__")
        else f"{kind.__module__.partition('.')[0]}.{kind.__name__}"
    )
    remedy = "; name its columns: pd.DataFrame(rows, columns=[...])" if isinstance(rows, np.ndarray) else ""
    return name + remedy


def _to_pandas(rows: Any) -> pd.DataFrame:
    """A frame of what has ``to_pandas``."""
    try:
        frame = rows.to_pandas()
    except Exception as error:  # whatever the other library raises
        raise DataError(
            f"{_kind_of(rows)} cannot be made a pandas data frame ({error}); give rows.to_pandas()"
        ) from error
    if isinstance(frame, pd.DataFrame):
        return shaped(frame, getattr(rows, "schema", None) if type(rows).__module__.startswith("pyarrow") else None)
    raise DataError(f"rows must be {TABLES}, not {_kind_of(rows)}, whose to_pandas() gives {type(frame).__name__}")


def _check_one_row(row: Mapping[str, Any], readers: Sequence[Reader]) -> None:
    """Refuse a dict of columns: a dict is one row."""
    single = {str(c) for r in readers if r.kind in ("text", "tabular") for c in r.columns}
    lists = {str(key): cell for key, cell in row.items() if isinstance(cell, list | tuple | np.ndarray | pd.Series)}
    listed = single & lists.keys() if readers else len(lists) == len(row) > 1
    if listed and len({len(cell) for cell in lists.values()}) == 1:
        raise DataError(
            "a dict is one row, and this one holds lists, as a table of columns does: give pd.DataFrame(rows)"
        )


def _open_file(file: Any, readers: Sequence[Reader], roles: Roles) -> Rows:
    """The rows of an open file: Parquet by its first bytes, else CSV."""
    content = file.read()
    name = str(getattr(file, "name", "the open file"))
    if isinstance(content, str):
        content = content.encode()
    if not isinstance(content, bytes):
        raise DataError(f"{name}: read() gave {type(content).__name__}, not bytes or text")
    if content[:4] == b"PAR1":
        return Rows(_parquet(io.BytesIO(content), name, None), None, name)
    if content[:2] in (b"PK", b"\x1f\x8b"):
        raise DataError(f"{name} is packed; give its path, whose ending says what it is")
    tabs = name.lower().endswith(".tsv")
    return Rows(read_frame(content, name, None, readers, roles, tabs), None, name, written=True)


def _frame(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Column by column, so that a list or an array stays one cell; scalars of other libraries as Python's."""
    names = list(dict.fromkeys(str(key) for record in records for key in record))
    columns = {}
    for name in names:
        cells = [plain(record.get(name)) for record in records]
        if all(type(cell) in _SCALARS for cell in cells):
            columns[name] = pd.Series(cells)
        else:
            column = np.empty(len(cells), dtype=object)
            for i, cell in enumerate(cells):
                column[i] = cell
            columns[name] = pd.Series(column, dtype=object)
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


def read_file(
    path: Path, columns: Sequence[str] | None, readers: Sequence[Reader] = (), roles: Roles | None = None
) -> Rows:
    """A file by its name: CSV, Excel, else Parquet; only these columns. Raises as :func:`read_csv` and the others do."""
    if is_csv(path):
        return read_csv(path, columns, readers, roles)
    if path.suffix.lower() in (".xlsx", ".xlsm"):
        return read_excel(path, columns)
    return read_parquet(path, columns)


def read_parquet(path: Path, columns: Sequence[str] | None) -> Rows:
    """A Parquet file, or a folder of them; only these columns. What pandas stored as its index is a column like others.

    Raises:
        DataError: not there or not Parquet.
        UnknownName: a column that it does not have.
    """
    _there(path)
    return Rows(_parquet(path, str(path), columns), path if path.is_dir() else path.parent, path.stem)


def _parquet(source: Path | io.BytesIO, name: str, columns: Sequence[str] | None) -> pd.DataFrame:
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    schema = None
    try:
        if not isinstance(source, Path) or source.is_file():
            schema = pq.read_schema(source)
            if columns is not None:
                _known(columns, schema.names)
        some = columns is not None and schema is not None
        frame = pd.read_parquet(source, columns=list(columns or ())) if some else pd.read_parquet(source)
    except UnknownName:
        raise
    except (
        Exception
    ) as error:  # whatever pyarrow and pandas raise: damaged bytes, damaged JSON in the metadata of pandas
        other = "; files are told by their names: .csv, .tsv (also .gz), .xlsx, and all others are Parquet"
        raise DataError(f"{name} is no readable Parquet file ({error}){other}") from error
    return shaped(_without_index(frame), schema)


def _without_index(frame: pd.DataFrame) -> pd.DataFrame:
    """The same frame, with named levels of its index as columns."""
    levels = [name for name in frame.index.names if name is not None and name not in frame.columns]
    return frame.reset_index(level=levels) if levels else frame


def read_excel(path: Path, columns: Sequence[str] | None) -> Rows:
    """The first sheet of an Excel file (``.xlsx``), whose first row names the columns; only these columns.

    Cells are what they are typed as. Words such as "NA" are holes in columns of which all other cells are numbers.

    Raises:
        ImportError: openpyxl is not installed. DataError: not there or not Excel. UnknownName: a column that it lacks.
    """
    try:
        import openpyxl  # noqa: F401 - pandas would say less where it is lacking
    except ImportError as error:
        raise ImportError("reading Excel files needs openpyxl: pip install 'kintsugi-ml[excel]'") from error
    _there(path)
    with open_bounded(path, MOST_BYTES, "Excel file") as file:
        try:
            frame = pd.read_excel(file, dtype=object, keep_default_na=False, na_values=[""])
        except Exception as error:  # whatever openpyxl, zipfile and their XML parser raise
            raise DataError(f"{path} is no readable Excel file ({error})") from error
    names = [str(column) for column in frame.columns]
    if columns is not None:
        _known(columns, names)
    frame = frame.set_axis(names, axis=1)
    frame = frame if columns is None else frame[list(columns)]
    return Rows(frame.apply(_excel_column), path.parent, path.stem)


def _excel_column(values: pd.Series) -> pd.Series:
    words = {cell for cell in values if isinstance(cell, str)}
    if words and words <= set(HOLES) and any(not isinstance(cell, str) and not nothing(cell) for cell in values):
        values = values.mask(values.isin(list(words)))
    return values.infer_objects()


def read_csv(
    path: Path, columns: Sequence[str] | None, readers: Sequence[Reader] = (), roles: Roles | None = None
) -> Rows:
    """A CSV file in UTF-8 (``.tsv``: with tabs; also packed, as ``.csv.gz``); only these columns.

    Columns of text, paths and names (targets, groups, categories) are read as they are written: "007" keeps its zeros, and
    "None" is a name; only empty cells are holes there. Where nobody says what a column holds, it is read as numbers if all
    its cells are numbers or words for a hole, and none begins as "01" does.

    Warns:
        UserWarning: names that look like holes, with their counts.

    Raises:
        DataError: not there, not UTF-8 or not a table; two columns of one name; a row longer than the head.
        UnknownName: a column that it does not have.
    """
    _there(path)
    if path.is_dir():
        raise DataError(f"{path}: Is a directory, and no CSV file")
    frame = read_frame(path, str(path), columns, list(readers), roles or Roles())
    return Rows(frame, path.parent, _stem(path), written=True)


def _stem(path: Path) -> str:
    return Path(path.stem).stem if path.suffix.lower() in PACKED else path.stem


def _there(path: Path) -> None:
    try:
        there = path.exists()
    except (OSError, ValueError) as error:
        raise DataError(f"{str(path)[:200]!r} cannot be a path ({error})") from error
    if not there:
        raise DataError(f"{path} does not exist (working directory: {Path.cwd()})")


def _known(columns: Sequence[str], head: Sequence[str]) -> None:
    for column in columns:
        if column not in head:
            raise UnknownName("column", column, head)
