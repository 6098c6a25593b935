"""One value has one name, whatever file, library or other rows it came with."""

from __future__ import annotations

import datetime
import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd

from kintsugi.core.errors import DataError
from kintsugi.data.foreign_cells import plain

_WHOLE = re.compile(r"([+-]?)(0|[1-9][0-9]*)\.0+")
_TRUTH = {
    "true": "True", "True": "True", "TRUE": "True", "false": "False", "False": "False", "FALSE": "False",
}  # fmt: skip


def label(value: Any) -> str:
    """The name of a label, category or group, the same however it was typed.

    7, 7.0, ``Decimal("7.00")``, ``np.int64(7)``, "7" and "7.0" are "7"; True, "TRUE" and "true" are "True"; blanks around
    text go, and its letters are brought to Unicode's NFC. What is written otherwise is another name: "007" is a code, "1E5"
    and "0.50" are words. A date without a time is "2020-01-31", from whatever type. 1 and True are two names; a column
    that knows one pair only reads the other as it (:class:`KnownNames`).
    """
    if isinstance(value, str):
        return _canonical(value)
    if isinstance(value, float | np.floating):
        return str(int(value)) if float(value).is_integer() else str(value)
    value = plain(value)
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return _canonical(bytes(value).decode("utf-8", errors="replace"))
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else str(value)
    if isinstance(value, Decimal) and value.is_finite():
        return str(int(value)) if value == value.to_integral_value() else format(value.normalize(), "f")
    if isinstance(value, Fraction):
        return str(value.numerator) if value.denominator == 1 else str(float(value))
    if isinstance(value, np.datetime64):
        value = pd.Timestamp(value)
    if isinstance(value, datetime.datetime) and value.tzinfo is None and value.time() == datetime.time():
        return value.date().isoformat()
    try:
        return _canonical(str(value))
    except RecursionError as error:  # lists inside lists
        raise DataError(f"a {type(value).__name__} nested too deeply is no name") from error


def _canonical(text: str) -> str:
    text = text.strip()
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    if text in _TRUTH:
        return _TRUTH[text]
    whole = _WHOLE.fullmatch(text) if text.endswith("0") else None
    if whole is not None:
        sign = "-" if whole[1] == "-" and whole[2] != "0" else ""
        return sign + whole[2]
    return "0" if text == "-0" else text


def order_labels(names: Iterable[str]) -> list[str]:
    """Numbers by value, then names by letter."""

    def key(name: str) -> tuple[int, float, str]:
        try:
            number = float(name)
        except ValueError:
            return 1, 0.0, name
        return (0, number, name) if math.isfinite(number) else (1, 0.0, name)

    return sorted(names, key=key)


class KnownNames:
    """Which of some known names a value has.

    A model that was saved before names were brought to one form knows names such as "TRUE" or "7.0": a value is looked
    for as it was named then, and then by :func:`label` of the known names. Where True and False are known and 1 and 0 are
    not, 1 and 0 are read as them, and the other way round.

    ``exact``: from each name as it is written to its position.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.exact = {name: place for place, name in enumerate(self.names)}
        self._brought: dict[str, int] = {}
        for place, name in enumerate(self.names):
            self._brought.setdefault(label(name), place)
        truths, digits = {"True", "False"} & self._brought.keys(), {"0", "1"} & self._brought.keys()
        if bool(truths) != bool(digits):
            for truth, digit in (("True", "1"), ("False", "0")):
                source, alias = (truth, digit) if truths else (digit, truth)
                if source in self._brought:
                    self._brought[alias] = self._brought[source]

    def place(self, value: Any) -> int | None:
        """Position among the known names; None: it is none of them."""
        if isinstance(value, str):
            found = self.exact.get(value)
            return self._brought.get(_canonical(value)) if found is None else found
        found = self.exact.get(_before(value))
        return self._brought.get(label(value)) if found is None else found


def _before(value: Any) -> str:
    """The name that version 0.1.0 gave a value that is no text."""
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)
