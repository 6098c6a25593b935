"""What was decided for the columns of a table that are in use."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd

from kintsugi.data.cells import is_list, nothing
from kintsugi.data.column_kinds import LISTS, ColumnKind, decide
from kintsugi.data.table_source import TableSource
from kintsugi.data.tabular import TabularReader


def columns_in_use(source: TableSource) -> list[ColumnKind]:
    """For each column that a reader, the target, the group, the split or the weight reads, what it was taken for.

    A column of numbers that is read as categories is of kind "categories", and its reason says who said so.
    """
    return [*_inputs(source), *_others(source)]


def _inputs(source: TableSource) -> Iterator[ColumnKind]:
    for name, reader in source.readers.items():
        for column in reader.columns:
            kind = replace(decide(source.frame[column], column), role=f"input of {name} ({reader.kind})")
            if isinstance(reader, TabularReader):
                yield _as_read(reader, kind)
            else:
                yield _told(source.frame[column], kind, reader.kind)


def _told(values: pd.Series, kind: ColumnKind, reader: str) -> ColumnKind:
    """Of a column that is no cell of a table: text, paths or arrays, since its reader says so."""
    plain = replace(kind, examples=(), fault="", warning="")
    if kind.kind in ("empty", "arrays", "paths"):
        return plain
    if reader == "text":
        return replace(plain, kind="text", reason="read as text")
    first = next((cell for cell in values.array if not nothing(cell)), None)
    if not isinstance(first, str):
        return plain
    if is_list(first):
        return replace(plain, kind="arrays", reason=f"holds {LISTS}")
    return replace(plain, kind="paths", reason="read as paths")


def _as_read(reader: TabularReader, kind: ColumnKind) -> ColumnKind:
    column = kind.column
    if column in reader.known:
        count = len(reader.known[column])
        why = "told by categories=" if column in reader.categories else kind.reason
        if kind.kind in ("numbers", "times", "empty") and column not in reader.categories:
            why = "training had names here"
        return replace(kind, kind="categories", reason=f"{why}; {count} known", fault="", warning="")
    why = (
        "told by numbers="
        if column in reader.numbers
        else kind.reason
        if kind.kind == "numbers"
        else "training had numbers here"
    )
    return replace(kind, kind="empty" if kind.kind == "empty" else "numbers", reason=why, fault="", warning="")


def _others(source: TableSource) -> Iterator[ColumnKind]:
    task = source.schema.task
    for column in (c for c in source.reading["target"] if c in source.frame.columns):
        kind = decide(source.frame[column], column)
        yield replace(kind, role=f"target ({task.key}{_classes(source)})", fault="", warning="")
    for role, column in source.roles.items():
        if column is not None:
            yield replace(decide(source.frame[column], column), role=role, fault="", warning="")


def _classes(source: TableSource) -> str:
    task = source.schema.task
    return f", {len(task.names)} classes" if task.exclusive else ""
