"""Rows of a data frame, decoded one by one and kept for a while."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from kintsugi.core.batch import Batch
from kintsugi.core.encoder import blank
from kintsugi.core.errors import ConfigError, DataError
from kintsugi.core.locks import ThreadLock
from kintsugi.core.schema import KINDS, Modality, Schema, Task, task_from_json
from kintsugi.data.cells import Decoded, Reader, ReadError, is_list, path_of, reader_from_json, resolve
from kintsugi.data.column_kinds import as_numbers, distinct_cells
from kintsugi.data.content import content_digest, file_digest
from kintsugi.data.dataset import Problem, Problems, Source
from kintsugi.data.foreign_cells import plain
from kintsugi.data.labels import OnError, encode
from kintsugi.data.names import label

CACHE = 128 << 20  # bytes of decoded cells that are kept
FORMAT = 1
MANY_LOST = 0.5  # share of the paths of a column that lead nowhere, from which on it is said
ENOUGH_PATHS = 10  # of which none leads anywhere: no accident of single rows any more, but an error
FILES = {"image", "audio", "series", "vector"}  # kinds whose cells may be paths
SPLIT_NAMES = {"train": "train", "val": "val", "test": "test", "validation": "val", "valid": "val", "dev": "val"}


@dataclass(frozen=True)
class Origin:
    """What a table was made of, so that its readers can learn from other rows.

    modalities: the readers as they were given, not fitted. task: what the target means, from rows that may be learned from
    (bool ``[N]``). shown: bool ``[N, M]``, labelled: bool ``[N]``: what readers and task have learned from.
    """

    modalities: Mapping[str, Reader]
    task: Callable[[np.ndarray], Task]
    shown: Tensor
    labelled: Tensor


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
        self._plain = {*target, group, split, weight}  # columns that are read as they stand, paths too
        self.schema = Schema(tuple(r.modality(n) for n, r in self.readers.items()), task)
        holes = [reader.holes(frame, root) for reader in self.readers.values()]
        for (modality, reader), absent in zip(self.readers.items(), holes, strict=True):
            if reader.kind in FILES:
                check_paths(frame, reader, absent, root, f"{name}: modality {modality!r}")
            for doubt in reader.doubts(frame, root):
                warnings.warn(f"{name}: modality {modality!r}: {doubt}", UserWarning, stacklevel=4)
        self.present = torch.from_numpy(~np.stack(holes, 1))
        self.target: Tensor | None = None
        self.target_present = torch.zeros(len(frame), dtype=torch.bool)
        if target:
            self.target, self.target_present = encode(frame, target, task, on_error, name)
        self.groups = None if group is None else _groups(frame[group])
        self.split = None if split is None else split_rows_of(frame[split], name)
        self.weight = None if weight is None else _weights(frame[weight], name)
        self._weighted = weight
        self.roles = {"group": group, "split": split, "weight": weight}
        self.problems: Problems = Problems()
        self.reading: dict[str, Any] = {
            "format": FORMAT,
            "modalities": {n: r.to_json() for n, r in self.readers.items()},
            "target": list(target),
            "task": {"key": task.key, **task.to_json()},
            "group": group,
            "on_error": on_error,
        }
        self._cells = {c: _cells(frame[c]) for reader in self.readers.values() for c in reader.columns}
        self._bad: set[tuple[int, str]] = set()
        self.origin: Origin | None = None
        self._made: dict[str, Any] = {
            "root": root, "on_error": on_error, "group": group, "split": split, "weight": weight, "name": name, "cache": cache
        }  # fmt: skip
        self._make_room()

    def read(self, rows: Tensor) -> Batch:
        rows = rows.to(torch.int64)
        present = self.present[rows]
        inputs: dict[str, Tensor] = {}
        masks: dict[str, Tensor] = {}
        with self._lock:
            for column, modality in enumerate(self.schema.modalities):
                x, mask, read = self._column(modality, rows, present[:, column])
                inputs[modality.name] = x
                present[:, column] = read
                if mask is not None:
                    masks[modality.name] = mask
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

    def _column(self, modality: Modality, rows: Tensor, present: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        """One modality of these rows: values, mask, and bool ``[B]``: could be read."""
        shelf = self._shelves[modality.name]
        x = blank(modality, len(rows))
        mask = None if shelf.mask is None else torch.zeros(len(rows), x.shape[1], dtype=torch.bool)
        read = present.clone()
        kept: list[tuple[int, int]] = []
        fresh: list[tuple[int, int]] = []
        for at, (row, here) in enumerate(zip(rows.tolist(), present.tolist(), strict=True)):
            if here:
                slot = shelf.find(row)
                fresh.append((at, row)) if slot is None else kept.append((at, slot))
        if kept:  # before anything new can take a slot
            at, slot = torch.tensor(kept).T
            x[at] = shelf.values[slot]
            if mask is not None and shelf.mask is not None:
                mask[at] = shelf.mask[slot]
        decoded = [(at, row, found) for at, row in fresh if (found := self._decode(row, modality.name)) is not None]
        read[[at for at, _ in fresh]] = False
        if decoded:
            places = [at for at, _, _ in decoded]
            read[places] = True
            values = x[places] = torch.stack([found[0] for _, _, found in decoded])
            seen = None
            if mask is not None:
                seen = mask[places] = torch.stack([found[1] for _, _, found in decoded if found[1] is not None])
            shelf.keep([row for _, row, _ in decoded], values, seen)
        return x, mask, read

    def _decode(self, row: int, name: str) -> Decoded | None:
        """A cell that is there, or None where it cannot be used."""
        if (row, name) in self._bad:
            return None
        reader = self.readers[name]
        cells = [self._cells[c][row] for c in reader.columns]
        try:
            if self.on_error == "missing":
                value, partly = reader.read_leniently(cells, self.root)
            else:
                value, partly = reader.read(cells, self.root), []
            if value[1] is not None and not value[1].any():
                raise partly[0] if partly else ReadError(", ".join(reader.columns), "holds nothing where it is read")
            if partly:
                where = ", ".join(dict.fromkeys(problem.where for problem in partly))
                reason = "; ".join(dict.fromkeys(problem.reason for problem in partly))
                self.problems.add(Problem(row, name, where, f"{reason}; the rest of the row is read"))
            return value
        except ReadError as error:
            if self.on_error == "raise":
                raise DataError(
                    f"{self.name}: row {row} (counted from 0), modality {name!r}: {error.where}: {error.reason}. "
                    "Repair or empty this cell, or pass on_error='missing' to treat such cells as absent"
                ) from error
            self._bad.add((row, name))
            self.problems.add(Problem(row, name, error.where, error.reason))
            return None

    def units(self, modality: str) -> tuple[Tensor, Tensor] | None:
        """Mean and standard deviation that the reader standardised by, float64 ``[C]``; of a category 0 and 1."""
        reader = self.readers.get(modality)
        mean, std = getattr(reader, "mean", ()), getattr(reader, "std", ())
        return (torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)) if mean else None

    @property
    def fingerprint(self) -> str:
        """Of how the table is read and of all cells, files by their bytes: neither their times nor their places count.

        Raises:
            DataError: a cell of a type whose content cannot be told; names column, row and type.
        """
        if not hasattr(self, "_fingerprint"):
            digest = hashlib.sha256(json.dumps(self._meaning(), sort_keys=True).encode())
            digest.update(self._beyond_reading())
            for column in self.frame.columns:
                digest.update(column.encode())
                digest.update(self._cells_digest(column))
            for reader in self.readers.values():
                for column in reader.columns if reader.kind in FILES else ():
                    digest.update(self._files_digest(column, reader.kind))
            self._fingerprint = digest.hexdigest()[:16]
        return self._fingerprint

    def _meaning(self) -> dict[str, Any]:
        """How the table is read, without how answers are spelt."""
        task = self.schema.task
        return {**self.reading, "task": {"key": task.key, **task.meaning()}}

    def _beyond_reading(self) -> bytes:
        """The column of weights, and the order of modalities where that of the columns does not say it; else nothing.

        Tables without either keep the fingerprints of version 0.1.0.
        """
        place = {column: number for number, column in enumerate(self.frame.columns)}
        last = {name: max(place[column] for column in reader.columns) for name, reader in self.readers.items()}
        ordered = sorted(self.readers, key=lambda name: (last[name], name))
        more: dict[str, Any] = {} if self._weighted is None else {"weight": self._weighted}
        if ordered != list(self.readers):
            more["order"] = list(self.readers)
        return json.dumps(more, sort_keys=True).encode() if more else b""

    def _cells_digest(self, column: str) -> bytes:
        """Of the cells of a column; those that name a file and are read in no other way count by the file alone."""
        values = self.frame[column]
        kinds = {reader.kind for reader in self.readers.values() if column in reader.columns}
        numbers = pd.api.types.is_numeric_dtype(values.dtype)
        by_file = min(kinds) if kinds and kinds <= FILES and column not in self._plain and not numbers else None
        nested = isinstance(values.dtype, pd.ArrowDtype) and values.dtype.type in (list, dict)
        if values.dtype != object and not nested and by_file is None:
            return pd.util.hash_pandas_object(_wide(values), index=False).to_numpy().tobytes()
        if by_file is None and not nested and values.map(lambda cell: cell is None or type(cell) is str).all():
            return pd.util.hash_pandas_object(values, index=False).to_numpy().tobytes()  # as text of other types
        digest = hashlib.sha256()
        for row, cell in enumerate(values.array):
            try:
                digest.update(b"file" if by_file and names_file(cell, by_file) else cell_digest(cell))
            except DataError as error:
                raise DataError(f"{self.name}: column {column!r}, row {row} (counted from 0) holds {error}") from error
        return digest.digest()

    def _files_digest(self, column: str, kind: str) -> bytes:
        digest = hashlib.sha256()
        for cell in self.frame[column].array:
            if names_file(cell, kind):
                try:
                    digest.update(file_digest(resolve(path_of(cell), self.root)))
                except (OSError, ValueError):
                    digest.update(b"no such file")
        return digest.digest()

    def __getstate__(self) -> dict[str, Any]:
        """Without the lock and the decoded cells, which are those of one process."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_lock", "_shelves")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._make_room()

    def _make_room(self) -> None:
        slots = min(len(self.frame), self._made["cache"] // self.row_bytes)
        self._shelves = {m.name: _Shelf(m, slots) for m in self.schema.modalities}
        self._lock = ThreadLock(torn=self._forget)  # a DataLoader forks its workers while others may read

    def refitted(
        self, shown: Tensor, labelled: Tensor, hidden: Mapping[str, np.ndarray], task: Task | None = None
    ) -> TableSource:
        """The same table, of which the readers have learned from these slots and labels alone.

        Args:
            shown: bool ``[N, M]``: slots that may be learned from.
            labelled: bool ``[N]``: labels that may be.
            hidden: column -> bool ``[N]``: cells of tables that may not be.
            task: in the place of one that is learned from the labels.

        Raises:
            ConfigError: it was read by the reading of a model, which is not learned anew.
        """
        origin = self.origin
        if origin is None:
            raise ConfigError(f"{self.name} is read as a model was trained; its readers learn nothing anew")
        frame = self.frame
        for column, gone in hidden.items():
            frame = frame.assign(**{column: frame[column].mask(gone)})
        with warnings.catch_warnings():  # said when the table was made
            warnings.simplefilter("ignore")
            readers = {
                name: reader.fit(frame[shown[:, m].numpy()], self.root)
                for m, (name, reader) in enumerate(origin.modalities.items())
            }
            task = origin.task(labelled.numpy()) if task is None else task
            if readers == self.readers and task == self.schema.task:
                return self  # with what it has decoded
            fresh = self._with(readers, task)
        fresh.origin = replace(origin, shown=shown, labelled=labelled)
        fresh.problems = self.problems  # of the same rows: whoever holds the table sees what its training came upon
        return fresh

    def read_as(self, reading: Mapping[str, Any], labels: bool = True) -> TableSource:
        """The same table, read as a model's training rows were; without ``labels`` it has no target."""
        readers = {name: reader_from_json(saved) for name, saved in reading["modalities"].items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fresh = self._with(readers, task_from_json(reading["task"]), labels)
        fresh.reading = {**dict(reading), "on_error": self.on_error}
        return fresh

    def _with(self, readers: Mapping[str, Reader], task: Task, labels: bool = True) -> TableSource:
        return type(self)(self.frame, readers, self.reading["target"] if labels else (), task, **self._made)

    @property
    def inputs_fingerprint(self) -> str:
        """Of the cells that readers read, files by their bytes: the same with a target and without, however they are scaled."""
        if not hasattr(self, "_inputs_fingerprint"):
            digest = hashlib.sha256()
            for name, reader in self.readers.items():
                digest.update(json.dumps([name, reader.kind, *reader.columns]).encode())
                for column in reader.columns:
                    digest.update(self._cells_digest(column))
                    if reader.kind in FILES:
                        digest.update(self._files_digest(column, reader.kind))
            self._inputs_fingerprint = digest.hexdigest()[:16]
        return self._inputs_fingerprint

    def _forget(self) -> None:
        """Let go of every decoded cell."""
        for shelf in self._shelves.values():
            shelf.clear()

    @property
    def cached_bytes(self) -> int:
        """Memory that decoded cells take at the moment."""
        return sum(shelf.used for shelf in self._shelves.values())

    @property
    def row_bytes(self) -> int:
        rows = [blank(m) for m in self.schema.modalities]
        masks = sum(m.shape[0] or 1 for m in self.schema.modalities if KINDS[m.kind].stepped)
        return sum(x.numel() * x.element_size() for x in rows) + masks


class _Shelf:
    """Decoded cells of one modality, in one block of fixed size; the least recently used cell makes room.

    One block, because many small tensors that come and go leave holes in the heap as large as themselves.
    """

    def __init__(self, modality: Modality, slots: int) -> None:
        self.slots = slots
        self.values = blank(modality, slots)  # zeros take no memory before they are written to
        stepped = KINDS[modality.kind].stepped
        self.mask = torch.zeros(slots, self.values.shape[1], dtype=torch.bool) if stepped else None
        self._slot: OrderedDict[int, int] = OrderedDict()

    @property
    def used(self) -> int:
        """Bytes of the cells that are kept."""
        one = self.values[:1].nbytes + (0 if self.mask is None else self.mask[:1].nbytes)
        return len(self._slot) * one

    def clear(self) -> None:
        """Hold nothing."""
        self._slot = OrderedDict()

    def find(self, row: int) -> int | None:
        """Where this row's cell is."""
        slot = self._slot.get(row)
        if slot is not None:
            self._slot.move_to_end(row)
        return slot

    def keep(self, rows: list[int], values: Tensor, mask: Tensor | None) -> None:
        """Keep the cells of these rows, which are not here yet: the last ones, if there are more than slots."""
        rows = rows[max(0, len(rows) - self.slots) :]
        if not rows or not self.slots:
            return
        slots = []
        for row in rows:
            slot = len(self._slot) if len(self._slot) < self.slots else self._slot.popitem(last=False)[1]
            self._slot[row] = slot
            slots.append(slot)
        self.values[slots] = values[-len(rows) :]
        if self.mask is not None and mask is not None:
            self.mask[slots] = mask[-len(rows) :]


def split_rows_of(values: pd.Series, name: str) -> dict[str, Tensor]:
    """Positions of the rows of each part that a column names; rows without a name are in none."""
    codes, cells = distinct_cells(values)
    called = [label(cell).lower() for cell in cells]
    words = [called[code] if code >= 0 else None for code in codes]
    for row, word in enumerate(words):
        if word and word not in SPLIT_NAMES:
            raise DataError(f"{name}: column {values.name!r}, row {row} (counted from 0) holds {word!r}; it must be "
                            "train, val or test")  # fmt: skip
    parts = np.array([SPLIT_NAMES.get(w or "", "") for w in words])
    return {part: torch.from_numpy(np.flatnonzero(parts == part)) for part in ("train", "val", "test")}


def _groups(values: pd.Series) -> Tensor:
    """Int64 ``[N]``; a row without a group is a group of its own. 7, 7.0, "7" and "7 " are one (see ``label``)."""
    cells_of, cells = distinct_cells(values)
    for cell in cells:
        if isinstance(plain(cell), list | tuple | dict | set | np.ndarray):
            raise DataError(f"group column {values.name!r} holds {type(cell).__name__}; a group is one name or number")
    named = pd.factorize(np.array([label(cell) for cell in cells], dtype=object))[0].astype(np.int64)
    codes = np.append(named, -1)[cells_of]  # the last for a hole
    alone = codes < 0
    codes[alone] = codes.max(initial=-1) + 1 + np.arange(alone.sum())
    return torch.from_numpy(codes)


def _weights(values: pd.Series, name: str) -> Tensor:
    numbers = as_numbers(values)
    wrong = np.flatnonzero(~np.isfinite(numbers) | (numbers < 0))
    if len(wrong):
        raise DataError(
            f"{name}: weight column {values.name!r}, row {wrong[0]} (counted from 0) holds {values.array[wrong[0]]}; "
            "weights are numbers from 0 up"
        )
    return torch.from_numpy(numbers.astype(np.float32))


def _cells(values: pd.Series) -> Any:
    """What gives one cell fastest, without a copy."""
    return values.to_numpy() if isinstance(values.dtype, np.dtype) else values.array


def _wide(values: pd.Series) -> pd.Series:
    """Numbers in 64 bits, since pandas hashes their bits without the type: -1 of int8 would be 255 of int16."""
    dtype = values.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        categories = pd.Series(dtype.categories)
        wide = _wide(categories)
        return values if wide is categories else values.cat.rename_categories(pd.Index(wide))
    kind, size = getattr(dtype, "kind", ""), getattr(dtype, "itemsize", 8)
    if kind not in "iuf" or not kind or (kind in "if" and size >= 8):
        return values
    if kind == "u" and size >= 8 and bool((values.dropna() > np.iinfo(np.int64).max).any()):
        return values.astype(object)
    name = "float64" if kind == "f" else "int64"
    target: Any = name if isinstance(dtype, np.dtype) else name.capitalize()  # those of pandas have NA
    return values.astype(target)


def cell_digest(cell: Any) -> bytes:
    """What a cell adds to the digest of its column.

    Bytes and the usual arrays are written as version 0.1.0 did, so that data sets of them keep their fingerprints. No two of
    these types of arrays have one size, so that shape and bytes tell them apart.
    """
    if isinstance(cell, bytes | bytearray):
        return b"b" + hashlib.sha256(cell).digest()
    if type(cell) is np.ndarray and cell.dtype.str in ("|u1", "<f2", "<f4", "<f8"):
        return b"a" + str(cell.shape).encode() + hashlib.sha256(cell.tobytes()).digest()
    return content_digest(cell)


def names_file(cell: Any, kind: str) -> bool:
    """Whether a reader of this kind takes the cell for the path of a file."""
    return path_of(cell) is not None and not (kind in ("series", "vector") and is_list(cell))


def check_paths(frame: pd.DataFrame, reader: Reader, absent: np.ndarray, root: Path | None, where: str) -> None:
    """Say where most paths of a column lead nowhere: from ``MANY_LOST`` of them on. Where all do, that is an error, if there
    are ``ENOUGH_PATHS``; with fewer a warning, since one new row may well lack its file.

    Args:
        frame: the rows.
        reader: of files.
        absent: bool ``[N]``, what the reader takes for holes.
        root: folder of relative paths.
        where: table and modality, for the message.

    Raises:
        DataError: no path leads to a file.
    """
    (column,) = reader.columns
    cells = frame[column].array
    lost = [row for row in np.flatnonzero(absent).tolist() if names_file(cells[row], reader.kind)]
    if not lost:
        return
    count = len(lost) + sum(names_file(cells[row], reader.kind) for row in np.flatnonzero(~absent).tolist())
    if len(lost) < MANY_LOST * count:
        return
    tried = resolve(path_of(cells[lost[0]]), root)
    share = f"{len(lost)} of {count} paths" if len(lost) < count or count == 1 else f"all {count} paths"
    message = (
        f"{where}: {share} in column {column!r} lead to no file; the first is in row {lost[0]} (counted from 0), looked for at "
        f"{tried if tried.is_absolute() else Path.cwd() / tried}. Such rows count as without it. If the files are in another "
        "folder, say so with root=FOLDER (new rows: kg.Table.from_reading(rows, model.reading_, root=FOLDER)); if there are "
        "none, empty the cells"
    )
    if len(lost) == count >= ENOUGH_PATHS:
        raise DataError(message)
    warnings.warn(message, UserWarning, stacklevel=5)
