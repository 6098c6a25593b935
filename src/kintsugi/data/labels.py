"""Targets: what a column of labels means, as names, task and tensors."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from kintsugi.core.errors import ConfigError, DataError, UnknownName
from kintsugi.core.schema import Task
from kintsugi.data.cells import nothing
from kintsugi.data.column_kinds import FEW, as_numbers, check_target, decide, distinct_cells, own_names
from kintsugi.data.names import KnownNames, label, order_labels
from kintsugi.tasks import Classification, Multilabel, Ordinal, Regression
from kintsugi.tasks.label_values import as_written, typed

OnError = Literal["raise", "missing"]
ClassWeights = str | Mapping[Any, float] | Sequence[float]
__all__ = ["FEW", "OnError", "choose_task", "encode", "infer_task", "label", "order_labels", "order_of"]

TASK_NAMES = ("classification", "multilabel", "ordinal", "regression")


def choose_task(
    frame: pd.DataFrame,
    columns: Sequence[str],
    several: bool,
    task: str | Task | None,
    train: np.ndarray,
    class_weights: ClassWeights | None,
    order: Sequence[Any] | None = None,
    written: bool = False,
) -> Task:
    """The task that a target asks for.

    Args:
        frame: the table.
        columns: target columns; ``several``: they were given as a list.
        several: see ``columns``.
        task: as the user gave it; None: inferred by :func:`infer_task`.
        train: bool ``[N]``: rows whose targets may be learned from; class names come from all rows.
        class_weights: "balanced", weights in the order of the classes or by label, or None.
        order: classes of an ordinal target, from the lowest to the highest; None: see :func:`order_of`.
        written: the cells come from a file without types, so that text may stand for numbers and booleans.

    Warns:
        UserWarning: nearly every row has a class of its own.

    Raises:
        DataError: lists or times as a target, or text that may be numbers while no task is said.
        ConfigError: arguments that do not go together.
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
    for column in columns if task is not None else ():
        check_target(decide(frame[column], column), key)
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
    if key != "ordinal":
        return _classification(values, train, class_weights, written)
    names = order_of(values, order)
    listed = values.dtype.categories if isinstance(values.dtype, pd.CategoricalDtype) else ()
    return Ordinal(names, _answers(values, names, written, listed if order is None else order))


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
    for name, spread in zip(columns, (flat.max(0).values - flat.min(0).values).tolist(), strict=True):
        if not spread > 0:
            raise DataError(f"target {name!r} is the same in every row; there is nothing to learn")
    return Regression.fitted(target[keep], tuple(columns))


def infer_task(frame: pd.DataFrame, columns: Sequence[str], several: bool) -> str:
    """Task of a target that the user did not name.

    Several columns: multilabel if all hold 0 and 1 only, else regression. One column: what
    :func:`~kintsugi.data.column_kinds.decide` takes for names or booleans is classes; whole numbers are classes if there
    are at most ``FEW`` distinct ones, whether they are held as integers, as floats (as
    pandas does where a row has none) or as text; other numbers are regression.

    Raises:
        DataError: lists, times, or text that reads as numbers and is no few whole ones: nothing says what is meant.
    """
    kinds = [decide(frame[column], column) for column in columns]
    for kind in kinds:
        check_target(kind, "regression" if several or kind.fault == "written" else None)
    numbers = [as_numbers(frame[column]) for column in columns]
    if several:
        held = all(kind.kind in ("numbers", "booleans", "empty") for kind in kinds)
        bits = all(set(np.unique(x[~np.isnan(x)])) <= {0.0, 1.0} for x in numbers)
        return "multilabel" if held and bits else "regression"
    (kind,), (values,) = kinds, numbers
    if kind.kind not in ("numbers", "empty"):
        return "classification"
    values = values[~np.isnan(values)]
    whole = bool(np.all(np.isfinite(values))) and bool(np.all(values == np.round(values)))
    if whole and kind.distinct <= FEW:
        return "classification"
    check_target(kind, None)
    return "regression"


