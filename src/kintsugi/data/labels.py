"""Targets: what a column of labels means, as names, task and tensors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from kintsugi.core.errors import ConfigError, DataError, UnknownName
from kintsugi.core.schema import Task
from kintsugi.data.cells import nothing
from kintsugi.tasks import Classification, Multilabel, Ordinal, Regression

OnError = Literal["raise", "missing"]
FEW = 20  # an integer target with more distinct values than this is taken for a number, not for class ids
TASK_NAMES = ("classification", "multilabel", "ordinal", "regression")


def label(value: Any) -> str:
    """The name of a label or category, the same however the file format typed it: 3, 3.0 and "3" are "3"."""
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)


def order_labels(names: Iterable[str]) -> list[str]:
    """Numbers by value, then names by letter."""

    def key(name: str) -> tuple[int, float, str]:
        try:
            number = float(name)
        except ValueError:
            return 1, 0.0, name
        return (0, number, name) if math.isfinite(number) else (1, 0.0, name)

    return sorted(names, key=key)


def choose_task(
    frame: pd.DataFrame,
    columns: Sequence[str],
    several: bool,
    task: str | Task | None,
    train: np.ndarray,
    class_weights: str | Sequence[float] | None,
    order: Sequence[Any] | None = None,
) -> Task:
    """The task that a target asks for.

    Args:
        frame: the table.
        columns: target columns; ``several``: they were given as a list.
        several: see ``columns``.
        task: as the user gave it; None: inferred by :func:`infer_task`.
        train: bool ``[N]``: rows whose targets may be learned from; class names come from all rows.
        class_weights: "balanced", weights in the order of the classes, or None.
        order: classes of an ordinal target, from the lowest to the highest; None: see :func:`order_of`.
    """
    if isinstance(task, Task):
        if class_weights is not None or order is not None:
            raise ConfigError("give class weights and order to the task object itself")
        return task
    if not columns:
        return Regression()  # nothing is asked; a schema needs a task all the same
    key = infer_task(frame, columns, several) if task is None else task
    if key not in TASK_NAMES:
        raise UnknownName("task", str(key), TASK_NAMES)
    if class_weights is not None and key != "classification":
        raise ConfigError(f"class weights are for classification; this is {key}")
    if order is not None and key != "ordinal":
        raise ConfigError(f"order= is that of the classes of an ordinal target; this is {key}: say task='ordinal'")
    if key == "multilabel":
        return Multilabel(columns)
    if key == "regression":
        return _regression(frame, columns, train)
    if len(columns) != 1:
        raise ConfigError(f"{key} has one target column, not {len(columns)}: {', '.join(columns)}")
    values = frame[columns[0]]
    return Ordinal(order_of(values, order)) if key == "ordinal" else _classification(values, train, class_weights)


def order_of(values: pd.Series, order: Sequence[Any] | None = None) -> list[str]:
    """Classes of an ordinal target from the lowest to the highest: as ``order`` says, else as pandas has ordered its
    categories, else numbers by value.

    Raises:
        ConfigError: words without an order, or a class twice in ``order``. DataError: fewer than two classes.
    """
    names = _class_names(values)
    if order is not None:
        return _distinct([label(value) for value in order])
    if isinstance(values.dtype, pd.CategoricalDtype) and values.dtype.ordered:
        return [label(value) for value in values.dtype.categories]
    words = [name for name in names if not _reads_as_number(name)]
    if words:
        shown = ", ".join(map(repr, names[:3])) + (", …" if len(names) > 3 else "")
        raise ConfigError(
            f"target {values.name!r} holds words ({shown}), and nothing says which is lower: give order= with all classes from "
            "the lowest to the highest, a pandas ordered categorical, or task=kintsugi.tasks.Ordinal([...])"
        )
    return names


def _distinct(names: list[str]) -> list[str]:
    if len(set(names)) != len(names):
        raise ConfigError(f"order= names a class twice: {', '.join(names)}")
    return names


def _reads_as_number(name: str) -> bool:
    try:
        return math.isfinite(float(name))
    except ValueError:
        return False


def _regression(frame: pd.DataFrame, columns: Sequence[str], train: np.ndarray) -> Regression:
    target, there = _numbers(frame, columns)
    keep = there & torch.from_numpy(train)
    if int(keep.sum()) < 2:
        raise DataError(f"target {', '.join(columns)}: regression needs two rows with a number, or more")
    flat = target[keep].reshape(int(keep.sum()), -1)
    for name, spread in zip(columns, flat.std(0).tolist(), strict=True):
        if not spread > 0:
            raise DataError(f"target {name!r} is the same in every row; there is nothing to learn")
    return Regression.fitted(target[keep], tuple(columns))


def infer_task(frame: pd.DataFrame, columns: Sequence[str], several: bool) -> str:
    """Task of a target that the user did not name.

    Several columns: multilabel if all hold 0 and 1 only, else regression. One column: text, booleans and categories are
    classes; integers are classes if there are at most 20 distinct ones; other numbers are regression. Integers with
    holes, which pandas holds as floats, count as integers.
    """
    if several:
        plain = [{float(v) for v in frame[c].array if not nothing(v) and _is_number(v)} for c in columns]
        words = any(not _is_number(v) for c in columns for v in frame[c].array if not nothing(v))
        return "multilabel" if not words and all(p <= {0.0, 1.0} for p in plain) else "regression"
    values = frame[columns[0]]
    if not pd.api.types.is_numeric_dtype(values.dtype) or pd.api.types.is_bool_dtype(values.dtype):
        there = [v for v in values.array if not nothing(v)]
        if isinstance(values.dtype, pd.CategoricalDtype) or not all(
            _is_number(v) and not isinstance(v, (bool, np.bool_)) for v in there
        ):
            return "classification"
        values = pd.Series(there, dtype="float64")
    numbers = values.dropna().to_numpy(dtype=np.float64)
    whole = pd.api.types.is_integer_dtype(values.dtype) or bool(values.isna().any())
    integers = whole and bool(np.all(np.isfinite(numbers))) and bool(np.all(numbers == np.round(numbers)))
    return "classification" if integers and len(np.unique(numbers)) <= FEW else "regression"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number, np.bool_))


def _class_names(values: pd.Series) -> list[str]:
    """Every class that a row has, numbers by value and then names by letter."""
    names = order_labels({label(v) for v in values.array if not nothing(v)})
    if not names:
        raise DataError(f"target {values.name!r} has no label in any row")
    if len(names) == 1:
        raise DataError(f"target {values.name!r} has one class only, {names[0]!r}, in every row that has a label")
    return names


def _classification(
    values: pd.Series, train: np.ndarray, class_weights: str | Sequence[float] | None
) -> Classification:
    names = _class_names(values)
    if class_weights is None:
        return Classification(names)
    if isinstance(class_weights, str):
        if class_weights != "balanced":
            raise ConfigError(f"class_weights must be 'balanced', a list or None, not {class_weights!r}")
        words = [None if nothing(v) else label(v) for v in values.array]
        counts = np.array([sum(w == n and bool(t) for w, t in zip(words, train, strict=True)) for n in names])
        total = counts.sum()
        return Classification(names, [float(total / (len(names) * max(c, 1))) for c in counts])
    if len(class_weights) != len(names):
        raise ConfigError(f"{len(class_weights)} class weights for {len(names)} classes: {', '.join(names)}")
    return Classification(names, class_weights)


def encode(
    frame: pd.DataFrame, columns: Sequence[str], task: Task, on_error: OnError, name: str
) -> tuple[Tensor, Tensor]:
    """Target ``[N, ...]`` as the task wants it and bool ``[N]``: which are there; a hole reads 0.

    Raises:
        DataError: a label that the task does not know, or a value that is no number.
    """
    if task.exclusive:
        if len(columns) != 1:
            raise ConfigError(f"{name}: {task.key} has one target column, not {len(columns)}: {', '.join(columns)}")
        return _ids(frame[columns[0]], task, on_error, name)
    if task.link == "softmax" or task.output_shape != (len(columns),):
        raise ConfigError(f"a table cannot read the target of task {task.key!r} from columns {', '.join(columns)}")
    target, there = _numbers(frame, columns)
    if task.link == "sigmoid":
        wrong = (((target != 0) & (target != 1)).any(1) & there).nonzero().flatten().tolist()
        if wrong:
            raise DataError(
                f"{name}: labels of {', '.join(columns)} must be 0 or 1; row {wrong[0]} (from 0) has others"
            )
        return target, there
    return (target[:, 0] if task.outputs == 1 else target), there


def _ids(values: pd.Series, task: Task, on_error: OnError, name: str) -> tuple[Tensor, Tensor]:
    ids = {n: i for i, n in enumerate(task.names)}
    target = torch.zeros(len(values), dtype=torch.int64)
    there = torch.zeros(len(values), dtype=torch.bool)
    strange: dict[str, list[int]] = {}
    for row, value in enumerate(values.array):
        if nothing(value):
            continue
        word = label(value)
        if word in ids:
            target[row], there[row] = ids[word], True
        else:
            strange.setdefault(word, []).append(row)
    if strange and on_error == "raise":
        word, rows = next(iter(strange.items()))
        shown = ", ".join(map(str, rows[:5])) + (", …" if len(rows) > 5 else "")
        more = f" and {len(strange) - 1} more such labels" if len(strange) > 1 else ""
        raise DataError(
            f"{name}: label {word!r} in column {values.name!r}, row {shown} (counted from 0){more}, is none of the "
            f"known classes: {', '.join(task.names)}. Correct it, or pass on_error='missing' to treat it as no label"
        )
    return target, there


def _numbers(frame: pd.DataFrame, columns: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Float ``[N, K]``, 0 where a number is not there, and bool ``[N]``: rows with all K."""
    parts = []
    for column in columns:
        values = frame[column]
        numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        for row in np.flatnonzero(np.isnan(numbers)):
            if not nothing(values.array[row]):
                raise DataError(
                    f"target {column!r}, row {row} (counted from 0): {str(values.array[row])!r} is no number"
                )
        if np.isinf(numbers).any():
            raise DataError(f"target {column!r}, row {int(np.isinf(numbers).argmax())} (counted from 0) is infinite")
        parts.append(numbers)
    stacked = np.stack(parts, 1)
    there = ~np.isnan(stacked).any(1)
    target = torch.from_numpy(np.where(there[:, None], stacked, 0)).float()
    return target, torch.from_numpy(there)
