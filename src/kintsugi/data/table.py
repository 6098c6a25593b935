"""A table of multimodal rows, read lazily, with whatever holes it has."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self, TypedDict, Unpack

import numpy as np
import pandas as pd
import torch

from kintsugi.core.errors import ConfigError, DataError, UnknownName
from kintsugi.core.schema import Task, task_from_json
from kintsugi.data.cells import Reader, reader_from_json
from kintsugi.data.column_kinds import ColumnKind
from kintsugi.data.columns_in_use import columns_in_use
from kintsugi.data.csv_tables import Roles
from kintsugi.data.dataset import Dataset
from kintsugi.data.frames import Rows, fill_absent, open_rows, read_csv, read_excel, read_file, read_parquet
from kintsugi.data.labels import ClassWeights, OnError, choose_task
from kintsugi.data.table_source import CACHE, FORMAT, Origin, TableSource, split_rows_of
from kintsugi.data.tabular import TabularReader
from kintsugi.data.unknown_columns import tell_unknown

__all__ = ["Table", "TableOptions", "TableSource"]


ALL_UNSEEN_FROM = (
    10  # cells from which on a column of new rows that training knows none of is an error; fewer may be chance
)


class TableOptions(TypedDict, total=False):
    """Keywords of every constructor of :class:`Table`, beside ``modalities``.

    target: label column, or a list of them (several labels or numbers a row); None: no labels.
    task: "classification", "multilabel", "ordinal", "regression", a task, or None: inferred from the target
    (see :func:`~kintsugi.data.labels.infer_task`).
    order: classes of an ordinal target, from the lowest to the highest; numbers and ordered categories of pandas need none.
    group: column that says which rows belong together (a patient, a speaker) and stay together in ``split``.
    split: column with ``train``, ``val`` and ``test``; readers then learn sizes, categories and scales from the
    training rows alone. Whoever fits a model learns them from what its training rows show in any case.
    weight: column with the weight of each row in the loss.
    class_weights: "balanced" (inverse to the frequency in the training rows), weights in the order of the classes, or a dict
    from label to weight, 1 for those that it lacks.
    on_error: "raise", or "missing": a cell that exists but cannot be used is absent and listed in ``problems``.
    root: folder of relative paths; default: that of the file.
    name: how reports call it. cache: bytes of decoded cells that are kept in memory.
    """

    target: str | Sequence[str] | None
    task: str | Task | None
    order: Sequence[Any] | None
    group: str | None
    split: str | None
    weight: str | None
    class_weights: ClassWeights | None
    on_error: OnError
    root: str | os.PathLike[str] | None
    name: str
    cache: int


class Table(Dataset):
    """A data set from a table of the user's: one row a sample, one or more columns a modality.

    Holes (None, NaN, empty text, paths of files that are not there) are rows without that modality. Rows are named in
    every message by their position, counted from 0. Each constructor takes ``modalities``, a dict from names to readers
    (see :mod:`kintsugi.data.readers`: image, audio, text, tabular, series, vector), and the keywords of
    :class:`TableOptions`. What each column was taken for is in :attr:`columns_`.
    """

    @property
    def columns_(self) -> list[ColumnKind]:
        """What was decided for each column in use: its kind with the reason, holes, distinct values and role."""
        if not isinstance(self.source, TableSource):
            raise ConfigError(
                f"{self.name} holds tensors, which have no columns; ask the table that they were read from"
            )
        return columns_in_use(self.source)

    @classmethod
    def from_rows(cls, rows: Any, *, modalities: Mapping[str, Reader], **options: Unpack[TableOptions]) -> Self:
        """From whatever holds rows: a frame of pandas, polars or Arrow, a ``datasets.Dataset``, dicts, or a file by its name.

        Raises:
            DataError: see :func:`kintsugi.data.frames.open_rows`; the others as :meth:`from_pandas`.
        """
        columns = _columns(modalities, options)
        if isinstance(rows, str | os.PathLike):
            opened = read_file(Path(rows), columns, list(modalities.values()), _roles(options))
        else:
            opened = open_rows(rows, modalities, _roles(options))
        located = options if opened.root is None else _located(options, opened)
        return cls(_build(opened.frame, modalities, located, opened.written))

    @classmethod
    def from_pandas(
        cls, frame: pd.DataFrame, *, modalities: Mapping[str, Reader], **options: Unpack[TableOptions]
    ) -> Self:
        """From a data frame; relative paths start at ``root`` or the working directory.

        Frames of other libraries that have ``to_pandas`` are taken too.

        Raises:
            UnknownName: a column that the frame does not have.
            DataError: a target that cannot be learned or read, or columns of which nobody can tell what they hold.
        """
        return cls(_build(open_rows(frame, modalities, _roles(options)).frame, modalities, options))

    @classmethod
    def from_records(
        cls, records: Sequence[Mapping[str, Any]], *, modalities: Mapping[str, Reader], **options: Unpack[TableOptions]
    ) -> Self:
        """From a list of dicts, one a row; a key that a dict lacks is a hole."""
        return cls(_build(open_rows(records, modalities).frame, modalities, options))

    @classmethod
    def from_parquet(
        cls, path: str | os.PathLike[str], *, modalities: Mapping[str, Reader], **options: Unpack[TableOptions]
    ) -> Self:
        """From a Parquet file or a folder of them; only the columns that are used are read."""
        rows = read_parquet(Path(path), _columns(modalities, options))
        return cls(_build(rows.frame, modalities, _located(options, rows)))

    @classmethod
    def from_csv(
        cls, path: str | os.PathLike[str], *, modalities: Mapping[str, Reader], **options: Unpack[TableOptions]
    ) -> Self:
        """From a CSV file in UTF-8, or an open one. Text, paths and names are read as they stand: "NA" is a word, "007"
        keeps its zeros (see :func:`kintsugi.data.frames.read_csv`).
        """
        if not isinstance(path, str | os.PathLike):
            return cls.from_rows(path, modalities=modalities, **options)
        rows = read_csv(Path(path), _columns(modalities, options), list(modalities.values()), _roles(options))
        return cls(_build(rows.frame, modalities, _located(options, rows), rows.written))

    @classmethod
    def from_excel(
        cls, path: str | os.PathLike[str], *, modalities: Mapping[str, Reader], **options: Unpack[TableOptions]
    ) -> Self:
        """From the first sheet of an Excel file; needs the extra ``excel`` (openpyxl)."""
        rows = read_excel(Path(path), _columns(modalities, options))
        return cls(_build(rows.frame, modalities, _located(options, rows)))

    @classmethod
    def from_reading(
        cls,
        rows: Any,
        reading: Mapping[str, Any],
        *,
        require_target: bool = False,
        optional: Collection[str] = (),
        root: str | os.PathLike[str] | None = None,
        on_error: OnError | None = None,
        name: str = "",
        cache: int = CACHE,
    ) -> Self:
        """New rows, read exactly as the training rows were: same sizes, scales, categories and class names.

        Args:
            rows: a data frame, a file, or dicts (see :func:`kintsugi.data.frames.open_rows`). A key that all dicts
                lack is a hole in every row, unless one of their other keys looks like a misspelling of it.
            reading: ``reading`` of the training table.
            require_target: the target column must be there; otherwise it may be absent.
            optional: modalities whose columns may be absent from a file or frame too: holes in every row.
            root: folder of relative paths; default: that of the file.
            on_error: default: as the training table was read. A label that training did not know follows it too.
            name: how messages call the rows.
            cache: bytes of decoded cells that are kept in memory.

        Warns:
            UserWarning: a category that training did not have, with its column, count and examples. Such cells are masked. And
                keys that nothing reads, where one that is read seems to be spelt otherwise.

        Raises:
            DataError: a column is not there or there twice, or a label is unknown; or all categories of a column are, in
                ``ALL_UNSEEN_FROM`` rows or more, which ``on_error="missing"`` lets pass.
        """
        if reading.get("format") != FORMAT:
            raise DataError(f"this reading has format {reading.get('format')!r}; this version reads format {FORMAT}")
        readers = {n: reader_from_json(saved) for n, saved in reading["modalities"].items()}
        task = task_from_json(reading["task"])
        target, group = list(reading["target"]), reading.get("group")
        opened = open_rows(rows, readers, _saved_roles(target, group, task))
        opened = opened._replace(frame=_with_index(opened.frame, [group]))
        columns = [c for reader in readers.values() for c in reader.columns]
        lacking = [c for c in target if c not in opened.frame.columns]
        if lacking and not require_target:
            target = []
        may_lack = {c for modality in optional for c in readers[modality].columns}
        frame = fill_absent(opened, [*columns, *target], name or opened.name, may_lack)
        known = {*reading["target"], group}
        tell_unknown(opened, columns, known, name or opened.name, may_lack)
        group = group if group in opened.frame.columns else None
        used = _used(frame, [*columns, *target, *([group] if group else [])], name or opened.name)
        _say_unseen(used, readers, name or opened.name, strict=(on_error or reading["on_error"]) == "raise")
        source = TableSource(
            used,
            readers,
            target,
            task,
            root=Path(root) if root is not None else opened.root,
            on_error=on_error or reading["on_error"],
            group=group,
            name=name or opened.name,
            cache=cache,
        )
        source.reading = {**dict(reading), "on_error": source.on_error}
        return cls(source)


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Errors of a column say of which table it is."""
    try:
        yield
    except (DataError, ConfigError) as error:
        if type(error) not in (DataError, ConfigError) or str(error).startswith(name):
            raise
        raise type(error)(f"{name}: {error}") from error


