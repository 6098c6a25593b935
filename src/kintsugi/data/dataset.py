"""Rows with holes from any source, with lazy subsets, simulated missingness and corruption."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from kintsugi.core.batch import Batch
from kintsugi.core.data import Data
from kintsugi.core.errors import ConfigError, DataError
from kintsugi.core.schema import Schema
from kintsugi.imperfect.mask import Gaps, Mask, hide_target, seen_steps
from kintsugi.imperfect.seeds import row_identities, stable_key

if TYPE_CHECKING:
    import pandas as pd

    from kintsugi.imperfect.distortion import Distortion
    from kintsugi.imperfect.mechanism import Mechanism

Keep = Literal["nothing", "truth"]


class Source(ABC):
    """Where rows come from. Rows are named by their position ``0 … N-1``; holes are as in the source."""

    schema: Schema
    name: str
    present: Tensor
    target: Tensor | None
    target_present: Tensor
    groups: Tensor | None = None
    trusted: Tensor | None = None
    split: Mapping[str, Tensor] | None = None
    problems: Problems | None = None
    reading: Mapping[str, Any] | None = None

    @abstractmethod
    def read(self, rows: Tensor) -> Batch:
        """These rows (int64 ``[B]``), with ``index`` = ``rows``.

        ``present`` may be smaller than announced where a file turns out unreadable.
        """

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of the content."""

    @property
    def inputs_fingerprint(self) -> str:
        """Hash of what methods are given of the rows: the same with labels and without."""
        return self.fingerprint

    @property
    @abstractmethod
    def row_bytes(self) -> int:
        """Memory that one decoded row takes."""

    def units(self, modality: str) -> tuple[Tensor, Tensor] | None:
        """See :meth:`kintsugi.core.data.Data.units`."""
        return None

    def in_memory(self) -> Source:
        """The same rows as tensors."""
        return TensorSource.collect(self)


class TensorSource(Source):
    """Rows that are tensors already: a batch is a slice, nothing is collated."""

    def __init__(self, schema: Schema, batch: Batch, name: str = "tensors") -> None:
        self.schema, self.name = schema, name
        self._all = batch
        self._units: Mapping[str, tuple[Tensor, Tensor] | None] = {}
        self.present = batch.present
        self.target = batch.target
        labelled = torch.ones(len(batch), dtype=torch.bool)
        self.target_present = labelled if batch.target_present is None else batch.target_present
        self._check()

    def _check(self) -> None:
        for column, name in enumerate(self.schema.names):
            x, here = self._all.inputs[name], self._all.present[:, column]
            if len(x) != len(self._all):
                raise DataError(f"modality {name!r} has {len(x)} rows, the table has {len(self._all)}")
            if not x.is_floating_point():
                continue
            seen = here.view(-1, *[1] * (x.ndim - 1)).expand_as(x)
            mask = self._all.mask.get(name)
            if mask is not None:
                seen = seen & mask.view(*mask.shape, *[1] * (x.ndim - 2))
            bad = (~torch.isfinite(x) & seen).flatten(1).any(1).nonzero().flatten().tolist()
            if bad:
                raise DataError(
                    f"{self.name}: NaN or infinity in present data: modality {name!r}, row {bad[0]} "
                    f"({len(bad)} rows); mark these slots as absent or repair them"
                )

    @classmethod
    def collect(cls, source: Source, chunk: int = 512) -> TensorSource:
        """Read everything once."""
        parts = [source.read(rows) for rows in torch.arange(len(source.present)).split(chunk)]
        return cls(source.schema, concatenate(parts), source.name)._like(source)

    def _like(self, source: Source) -> Self:
        self.groups, self.trusted, self.split = source.groups, source.trusted, source.split
        self.problems, self.reading = source.problems, source.reading
        self._fingerprint, self._inputs_fingerprint = source.fingerprint, source.inputs_fingerprint
        self._units = {name: source.units(name) for name in source.schema.names}
        return self

    def units(self, modality: str) -> tuple[Tensor, Tensor] | None:
        return self._units.get(modality)

    def read(self, rows: Tensor) -> Batch:
        batch = self._all.rows(rows)
        batch.index = rows
        return batch

    @property
    def inputs_fingerprint(self) -> str:
        found: str = self.__dict__.get("_inputs_fingerprint") or self.fingerprint
        return found

    @property
    def fingerprint(self) -> str:
        if not hasattr(self, "_fingerprint"):
            rows = self._all
            parts: dict[str, Tensor | None] = {f"input {name}": rows.inputs[name] for name in self.schema.names}
            parts |= {"present": rows.present}
            parts |= {f"mask {name}": rows.mask.get(name) for name in self.schema.names}
            parts |= {"target": rows.target, "target_present": rows.target_present, "weight": rows.weight}
            parts |= {"trusted": self.trusted}
            tensors = {name: tensor for name, tensor in parts.items() if tensor is not None}
            digest = hashlib.sha256(repr(self.schema.meaning()).encode())
            for tensor in tensors.values():
                digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
            if not self._is_usual(tensors):  # version 0.1.0 wrote nothing but bytes
                said = [[name, str(tensor.dtype), list(tensor.shape)] for name, tensor in tensors.items()]
                digest.update(json.dumps(said).encode())
            self._fingerprint = digest.hexdigest()[:16]
        return self._fingerprint

    def _is_usual(self, tensors: Mapping[str, Tensor]) -> bool:
        """Do schema and bytes tell which tensors there are, of which types? Labelled rows without masks and weights."""
        inputs = {m.name: torch.int64 if m.kind == "text" else torch.float32 for m in self.schema.modalities}
        return (
            all(tensors[f"input {name}"].dtype == dtype for name, dtype in inputs.items())
            and all(tuple(tensors[f"input {m.name}"].shape[1:]) == tuple(m.shape) for m in self.schema.modalities)
            and "target" in tensors
            and tensors["target"].dtype == (torch.int64 if self.schema.task.exclusive else torch.float32)
            and not any(name.startswith("mask ") or name in ("weight", "trusted") for name in tensors)
        )

    @property
    def row_bytes(self) -> int:
        return sum(x.element_size() * x[0].numel() for x in self._all.inputs.values() if len(x))

    def in_memory(self) -> Source:
        return self


