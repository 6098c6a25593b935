"""Rows of a data frame, decoded one by one and kept for a while."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from kintsugi.core.batch import Batch
from kintsugi.core.encoder import blank
from kintsugi.core.errors import ConfigError, DataError
from kintsugi.core.schema import Schema, Task
from kintsugi.data.cells import Decoded, Reader, ReadError, is_path, resolve
from kintsugi.data.dataset import Problem, Problems, Source
from kintsugi.data.labels import OnError, encode

CACHE = 128 << 20  # bytes of decoded cells that are kept
OBJECT_BYTES = 512  # about what Python and torch add to one cached tensor
FORMAT = 1
STEPPED = ("text", "tabular", "series")  # kinds that come with a mask
SPLIT_NAMES = {"train": "train", "val": "val", "test": "test", "validation": "val", "valid": "val", "dev": "val"}


class TableSource(Source):
    """Rows of a data frame, decoded when asked for; the least recently used decoded cells are forgotten.

    Args:
        frame: the columns that are used, rows by position.
        readers: name of a modality -> fitted reader.
        target: target columns (none: no labels); task: what they mean.
        task: see ``target``.
        root: folder of relative paths.
        on_error: see :class:`TableOptions`; group, split, weight: columns.
        group, split, weight, name, cache: see :class:`TableOptions`.
    """

    def __init__(
        self,
        frame: pd.DataFrame,
        readers: Mapping[str, Reader],
        target: Sequence[str],
        task: Task,
        *,
        root: Path | None = None,
        on_error: OnError = "raise",
        group: str | None = None,
        split: str | None = None,
        weight: str | None = None,
        name: str = "table",
        cache: int = CACHE,
    ) -> None:
        if on_error not in ("raise", "missing"):
            raise ConfigError(f"on_error must be 'raise' or 'missing', not {on_error!r}")
        self.frame, self.readers, self.root = frame, dict(readers), root
        self.on_error: OnError = on_error
        self.name = name
        self.schema = Schema(tuple(r.modality(n) for n, r in self.readers.items()), task)
        holes = [reader.holes(frame, root) for reader in self.readers.values()]
        self.present = torch.from_numpy(~np.stack(holes, 1))
        self.target: Tensor | None = None
        self.target_present = torch.zeros(len(frame), dtype=torch.bool)
        if target:
            self.target, self.target_present = encode(frame, target, task, on_error, name)
        self.groups = None if group is None else _groups(frame[group])
        self.split = None if split is None else split_rows_of(frame[split], name)
        self.weight = None if weight is None else _weights(frame[weight], name)
        self.problems: Problems = Problems()
        self.reading: dict[str, Any] = {
            "format": FORMAT,
            "modalities": {n: r.to_json() for n, r in self.readers.items()},
            "target": list(target),
            "task": {"key": task.key, **task.to_json()},
            "group": group,
            "on_error": on_error,
        }
        self._cells = {c: frame[c].array for reader in self.readers.values() for c in reader.columns}
        self._cache = _Cache(cache)
        self._bad: set[tuple[int, str]] = set()
        self._lock = threading.Lock()

    def read(self, rows: Tensor) -> Batch:
        rows = rows.to(torch.int64)
        present = self.present[rows]
        inputs: dict[str, Tensor] = {}
        masks: dict[str, Tensor] = {}
        with self._lock:
            for column, (name, modality) in enumerate(zip(self.readers, self.schema.modalities, strict=True)):
                x = inputs[name] = blank(modality, len(rows))
                for at, row in enumerate(rows.tolist()):
                    if not present[at, column]:
                        continue
                    value, mask = self._cell(row, name)
                    if value is None:
                        present[at, column] = False
                        continue
                    x[at] = value
                    if mask is not None:
                        seen = masks.setdefault(name, torch.zeros(len(rows), len(mask), dtype=torch.bool))
                        seen[at] = mask
                if name not in masks and modality.kind in STEPPED:
                    masks[name] = torch.zeros(len(rows), modality.shape[0] or 1, dtype=torch.bool)
        return Batch(
            self.schema.names,
            inputs,
            present,
            rows,
            None if self.target is None else self.target[rows],
            self.target_present[rows],
            None if self.weight is None else self.weight[rows],
            masks,
            {} if self.groups is None else {"group": self.groups[rows]},
        )

    def _cell(self, row: int, name: str) -> Decoded | tuple[None, None]:
        key = (row, name)
        if key in self._bad:
            return None, None
        found = self._cache.get(key)
        if found is not None:
            return found
        reader = self.readers[name]
        try:
            value = reader.read([self._cells[c][row] for c in reader.columns], self.root)
            if value[1] is not None and not value[1].any():
                raise ReadError(", ".join(reader.columns), "holds nothing where it is read")
        except ReadError as error:
            if self.on_error == "raise":
                raise DataError(
                    f"{self.name}: row {row} (counted from 0), modality {name!r}: {error.where}: {error.reason}. "
                    "Repair or empty this cell, or pass on_error='missing' to treat such cells as absent"
                ) from error
            self._bad.add(key)
            self.problems.add(Problem(row, name, error.where, error.reason))
            return None, None
        self._cache.put(key, value)
        return value

    @property
    def fingerprint(self) -> str:
        if not hasattr(self, "_fingerprint"):
            digest = hashlib.sha256(json.dumps(self.reading, sort_keys=True).encode())
            for column in self.frame.columns:
                digest.update(column.encode())
                digest.update(_hash(self.frame[column]))
            for reader in self.readers.values():
                if reader.kind in ("image", "audio", "series", "vector"):
                    for column in reader.columns:
                        digest.update(_files(self.frame[column], self.root))
            self._fingerprint = digest.hexdigest()[:16]
        return self._fingerprint

    @property
    def row_bytes(self) -> int:
        rows = [blank(m) for m in self.schema.modalities]
        masks = sum(m.shape[0] or 1 for m in self.schema.modalities if m.kind in STEPPED)
        return sum(x.numel() * x.element_size() for x in rows) + masks


class _Cache:
    """Decoded cells, at most so many bytes of them; the least recently used goes first."""

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0
        self._kept: OrderedDict[tuple[int, str], Decoded] = OrderedDict()

    def get(self, key: tuple[int, str]) -> Decoded | None:
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def put(self, key: tuple[int, str], value: Decoded) -> None:
        size = self._size(value)
        if size > self.limit:
            return
        self._kept[key] = value
        self.used += size
        while self.used > self.limit:
            self.used -= self._size(self._kept.popitem(last=False)[1])

    @staticmethod
    def _size(value: Decoded) -> int:
        return sum(t.numel() * t.element_size() + OBJECT_BYTES for t in value if t is not None)


def split_rows_of(values: pd.Series, name: str) -> dict[str, Tensor]:
    """Positions of the rows of each part that a column names; rows without a name are in none."""
    words = [None if pd.isna(v) else str(v).strip().lower() for v in values.array]
    for row, word in enumerate(words):
        if word and word not in SPLIT_NAMES:
            raise DataError(f"{name}: column {values.name!r}, row {row} (counted from 0) holds {word!r}; it must be "
                            "train, val or test")  # fmt: skip
    parts = np.array([SPLIT_NAMES.get(w or "", "") for w in words])
    return {part: torch.from_numpy(np.flatnonzero(parts == part)) for part in ("train", "val", "test")}


def _groups(values: pd.Series) -> Tensor:
    """Int64 ``[N]``; a row without a group is a group of its own."""
    codes = pd.factorize(values)[0].astype(np.int64)
    alone = codes < 0
    codes[alone] = codes.max(initial=-1) + 1 + np.arange(alone.sum())
    return torch.from_numpy(codes)


def _weights(values: pd.Series, name: str) -> Tensor:
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = np.flatnonzero(~np.isfinite(numbers) | (numbers < 0))
    if len(wrong):
        raise DataError(
            f"{name}: weight column {values.name!r}, row {wrong[0]} (counted from 0) holds {values.array[wrong[0]]!r}; "
            "weights are numbers from 0 up"
        )
    return torch.from_numpy(numbers).float()


def _hash(values: pd.Series) -> bytes:
    if values.dtype != object:
        return pd.util.hash_pandas_object(values, index=False).to_numpy().tobytes()
    digest = hashlib.sha256()
    for cell in values.array:
        if isinstance(cell, (bytes, bytearray)):
            digest.update(b"b" + hashlib.sha256(cell).digest())
        elif isinstance(cell, (list, tuple, np.ndarray)):
            flat = np.asarray(cell, dtype=object).ravel() if isinstance(cell, (list, tuple)) else cell.ravel()
            data = repr(flat.tolist()).encode() if flat.dtype == object else flat.tobytes()
            digest.update(b"a" + repr(np.shape(cell)).encode() + hashlib.sha256(data).digest())
        else:
            digest.update(b"o" + repr(cell).encode())
    return digest.digest()


def _files(values: pd.Series, root: Path | None) -> bytes:
    digest = hashlib.sha256()
    for cell in values.array:
        if is_path(cell):
            try:
                found = resolve(cell, root).stat()
            except (OSError, ValueError):
                continue
            digest.update(f"{found.st_size} {found.st_mtime_ns}".encode())
    return digest.digest()
