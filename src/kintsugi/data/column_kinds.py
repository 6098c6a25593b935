"""What a column is: decided in one place, for inputs and targets alike, with the reason in words.

:func:`decide` looks at one column, :func:`survey` at all of a frame, :func:`draft` proposes how to read them. Readers and
targets ask :func:`decide` too: :func:`check_input` and :func:`check_target` turn what cannot be used into an error that
names cell, row and remedy.
"""

from __future__ import annotations

import datetime
import math
import numbers as abstract
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import PurePath
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from kintsugi.core.errors import ConfigError, DataError, UnknownName
from kintsugi.core.schema import TAKEN
from kintsugi.data.cells import ReadError, array, is_list, nothing
from kintsugi.data.foreign_cells import plain
from kintsugi.data.names import label

Kind = Literal["numbers", "categories", "text", "times", "paths", "booleans", "arrays", "empty"]
Fault = Literal["", "nearly", "written", "times", "arrays"]

NEARLY_NUMBERS = 0.9
"""Share of the filled cells from which on text that reads as numbers is no longer taken for names, but refused."""
NEARLY_TIMES = 0.9
"""Share of the filled cells from which on text that reads as dates or times is refused."""
OWN_NAMES_FROM = 50
"""Distinct names below which a column is never warned of as one of ids."""
OWN_NAMES_SHARE = 0.5
"""Share of distinct names among the filled cells above which nearly every row has a name of its own."""
TEXT_WORDS = 4.0
"""Words a distinct cell, on average, from which on names of their own are sentences: :func:`survey` calls them text."""
FEW = 20
"""Whole numbers of a target with more distinct values than this are numbers, with this many or fewer class ids."""
EXAMPLES = 3
"""Odd cells that are kept to be shown."""

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
SOUNDS = (".wav", ".flac", ".ogg", ".mp3", ".opus", ".aiff", ".m4a")
ARRAYS = (".npy",)

_PLAIN = re.compile(r"[+-]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_MONEY = r"(?:[$€£¥₹]|USD|EUR|GBP|CHF|JPY|INR)"
_DRESSED = re.compile(
    rf"(?:[<>≤≥~≈]=?\s*)?[+-]?\s*{_MONEY}?\s*[+-]?"
    r"(?:[1-9][0-9]{0,2}(?:[,.'’_\s][0-9]{3})+|0|[1-9][0-9]*)?(?:[.,][0-9]+)?(?:[eE][+-]?[0-9]+)?"
    rf"\s*(?:%|‰|{_MONEY})?"
)
_DIGIT = re.compile(r"[0-9]")
_CLOCK = r"[0-9]{1,2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]+)?)?(?:\s?[AaPp][Mm])?(?:\s?(?:Z|UTC|[+-][0-9]{2}:?[0-9]{2}))?"
_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]{0,6}\.?"
_TIME = re.compile(
    rf"(?:[0-9]{{4}}[-/.][0-9]{{1,2}}[-/.][0-9]{{1,2}}(?:[T\s]{_CLOCK})?"
    rf"|[0-9]{{1,2}}([-/.])[0-9]{{1,2}}\1(?:[0-9]{{4}}|[0-9]{{2}})(?:,?[T\s]{_CLOCK})?"
    rf"|[0-9]{{1,2}}[-\s]{_MONTH}[-\s](?:[0-9]{{4}}|[0-9]{{2}})|{_MONTH}\s[0-9]{{1,2}},?\s[0-9]{{4}}"
    rf"|{_CLOCK}|-?[0-9]+ days?(?:,? [-+]?{_CLOCK})?|[0-9]{{4}}-?W[0-9]{{2}}(?:-?[1-7])?|[0-9]{{4}}-?Q[1-4])"
)
_TRUTH = frozenset(("true", "True", "TRUE", "false", "False", "FALSE"))
_TIMES = (datetime.date, datetime.time, datetime.timedelta, np.datetime64, np.timedelta64, pd.Period)