def concatenate(parts: Sequence[Batch]) -> Batch:
    """Batches of the same modalities, one after the other, with every field that they have.

    A mask that only some of them have is filled up with the steps that the others see. What stands in ``context`` and is
    neither a tensor nor a list belongs to no row and is taken from the first.

    Raises:
        DataError: some have a field, such as a target, and others do not.
    """
    joined: dict[str, Any] = {}
    for each in fields(Batch):
        values = [getattr(part, each.name) for part in parts]
        joined[each.name] = _masks(parts) if each.name == "mask" else _joined(each.name, values)
    return Batch(**joined)


def _joined(name: str, values: Sequence[Any]) -> Any:
    first = values[0]
    if any((value is None) != (first is None) for value in values):
        raise DataError(f"cannot join batches of which only some have {name}; give it to all of them or to none")
    if isinstance(first, Tensor):
        return torch.cat(list(values))
    if isinstance(first, Batch):
        return concatenate(values)
    if isinstance(first, dict):
        return {key: _joined(f"{name} of {key}", [value.get(key) for value in values]) for key in first}
    return [item for value in values for item in value] if isinstance(first, list) else first


def _masks(parts: Sequence[Batch]) -> dict[str, Tensor]:
    masked = [name for name in parts[0].names if any(name in part.mask for part in parts)]
    return {name: torch.cat([part.mask.get(name, seen_steps(part, name)) for part in parts]) for name in masked}


@dataclass(frozen=True)
class _Damage:
    """What was simulated on a data set, in the words of a report."""

    missing: str = "none"
    mask_hash: str = ""
    keep: Keep = "nothing"
    corruption: str = "none"
    plans: tuple[str, ...] = ()
    units: tuple[str, ...] = field(default=(), repr=False)  # the text says it, so it is not part of the fingerprint


@dataclass(frozen=True, eq=False)
class _Hiding:
    """What a mechanism left of some rows. unit, mechanism, hash: as of its mask."""

    gaps: Gaps
    keep: Keep
    unit: str
    mechanism: str
    hash: str

    def of(self, rows: Tensor) -> _Hiding:
        return replace(self, gaps=self.gaps.rows(rows))

    def apply(self, batch: Batch, rows: Tensor) -> Batch:
        return self.gaps.rows(rows).hide(batch)

    def relabel(self, target: Tensor, index: Tensor) -> Tensor:
        return target if self.gaps.labels is None else hide_target(target, self.gaps.labels)


