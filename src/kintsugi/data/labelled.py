"""Labels and weights that come beside the rows, as scikit-learn hands them on: ``(X, y)`` as one table."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from kintsugi.core.errors import ConfigError, DataError
from kintsugi.data.cells import nothing
from kintsugi.data.dataset import Dataset
from kintsugi.data.frames import open_rows
from kintsugi.data.labels import label

TARGET, WEIGHT = "y", "sample_weight"  # columns of what has no name of its own


class Labelled(NamedTuple):
    """Rows with their labels as columns, and the names of these."""

    rows: Any
    target: list[str]


def is_rows(value: Any) -> bool:
    """Whether the value is a table of some kind: a data set, a frame, a path, records; else it is taken for labels."""
    if isinstance(value, Dataset | pd.DataFrame | str | os.PathLike | Mapping) or hasattr(value, "read"):
        return True
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(row, Mapping) for row in value)
    return hasattr(value, "to_pandas") and (hasattr(value, "columns") or hasattr(value, "column_names"))


def check_rows(rows: Any, what: str = "X") -> None:
    """Refuse what has no columns by name.

    Raises:
        DataError: an array.
    """
    if isinstance(rows, np.ndarray) or (hasattr(rows, "__array__") and hasattr(rows, "shape") and not is_rows(rows)):
        if isinstance(rows, pd.Series):
            return  # one row, which the reader of rows judges
        raise DataError(
            f"{what} is an array of shape {list(rows.shape)}, whose columns have no names, so nothing says which belongs to "
            "which modality; give pd.DataFrame(X, columns=[...])"
        )


def with_labels(rows: Any, y: Any, target: Sequence[str] | None, *, classes: bool, remedy: str = "") -> Labelled:
    """The rows with ``y`` as their target columns.

    A column of the target's name that the rows have already must say the same. Of classes it may say it in other words, one
    for one, as where scikit-learn's ``cross_val_predict`` numbers them; then ``y`` counts.

    Args:
        rows: a frame or records.
        y: labels of the rows, in their order: a Series, an array ``[N]`` or ``[N, K]``, a list.
        target: names of the target columns; None: the name of a Series, if no column of the rows has it, else ``y``.
        classes: the target is classes or labels, not numbers.
        remedy: appended where ``y`` cannot be joined to such rows.

    Raises:
        ConfigError: rows that cannot take labels, or as many columns of labels as there are targets they are not.
        DataError: ``y`` has another length, or contradicts the column of the rows.
    """
    _can_take(rows, "y", remedy or "name the target column when the table is made, and leave y out")
    labels = _columns_of(y)
    count = len(rows) if not isinstance(rows, Mapping) else 1
    for each in labels:
        if len(each) != count:
            raise DataError(f"y has {len(each)} labels for {count} rows")
    names = [_free_name(rows, y)] if target is None and len(labels) == 1 else list(target or ())
    if len(names) != len(labels):
        raise ConfigError(
            f"y has {len(labels)} columns of labels, the target {len(names)}: "
            f"{', '.join(names) or 'name them, target=[...]'}"
        )
    _check_order(rows, y)
    for name, given in zip(names, labels, strict=True):
        column = _column(rows, name)
        if column is not None and not _agree(column, given, classes):
            raise DataError(
                f"y is not what column {name!r} of X holds ({_first_difference(column, given)}): drop this column from X, or "
                "leave y out"
            )
    return Labelled(with_columns(rows, dict(zip(names, labels, strict=True))), names)


def with_weights(rows: Any, weight: Any) -> Labelled:
    """The rows with a column of weights, and its name.

    Raises:
        ConfigError: rows that cannot take them. DataError: another length than the rows.
    """
    _can_take(rows, "sample_weight", "name the column of weights when the table is made: kg.Table…(weight=…)")
    (values,) = _columns_of(weight, "sample_weight")[:1]
    if len(values) != len(rows):
        raise DataError(f"sample_weight has {len(values)} weights for {len(rows)} rows")
    name = WEIGHT
    while _column(rows, name) is not None:
        name += "_"
    return Labelled(with_columns(rows, {name: values}), [name])


def with_columns(rows: Any, columns: Mapping[str, pd.Series]) -> Any:
    """The rows with these columns, in the rows' own form: a frame stays a frame, records stay records."""
    if isinstance(rows, list | tuple):
        cells = {name: list(values.array) for name, values in columns.items()}
        return [{**row, **{name: values[i] for name, values in cells.items()}} for i, row in enumerate(rows)]
    frame = rows.copy(deep=False) if isinstance(rows, pd.DataFrame) else open_rows(rows).frame.copy(deep=False)
    for name, values in columns.items():
        frame[name] = values.set_axis(frame.index)
    return frame


