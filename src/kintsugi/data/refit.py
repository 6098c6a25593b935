"""Readers that learn sizes, scales and categories from what training may see, and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kintsugi.core.task import Task
from kintsugi.data.dataset import Dataset
from kintsugi.data.table_source import TableSource


def learned_from(train: Dataset, *others: Dataset, task: Task | None = None) -> tuple[Dataset, ...]:
    """These rows of tables, read by readers that were fitted anew on what ``train`` shows.

    Scales, categories, sizes, and the centre, spread and class weights of the target come from the slots, cells and labels
    that are there in the training rows: not from what a simulator hid in them, and from no other row. Where they come from
    these already, and where the rows are tensors or read by the reading of a model, everything stays as it is.

    Args:
        train: the rows to train on.
        others: validation and test rows of the same table, or of others that were read as it was.
        task: of a model that was made already, which stays as it is; None: it is learned anew too.
    """
    source = train.source
    if not isinstance(source, TableSource) or source.origin is None:
        return (train, *others)
    shown, labelled = shown_in(train)
    if torch.equal(source.origin.shown, shown) and torch.equal(source.origin.labelled, labelled) and not _cells(train):
        return (train, *others)
    fresh = source.refitted(shown, labelled, _cells(train), task)
    if fresh is source:
        return (train, *others)
    return tuple(_read_by(piece, source, fresh) for piece in (train, *others))


def shown_in(train: Dataset) -> tuple[Tensor, Tensor]:
    """Bool ``[N, M]`` and bool ``[N]``, of all rows of the source: slots and labels that these rows show."""
    shown, labelled = torch.zeros_like(train.source.present), torch.zeros_like(train.source.target_present)
    shown[train.index], labelled[train.index] = train.present, train.target_present
    return shown, labelled


def _cells(train: Dataset) -> dict[str, np.ndarray]:
    """Column -> bool ``[N]`` of the source: cells of tables that a simulator hid one by one."""
    if "step" not in train.damage.units:
        return {}
    assert isinstance(train.source, TableSource)
    hidden: dict[str, np.ndarray] = {}
    tables = {name: reader for name, reader in train.source.readers.items() if reader.kind == "tabular"}
    for start in range(0, len(train), 1024) if tables else ():
        batch = train.batch(torch.arange(start, min(start + 1024, len(train))))
        for name, reader in tables.items():
            for column, seen in zip(reader.columns, batch.mask[name].T, strict=True):
                gone = hidden.setdefault(column, np.zeros(len(train.source.frame), dtype=bool))
                gone[batch.index.numpy()] = ~seen.numpy()
    return hidden


def read_as(rows: Dataset, reading: Mapping[str, Any], labels: bool = True) -> Dataset:
    """Rows of a table that were read otherwise than ``reading`` says, from the same columns: read anew as it says.

    Args:
        rows: which stay as they are where they are tensors, or other columns are read.
        reading: of a model.
        labels: False: the target is not looked at, and may be one that the model does not know.

    Raises:
        DataError: a label that the model does not know.
    """
    source = rows.source
    if not isinstance(source, TableSource) or _names(source.reading) != _names(reading):
        return rows
    alike = source.reading["modalities"] == reading["modalities"]
    if alike and (not labels or source.reading["task"] == reading["task"]):
        return rows
    return rows.read_by(source.read_as(reading, labels))


def _names(reading: Mapping[str, Any]) -> Any:
    """Which columns each modality is read from."""
    return {
        name: (reader["kind"], reader.get("column"), tuple(reader.get("cells", ())))
        for name, reader in reading["modalities"].items()
    }


def _read_by(piece: Dataset, before: TableSource, fresh: TableSource) -> Dataset:
    return piece.read_by(fresh) if piece.source is before else read_as(piece, fresh.reading)
