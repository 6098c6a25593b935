"""What is in a table: the columns and what they were taken for, holes of each modality, the patterns in which they come."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from kintsugi.core.data import Data
from kintsugi.core.errors import ConfigError
from kintsugi.data.column_kinds import ColumnKind, as_numbers, distinct_cells
from kintsugi.data.columns_in_use import columns_in_use
from kintsugi.data.dataset import Dataset
from kintsugi.data.names import label
from kintsugi.data.table_source import TableSource

NAMED = 5  # categories or classes that a line names with their counts
SHOWN = 3  # cells that are shown of a column
LETTERS = 40  # of a cell that is shown
LOOKED_AT = 64  # rows, evenly spread, that are read to see whether they can be


def holes(data: Data) -> dict[str, int]:
    """Number of rows in which each modality is absent."""
    return dict(zip(data.schema.names, (~data.present).sum(0).tolist(), strict=True))


def patterns(data: Data) -> pd.DataFrame:
    """The table of missing patterns, most frequent first.

    One bool column a modality (True: present), then ``rows`` and ``share`` (of all rows). ``attrs["holes"]`` is
    :func:`holes`. Patterns of equal frequency: the one with more modalities first.
    """
    present = data.present.numpy()
    found, rows = np.unique(present, axis=0, return_counts=True)
    order = np.lexsort((*(~found).T[::-1], -found.sum(1), -rows))
    table = pd.DataFrame(found[order], columns=list(data.schema.names))
    table["rows"] = rows[order]
    table["share"] = rows[order] / max(len(present), 1)
    table.attrs["holes"] = holes(data)
    return table


def columns_of(data: Data) -> list[ColumnKind]:
    """What each column in use was taken for, see ``Table.columns_``.

    Raises:
        ConfigError: the rows are tensors, or built into the library as such.
    """
    source = getattr(data, "source", None)
    if not isinstance(source, TableSource):
        raise ConfigError(f"{data.name} holds tensors, which have no columns; ask the table that they were read from")
    return columns_in_use(source)


def column_frame(kinds: Sequence[ColumnKind], frame: pd.DataFrame) -> pd.DataFrame:
    """One row a column: ``column``, ``role``, ``kind``, ``reason``, ``rows``, ``holes``, ``distinct``, ``values``, ``note``.

    ``values`` is :func:`values_in_short`; ``note`` what stands against the column or is to be minded, with the first cells
    that do not fit, or "".

    Args:
        kinds: of columns of the frame.
        frame: the cells.
    """
    lines = [
        {
            "column": kind.column, "role": kind.role, "kind": kind.kind, "reason": kind.reason, "rows": kind.rows,
            "holes": kind.holes, "distinct": kind.distinct, "values": values_in_short(kind, frame[kind.column]),
            "note": note(kind),
        }
        for kind in kinds
    ]  # fmt: skip
    return pd.DataFrame(
        lines, columns=["column", "role", "kind", "reason", "rows", "holes", "distinct", "values", "note"]
    )


def note(kind: ColumnKind) -> str:
    """What stands against using the column as it is, or is to be minded; "": nothing."""
    odd = ", ".join(f"{cell} in row {row}" for row, cell in kind.examples)
    against = {
        "nearly": f"cannot be told: numbers but for {odd}",
        "written": "cannot be told: numbers, or names that are digits",
        "times": "no input as it is: make it numbers, such as days since a date",
        "arrays": "no table cell: read it with vector, series, image or audio",
        "": "",
    }[kind.fault]
    minded = "" if kind.kind in ("text", "paths") else kind.warning  # these are read by readers of their own
    return "; ".join(text for text in (against, minded) if text)


def values_in_short(kind: ColumnKind, values: pd.Series) -> str:
    """The range of numbers, names with their counts, the first cells of anything else."""
    if kind.kind == "empty":
        return "nothing"
    classes = kind.role.startswith("target (") and "regression" not in kind.role
    if kind.kind == "numbers" and not kind.fault and not classes and kind.distinct > 2:
        numbers = as_numbers(values)
        numbers = numbers[~np.isnan(numbers)]
        return f"{numbers.min():.6g} to {numbers.max():.6g}" if len(numbers) else "nothing"
    if kind.kind in ("categories", "booleans") or classes or (kind.kind == "numbers" and not kind.fault):
        return _counted(values)
    if kind.kind == "arrays":
        return kind.reason.removeprefix("holds ")
    return ", ".join(_cut(cell) for cell in distinct_cells(values)[1][:SHOWN])


def _counted(values: pd.Series) -> str:
    codes, cells = distinct_cells(values)
    counts: dict[str, int] = {}
    for cell, count in zip(cells, np.bincount(codes[codes >= 0], minlength=len(cells)).tolist(), strict=True):
        name = label(cell)
        counts[name] = counts.get(name, 0) + count
    often = sorted(counts.items(), key=lambda item: -item[1])
    more = f" and {len(often) - NAMED} more" if len(often) > NAMED else ""
    return ", ".join(f"{_name(name)} ({count:,})" for name, count in often[:NAMED]) + more


def _name(name: str) -> str:
    return name if re.fullmatch(r"[\w.+-]+", name) and len(name) <= LETTERS else _cut(name)


def _cut(cell: object) -> str:
    text = str(cell)
    text = text if len(text) <= LETTERS else f"{text[: LETTERS - 1]}…"
    return repr(text) if isinstance(cell, str) else text


def column_lines(kinds: Sequence[ColumnKind], frame: pd.DataFrame) -> list[str]:
    """A line a column: name, kind, its values, holes, and what it is for.

    Args:
        kinds: of columns of the frame.
        frame: the cells.
    """
    names = [_name(kind.column) for kind in kinds]
    width = max(map(len, names), default=0)
    lines = []
    for name, kind in zip(names, kinds, strict=True):
        holes = f"; {kind.holes:,} hole{'s' * (kind.holes != 1)}" if kind.holes and kind.kind != "empty" else ""
        role = f"; {kind.role}" if kind.role else ""
        texts = f"{kind.distinct:,} distinct" if kind.kind == "text" else values_in_short(kind, frame[kind.column])
        lines.append(f"{name:<{width}}  {kind.kind:<10}  {texts}{holes}{role}")
    return lines


class Delivered(NamedTuple):
    """What a reader makes of its columns.

    present: rows that hold something. looked_at, read: rows with something that were read, and those that could be.
    problem: the first that could not, or "".
    """

    modality: str
    kind: str
    columns: tuple[str, ...]
    shape: tuple[int | None, ...]
    present: int
    looked_at: int
    read: int
    problem: str


def delivered(data: Dataset) -> Iterator[Delivered]:
    """What each reader makes of a table: of up to ``LOOKED_AT`` rows that hold something also whether they can be read.

    Args:
        data: a table that takes cells which cannot be used for absent ones (``on_error="missing"``).
    """
    source = data.source
    for column, modality in enumerate(data.schema.modalities):
        there = data.present[:, column].nonzero().flatten()
        places = np.unique(np.linspace(0, max(0, len(there) - 1), min(len(there), LOOKED_AT)).astype(np.int64))
        rows = data.index[there[torch.from_numpy(places)]]
        read = int(source.read(rows).present[:, column].sum()) if len(rows) else 0
        problems = (p for p in source.problems or () if p.modality == modality.name)
        first = next((f"row {p.row}: {p.where}: {p.reason}" for p in problems), "")
        columns = source.readers[modality.name].columns if isinstance(source, TableSource) else ()
        yield Delivered(modality.name, modality.kind, columns, modality.shape, len(there), len(rows), read, first)
