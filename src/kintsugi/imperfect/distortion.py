"""What a data set is corrupted with, and its simplest form: one operator at one severity.

>>> Corruption("gaussian_noise", "image", 3)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kintsugi.core.data import Data
from kintsugi.core.errors import ConfigError
from kintsugi.imperfect.operator import OPERATORS, CrossOperator, Operator, check_severity
from kintsugi.imperfect.plan import Plan
from kintsugi.imperfect.spec import word

if TYPE_CHECKING:
    from kintsugi.core.batch import Batch


class Distortion(ABC):
    """What a data set can be corrupted with."""

    @property
    @abstractmethod
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities whose input it may change."""

    @property
    def labels(self) -> bool:
        """Does it change labels?"""
        return False

    @property
    def shape(self) -> str:
        """What it is made of, without severities, shares and other values: what its draws belong to."""
        return str(self)

    @property
    def inside(self) -> frozenset[str]:
        """The ``shape`` of each operator in it."""
        return frozenset([self.shape])

    @abstractmethod
    def plan(self, data: Data, seed: int) -> Any:
        """Look at the data set once. The result is a value with a ``hash`` and ``reseeded``."""

    @abstractmethod
    def apply(self, batch: Batch, plan: Any) -> Batch:
        """A new batch; the old one and its ``truth`` stay as they are.

        Its ``severity``, float ``[B, M]``, says what was done to each slot: the largest level where several came together.
        """

    def relabel(self, target: Tensor, index: Tensor, plan: Any) -> Tensor:
        """The targets ``[B, ...]`` of these rows after it."""
        return target

    @abstractmethod
    def __str__(self) -> str: ...


@dataclass(frozen=True)
class Corruption(Distortion):
    """One operator.

    operator: its key; modality: a name of the schema, or several for a cross-modal operator, none for one of labels;
    severity: 1 to 5, 0 does nothing; preset: which of the operator's parameter tables, default by what the modality
    looks like; given: values that replace those of the level, as sorted pairs.
    """

    operator: str
    modality: str | tuple[str, ...]
    severity: int = 3
    preset: str | None = None
    given: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        kind = OPERATORS[self.operator]
        check_severity(self.operator, self.severity)
        names = tuple(self.modality) if isinstance(self.modality, list | tuple) else self.modality
        if names and issubclass(kind, CrossOperator) and kind.most == 0:
            raise ConfigError(
                f"{self.operator} changes labels and takes no modality, not {self.modality!r}; write "
                f"{self.operator}(severity=3)"
            )
        if not all(isinstance(name, str) for name in (names if isinstance(names, tuple) else [names])):
            raise ConfigError(f"{self.operator} needs the name of a modality, not {self.modality!r}")
        if issubclass(kind, CrossOperator):
            names = (names,) if isinstance(names, str) else names
            kind.check_count(names)
        elif isinstance(names, tuple) and len(names) == 1:
            names = names[0]
        elif not isinstance(names, str):
            raise ConfigError(
                f"{self.operator} damages one modality, not {', '.join(names) or 'none'}; write one for each, joined by +"
            )
        object.__setattr__(self, "modality", names)
        given = tuple(sorted((name, _fixed(value)) for name, value in dict(self.given).items()))
        object.__setattr__(self, "given", given)
        kind.check_values(self.preset, dict(given))

    @property
    def modalities(self) -> tuple[str, ...]:
        return (self.modality,) if isinstance(self.modality, str) else self.modality

    @property
    def labels(self) -> bool:
        return OPERATORS[self.operator].relabel is not CrossOperator.relabel if self._cross else False  # type: ignore[union-attr]

    @property
    def shape(self) -> str:
        return f"{self.operator}({'+'.join(self.modalities)})"

    @property
    def _cross(self) -> bool:
        return issubclass(OPERATORS[self.operator], CrossOperator)

    def plan(self, data: Data, seed: int) -> Plan:
        operator = OPERATORS[self.operator]()
        if isinstance(operator, CrossOperator):
            return operator.plan(data, self.modalities, self.severity, seed, self.preset, **dict(self.given))
        return operator.plan(data, str(self.modality), self.severity, seed, self.preset, **dict(self.given))

    def apply(self, batch: Batch, plan: Plan) -> Batch:
        if plan.severity == 0:
            return batch
        columns = [batch.names.index(name) for name in self.modalities]
        here = batch.present[:, columns]
        operator = OPERATORS[self.operator]()
        if isinstance(operator, Operator):
            return self._one(operator, batch, here[:, 0], plan)
        after = operator.damage(batch, here, plan)
        if batch.target is not None and self.labels:
            after = replace(after, target=operator.relabel(batch.target, batch.index, plan))
        if after.severity is not batch.severity:  # the operator said which rows
            return after
        for number, (column, name) in enumerate(zip(columns, self.modalities, strict=True)):
            if after.inputs[name] is not batch.inputs[name]:
                after = marked(after, here[:, number], column, plan.severity)
        return after

    def _one(self, operator: Operator, batch: Batch, here: Tensor, plan: Plan) -> Batch:
        name, rows = self.modalities[0], here.nonzero().flatten()
        if len(rows) == 0:
            return batch
        x, mask = batch.inputs[name], batch.mask.get(name)
        every = len(rows) == len(x)
        seen = mask if mask is None or every else mask[rows]
        damaged, after = operator.apply(x if every else x[rows], batch.index[rows], plan, seen)
        masks, present, column = dict(batch.mask), batch.present, batch.names.index(name)
        if after is not None and after is not seen:
            whole = after.new_ones(len(x), *after.shape[1:]) if mask is None else mask
            masks[name] = put(whole, rows, after)
            if mask is None:  # absent rows have nothing to see
                masks[name] = masks[name] & here[:, None]
            present = present.clone()
            present[rows, column] &= after.any(1)
        batch = replace(batch, inputs={**batch.inputs, name: put(x, rows, damaged)}, mask=masks, present=present)
        return marked(batch, here, column, plan.severity)

    def relabel(self, target: Tensor, index: Tensor, plan: Plan) -> Tensor:
        operator = OPERATORS[self.operator]()
        if plan.severity == 0 or not isinstance(operator, CrossOperator):
            return target
        return operator.relabel(target, index, plan)

    def __str__(self) -> str:
        preset = "" if self.preset is None else f", preset={word(self.preset)}"
        given = "".join(f", {name}={value!r}" for name, value in self.given)
        names = "+".join(map(word, self.modalities))
        level = f"{names}, {self.severity}" if names else f"severity={self.severity}"
        return f"{self.operator}({level}{preset}{given})"


def put(old: Tensor, rows: Tensor, new: Tensor) -> Tensor:
    """``old`` with other values in these rows; all rows: ``new`` as it is."""
    return new if len(rows) == len(old) else old.index_copy(0, rows, new)


def marked(batch: Batch, here: Tensor, column: int, severity: int) -> Batch:
    """``batch`` whose ``severity`` says that a modality of the rows ``here`` (bool ``[B]``) was damaged at this level."""
    level = torch.zeros(batch.present.shape, device=batch.device) if batch.severity is None else batch.severity.clone()
    level[:, column] = torch.where(here, level[:, column].clamp(min=severity), level[:, column])
    return replace(batch, severity=level)


def number(value: float) -> str:
    """A number as text that reads back as the same number; short where it can be."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def _fixed(value: Any) -> Any:
    """Lists as tuples, so that what is read from text or YAML equals what was written in Python."""
    return tuple(map(_fixed, value)) if isinstance(value, list | tuple) else value
