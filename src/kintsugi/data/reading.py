"""Are rows read as a model's training rows were?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kintsugi.core.errors import ConfigError, DataError
from kintsugi.data.dataset import Dataset


def check_reading(rows: Dataset, reading: Mapping[str, Any] | None) -> None:
    """Refuse rows whose readers learned other sizes, scales or categories than those of ``reading``.

    Raises:
        DataError: naming the modality and the remedy.
    """
    if reading is None or rows.reading is None:
        return
    for name, trained in reading["modalities"].items():
        if _learned(rows.reading["modalities"][name]) != _learned(trained):
            raise DataError(
                f"{rows.name} is read otherwise than the training rows were: modality {name!r} has other settings, "
                "scales or categories. Give the file, frame or records themselves, or read them with "
                "kg.Table.from_reading(rows, model.reading_)"
            )


def rows_for(model: Any, rows: Any) -> Dataset:
    """Rows as the data set that evaluation works on, read as the training rows of the model were.

    Args:
        model: an estimator, or several: a list or dict of them; the first one that knows how rows are read.
        rows: a data set, which is returned as it is, or a frame, records, a file, with the target column.

    Raises:
        ConfigError: no model among them knows it.
    """
    if isinstance(rows, Dataset):
        return rows
    models = model.values() if isinstance(model, Mapping) else model if isinstance(model, list | tuple) else [model]
    for each in models:
        if getattr(each, "reading_", None) is not None:
            read: Dataset = each.read(rows)
            return read
    raise ConfigError(
        f"nothing says how to read {type(rows).__name__}: give a kg.Table, or an estimator that was fitted on a table, not a "
        "bare pipeline"
    )


def _learned(reader: Mapping[str, Any]) -> dict[str, Any]:
    """What decides how a cell is read, without the names of columns."""
    said = {k: v for k, v in reader.items() if k not in ("column", "cells", "categories", "numbers")}
    if "known" in said:
        said["known"] = [said["known"].get(c) for c in reader["cells"]]
    return said