def _class_names(values: pd.Series) -> list[str]:
    """Every class that a row has, numbers by value and then names by letter."""
    codes, cells = distinct_cells(values)
    names = order_labels({label(cell) for cell in cells})
    if not names:
        raise DataError(f"target {values.name!r} has no label in any row")
    if len(names) == 1:
        raise DataError(f"target {values.name!r} has one class only, {names[0]!r}, in every row that has a label")
    warning = own_names(len(names), int((codes >= 0).sum()))
    if warning:
        warnings.warn(f"target {values.name!r}: {warning}; say task='regression' if these are numbers", stacklevel=2)
    return names


def _answers(values: pd.Series, names: Sequence[str], written: bool, more: Iterable[Any] = ()) -> tuple[Any, ...]:
    """The classes as the column has them, which answers are given in."""
    codes, cells = distinct_cells(values)
    cells = typed(cells, label) if written else cells
    there = codes[codes >= 0]
    counts = np.bincount(there, minlength=len(cells)).tolist()
    rows = np.unique(codes, return_index=True)[1][-len(cells) :].tolist()
    what = f"target {values.name!r}"
    return as_written(cells, counts, rows, names, label, holes=len(there) < len(codes), more=more, what=what)


def _classification(
    values: pd.Series, train: np.ndarray, class_weights: ClassWeights | None, written: bool
) -> Classification:
    names = _class_names(values)
    return Classification(names, _class_weights(values, names, train, class_weights), _answers(values, names, written))


def _class_weights(
    values: pd.Series, names: Sequence[str], train: np.ndarray, weights: ClassWeights | None
) -> Sequence[float] | None:
    if isinstance(weights, str):
        if weights != "balanced":
            raise ConfigError(f"class_weights must be 'balanced', a dict, a list or None, not {weights!r}")
        codes, cells = distinct_cells(values)
        place = {name: at for at, name in enumerate(names)}
        of_cell = np.array([place[label(cell)] for cell in cells])
        counts = np.bincount(of_cell[codes[(codes >= 0) & train]], minlength=len(names))
        total = counts.sum()
        return [float(total / (len(names) * max(c, 1))) for c in counts]
    if isinstance(weights, Mapping):
        known = KnownNames(names)
        each = [1.0] * len(names)  # as scikit-learn has it for classes that are not named
        for name, weight in weights.items():
            at = known.place(name)
            if at is None:
                raise UnknownName("class in class_weights", label(name), names)
            each[at] = float(weight)
        return each
    if weights is not None and len(weights) != len(names):
        raise ConfigError(f"{len(weights)} class weights for {len(names)} classes: {', '.join(names)}")
    return weights


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
        return target.float(), there
    if not getattr(task, "needs_float64", False):
        target = _in_float32(target, columns, name)
    return (target[:, 0] if task.outputs == 1 else target), there


def _in_float32(target: Tensor, columns: Sequence[str], name: str) -> Tensor:
    narrow = target.float()
    far = (~torch.isfinite(narrow)).any(1).nonzero().flatten().tolist()
    if far:
        raise DataError(
            f"{name}: target {', '.join(columns)}, row {far[0]} (counted from 0) holds a number beyond float32, 3.4e38; give "
            "the target in a larger unit"
        )
    return narrow


def _ids(values: pd.Series, task: Task, on_error: OnError, name: str) -> tuple[Tensor, Tensor]:
    known = KnownNames(task.names)
    codes, cells = distinct_cells(values)
    ids = [known.place(cell) for cell in cells]
    table = np.array([-1 if place is None else place for place in ids] + [-1], dtype=np.int64)  # the last for a hole
    found = table[codes]
    there = torch.from_numpy(found >= 0)
    target = torch.from_numpy(np.where(found >= 0, found, 0))
    strange: dict[str, list[int]] = {}
    for row in np.flatnonzero((found < 0) & (codes >= 0)).tolist():
        strange.setdefault(label(cells[codes[row]]), []).append(row)
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
    """Float64 ``[N, K]``, 0 where a number is not there, and bool ``[N]``: rows with all K."""
    parts = []
    for column in columns:
        values = frame[column]
        numbers = as_numbers(values)
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
    target = torch.from_numpy(np.where(there[:, None], stacked, 0))
    return target, torch.from_numpy(there)
