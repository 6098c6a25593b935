"""Columns and keys of new rows that nothing reads, where one that a model reads lacks its cells."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from difflib import get_close_matches

import pandas as pd

from kintsugi.data.frames import Rows

ALIKE = 0.7  # likeness of two names (difflib's ratio) from which on one may be a misspelling of the other
MOST_OTHERS = 500  # columns that nothing reads, with more of which they are not compared with those that are read
MOST_NAMED = 5


def tell_unknown(
    rows: Rows, inputs: Sequence[str], others: Collection[str], name: str, optional: Collection[str] = ()
) -> None:
    """Warn of names that look as if cells got lost under them. Columns beside those that are read are no reason for a word.

    - A column of another name is filled where the one that is read is empty, and never where it is filled: some of the rows
      spell it otherwise. (Where all do, it is an error that the column is not there.)
    - No dict has a key that is read, and some have keys that are not.

    Args:
        rows: as they were opened.
        inputs: columns that are read.
        others: further columns that are known: target, group.
        name: of the table, for the message.
        optional: inputs that may be absent.
    """
    frame = rows.frame
    extra = [str(c) for c in frame.columns if c not in inputs and c not in others]
    if not extra:
        return
    lost = [text for column in inputs if column in frame.columns for text in _misspelt(frame, column, extra)]
    if lost:
        warnings.warn(f"{name}: {'; '.join(lost)}. Give both the name that is read", UserWarning, stacklevel=3)
    absent = [column for column in inputs if column not in frame.columns and column not in optional]
    if rows.records and absent:
        warnings.warn(
            f"{name}: no row has {_listed(absent)}, which the model reads, and nothing reads {_listed(extra)}: look whether a "
            "key is called otherwise than in training; else the absent ones count as empty",
            UserWarning,
            stacklevel=3,
        )


def _misspelt(frame: pd.DataFrame, column: str, extra: Sequence[str]) -> list[str]:
    if len(extra) > MOST_OTHERS or not frame.columns.is_unique:
        return []
    empty = frame[column].isna().to_numpy()
    if not empty.any():
        return []
    said = []
    for other in get_close_matches(column, extra, cutoff=ALIKE):
        if other not in frame.columns:  # a name that is no text
            continue
        filled = ~frame[other].isna().to_numpy()
        if filled.any() and not (filled & ~empty).any():
            said.append(
                f"column {other!r}, which nothing reads, is filled in {int(filled.sum())} rows where {column!r} is empty"
            )
    return said


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:MOST_NAMED])) + (", …" if len(names) > MOST_NAMED else "")