@dataclass(frozen=True)
class ColumnKind:
    """What one column is, and why.

    Args:
        column: its name.
        kind: "numbers", "categories" (names that come again), "text" (sentences), "times", "paths" (of files), "booleans",
            "arrays" (lists and whatever else is no single value) or "empty" (nothing but holes).
        reason: why, in words.
        rows: rows of the column; holes: those with nothing in them; distinct: distinct values in the others.
        holes: see ``rows``.
        distinct: see ``rows``.
        examples: the first cells that do not fit, as (row counted from 0, cell as it is shown).
        fault: why the column cannot be used untold: "nearly" (numbers but for some cells), "written" (numbers, as text),
            "times", "arrays", or "".
        warning: what to mind all the same, or "".
        role: what the column is used for, such as "input of vitals" or "target"; "" where that is open.
    """

    column: str
    kind: Kind
    reason: str
    rows: int
    holes: int = 0
    distinct: int = 0
    examples: tuple[tuple[int, str], ...] = ()
    fault: Fault = ""
    warning: str = ""
    role: str = ""


def decide(
    values: pd.Series, column: str | None = None, *, rows: Sequence[int] | np.ndarray | None = None
) -> ColumnKind:
    """What this column is, if nobody says.

    Types decide first: numbers of any library (``numbers.Real``, ``Decimal``, NumPy, pandas, Arrow) are numbers, booleans
    booleans, pandas' categories categories; dates, times, periods and durations are times; lists, arrays and mappings are
    arrays. Text is names, unless ``NEARLY_NUMBERS`` of its cells read as numbers – also with a decimal comma, thousands,
    a currency, a percent or a below sign, and blanks around – or ``NEARLY_TIMES`` as dates or times: ``fault`` is then
    set. "007" does not read as a number: no number begins with a zero that says nothing, but codes do.

    Args:
        values: the cells.
        column: its name; None: that of the series.
        rows: row numbers of the cells in the table, for messages; None: their positions.
    """
    name = str(values.name) if column is None else column
    typed = _by_type(values, name)
    if typed is not None:
        return typed
    return _by_cells(_tally(values, rows), name, len(values))


def check_input(kind: ColumnKind) -> None:
    """Refuse a column that cannot be cells of a table untold; warn of one with a name of its own in nearly every row.

    Raises:
        ConfigError: times or arrays. DataError: numbers but for some cells, or numbers as text.
    """
    column = kind.column
    if kind.fault in ("times", "arrays"):
        raise ConfigError(f"column {column!r} {_what(kind)}; {_remedy(kind.fault, column)}")
    if kind.fault:
        raise DataError(
            f"column {column!r} {_what(kind)}. Repair it, or say what it is: tabular(..., numbers=[{column!r}]), where every "
            f"cell has to be a plain number or a hole, or categories=[{column!r}]"
        )
    if kind.warning:
        warnings.warn(f"column {column!r}: {kind.warning}; leave it out, or say categories=[{column!r}]", stacklevel=3)


def check_target(kind: ColumnKind, task: str | None) -> None:
    """Refuse a target that is no numbers and no names. ``task``: as it was said, or None.

    Raises:
        DataError: arrays; times that nobody called classes; where no task is said, also numbers as text.
    """
    column = kind.column
    if kind.fault == "arrays":
        raise DataError(f"target {column!r} {_what(kind)}; {_remedy('arrays', column, target=True)}")
    if task in ("classification", "ordinal"):
        return
    if kind.fault == "times":
        raise DataError(f"target {column!r} {_what(kind)}; {_remedy('times', column)}, or say task='classification'")
    if kind.fault and task is None:
        raise DataError(
            f"target {column!r} {_what(kind)}. Repair it, or say what it is: task='regression', where every cell has to be a "
            "plain number or a hole, or task='classification'"
        )


def _what(kind: ColumnKind) -> str:
    return kind.reason + "".join(f"; row {row} (counted from 0) holds {cell}" for row, cell in kind.examples[:1])