@dataclass(frozen=True, eq=False)
class _Damaging:
    """What a distortion does, as planned with this seed."""

    distortion: Distortion
    plan: Any
    seed: int

    def of(self, rows: Tensor) -> _Damaging:
        return self  # its draws belong to rows of the source

    def apply(self, batch: Batch, rows: Tensor) -> Batch:
        return self.distortion.apply(batch, self.plan)

    def relabel(self, target: Tensor, index: Tensor) -> Tensor:
        return self.distortion.relabel(target, index, self.plan)


_Change = _Hiding | _Damaging


@dataclass(frozen=True, eq=False)
class _Reference:
    """Which rows say how large a damage is, and what was hidden of them; read on demand and then one object, so that
    what is measured on it can be remembered.

    rows: int64 ``[R]``: positions in the source; None: its training rows, or all where it does not say which these are.
    hidden: what was hidden, each with the ``index`` of the rows that it was planned for.
    """

    source: Source
    rows: Tensor | None = None
    hidden: tuple[tuple[Tensor, _Hiding], ...] = ()

    @property
    def index(self) -> Tensor:
        """Int64 ``[R]``."""
        if self.rows is not None:
            return self.rows
        train = (self.source.split or {}).get("train")
        return torch.arange(len(self.source.present)) if train is None or not len(train) else train

    def hiding(self, index: Tensor, hiding: _Hiding) -> _Reference:
        """The same with less to see, if any of its rows are among those of ``index``."""
        if not bool(torch.isin(self.index, index).any()):
            return self
        return replace(self, hidden=(*self.hidden, (index, hiding)))

    @cached_property
    def data(self) -> Dataset:
        index = self.index
        changes = tuple(
            replace(hiding, gaps=hiding.gaps.moved(rows, index), keep="nothing") for rows, hiding in self.hidden
        )
        return Dataset(self.source, index)._with(changes=changes, _reference=self)


