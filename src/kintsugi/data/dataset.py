"""Rows with holes from any source, with lazy subsets, simulated missingness and corruption."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor

from kintsugi.core.batch import Batch
from kintsugi.core.data import Data
from kintsugi.core.errors import ConfigError, DataError
from kintsugi.core.schema import Schema
from kintsugi.imperfect.mask import Gaps, Mask, hide_target

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
    split: Mapping[str, Tensor] | None = None
    problems: Problems | None = None
    reading: Mapping[str, Any] | None = None
    reference: Dataset | None = None

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
        self.groups, self.split = source.groups, source.split
        self.problems, self.reading = source.problems, source.reading
        self._fingerprint = source.fingerprint
        self._units = {name: source.units(name) for name in source.schema.names}
        return self

    def units(self, modality: str) -> tuple[Tensor, Tensor] | None:
        return self._units.get(modality)

    def read(self, rows: Tensor) -> Batch:
        batch = self._all.rows(rows)
        batch.index = rows
        return batch

    @property
    def fingerprint(self) -> str:
        if not hasattr(self, "_fingerprint"):
            rows = self._all
            parts: dict[str, Tensor | None] = {f"input {name}": rows.inputs[name] for name in self.schema.names}
            parts |= {"present": rows.present}
            parts |= {f"mask {name}": rows.mask.get(name) for name in self.schema.names}
            parts |= {"target": rows.target, "target_present": rows.target_present, "weight": rows.weight}
            tensors = {name: tensor for name, tensor in parts.items() if tensor is not None}
            digest = hashlib.sha256(repr(self.schema.to_json()).encode())
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
            and tensors["target"].dtype == (torch.int64 if self.schema.task.key == "classification" else torch.float32)
            and not any(name.startswith("mask ") or name == "weight" for name in tensors)
        )

    @property
    def row_bytes(self) -> int:
        return sum(x.element_size() * x[0].numel() for x in self._all.inputs.values() if len(x))

    def in_memory(self) -> Source:
        return self


def concatenate(parts: Sequence[Batch]) -> Batch:
    """Batches, one after the other."""
    first = parts[0]

    def join(values: list[Any]) -> Any:
        if values[0] is None:
            return None
        return torch.cat(values) if isinstance(values[0], Tensor) else [item for value in values for item in value]

    return Batch(
        first.names,
        {name: join([p.inputs[name] for p in parts]) for name in first.inputs},
        join([p.present for p in parts]),
        join([p.index for p in parts]),
        join([p.target for p in parts]),
        join([p.target_present for p in parts]),
        join([p.weight for p in parts]),
        {name: join([p.mask[name] for p in parts]) for name in first.mask},
        {name: join([p.context[name] for p in parts]) for name in first.context},
    )


@dataclass(frozen=True)
class _Damage:
    """What was simulated on a data set, in the words of a report."""

    missing: str = "none"
    mask_hash: str = ""
    keep: Keep = "nothing"
    corruption: str = "none"
    plans: tuple[str, ...] = ()
    units: tuple[str, ...] = field(default=(), repr=False)  # the text says it, so it is not part of the fingerprint


class Dataset(Data):
    """Rows of a source, in an order, with what was taken away from them and done to them. Everything is lazy.

    Args:
        source: where rows come from.
        rows: positions in the source; default: all.
    """

    def __init__(self, source: Source, rows: Tensor | None = None) -> None:
        self.source = source
        self.index = torch.arange(len(source.present)) if rows is None else rows
        self.gaps: tuple[tuple[Gaps, Keep], ...] = ()  # what is left of these rows, in order
        self.mask: Mask | None = None
        self.corruptions: tuple[tuple[Distortion, Any], ...] = ()
        self.damage = _Damage()
        self.note: dict[str, Any] = {}

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
        for gaps, _ in self.gaps:
            present = present & gaps.keep
        return present

    @property
    def target(self) -> Tensor | None:  # type: ignore[override]
        if self.source.target is None:
            return None
        target = self.source.target[self.index]
        for corruption, plan in self.corruptions:
            target = corruption.relabel(target, self.index, plan)
        for gaps, _ in self.gaps:
            if gaps.labels is not None:
                target = hide_target(target, gaps.labels)
        return target

    @property
    def target_present(self) -> Tensor:  # type: ignore[override]
        there = self.source.target_present[self.index]
        for gaps, _ in self.gaps:
            there = there if gaps.labels is None else there & gaps.labels
        return there

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
        return digest.hexdigest()[:16]

    @property
    def condition(self) -> str:
        """What was done to it, in a few words."""
        words = [self.damage.missing] if self.damage.missing != "none" else []
        kept = [f"{unit}s" for unit, (_, keep) in zip(self.damage.units, self.gaps, strict=True) if keep == "truth"]
        words += [f"hidden {' and '.join(kept)} kept as truth"] if kept else []
        words += [self.damage.corruption] if self.damage.corruption != "none" else []
        return ", ".join(words) or "as given"

    @property
    def reference(self) -> Dataset:
        """The training rows of the source, where it says which these are, else all of its rows; as given."""
        if self.source.reference is None:  # one object, so that what is measured on it can be remembered
            train = (self.source.split or {}).get("train")
            self.source.reference = Dataset(self.source, train if train is not None and len(train) else None)
        return self.source.reference

    def units(self, modality: str) -> tuple[Tensor, Tensor] | None:
        return self.source.units(modality)

    # reading ---------------------------------------------------------------------------------------------------
    def batch(self, rows: Tensor | Sequence[int]) -> Batch:
        rows = torch.as_tensor(rows, dtype=torch.int64)
        batch = self.source.read(self.index[rows])
        for corruption, plan in self.corruptions:
            batch = corruption.apply(batch, plan)
        batch.severity = None  # the distortion says it; a method must not see it
        for gaps, _ in (one for one in self.gaps if one[1] == "nothing"):
            batch = gaps.rows(rows).hide(batch)
        kept = [gaps for gaps, keep in self.gaps if keep == "truth"]
        before = batch
        for gaps in kept:  # last, so that truth holds nothing that was to be hidden for good
            batch = gaps.rows(rows).hide(batch)
        return replace(batch, truth=before) if kept else batch

    def in_memory(self, limit: int = 1 << 30) -> Dataset:
        """The same, decoded once, if it takes at most ``limit`` bytes."""
        if isinstance(self.source, TensorSource) or self.source.row_bytes * len(self.source.present) > limit:
            return self
        return self._with(source=self.source.in_memory())

    # what may be done to it ------------------------------------------------------------------------------------
    def _with(self, **changes: Any) -> Dataset:
        other = object.__new__(Dataset)
        other.__dict__.update(self.__dict__)
        other.__dict__.update(changes)
        return other

    def subset(self, rows: Tensor | Sequence[int]) -> Dataset:
        rows = torch.as_tensor(rows)
        if rows.dtype == torch.bool:
            rows = rows.nonzero().flatten()
        gaps = tuple((one.rows(rows), keep) for one, keep in self.gaps)
        return self._with(index=self.index[rows], gaps=gaps, mask=None)

    def split(
        self, val: float = 0.15, test: float = 0.15, *, seed: int = 0, by_group: bool = True
    ) -> tuple[Dataset, Dataset, Dataset]:
        """Train, validation and test rows: those that the data set fixes, else stratified by label and seeded.

        Rows of one group (a patient, a speaker) stay together unless ``by_group=False``.
        """
        fixed = self.source.split
        if fixed is not None and len(self) == len(self.source.present):
            here = [torch.isin(self.index, fixed[part]) for part in ("train", "val", "test")]
            train, second, third = (self.subset(h) for h in here)
            return train, second, third
        from kintsugi.data.splits import split_rows

        parts = split_rows(self, val, test, seed=seed, by_group=by_group)
        train, second, third = (self.subset(p) for p in parts)
        return train, second, third

    def with_missing(self, mechanism: Mechanism, *, seed: int = 0, keep: Keep = "nothing") -> Dataset:
        """Take slots, steps or labels away; each of these once at most, whichever comes first.

        Args:
            mechanism: such as ``mcar(0.3)``; it plans on what is left by those before it.
            seed: of its draws.
            keep: ``truth`` leaves what was hidden, labels too, to the losses of methods that may see it.

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
        first = not self.gaps
        damage = replace(
            self.damage,
            missing=str(mechanism) if first else f"{self.damage.missing} + {mechanism}",
            mask_hash=mask.hash if first else f"{self.damage.mask_hash}+{mask.hash}",
            keep="truth" if "truth" in (keep, self.damage.keep) else "nothing",
            units=(*self.damage.units, mask.unit),
        )
        return self._with(gaps=(*self.gaps, (mask.gaps, keep)), mask=mask, damage=damage)

    def with_corruption(self, corruption: Distortion, *, seed: int = 0) -> Dataset:
        """Damage inputs or labels, the same way for a row whatever the batch, order or process.

        A second call comes after the first; where it has an operator and a modality in common with what is there, its draws
        are others, as they are in a chain. Plan what reads other rows (mismatched pairs) on one split, not across splits.
        """
        from kintsugi.imperfect.combine import anew

        plan = corruption.plan(self, anew(seed, corruption, [before for before, _ in self.corruptions]))
        said = "" if self.damage.corruption == "none" else self.damage.corruption + " + "
        damage = replace(
            self.damage, corruption=f"{said}{corruption} seed={seed}", plans=(*self.damage.plans, plan.hash)
        )
        return self._with(corruptions=(*self.corruptions, (corruption, plan)), damage=damage)

    # looking at it ---------------------------------------------------------------------------------------------
    def describe(self) -> pd.DataFrame:
        """Holes per modality and the table of missing patterns, most frequent first."""
        from kintsugi.data.describe import patterns

        return patterns(self)

    def __repr__(self) -> str:
        full = int(self.present.all(1).sum())
        return (
            f"<{type(self).__name__} {self.name}: {len(self)} rows ({full} complete), {self.condition}; "
            f"{', '.join(f'{m.name} ({m.kind})' for m in self.schema.modalities)}; task {self.schema.task.key}>"
        )


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