def _targets(options: TableOptions) -> tuple[list[str], bool]:
    target = options.get("target")
    if target is None:
        return [], False
    return ([target], False) if isinstance(target, str) else (list(target), True)


def _columns(modalities: Mapping[str, Reader], options: TableOptions) -> list[str]:
    if not modalities:
        raise ConfigError("name at least one modality: modalities={'note': text('note_column')}")
    for name, reader in modalities.items():
        if not isinstance(reader, Reader):
            raise ConfigError(
                f"modality {name!r} needs a reader such as image(…), audio(…), text(…), tabular([…]), series(…) or "
                f"vector(…), not {reader!r}"
            )
    inputs = [c for reader in modalities.values() for c in reader.columns]
    target, _ = _targets(options)
    for column in target:
        if column in inputs:
            raise ConfigError(f"column {column!r} is both a target and an input; a model would only copy it")
    others = [options.get(key) for key in ("group", "split", "weight")]
    return list(dict.fromkeys([*inputs, *target, *(str(c) for c in others if c is not None)]))


def _located(options: TableOptions, rows: Rows) -> TableOptions:
    located: TableOptions = {"name": rows.name, "root": rows.root}
    located.update({k: v for k, v in options.items() if v is not None})  # type: ignore[typeddict-item]
    return located