class Dataset(Data):
    """Rows of a source, in an order, with what was taken away from them and done to them. Everything is lazy.

    Args:
        source: where rows come from.
        rows: positions in the source; default: all.
    """

    def __init__(self, source: Source, rows: Tensor | None = None) -> None:
        self.source = source
        self.index = torch.arange(len(source.present)) if rows is None else rows
        self.changes: tuple[_Change, ...] = ()  # what was taken away from these rows and done to them, in order
        self.mask: Mask | None = None
        self.note: dict[str, Any] = {}
        self._reference = _Reference(source)
        self._identified = False

    # what it is ------------------------------------------------------------------------------------------------
    @property
    def schema(self) -> Schema:  # type: ignore[override]
        return self.source.schema

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.source.name

    @property
    def observed(self) -> Tensor:
        """Bool ``[N, M]``: present in the data as given."""
        return self.source.present[self.index]

    @property
    def present(self) -> Tensor:  # type: ignore[override]
        present = self.observed
        for hiding in self._hidden:
            present = present & hiding.gaps.keep
        return present

    @property
    def target(self) -> Tensor | None:  # type: ignore[override]
        if self.source.target is None:
            return None
        target = self.source.target[self.index]
        for change in self.changes:
            target = change.relabel(target, self.index)
        return target

    @property
    def target_present(self) -> Tensor:  # type: ignore[override]
        there = self.source.target_present[self.index]
        for hiding in self._hidden:
            there = there if hiding.gaps.labels is None else there & hiding.gaps.labels
        return there

    @property
    def trusted(self) -> Tensor | None:  # type: ignore[override]
        return None if self.source.trusted is None else self.source.trusted[self.index]

    @property
    def groups(self) -> Tensor | None:
        return None if self.source.groups is None else self.source.groups[self.index]

    @property
    def problems(self) -> Problems:
        """Cells of the source that exist but could not be used, as far as rows were read."""
        return Problems() if self.source.problems is None else self.source.problems

    @property
    def reading(self) -> Mapping[str, Any] | None:
        """How the table was read, as plain data, so that new rows can be read alike; None: not from a table."""
        return self.source.reading

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(self.source.fingerprint.encode())
        digest.update(self.index.numpy().tobytes())
        digest.update(repr(self.damage).encode())
        if self._reference.rows is not None:  # other rows say how large a damage in training is
            digest.update(b"reference" + self._reference.rows.numpy().tobytes())
        if self._untold:
            digest.update(self._untold.encode())
        return digest.hexdigest()[:16]

    @property
    def damage(self) -> _Damage:
        """What was simulated, in the words of a report."""
        hidden, done = self._hidden, [change for change in self.changes if isinstance(change, _Damaging)]
        return _Damage(
            missing=" + ".join(hiding.mechanism for hiding in hidden) or "none",
            mask_hash="+".join(hiding.hash for hiding in hidden),
            keep="truth" if any(hiding.keep == "truth" for hiding in hidden) else "nothing",
            corruption=" + ".join(f"{change.distortion} seed={change.seed}" for change in done) or "none",
            plans=tuple(change.plan.hash for change in done),
            units=tuple(hiding.unit for hiding in hidden),
        )

    @property
    def _hidden(self) -> tuple[_Hiding, ...]:
        return tuple(change for change in self.changes if isinstance(change, _Hiding))

    @property
    def _untold(self) -> str:
        """What nothing else tells: the order of changes where it matters, and which of several holes are kept as truth.

        What damages steps may move or mix them, so it leaves other rows after some steps were hidden than before. Empty: there
        is nothing to tell, as of most data, whose fingerprint is that of version 0.1.0.
        """
        units = [change.unit if isinstance(change, _Hiding) else "damage" for change in self.changes]
        keeps = [f"{hiding.unit} {hiding.keep}" for hiding in self._hidden]
        order = units if "step" in units and "damage" in units[units.index("step") :] else []
        return ", ".join(order + (keeps if len({hiding.keep for hiding in self._hidden}) > 1 else []))

    @property
    def condition(self) -> str:
        """What was done to it, in a few words."""
        words = [self.damage.missing] if self.damage.missing != "none" else []
        kept = [f"{hiding.unit}s" for hiding in self._hidden if hiding.keep == "truth"]
        words += [f"hidden {' and '.join(kept)} kept as truth"] if kept else []
        words += [self.damage.corruption] if self.damage.corruption != "none" else []
        return ", ".join(words) or "as given"

    @property
    def reference(self) -> Dataset:
        """The rows whose statistics say how large a damage is: those to train on, clean, without what a simulator hid.

        - Of a data set: the training rows of its source, where it says which these are, else all of its rows.
        - After :meth:`split`: the training piece, for all three pieces. A :meth:`subset` keeps what it was cut from.
        - What :meth:`with_missing` hides in rows of the reference is hidden there too, with ``keep="truth"`` as well.
          Holes in test rows change nothing in it, and those made in training rows nothing in that of test rows, so that
          one severity means one thing for all of them.
        - Corruption leaves it clean.
        """
        return self._reference.data

    def units(self, modality: str) -> tuple[Tensor, Tensor] | None:
        return self.source.units(modality)

    # reading ---------------------------------------------------------------------------------------------------
    def batch(self, rows: Tensor | Sequence[int]) -> Batch:
        rows = torch.as_tensor(rows, dtype=torch.int64)
        batch = self.source.read(self.index[rows])
        if self._identified:
            identity = row_identities(stable_key("row", self.source.inputs_fingerprint), self.index[rows])
            batch = replace(batch, identity=identity)
        kept = [place for place, change in enumerate(self.changes) if getattr(change, "keep", "nothing") == "truth"]
        first = kept[0] if kept else len(self.changes)
        # In the order of the calls: what is hidden before a damage must not come to light by it.
        batch = _changed(batch, self.changes[:first], rows)
        seen = _changed(batch, self.changes[first:], rows)
        if not kept:
            return seen
        rest = [change for place, change in enumerate(self.changes) if place > first and place not in kept]
        return replace(seen, truth=_changed(batch, rest, rows))

    def identified(self) -> Dataset:
        """The same rows, whose batches carry ``identity``: equal for equal rows of one table, in whatever subset, order or
        condition, and different for any other two, of other tables too (but for a chance of 2^-63 a pair).

        It takes the fingerprint of the source, which may have to read all files once, so it is worked out when asked for.
        """
        return self._with(_identified=True)

    def in_memory(self, limit: int = 1 << 30) -> Dataset:
        """The same, decoded once, if it takes at most ``limit`` bytes."""
        if isinstance(self.source, TensorSource) or self.source.row_bytes * len(self.source.present) > limit:
            return self
        source = self.source.in_memory()
        return self._with(source=source, _reference=replace(self._reference, source=source))

    def read_by(self, source: Source) -> Dataset:
        """The same rows in the same condition, by a source that reads the same table otherwise; damage is planned anew."""
        plain = self._with(source=source, changes=(), _reference=replace(self._reference, source=source))
        for change in self.changes:
            if isinstance(change, _Hiding):
                plain = plain._with(changes=(*plain.changes, change))
            else:
                plain = plain.with_corruption(change.distortion, seed=change.seed)
        return plain

    # what may be done to it ------------------------------------------------------------------------------------
    def _with(self, **changes: Any) -> Dataset:
        other = object.__new__(Dataset)
        other.__dict__.update(self.__dict__)
        other.__dict__.update(changes)
        return other

    def subset(self, rows: Tensor | Sequence[int] | slice) -> Dataset:
        """Only these positions, in this order: numbers, a slice, or a bool for each row.

        Raises:
            DataError: as many bools as there are rows they are not, or a position that is none.
        """
        rows = _positions(rows, len(self), self.name)
        changes = tuple(change.of(rows) for change in self.changes)
        return self._with(index=self.index[rows], changes=changes, mask=None)

    def pieces(self, train: Tensor | Sequence[int], *others: Tensor | Sequence[int]) -> tuple[Dataset, ...]:
        """Some rows to train on, and others, each like :meth:`subset`; all of them refer to those to train on.

        Rows that are no training rows themselves (none of them is in :attr:`reference`) go on to refer to the training rows.
        """
        first = self.subset(train)
        reference = self._reference
        if bool(torch.isin(reference.index, self.index).any()):
            reference = _Reference(self.source, first.index, tuple((first.index, hiding) for hiding in first._hidden))
        return tuple(piece._with(_reference=reference) for piece in (first, *map(self.subset, others)))

    def split(
        self, val: float | None = None, test: float | None = None, *, seed: int = 0, by_group: bool = True
    ) -> tuple[Dataset, Dataset, Dataset]:
        """Train, validation and test rows: those that the data set fixes, else stratified by label and seeded.

        Args:
            val: share of validation rows, 0.15 unless said.
            test: share of test rows, 0.15 unless said.
            seed: of the order.
            by_group: keep the rows of a group together.

        Raises:
            ConfigError: shares of a data set that fixes its parts, or such that leave no training row.
            DataError: fewer rows or groups than parts.

        Rows of one group (a patient, a speaker) stay together unless ``by_group=False``. The :attr:`reference` of the three
        is the first of them, so that no statistic is taken over validation or test rows.
        """
        fixed = self.source.split
        if fixed is not None and len(self) == len(self.source.present):
            if val is not None or test is not None:
                raise ConfigError(
                    f"{self.name} fixes its training, validation and test rows, so shares of them would do nothing: call split() "
                    "without val and test, or make the table without split="
                )
            train, second, third = (
                self.subset(torch.isin(self.index, fixed[part])) for part in ("train", "val", "test")
            )
            return train, second, third  # they refer to the fixed training rows, as all of the data does
        from kintsugi.data.splits import split_rows

        shares = [0.15 if share is None else share for share in (val, test)]
        parts = split_rows(self, *shares, seed=seed, by_group=by_group)
        train, second, third = self.pieces(*parts)
        return train, second, third

    def folds(
        self, n: int = 5, *, seed: int = 0, stratify: bool = True, by_group: bool = True
    ) -> Iterator[tuple[Dataset, Dataset]]:
        """Pairs of training and test rows for cross-validation; see :func:`kintsugi.data.folds.folds`."""
        from kintsugi.data.folds import folds

        return folds(self, n, seed=seed, stratify=stratify, by_group=by_group)

    def with_missing(self, mechanism: Mechanism, *, seed: int = 0, keep: Keep = "nothing") -> Dataset:
        """Take slots, steps or labels away; each of these once at most, whichever comes first.

        What is hidden is gone everywhere: from batches (hidden slots hold 0, hidden steps NaN), from the mechanisms and
        corruptions that come after, from the rows that they read, and from the statistics of :attr:`reference`.

        Args:
            mechanism: such as ``mcar(0.3)``; it plans on what is left by those before it.
            seed: of its draws.
            keep: ``truth`` leaves what was hidden, labels too, to the losses of methods that may see it, and to nothing else.

        Raises:
            ConfigError: a second mechanism of the same unit, or a rate that cannot be reached.
            DataError: a given mask that belongs to other rows.
        """
        if keep not in ("nothing", "truth"):
            raise ConfigError(f"keep must be 'nothing' or 'truth', not {keep!r}")
        mask = mechanism.plan(self, seed)
        if mask.unit in self.damage.units:
            raise ConfigError(
                f"this data already has simulated missingness of {mask.unit}s; start from the data before it"
            )
        hiding = _Hiding(mask.gaps, keep, mask.unit, str(mechanism), mask.hash)
        reference = self._reference.hiding(self.index, hiding)
        return self._with(changes=(*self.changes, hiding), mask=mask, _reference=reference)

    def with_corruption(self, corruption: Distortion, *, seed: int = 0) -> Dataset:
        """Damage inputs or labels, the same way for a row whatever the batch, order or process.

        It sees what :meth:`with_missing` left before it; what is hidden later goes missing from damaged rows. A second call
        comes after the first; where it has an operator and a modality in common with what is there, its draws are others, as
        they are in a chain. Plan what reads other rows (mismatched pairs) on one split, not across splits.
        """
        from kintsugi.imperfect.combine import anew

        before = [change.distortion for change in self.changes if isinstance(change, _Damaging)]
        plan = corruption.plan(self, anew(seed, corruption, before))
        return self._with(changes=(*self.changes, _Damaging(corruption, plan, seed)))

    # looking at it ---------------------------------------------------------------------------------------------
    def describe(self) -> pd.DataFrame:
        """Holes per modality and the table of missing patterns, most frequent first.

        ``attrs["holes"]`` counts the rows without each modality, and of a table ``attrs["columns"]`` says what each column
        was taken for, see :meth:`describe_columns`.
        """
        from kintsugi.data.describe import columns_of, patterns
        from kintsugi.data.table_source import TableSource

        table = patterns(self)
        if isinstance(self.source, TableSource):
            table.attrs["columns"] = columns_of(self)
        return table

    def describe_columns(self) -> pd.DataFrame:
        """What each column in use was taken for, and why: a row a column, see :func:`kintsugi.data.describe.column_frame`.

        It is of all rows of the table that these rows were cut from.

        Raises:
            ConfigError: the rows are tensors, which have no columns.
        """
        from kintsugi.data.describe import column_frame, columns_of
        from kintsugi.data.table_source import TableSource

        kinds = columns_of(self)
        assert isinstance(self.source, TableSource)
        return column_frame(kinds, self.source.frame)

    def __repr__(self) -> str:
        full = int(self.present.all(1).sum())
        return (
            f"<{type(self).__name__} {self.name}: {len(self)} rows ({full} complete), {self.condition}; "
            f"{', '.join(f'{m.name} ({m.kind})' for m in self.schema.modalities)}; task {self.schema.task.key}>"
        )