def _can_take(rows: Any, what: str, remedy: str) -> None:
    if isinstance(rows, Dataset):
        raise ConfigError(f"{rows.name} is a data set, which {what} cannot be joined to: {remedy}")
    if isinstance(rows, str | os.PathLike) or hasattr(rows, "read"):
        raise ConfigError(f"{what} cannot be joined to a file: read it into a data frame first, or leave {what} out")
    check_rows(rows)
    if not is_rows(rows):
        raise DataError(f"X is a data frame or a list of dicts, not {type(rows).__name__}")


def _columns_of(y: Any, what: str = "y") -> list[pd.Series]:
    """The columns of labels, by position."""
    if isinstance(y, pd.DataFrame):
        return [y.iloc[:, i] for i in range(y.shape[1])]
    if isinstance(y, pd.Series):
        return [y]
    if isinstance(y, pd.Categorical | pd.Index | pd.api.extensions.ExtensionArray):
        return [pd.Series(y)]
    if hasattr(y, "to_pandas"):  # a column of polars or Arrow
        return [pd.Series(y.to_pandas())]
    if hasattr(y, "detach"):
        y = y.detach().cpu().numpy()
    if isinstance(y, list | tuple) and not any(isinstance(v, list | tuple | np.ndarray) for v in y):
        return [pd.Series(list(y))]
    array = y if isinstance(y, np.ndarray) else np.asarray(y)
    if array.ndim == 1:
        return [pd.Series(array)]
    if array.ndim != 2:
        raise DataError(f"{what} has shape {list(array.shape)}; labels are [N], or [N, K] for several targets")
    return [pd.Series(array[:, i]) for i in range(array.shape[1])]


def _free_name(rows: Any, y: Any) -> str:
    own = getattr(y, "name", None)
    if isinstance(own, str) and own and _column(rows, own) is None:
        return own
    name = TARGET
    while _column(rows, name) is not None:
        name += "_"
    return name


def _column(rows: Any, name: str) -> pd.Series | None:
    """A column of the rows, or None where they have none of this name."""
    if isinstance(rows, pd.DataFrame):
        return rows[name] if name in rows.columns else None
    if isinstance(rows, list | tuple):
        return pd.Series([row.get(name) for row in rows]) if any(name in row for row in rows) else None
    frame = open_rows(rows).frame
    return frame[name] if name in frame.columns else None


def _check_order(rows: Any, y: Any) -> None:
    """Say where a Series belongs to the same rows in another order, since labels are taken by position."""
    import warnings

    if not (isinstance(rows, pd.DataFrame) and isinstance(y, pd.Series)) or y.index.equals(rows.index):
        return
    if y.index.is_unique and rows.index.is_unique and set(y.index) == set(rows.index):
        warnings.warn(
            "y has the index of X in another order, and is taken by position. If it should follow the index, give "
            "y.loc[X.index]; if it is in order, give y.to_numpy()",
            UserWarning,
            stacklevel=6,
        )


def _names(values: pd.Series) -> list[Hashable]:
    return [None if nothing(v) else label(v) for v in values.array]


def _agree(column: pd.Series, given: pd.Series, classes: bool) -> bool:
    if not classes:
        x, y = (pd.to_numeric(v, errors="coerce").to_numpy(np.float64, na_value=np.nan) for v in (column, given))
        return bool(np.allclose(x, y, rtol=1e-6, atol=0, equal_nan=True))
    one, other = _names(column), _names(given)
    if one == other:
        return True
    pairs = set(zip(one, other, strict=True))
    if any((a is None) != (b is None) for a, b in pairs):
        return False
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def _first_difference(column: pd.Series, given: pd.Series) -> str:
    differ = ((i, a, b) for i, (a, b) in enumerate(zip(_names(column), _names(given), strict=True)) if a != b)
    row, a, b = next(differ)
    return f"row {row}, counted from 0: {a!r} in the column, {b!r} in y"