def _roles(options: TableOptions) -> Roles:
    """What the columns beside the inputs are for, as far as it decides how a file is read."""
    columns, several = _targets(options)
    task = options.get("task")
    named = task.exclusive if isinstance(task, Task) else task in ("classification", "ordinal")
    names: dict[str, Sequence[str] | None] = {}
    if named and not several:
        names |= dict.fromkeys(columns, task.names if isinstance(task, Task) else None)
    group = options.get("group")
    if group is not None:
        names[group] = None
    open_target = columns[0] if task is None and columns and not several else None
    numbers = {c for c in (options.get("weight"), options.get("split")) if c is not None}
    numbers |= {c for c in columns if c not in names and c != open_target}
    return Roles(names, open_target, numbers)


def _saved_roles(target: Sequence[str], group: str | None, task: Task) -> Roles:
    names: dict[str, Sequence[str] | None] = dict.fromkeys(target, task.names) if task.exclusive else {}
    if group is not None:
        names[group] = None
    return Roles(names, None, {c for c in target if c not in names})


def _with_index(frame: pd.DataFrame, columns: Sequence[str | None]) -> pd.DataFrame:
    """The frame, with those of these columns as columns that pandas has as levels of its index."""
    levels = [c for c in columns if c is not None and c in frame.index.names and c not in frame.columns]
    return frame.reset_index(level=levels) if levels else frame