def _positions(rows: Any, count: int, name: str) -> Tensor:
    """Int64 positions among ``count`` rows."""
    if isinstance(rows, slice):
        return (
            torch.arange(count)[rows] if (rows.step or 1) > 0 else torch.tensor(range(count)[rows], dtype=torch.int64)
        )
    try:
        rows = torch.as_tensor(rows if isinstance(rows, Tensor) else np.array(rows))
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{name}: rows are chosen by positions, a slice or a bool for each row, not {rows!r}"
        ) from error
    if rows.ndim == 1 and rows.dtype == torch.bool:
        if len(rows) != count:
            raise DataError(f"{name}: {len(rows)} bools choose among {count} rows; give one for each")
        return rows.nonzero().flatten()
    rows = rows.long() if len(rows.flatten()) == 0 else rows  # an empty list is one of floats
    if rows.ndim != 1 or rows.is_floating_point():
        raise DataError(f"{name}: rows are chosen by whole numbers in one axis, not {rows.dtype} {list(rows.shape)}")
    outside = ((rows >= count) | (rows < -count)).nonzero().flatten().tolist()
    if outside:
        raise DataError(f"{name}: there is no row {int(rows[outside[0]])} among {count} (counted from 0)")
    return rows


def _changed(batch: Batch, changes: Sequence[_Change], rows: Tensor) -> Batch:
    """The batch of these positions after the changes. What was done to each slot is not said: a method must not see it."""
    for change in changes:
        batch = change.apply(batch, rows)
    return replace(batch, severity=None)


@dataclass(frozen=True)
class Problem:
    """A cell that exists but could not be used: file, row, modality, what is wrong."""

    row: int
    modality: str
    where: str
    reason: str


@dataclass
class Problems:
    """A list of :class:`Problem` that does not grow without bound."""

    limit: int = 1000
    items: list[Problem] = field(default_factory=list)
    count: int = 0
    _seen: set[tuple[int, str]] = field(default_factory=set)

    def add(self, problem: Problem) -> None:
        key = (problem.row, problem.modality)
        if key not in self._seen:
            self._seen.add(key)
            self.count += 1
            if len(self.items) < self.limit:
                self.items.append(problem)

    def __iter__(self) -> Any:
        return iter(self.items)

    def __len__(self) -> int:
        return self.count
