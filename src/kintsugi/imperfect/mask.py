"""What a mechanism takes away: a value with a hash that is stored with results, and that goes into a file and back."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kintsugi.core.batch import Batch
from kintsugi.core.errors import DataError
from kintsugi.imperfect.mask_file import read_mask, write_mask

if TYPE_CHECKING:
    from kintsugi.core.data import Data

Asked = float | dict[str, float]
_FACTS = ("unit", "asked", "realised", "realised_by_modality", "seed", "mechanism", "rows", "hash")


@dataclass(frozen=True, eq=False)
class Gaps:
    """What is left of some rows, without where it came from.

    keep: bool ``[N, M]``: slots that stay; steps: name -> bool ``[N, T]``: steps that stay; labels: bool ``[N]``: labels
    that stay, None: all.
    """

    keep: Tensor
    steps: Mapping[str, Tensor] = field(default_factory=dict)
    labels: Tensor | None = None

    def rows(self, rows: Tensor) -> Gaps:
        """Those of some rows: positions ``[R]``."""
        labels = None if self.labels is None else self.labels[rows]
        return Gaps(self.keep[rows], {name: left[rows] for name, left in self.steps.items()}, labels)

    def moved(self, index: Tensor, other: Tensor) -> Gaps:
        """What is left of other rows: of those that both have, what is left here, of the rest all.

        Args:
            index: int64 ``[N]``: which rows these are; of a row that comes several times, what is left in all of them.
            other: int64 ``[R]``: the other rows.
        """
        if torch.equal(index, other):
            return self
        numbers, place = index.unique(return_inverse=True)
        at = torch.searchsorted(numbers, other).clamp(max=max(len(numbers) - 1, 0))
        both = numbers[at] == other if len(numbers) else torch.zeros(len(other), dtype=torch.bool)

        def change(left: Tensor) -> Tensor:
            out = left.new_ones(len(other), *left.shape[1:])
            if not bool(both.any()):
                return out
            gone = (~left).nonzero(as_tuple=True)
            by_number = left.new_ones(len(numbers), *left.shape[1:])
            by_number[(place[gone[0]], *gone[1:])] = False
            out[both] = by_number[at[both]]
            return out

        labels = None if self.labels is None else change(self.labels)
        return Gaps(change(self.keep), {name: change(left) for name, left in self.steps.items()}, labels)

    def hide(self, batch: Batch) -> Batch:
        """The batch of exactly these rows without what is missing; ``truth`` stays as it is.

        Steps that go missing hold NaN (of text: 0, the padding), and a slot without a step left is absent. A slot that goes
        missing holds 0. A hidden label reads 0, like one that never was.
        """
        for name, left in self.steps.items():
            batch = hide_steps(batch, name, left)
        batch = _hide_slots(batch, self.keep.to(batch.device))
        return batch if self.labels is None else _hide_labels(batch, self.labels.to(batch.device))


def seen_steps(batch: Batch, name: str) -> Tensor:
    """Bool ``[B, T]``: the steps of a modality that exist and are seen; of text without a mask: what is no padding."""
    x, here = batch.inputs[name], batch.present[:, batch.names.index(name), None]
    mask = batch.mask.get(name)
    if mask is None:
        mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if x.is_floating_point() else x > 0
    return mask & here


def hide_steps(batch: Batch, name: str, left: Tensor) -> Batch:
    """The batch with fewer steps of one modality: ``left`` is bool ``[B, T]``."""
    x, seen = batch.inputs[name], seen_steps(batch, name)
    left = left[:, : x.shape[1]].to(x.device)
    gone = (seen & ~left).view(*seen.shape, *[1] * (x.ndim - 2))
    mask, present = seen & left, batch.present.clone()
    present[:, batch.names.index(name)] &= mask.any(1)
    x = x.masked_fill(gone, math.nan if x.is_floating_point() else 0)
    return replace(batch, inputs={**batch.inputs, name: x}, mask={**batch.mask, name: mask}, present=present)


def _hide_slots(batch: Batch, keep: Tensor) -> Batch:
    gone = batch.present & ~keep
    inputs = dict(batch.inputs)
    for column, name in enumerate(batch.names):
        if bool(gone[:, column].any()):  # nobody may read an absent slot, and what is not there cannot be read
            inputs[name] = inputs[name].masked_fill(gone[:, column].view(-1, *[1] * (inputs[name].ndim - 1)), 0)
    return replace(batch.where(keep), inputs=inputs)


def _hide_labels(batch: Batch, labels: Tensor) -> Batch:
    there = labels if batch.target_present is None else labels & batch.target_present
    target = None if batch.target is None else hide_target(batch.target, labels)
    return replace(batch, target=target, target_present=there)


def hide_target(target: Tensor, labels: Tensor) -> Tensor:
    """The target ``[N, ...]`` with 0 where no label stays (bool ``[N]``)."""
    return target.masked_fill(~labels.view(-1, *[1] * (target.ndim - 1)), 0)


@dataclass(frozen=True, eq=False)
class Mask:
    """What a mechanism takes away from a data set.

    keep: bool ``[N, M]``, True: left as observed (so True as well where nothing was there to take). steps: for the unit
    ``step``: name -> bool ``[N, T]``, likewise; ``keep`` is then False where a slot loses its last step. labels: for the
    unit ``label``: bool ``[N]``, likewise.
    unit: what a rate counts: ``slot``, ``step`` or ``label``. asked: the rate asked for, overall or by modality. realised:
    share of the observed units that were taken, overall (steps: of the modalities in ``steps``),
    ``realised_by_modality`` (labels: empty) and ``realised_by_row`` (``[N]``, 0 in rows that had nothing).
    seed, mechanism: where it came from. rows: hash of the data's ``index``.
    """

    keep: Tensor
    unit: str
    asked: Asked
    realised: float
    realised_by_modality: dict[str, float]
    realised_by_row: Tensor
    seed: int
    mechanism: str
    rows: str
    steps: Mapping[str, Tensor] = field(default_factory=dict)
    labels: Tensor | None = None

    @classmethod
    def of(cls, keep: Tensor, data: Data, *, asked: Asked | None, seed: int, mechanism: str) -> Mask:
        """The mask that leaves the slots ``keep`` (bool ``[N, M]``) of ``data``. ``asked`` None: whatever it came to."""
        present = data.present
        taken = present & ~keep
        by_modality = dict(zip(data.schema.names, _ratio(taken.sum(0), present.sum(0)).tolist(), strict=True))
        return cls(
            keep=~taken,
            unit="slot",
            asked=by_modality if asked is None else asked,
            realised=float(_ratio(taken.sum(), present.sum())),
            realised_by_modality=by_modality,
            realised_by_row=_ratio(taken.sum(1), present.sum(1)).float(),
            seed=int(seed),
            mechanism=mechanism,
            rows=_rows_hash(data),
        )

    @classmethod
    def of_steps(
        cls,
        left: Mapping[str, Tensor],
        seen: Mapping[str, Tensor],
        data: Data,
        *,
        asked: Asked | None,
        seed: int,
        mechanism: str,
    ) -> Mask:
        """The mask that leaves the steps ``left`` of those that are ``seen``: name -> bool ``[N, T]``, the same names."""
        keep = torch.ones_like(data.present)
        by_modality = dict.fromkeys(data.schema.names, 0.0)
        gone = all_of = torch.zeros(len(data), dtype=torch.int64)
        for name in left:
            taken = (seen[name] & ~left[name]).sum(1)
            there = seen[name].sum(1)
            keep[:, data.schema.column(name)] = (there > taken) | ~data.present[:, data.schema.column(name)]
            by_modality[name] = float(_ratio(taken.sum(), there.sum()))
            gone, all_of = gone + taken, all_of + there
        return cls(
            keep=keep,
            unit="step",
            asked=by_modality if asked is None else asked,
            realised=float(_ratio(gone.sum(), all_of.sum())),
            realised_by_modality=by_modality,
            realised_by_row=_ratio(gone, all_of).float(),
            seed=int(seed),
            mechanism=mechanism,
            rows=_rows_hash(data),
            steps={name: left[name] | ~seen[name] for name in left},
        )

    @classmethod
    def of_labels(cls, left: Tensor, data: Data, *, asked: float | None, seed: int, mechanism: str) -> Mask:
        """The mask that leaves these labels (bool ``[N]``)."""
        there = data.target_present
        taken = there & ~left
        realised = float(_ratio(taken.sum(), there.sum()))
        return cls(
            keep=torch.ones_like(data.present),
            unit="label",
            asked=realised if asked is None else asked,
            realised=realised,
            realised_by_modality={},
            realised_by_row=taken.float(),
            seed=int(seed),
            mechanism=mechanism,
            rows=_rows_hash(data),
            labels=~taken,
        )

    @property
    def gaps(self) -> Gaps:
        """What is left, as a data set applies it."""
        return Gaps(self.keep, self.steps, self.labels)

    @property
    def hash(self) -> str:
        """16 hexadecimal digits of the SHA-256 over the bits of ``keep``, ``steps`` and ``labels``, and their shapes."""
        parts = [("", self.keep)] + [(name, self.steps[name]) for name in sorted(self.steps)]
        parts += [] if self.labels is None else [("labels", self.labels)]
        return _digest(
            b"".join(
                name.encode() + repr(tuple(part.shape)).encode() + np.packbits(part.numpy()).tobytes()
                for name, part in parts
            )
        )

    def check(self, data: Data) -> None:
        """Does this mask belong to these rows, in this order?

        Raises:
            DataError: it does not.
        """
        names = tuple(self.realised_by_modality) or data.schema.names
        size, shape = tuple(self.keep.shape), tuple(data.present.shape)
        said = f"mask {self.hash} ({self.mechanism}) of shape {list(size)}"
        if size != shape or names != data.schema.names:
            raise DataError(
                f"{said} for {', '.join(names)} does not fit {data.name}: {list(shape)}, {', '.join(data.schema.names)}"
            )
        if self.rows != _rows_hash(data):
            raise DataError(
                f"{said} was planned for other rows than these of {data.name}, or for another order of them"
            )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write one NPZ file: the bits, the rates by row, and the rest as JSON. ``path`` is used as it is."""
        target = Path(path)
        facts: dict[str, Any] = {name: getattr(self, name) for name in _FACTS}
        facts |= {"shape": list(self.keep.shape), "steps": {n: list(s.shape) for n, s in self.steps.items()}}
        bits = {"bits": self.keep, **{f"step_{i}": s for i, s in enumerate(self.steps.values())}}
        bits |= {} if self.labels is None else {"labels": self.labels}
        arrays = {name: np.packbits(each.numpy()) for name, each in bits.items()}
        arrays["by_row"] = self.realised_by_row.numpy()
        write_mask(target, facts, arrays)
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Mask:
        """The mask that :meth:`save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            DataError: the file is no mask, or it was altered.
        """
        facts, arrays = read_mask(Path(path))
        shape, stored, steps = facts.pop("shape"), facts.pop("hash"), facts.pop("steps")
        mask = cls(
            keep=_unpacked(arrays["bits"], shape),
            realised_by_row=torch.from_numpy(arrays["by_row"]),
            steps={name: _unpacked(arrays[f"step_{i}"], size) for i, (name, size) in enumerate(steps.items())},
            labels=_unpacked(arrays["labels"], shape[:1]) if "labels" in arrays else None,
            **facts,
        )
        if mask.hash != stored:
            raise DataError(f"{path} was altered: its bits have hash {mask.hash}, not {stored}")
        return mask

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mask) and (self.hash, self.rows) == (other.hash, other.rows)

    def __hash__(self) -> int:
        return hash((self.hash, self.rows))

    def __repr__(self) -> str:
        return (
            f"<Mask {self.hash}: {self.mechanism}, seed {self.seed}, {self.realised:.4f} of the observed {self.unit}s "
            "hidden>"
        )


def _unpacked(bits: Any, shape: list[int]) -> Tensor:
    return torch.from_numpy(np.unpackbits(bits, count=math.prod(shape)).astype(bool).reshape(shape))


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return part.double() / whole.clamp(min=1)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _rows_hash(data: Data) -> str:
    return _digest(data.index.cpu().numpy().astype(np.int64).tobytes())