def _remedy(fault: Fault, column: str, target: bool = False) -> str:
    if fault == "times":
        return f"turn it into numbers, such as days since a date: (df[{column!r}] - start).dt.days"
    if target:
        return "a target with several labels a row is one column of 0 and 1 for each label: target=['cat', 'dog']"
    return "a table cell is a number or a category; read lists of numbers with vector(…) or series(…)"


# types ---------------------------------------------------------------------------------------------------------
def _by_type(values: pd.Series, name: str) -> ColumnKind | None:
    """What the type of the column says; None: the cells have to be looked at."""
    dtype: Any = values.dtype
    count = len(values)
    if isinstance(dtype, pd.CategoricalDtype):
        holes, distinct = int(values.isna().sum()), int(values.nunique())
        return ColumnKind(
            name, "categories" if holes < count else "empty", "is categorical in pandas", count, holes, distinct
        )
    kind, reason = _typed(dtype)
    if kind is None:
        return None
    holes = int(values.isna().sum())
    distinct = 0 if kind == "arrays" else int(values.nunique())
    if kind in ("arrays", "times"):
        fault: Fault = "arrays" if kind == "arrays" else "times"
        return ColumnKind(name, kind, reason, count, holes, distinct, fault=fault)
    if holes == count:
        return ColumnKind(name, "empty", "holds nothing", count, holes)
    return ColumnKind(name, kind, reason, count, holes, distinct)


def _typed(dtype: Any) -> tuple[Kind | None, str]:
    if isinstance(dtype, pd.ArrowDtype):
        return _arrow_typed(dtype.pyarrow_dtype)
    if pd.api.types.is_bool_dtype(dtype) and not pd.api.types.is_object_dtype(dtype):
        return "booleans", "holds True and False"
    if pd.api.types.is_complex_dtype(dtype):
        return "arrays", "holds complex numbers"
    if pd.api.types.is_numeric_dtype(dtype):
        return "numbers", f"is of type {dtype}"
    if (
        pd.api.types.is_datetime64_any_dtype(dtype)
        or pd.api.types.is_timedelta64_dtype(dtype)
        or isinstance(dtype, pd.PeriodDtype)
    ):
        return "times", f"holds times ({dtype})"
    return None, ""


def _arrow_typed(kind: Any) -> tuple[Kind | None, str]:
    import pyarrow as pa  # type: ignore[import-untyped]

    t = pa.types
    if t.is_boolean(kind):
        return "booleans", "holds True and False"
    if t.is_integer(kind) or t.is_floating(kind) or t.is_decimal(kind):
        return "numbers", f"is of type {kind}"
    if t.is_temporal(kind):
        return "times", f"holds times ({kind})"
    if t.is_nested(kind):
        return "arrays", f"holds {kind}"
    return None, ""


# cells ---------------------------------------------------------------------------------------------------------
class _Group(NamedTuple):
    cell: Any
    times: int
    row: int


class _Tally(NamedTuple):
    """The distinct cells that are no holes, in the order in which they come, and how often."""

    groups: list[_Group]
    holes: int


def distinct_cells(values: pd.Series) -> tuple[np.ndarray, list[Any]]:
    """Int64 ``[N]``: which of the distinct cells each row holds, -1 for a hole; and the distinct cells.

    Cells are distinct where type or value is: True is not 1. Lists and other cells without a hash are each their own.
    """
    dtype: Any = values.dtype
    if isinstance(dtype, pd.StringDtype | pd.CategoricalDtype | pd.ArrowDtype) or pd.api.types.is_numeric_dtype(dtype):
        codes, uniques = _factorized(values)
        cells = list(uniques)
        void = np.array([nothing(cell) for cell in cells] + [True])  # the last for -1
        kept = np.append(np.cumsum(~void[:-1]) - 1, -1)
        kept[void] = -1
        return kept[codes], [cell for cell in cells if not nothing(cell)]
    codes = np.full(len(values), -1, dtype=np.int64)
    place: dict[Any, int] = {}
    found: list[Any] = []
    for row, cell in enumerate(values.array):
        if nothing(cell):
            continue
        try:
            code = place.setdefault((cell.__class__, cell), len(found))
        except TypeError:  # no hash
            code = len(found)
        if code == len(found):
            found.append(cell)
        codes[row] = code
    return codes, found


