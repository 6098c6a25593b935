"""Labels as the user wrote them: what ``predict`` answers with, beside the names that people read."""

from __future__ import annotations

import math
import numbers
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, Literal

from kintsugi.core.errors import DataError

Value = str | int | float | bool
LabelType = Literal["bool", "int", "float", "text"]
_WORDS = {"bool": "a boolean", "number": "a number", "text": "text"}


def plain(label: Any) -> Value:
    """The label as a value that JSON knows: a boolean, an integer, a float, or text.

    Scalars of NumPy and Arrow are unpacked, decimals and fractions become the number that they are, bytes are read as UTF-8,
    and anything else is its text.
    """
    if isinstance(label, str):
        return str(label)
    if hasattr(label, "as_py"):  # of Arrow
        label = label.as_py()
    if getattr(label, "ndim", None) == 0 and hasattr(label, "item"):  # of NumPy and torch
        label = label.item()
    if isinstance(label, bool):
        return label
    if isinstance(label, numbers.Integral):
        return int(label)
    if isinstance(label, Decimal | Fraction):
        return int(label) if label == int(label) else float(label)
    if isinstance(label, numbers.Real):
        return float(label)
    return label.decode("utf-8", errors="replace") if isinstance(label, bytes) else str(label)


def label_type(labels: Iterable[Any], what: str = "the labels") -> LabelType:
    """What the labels are. Whole floats beside integers are integers.

    Args:
        labels: without holes.
        what: how messages call them.

    Raises:
        DataError: they are of several types, such as numbers and text.
    """
    return _type_of({(type(v), v): None for v in map(plain, labels)}, what)


def as_written(
    cells: Sequence[Any],
    counts: Sequence[int],
    rows: Sequence[int],
    names: Sequence[str],
    name: Callable[[Any], str],
    *,
    holes: bool = False,
    more: Iterable[Any] = (),
    what: str = "the labels",
) -> tuple[Value, ...]:
    """For each class the label that answers name it by: in the type of the labels, and spelt as most rows spell it.

    Whole floats in a column with holes are integers, since pandas holds integers with holes so.

    Args:
        cells: the distinct labels.
        counts: how many rows have each.
        rows: the first row of each.
        names: of the classes.
        name: from a label to the name of its class.
        holes: whether a row has no label.
        more: labels of classes that no row may have.
        what: for messages.

    Raises:
        DataError: labels of several types, or one that is infinite.
    """
    total: Counter[_Key] = Counter()
    first: dict[_Key, int | None] = {}
    for cell, count, row in zip(cells, counts, rows, strict=True):
        value = plain(cell)
        total[type(value), value] += count
        first.setdefault((type(value), value), row)
    kind = _type_of(first, what)
    values = [value for _, value in total]
    if kind == "float":
        if not all(math.isfinite(float(v)) for v in values):
            raise DataError(f"{what}: a class cannot be infinite; repair or empty these cells")
        kind = "int" if holes and all(float(v).is_integer() for v in values) else kind
    spelt: dict[str, Value] = {}
    for (_, value), _ in total.most_common():  # of equal counts, the first
        spelt.setdefault(name(value), value)
    for label in more:
        spelt.setdefault(name(label), _brought(plain(label), kind, what))
    written = [spelt[n] for n in names]
    if kind == "int":
        return tuple(int(v) for v in written)
    return tuple(float(v) for v in written) if kind == "float" else tuple(written)


_Key = tuple[type, Value]
_TRUTHS = {"True": True, "TRUE": True, "true": True, "False": False, "FALSE": False, "false": False}
_WHOLE = re.compile(r"-?(0|[1-9][0-9]*)")


def typed(cells: Sequence[Any], name: Callable[[Any], str]) -> list[Any]:
    """Distinct labels of a file without types as numbers or booleans, where all read as such and keep their names.

    "0" and "1" are numbers and "TRUE" and "FALSE" booleans; "01" and "1E5" stay text, since as numbers they would have other
    names.
    """
    words = [cell for cell in cells if isinstance(cell, str)]
    if len(words) != len(cells):
        return list(cells)
    if all(word.strip() in _TRUTHS for word in words):
        return [_TRUTHS[word.strip()] for word in words]
    try:
        values = [int(word) if _WHOLE.fullmatch(word.strip()) else float(word) for word in words]
    except ValueError:
        return list(cells)
    same = all(math.isfinite(v) and name(v) == name(word) for v, word in zip(values, words, strict=True))
    return values if same else list(cells)


def _brought(value: Value, kind: LabelType, what: str) -> Value:
    """A class that no row has, in the type of those that rows have."""
    if kind == "text":
        return str(value)
    try:
        if kind == "bool" and isinstance(value, bool):
            return value
        if kind in ("int", "float") and not isinstance(value, bool) and (kind == "float" or float(value).is_integer()):
            return float(value)
    except ValueError:
        pass
    raise DataError(f"{what} holds {kind} labels, and {value!r} is named as a class beside them; give all in one type")


def _type_of(labels: Mapping[_Key, int | None], what: str) -> LabelType:
    """Of distinct labels, each with the first row that has it."""
    first: dict[str, tuple[Value, int | None]] = {}
    for (_, value), row in labels.items():
        kind = "bool" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"
        first.setdefault(kind, (value, row))
    if len(first) > 1:
        shown = [
            f"{value!r}{'' if row is None else f' in row {row}'} is {_WORDS[kind]}"
            for kind, (value, row) in first.items()
        ]
        counted = "" if all(row is None for _, row in first.values()) else " (rows are counted from 0)"
        raise DataError(
            f"{what} mixes types: {' and '.join(shown)}{counted}. Make all of them text, numbers or booleans, for example with "
            "frame[column].map(str, na_action='ignore')"
        )
    if "bool" in first:
        return "bool"
    if "number" not in first:
        return "text"
    values = [value for _, value in labels]
    return "int" if any(isinstance(v, int) for v in values) and all(float(v).is_integer() for v in values) else "float"