def _say_unseen(frame: pd.DataFrame, readers: Mapping[str, Reader], name: str, strict: bool) -> None:
    """Say once which cells hold a category that the readers were not fitted on.

    Raises:
        DataError: ``strict``, and all cells of a column do, of ALL_UNSEEN_FROM or more.
    """
    parts = []
    for reader in readers.values():
        if not isinstance(reader, TabularReader):
            continue
        for column, rows, examples, cells in reader.unseen(frame):
            shown = ", ".join(map(repr, examples))
            if strict and len(rows) == cells >= ALL_UNSEEN_FROM:
                raise DataError(
                    f"{name}: column {column!r}: none of its {cells} cells holds a category that training had ({shown}, first in "
                    f"row {rows[0]}, counted from 0); training had {_some(reader.known[column])}. Write them as there, or pass "
                    "on_error='missing' to treat such cells as absent"
                )
            parts.append(
                f"column {column!r} in {len(rows)} of {cells} cells ({shown}; first in row {rows[0]}, counted from 0)"
            )
    if parts:
        warnings.warn(
            f"{name}: categories that training did not have: {'; '.join(parts)}. Such cells are treated as absent",
            stacklevel=3,
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (", …" if len(names) > 5 else "")


def _used(frame: pd.DataFrame, columns: Sequence[str], name: str) -> pd.DataFrame:
    wanted = list(dict.fromkeys(columns))
    if not frame.columns.is_unique:
        twice = [c for c in frame.columns[frame.columns.duplicated()] if c in wanted]
        if twice:
            raise DataError(f"{name}: the table has two columns named {twice[0]!r}")
    return frame[wanted].reset_index(drop=True)


def _task_of(
    frame: pd.DataFrame, target: Sequence[str], several: bool, options: TableOptions, written: bool, train: np.ndarray
) -> Task:
    """The task of the target, whose centre and weights come from the rows of ``train`` (bool ``[N]``)."""
    weights, order = options.get("class_weights"), options.get("order")
    return choose_task(frame, target, several, options.get("task"), train, weights, order, written)


def _build(
    frame: pd.DataFrame, modalities: Mapping[str, Reader], options: TableOptions, written: bool = False
) -> TableSource:
    columns = _columns(modalities, options)
    if not len(frame):
        raise DataError(f"{options.get('name', 'the table')} has no rows")
    frame = _with_index(frame, columns)
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise DataError(f"the table has two columns named {twice!r}")
    for column in columns:
        if column not in frame.columns:
            raise UnknownName("column", column, [str(c) for c in frame.columns])
    frame = _used(frame, columns, options.get("name", "table"))
    name, group, split = options.get("name", "table"), options.get("group"), options.get("split")
    place = options.get("root")
    root = None if place is None else Path(place)
    train = np.ones(len(frame), dtype=bool)
    if split is not None:
        train[:] = False
        train[split_rows_of(frame[split], name)["train"]] = True
        if not train.any():
            raise DataError(f"{name}: column {split!r} names no row 'train'")
    target, several = _targets(options)

    task_of = partial(_task_of, frame, target, several, options, written)
    with _naming(name):
        readers = {n: reader.fit(frame[train], root) for n, reader in modalities.items()}
        task = task_of(train)
    if split is not None:
        _say_unseen(frame, readers, name, strict=False)
    source = TableSource(
        frame,
        readers,
        target,
        task,
        root=root,
        on_error=options.get("on_error", "raise"),
        group=group,
        split=split,
        weight=options.get("weight"),
        name=name,
        cache=options.get("cache", CACHE),
    )
    learned = torch.from_numpy(train)
    source.origin = Origin(modalities, task_of, learned[:, None] & source.present, learned & source.target_present)
    return source