def _factorized(values: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(values.dtype, pd.ArrowDtype) and _arrow_typed(values.dtype.pyarrow_dtype)[0] == "arrays":
        return np.arange(len(values)), values.array.to_numpy(dtype=object)
    codes, uniques = pd.factorize(values)
    return codes, np.asarray(uniques.astype(object), dtype=object)


def _tally(values: pd.Series, rows: Sequence[int] | np.ndarray | None) -> _Tally:
    codes, cells = distinct_cells(values)
    there = np.flatnonzero(codes >= 0)
    counts = np.bincount(codes[there], minlength=len(cells))
    first = np.zeros(len(cells), dtype=np.int64)
    first[codes[there][::-1]] = there[::-1]
    places = first if rows is None else np.asarray(rows)[first]
    groups = [_Group(cell, int(n), int(row)) for cell, n, row in zip(cells, counts, places, strict=True)]
    return _Tally(groups, len(values) - len(there))


Sort = Literal["number", "plain", "dressed", "truth", "time", "time text", "array", "path", "name"]


def sort_of(cell: Any) -> Sort:
    """What one cell is. "plain" and "dressed" are text that reads as a number: by itself, or without sign, comma, unit."""
    if isinstance(cell, str):
        return _text_sort(cell.strip())
    cell = plain(cell)
    if isinstance(cell, bool | np.bool_):
        return "truth"
    if isinstance(cell, _TIMES):
        return "time"
    if isinstance(cell, abstract.Real | Decimal):
        return "number"
    if isinstance(cell, str):
        return _text_sort(cell.strip())
    if isinstance(cell, os.PathLike):
        return "path"
    if (
        isinstance(cell, bytes | bytearray | memoryview | Sequence | Mapping | set | frozenset | abstract.Complex)
        or hasattr(cell, "__array__")
        or hasattr(cell, "__array_interface__")
    ):
        return "array"
    return "name"


def _text_sort(text: str) -> Sort:
    if text in _TRUTH:
        return "truth"
    if _DIGIT.search(text) is None:
        return "name"
    if _PLAIN.fullmatch(text):
        return "plain"
    if _TIME.fullmatch(text):
        return "time text"
    if _DRESSED.fullmatch(text):
        return "dressed"
    return "name"


def _by_cells(tally: _Tally, name: str, rows: int) -> ColumnKind:
    sorts: dict[Sort, list[_Group]] = {}
    for group in tally.groups:
        sorts.setdefault(sort_of(group.cell), []).append(group)
    share = {sort: sum(g.times for g in groups) for sort, groups in sorts.items()}
    cells = rows - tally.holes

    def kind(what: Kind, reason: str, odd: Sequence[_Group] = (), fault: Fault = "", warning: str = "") -> ColumnKind:
        shown = tuple((g.row, _shown(g.cell)) for g in sorted(odd, key=lambda g: g.row)[:EXAMPLES])
        distinct = len(tally.groups) if what == "arrays" else len({_key(g.cell) for g in tally.groups})
        return ColumnKind(name, what, reason, rows, tally.holes, distinct, shown, fault, warning)

    def odd_ones(*fitting: Sort) -> list[_Group]:
        return [g for sort, groups in sorts.items() if sort not in fitting for g in groups]

    if not cells:
        return kind("empty", "holds nothing")
    if "array" in sorts:
        return kind("arrays", f"holds {type(sorts['array'][0].cell).__name__}", sorts["array"], "arrays")
    if "time" in sorts:
        return kind("times", f"holds times ({type(sorts['time'][0].cell).__name__})", sorts["time"], "times")
    if share.get("time text", 0) >= NEARLY_TIMES * cells:
        return kind(
            "times", f"holds times as text (in {share['time text']} of {cells} cells)", sorts["time text"], "times"
        )
    plain, dressed, real = (share.get(sort, 0) for sort in ("plain", "dressed", "number"))
    if real == cells:
        return kind("numbers", "holds numbers")
    if plain + dressed + real == cells and plain + real > 0 and not dressed:
        return kind("numbers", f"holds numbers as text (in {plain} of {cells} cells)", sorts["plain"], "written")
    if plain + dressed + real >= NEARLY_NUMBERS * cells:
        odd = odd_ones("number", "plain")
        reason = f"is nearly numbers (plain ones in {plain + real} of {cells} cells)"
        if dressed == cells:
            reason = f"holds numbers as text, with a comma, thousands, currency, percent or sign (in {dressed} cells)"
        return kind("numbers", reason, odd, "nearly")
    if share.get("truth", 0) == cells:
        return kind("booleans", "holds True and False")
    return _names(kind, tally, sorts, cells)


def _names(kind: Any, tally: _Tally, sorts: Mapping[Sort, list[_Group]], cells: int) -> ColumnKind:
    distinct = len({label(g.cell) for g in tally.groups})
    warning = own_names(distinct, cells)
    texts = [str(g.cell) for g in tally.groups[:1000]]
    files = sum(PurePath(text.strip()).suffix.lower() in (*PICTURES, *SOUNDS, *ARRAYS) for text in texts)
    result: ColumnKind
    if "path" in sorts or files >= NEARLY_NUMBERS * len(texts):
        result = kind("paths", f"holds paths of files ({_ending(texts)})", warning=warning)
    elif warning and sum(len(text.split()) for text in texts) >= TEXT_WORDS * len(texts):
        result = kind("text", f"holds sentences, {distinct} distinct ones in {cells} cells", warning=warning)
    else:
        result = kind("categories", f"holds {distinct} distinct names in {cells} cells", warning=warning)
    return replace(result, distinct=distinct)


def own_names(distinct: int, cells: int) -> str:
    """The warning where nearly every filled cell has a name of its own, or ""."""
    if distinct < OWN_NAMES_FROM or distinct <= OWN_NAMES_SHARE * cells:
        return ""
    return f"{distinct} distinct names in {cells} cells: nearly every row has one of its own, which nothing can be learned from"


def _ending(texts: Sequence[str]) -> str:
    return next((suffix for text in texts if (suffix := PurePath(text.strip()).suffix)), "no ending")


def _key(cell: Any) -> Any:
    """What makes two cells one value: "7" and 7.0 are."""
    return label(cell)


def _shown(cell: Any) -> str:
    try:
        words = repr(cell)
    except RecursionError:  # lists inside lists
        return f"a {type(cell).__name__}"
    return words if len(words) <= 60 else words[:57] + "…"


def as_numbers(values: pd.Series) -> np.ndarray:
    """Float64 ``[N]``; NaN where a cell is no plain number, whatever it is."""
    if isinstance(values.dtype, np.dtype) and values.dtype.kind in "biuf":
        return values.to_numpy(dtype=np.float64)
    codes, cells = distinct_cells(values)
    table = np.array([_number(cell) for cell in cells] + [math.nan])
    numbers: np.ndarray = table[codes]
    return numbers


def _number(cell: Any) -> float:
    cell = plain(cell)
    if isinstance(cell, str):
        cell = "?" if "_" in cell else cell  # Python reads 1_000
    elif sort_of(cell) not in ("number", "truth"):
        return math.nan
    try:
        return float(cell)
    except (OverflowError, ValueError, TypeError):
        return math.nan


# a whole frame -------------------------------------------------------------------------------------------------
def survey(frame: pd.DataFrame) -> list[ColumnKind]:
    """:func:`decide` for every column of a frame, in its order.

    Raises:
        DataError: two columns of one name.
    """
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise DataError(f"the table has two columns named {twice!r}")
    return [decide(frame[column], str(column)) for column in frame.columns]


_TARGETS = ("target", "label", "y", "class", "outcome", "diagnosis", "response")
_GROUPS = ("patient", "patient_id", "subject", "subject_id", "group", "speaker", "person", "participant")


LISTS = "lists, as JSON has them"  # the reason of a draft for such text
_ID = re.compile(r"(?:.*[_\s-])?(?:id|uuid|guid|index|idx|nr|no|number|key|code|row)|unnamed: [0-9]+", re.IGNORECASE)


def draft(frame: pd.DataFrame, target: str | None = None) -> dict[str, Any]:
    """A first version of the columns' YAML, with the reason of each guess. ``target``: its column, where that is known.

    Returns ``modalities`` (name -> mapping with ``kind`` and its columns, as :mod:`kintsugi.data.columns` reads them),
    ``target`` (a guess by its name, else the last column that can be one; None: there is none), where found ``group`` and
    ``split``, and ``reasons`` (column -> words), which is no key of the YAML: write it as comments. Columns that should
    not be inputs (ids, times, holes only, the same in every row) are in ``reasons`` alone.

    Raises:
        UnknownName: there is no column ``target``. DataError: two columns of one name.
    """
    kinds = {kind.column: kind for kind in survey(frame)}
    if target is not None and target not in kinds:
        raise UnknownName("column", target, kinds)
    reasons = {column: f"{kind.kind}: {kind.reason}" for column, kind in kinds.items()}
    taken: dict[str, str | None] = {"split": None, "group": None, "target": target}
    for column in kinds:
        low = column.strip().lower()
        if column == target:
            continue
        if taken["split"] is None and low in ("split", "fold", "part") and _splits(frame[column]):
            taken["split"], reasons[column] = column, "its cells are train, val and test"
        elif (
            taken["group"] is None
            and low in _GROUPS
            and kinds[column].distinct < kinds[column].rows - kinds[column].holes
        ):
            taken["group"], reasons[column] = column, "its name says which rows belong together"
    ids = {c: why for c, k in kinds.items() if (why := _no_input(k, frame[c]))}
    if target is not None:
        reasons[target] = f"target (as you said); {reasons[target]}"
    else:
        taken["target"] = _target_of(kinds, {*(c for c in taken.values() if c), *ids})
    if target is None and taken["target"] is not None:
        why = "its name says so" if taken["target"].lower() in _TARGETS else "the last column that can be one: check it"
        reasons[taken["target"]] = f"target ({why}); {reasons[taken['target']]}"
    used = {column for column in taken.values() if column is not None}
    inputs = {c: k for c, k in kinds.items() if c not in used and c not in ids}
    reasons |= {c: f"{reasons[c]}; left out: {why}" for c, why in ids.items() if c not in used}
    modalities = dict(_modalities(inputs, frame, reasons))
    found = {key: taken[key] for key in ("group", "split") if taken[key] is not None}
    return {"modalities": modalities, "target": taken["target"], **found, "reasons": reasons}


def _no_input(kind: ColumnKind, values: pd.Series) -> str:
    """Why a column of numbers or names can tell nothing; "": it may."""
    filled = kind.rows - kind.holes
    if kind.kind not in ("numbers", "categories", "booleans") or kind.fault or filled < 2:
        return ""
    if kind.distinct == 1:
        return "the same in every row"
    if kind.distinct < filled:
        return ""
    numbers = as_numbers(values) if kind.kind == "numbers" else np.zeros(0)
    if kind.kind == "numbers" and not (numbers[~np.isnan(numbers)] % 1 == 0).all():
        return ""
    counted = len(numbers) >= OWN_NAMES_FROM and not kind.holes and bool((np.diff(numbers) == 1).all())
    if _ID.fullmatch(kind.column.strip()) or counted:
        return "a number or name of the row, each there once, which nothing can be learned from"
    return ""


def _splits(values: pd.Series) -> bool:
    words = {label(cell).lower() for cell in distinct_cells(values)[1]}
    return "train" in words and words <= {"train", "val", "valid", "validation", "dev", "test"}


def _target_of(kinds: Mapping[str, ColumnKind], taken: set[str]) -> str | None:
    able = [
        c for c, k in kinds.items()
        if c not in taken and k.kind in ("numbers", "categories", "booleans") and not k.fault and not k.warning
    ]  # fmt: skip
    named = [c for name in _TARGETS for c in able if c.strip().lower() == name]
    return next(iter([*named, *reversed(able)]), None)


def _modalities(
    kinds: Mapping[str, ColumnKind], frame: pd.DataFrame, reasons: dict[str, str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    cells: list[str] = []
    numbers: list[str] = []
    for column, kind in kinds.items():
        if kind.fault in ("nearly", "written"):
            cells.append(column)
            numbers.append(column)
            reasons[column] += "; drafted as numbers: cells that are none are refused until you repair them"
        elif _holds_lists(kind, frame[column]):
            reasons[column] = LISTS
            spec = _array_spec(frame[column], column, reasons)
            if spec is not None:
                yield _modality_name(column), {**spec, "column": column}
        elif kind.kind in ("numbers", "booleans") or (kind.kind == "categories" and not kind.warning):
            cells.append(column)
        elif kind.kind in ("text", "paths", "arrays"):
            spec = _single(kind, frame[column], reasons)
            if spec is not None:
                yield _modality_name(column), {**spec, "column": column}
        else:
            reasons[column] += f"; left out{': ' + kind.warning.partition(': ')[2] if kind.warning else ''}"
    if cells:
        names = {_modality_name(column) for column in kinds}
        yield next(name for name in ("table", "cells", "table_cells", "all_table_cells") if name not in names), {
            "kind": "tabular", "columns": cells, **({"numbers": numbers} if numbers else {}),
        }  # fmt: skip


def _modality_name(column: str) -> str:
    """A modality's name for a column: one that :class:`~kintsugi.core.schema.Modality` takes."""
    name = re.sub(r"\W+", "_", column.strip()).strip("_") or "column"
    return f"{name}_1" if name in TAKEN else name


def _holds_lists(kind: ColumnKind, values: pd.Series) -> bool:
    if kind.kind not in ("categories", "text"):
        return False
    first = next((cell for cell in values.array if not nothing(cell)), None)
    return is_list(first) and _parsed(first, kind.column) is not None


def _parsed(cell: Any, column: str) -> np.ndarray | None:
    try:
        return array(cell, column) if is_list(cell) else np.asarray(cell, dtype=np.float64)
    except (ReadError, TypeError, ValueError):
        return None


def _single(kind: ColumnKind, values: pd.Series, reasons: dict[str, str]) -> dict[str, Any] | None:
    if kind.kind == "text":
        return {"kind": "text"}
    if kind.kind == "paths":
        suffix = _ending([str(cell) for cell in distinct_cells(values)[1]]).lower()
        if suffix in SOUNDS:
            reasons[kind.column] += "; rate in Hz and seconds are guesses: set them"
            return {"kind": "audio", "rate": 16000, "seconds": 5.0}
        return {"kind": "vector" if suffix in ARRAYS else "image"}
    return _array_spec(values, kind.column, reasons)


def _array_spec(values: pd.Series, column: str, reasons: dict[str, str]) -> dict[str, Any] | None:
    there = [cell for cell in values.array if not nothing(cell)][:50]
    if not any(isinstance(cell, list | tuple | np.ndarray) or is_list(cell) for cell in there):
        if any(
            sort_of(cell) == "array" and not isinstance(cell, bytes | bytearray | memoryview | Mapping)
            for cell in there
        ):
            reasons[column] += "; left out: nothing that a reader takes"
            return None
        reasons[column] += "; taken for pictures: check it"
        return {"kind": "image"}
    arrays = [a for cell in there if (a := _parsed(cell, column)) is not None]
    if len(arrays) < len(there):
        reasons[column] += "; left out: no numbers"
        return None
    axes, lengths = {a.ndim for a in arrays}, {len(a) for a in arrays if a.ndim}
    if axes == {1} and len(lengths) == 1:
        return {"kind": "vector"}
    if axes <= {1, 2}:
        return {"kind": "series"}
    return {"kind": "image"}
