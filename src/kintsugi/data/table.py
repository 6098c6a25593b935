"""A table of multimodal rows, read lazily, with whatever holes it has."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypedDict, Unpack

import numpy as np
import pandas as pd

from kintsugi.core.errors import ConfigError, DataError, UnknownName
from kintsugi.core.schema import Task, task_from_json
from kintsugi.data.cells import Reader, reader_from_json
from kintsugi.data.dataset import Dataset
from kintsugi.data.frames import Rows, fill_absent, open_rows, read_csv, read_parquet
from kintsugi.data.labels import OnError, choose_task
from kintsugi.data.table_source import CACHE, FORMAT, TableSource, split_rows_of

__all__ = ["Table", "TableOptions", "TableSource"]


class TableOptions(TypedDict, total=False):
    """Keywords of every constructor of :class:`Table`, beside ``modalities``.

    target: label column, or a list of them (several labels or numbers a row); None: no labels.
    task: "classification", "multilabel", "ordinal", "regression", a task, or None: inferred from the target
    (see :func:`~kintsugi.data.labels.infer_task`).
    order: classes of an ordinal target, from the lowest to the highest; numbers and ordered categories of pandas need none.
    group: column that says which rows belong together (a patient, a speaker) and stay together in ``split``.
    split: column with ``train``, ``val`` and ``test``; readers then learn sizes, categories and scales from the
    training rows alone, otherwise from all rows.
    weight: column with the weight of each row in the loss.
    class_weights: "balanced" (inverse to the frequency in the training rows), weights in the order of the classes.
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
    class_weights: str | Sequence[float] | None
    on_error: OnError
    root: str | os.PathLike[str] | None
    name: str
    cache: int


class Table(Dataset):
    """A data set from a table of the user's: one row a sample, one or more columns a modality.

    Holes (None, NaN, empty text, paths of files that are not there) are rows without that modality. Rows are named in
    every message by their position, counted from 0. Each constructor takes ``modalities``, a dict from names to readers
    (see :mod:`kintsugi.data.readers`: image, audio, text, tabular, series, vector), and the keywords of
    :class:`TableOptions`.
    """

    @classmethod
    def from_pandas(
        cls, frame: pd.DataFrame, *, modalities: Mapping[str, Reader], **options: Unpack[TableOptions]
    ) -> Self:
        """From a data frame; relative paths start at ``root`` or the working directory.

        Raises:
            UnknownName: a column that the frame does not have.
            DataError: a target that cannot be learned or read.
        """
        return cls(_build(frame, modalities, options))

    @classmethod
    def from_records(
        cls, records: Sequence[Mapping[str, Any]], *, modalities: Mapping[str, Reader], **options: Unpack[TableOptions]
    ) -> Self:
        """From a list of dicts, one a row; a key that a dict lacks is a hole."""
        return cls(_build(open_rows(records).frame, modalities, options))

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
        """From a CSV file in UTF-8. Text columns are read as they stand ("NA" is a word, "007" keeps its zeros)."""
        rows = read_csv(Path(path), _columns(modalities, options), list(modalities.values()))
        return cls(_build(rows.frame, modalities, _located(options, rows)))

    @classmethod
    def from_reading(
        cls,
        rows: pd.DataFrame | str | os.PathLike[str] | Sequence[Mapping[str, Any]],
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
            rows: a data frame, a Parquet or CSV file, or dicts. A key that all dicts lack is a hole in every
                row, unless one of their other keys looks like a misspelling of it.
            reading: ``reading`` of the training table.
            require_target: the target column must be there; otherwise it may be absent.
            optional: modalities whose columns may be absent from a file or frame too: holes in every row.
            root: folder of relative paths; default: that of the file.
            on_error: default: as the training table was read. A label that training did not know follows it too.
            name: how messages call the rows.
            cache: bytes of decoded cells that are kept in memory.

        Raises:
            DataError: a column is not there, or a label is unknown.
        """
        if reading.get("format") != FORMAT:
            raise DataError(f"this reading has format {reading.get('format')!r}; this version reads format {FORMAT}")
        readers = {n: reader_from_json(saved) for n, saved in reading["modalities"].items()}
        opened = open_rows(rows, readers)
        columns = [c for reader in readers.values() for c in reader.columns]
        target = list(reading["target"])
        lacking = [c for c in target if c not in opened.frame.columns]
        if lacking and not require_target:
            target = []
        may_lack = {c for modality in optional for c in readers[modality].columns}
        frame = fill_absent(opened, [*columns, *target], name or opened.name, may_lack)
        group = reading.get("group")
        group = group if group in opened.frame.columns else None
        source = TableSource(
            _used(frame, [*columns, *target, *([group] if group else [])]),
            readers,
            target,
            task_from_json(reading["task"]),
            root=Path(root) if root is not None else opened.root,
            on_error=on_error or reading["on_error"],
            group=group,
            name=name or opened.name,
            cache=cache,
        )
        source.reading = {**dict(reading), "on_error": source.on_error}
        return cls(source)


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


def _used(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    return frame[list(dict.fromkeys(columns))].reset_index(drop=True)


def _build(frame: pd.DataFrame, modalities: Mapping[str, Reader], options: TableOptions) -> TableSource:
    columns = _columns(modalities, options)
    if not len(frame):
        raise DataError(f"{options.get('name', 'the table')} has no rows")
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise DataError(f"the table has two columns named {twice!r}")
    for column in columns:
        if column not in frame.columns:
            raise UnknownName("column", column, [str(c) for c in frame.columns])
    frame = _used(frame, columns)
    name, group, split = options.get("name", "table"), options.get("group"), options.get("split")
    place = options.get("root")
    root = None if place is None else Path(place)
    train = np.ones(len(frame), dtype=bool)
    if split is not None:
        train[:] = False
        train[split_rows_of(frame[split], name)["train"]] = True
        if not train.any():
            raise DataError(f"{name}: column {split!r} names no row 'train'")
    readers = {n: reader.fit(frame[train], root) for n, reader in modalities.items()}
    target, several = _targets(options)
    task = choose_task(
        frame, target, several, options.get("task"), train, options.get("class_weights"), options.get("order")
    )
    return TableSource(
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
