"""What a data set is corrupted with: one operator, several in a row, one of several, sometimes, or together.

>>> Corruption("gaussian_noise", "image", 3)
>>> Sometimes(Corruption("gaussian_noise", "image", 3), share=0.5)
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kintsugi.core.data import Data
from kintsugi.core.errors import ConfigError
from kintsugi.imperfect.operator import OPERATORS, CrossOperator, Operator, check_severity
from kintsugi.imperfect.plan import Plan
from kintsugi.imperfect.seeds import stable_key, uniforms
from kintsugi.imperfect.spec import share as as_share
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


# several ------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Plans:
    """The plans of several distortions, in order, and the seed of what is drawn between them."""

    parts: tuple[Any, ...]
    seed: int | None = None

    @property
    def hash(self) -> str:
        """16 hexadecimal digits of the SHA-256 over the parts' hashes."""
        own = [] if self.seed is None else [str(self.seed)]
        return hashlib.sha256(" ".join([*own, *(part.hash for part in self.parts)]).encode()).hexdigest()[:16]

    def reseeded(self, *parts: object) -> Plans:
        """The same with other draws: for the epochs of an augmentation."""
        seed = None if self.seed is None else stable_key(self.seed, *parts)
        return Plans(tuple(part.reseeded(*parts) for part in self.parts), seed)


def _flat(kind: type[Any], parts: Sequence[Any]) -> tuple[Distortion, ...]:
    flat = [p for part in parts for p in (part.parts if kind is Compose and isinstance(part, Compose) else (part,))]
    if not flat or not all(isinstance(part, Distortion) for part in flat):
        raise ConfigError(f"{kind.__name__} needs one corruption or more, not {parts!r}")
    return tuple(flat)


def _plan_parts(parts: Sequence[Distortion], data: Data, seed: int, chained: bool) -> tuple[Any, ...]:
    plans: list[Any] = []
    for number, part in enumerate(parts):
        plans.append(part.plan(data, anew(seed, part, parts[:number])))
        if chained:
            data = After(data, part, plans[-1])
    return tuple(plans)


def anew(seed: int, part: Distortion, before: Sequence[Distortion]) -> int:
    """The seed of a part: the second noise on one input must not repeat the draws of the first."""
    again = sum(bool(part.inside & other.inside) for other in before)
    return stable_key(seed, again) if again else seed


class After(Data):
    """Rows after a distortion: what the next one reads partners from."""

    def __init__(self, data: Data, distortion: Distortion, plan: Any) -> None:
        self.data, self.distortion, self.made = data, distortion, plan
        self.schema, self.name, self.index = data.schema, data.name, data.index
        self.present, self.target, self.target_present = data.present, data.target, data.target_present
        if self.target is not None:
            self.target = distortion.relabel(self.target, self.index, plan)

    def batch(self, rows: Tensor) -> Batch:
        return self.distortion.apply(self.data.batch(rows), self.made)

    def subset(self, rows: Tensor | Sequence[int]) -> Data:
        return After(self.data.subset(rows), self.distortion, self.made)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.data.fingerprint} {self.made.hash}".encode()).hexdigest()[:16]

    @property
    def reference(self) -> Data:
        return self.data.reference

    def units(self, modality: str) -> tuple[Tensor, Tensor] | None:
        return self.data.units(modality)


class _Several(Distortion):
    """What distortions made of others have in common."""

    parts: tuple[Distortion, ...]

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for part in self.parts for name in part.modalities))

    @property
    def labels(self) -> bool:
        return any(part.labels for part in self.parts)

    @property
    def shape(self) -> str:
        return f"{type(self).__name__}({', '.join(part.shape for part in self.parts)})"

    @property
    def inside(self) -> frozenset[str]:
        return frozenset[str]().union(*(part.inside for part in self.parts))


@dataclass(frozen=True)
class Compose(_Several):
    """Several, one after the other: ``Compose((corrupt(...), corrupt(...)))``."""

    parts: tuple[Distortion, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", _flat(Compose, self.parts))

    def plan(self, data: Data, seed: int) -> Plans:
        return Plans(_plan_parts(self.parts, data, seed, chained=True))

    def apply(self, batch: Batch, plan: Plans) -> Batch:
        for part, its in zip(self.parts, plan.parts, strict=True):
            batch = part.apply(batch, its)
        return batch

    def relabel(self, target: Tensor, index: Tensor, plan: Plans) -> Tensor:
        for part, its in zip(self.parts, plan.parts, strict=True):
            target = part.relabel(target, index, its)
        return target

    def __str__(self) -> str:
        return " + ".join(map(str, self.parts))


class _Chosen(_Several):
    """Parts of which each reaches some of the rows."""

    @abstractmethod
    def hits(self, index: Tensor, plan: Plans) -> Tensor:
        """Bool ``[B, parts]``: which parts reach each row."""

    def plan(self, data: Data, seed: int) -> Plans:
        return Plans(_plan_parts(self.parts, data, seed, chained=False), stable_key(seed, self.shape))

    def apply(self, batch: Batch, plan: Plans) -> Batch:
        hits = self.hits(batch.index, plan)
        for number, (part, its) in enumerate(zip(self.parts, plan.parts, strict=True)):
            batch = on_rows(batch, hits[:, number].to(batch.device), part, its)
        return batch

    def relabel(self, target: Tensor, index: Tensor, plan: Plans) -> Tensor:
        hits = self.hits(index, plan)
        for number, (part, its) in enumerate(zip(self.parts, plan.parts, strict=True)):
            hit = hits[:, number].view(-1, *[1] * (target.ndim - 1)).to(target.device)
            target = torch.where(hit, part.relabel(target, index, its), target)
        return target


@dataclass(frozen=True)
class OneOf(_Chosen):
    """For each row one of several: ``OneOf((corrupt(...), corrupt(...)))``.

    weights: how often each is drawn, relative to their sum; default: alike.
    """

    parts: tuple[Distortion, ...]
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", _flat(OneOf, self.parts))
        if self.weights is None:
            return
        weights = tuple(float(w) for w in self.weights)
        if len(weights) != len(self.parts) or min(weights) < 0 or not 0 < sum(weights) < math.inf:
            raise ConfigError(f"OneOf of {len(self.parts)} needs so many weights of 0 or more, not {self.weights!r}")
        object.__setattr__(self, "weights", weights)

    def hits(self, index: Tensor, plan: Plans) -> Tensor:
        weights = torch.tensor(self.weights or [1.0] * len(self.parts), dtype=torch.float64)
        edges = (weights.cumsum(0) / weights.sum())[:-1]
        drawn = torch.from_numpy(uniforms(stable_key("one_of", plan.seed), index, 1)[:, 0])
        return torch.bucketize(drawn, edges, right=True)[:, None] == torch.arange(len(self.parts))

    def __str__(self) -> str:
        weights = "" if self.weights is None else f", weights=[{', '.join(number(w) for w in self.weights)}]"
        return f"one_of({', '.join(map(str, self.parts))}{weights})"


@dataclass(frozen=True)
class Sometimes(_Chosen):
    """One in a share of the rows, drawn independently: ``Sometimes(corrupt(...), 0.3)``. A Compose hits rows as a whole."""

    part: Distortion
    share: float = 0.5

    def __post_init__(self) -> None:
        if not isinstance(self.part, Distortion):
            raise ConfigError(f"Sometimes needs a corruption, not {self.part!r}")
        object.__setattr__(self, "share", as_share("the share of Sometimes", self.share))

    @property
    def parts(self) -> tuple[Distortion, ...]:  # type: ignore[override]
        return (self.part,)

    def hits(self, index: Tensor, plan: Plans) -> Tensor:
        return torch.from_numpy(uniforms(stable_key("sometimes", plan.seed), index, 1) < self.share)

    def __str__(self) -> str:
        return f"sometimes({self.part}, share={number(self.share)})"


@dataclass(frozen=True)
class Correlated(_Chosen):
    """Each of several in a share of the rows, which coincide more or less.

    A gaussian copula: part ``p`` hits row ``i`` where ``Phi(sqrt(c) u_i + sqrt(1 - c) e_ip) < share`` with standard normal
    ``u``, ``e``. So the share of each is kept, ``coupling`` c = 0 hits independently, and c = 1 hits the same rows: the
    storm that blinds the camera and drowns the microphone.
    """

    parts: tuple[Distortion, ...]
    share: float = 0.5
    coupling: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", _flat(Correlated, self.parts))
        object.__setattr__(self, "share", as_share("the share of Correlated", self.share))
        object.__setattr__(self, "coupling", as_share("the coupling of Correlated", self.coupling))

    def hits(self, index: Tensor, plan: Plans) -> Tensor:
        drawn = torch.from_numpy(uniforms(stable_key("correlated", plan.seed), index, len(self.parts) + 1))
        normal = torch.special.ndtri(drawn.clamp(1e-12, 1 - 1e-12))
        mixed = math.sqrt(self.coupling) * normal[:, :1] + math.sqrt(1 - self.coupling) * normal[:, 1:]
        return torch.special.ndtr(mixed) < self.share

    def __str__(self) -> str:
        return f"correlated({', '.join(map(str, self.parts))}, share={number(self.share)}, coupling={number(self.coupling)})"


def on_rows(batch: Batch, hit: Tensor, distortion: Distortion, plan: Any) -> Batch:
    """``batch`` with a distortion in some rows only: bool ``[B]``."""
    if bool(hit.all()):
        return distortion.apply(batch, plan)
    rows = hit.nonzero().flatten()
    if len(rows) == 0:
        return batch
    before = replace(batch, truth=None)
    after = distortion.apply(before.rows(rows), plan)
    inputs, masks, size = dict(batch.inputs), dict(batch.mask), len(batch)
    for name in batch.names:
        if name in distortion.modalities:
            inputs[name] = put(batch.inputs[name], rows, after.inputs[name])
        if name in after.mask:
            seen = after.mask[name]
            whole = batch.mask[name] if name in batch.mask else seen.new_ones(size, *seen.shape[1:])
            whole = whole if name in batch.mask else whole & batch.present[:, batch.names.index(name), None]
            masks[name] = put(whole, rows, seen)
    level = batch.severity
    if after.severity is not None:
        zeros = torch.zeros(batch.present.shape, device=batch.device) if level is None else level
        level = put(zeros, rows, after.severity)
    return replace(
        batch,
        inputs=inputs,
        mask=masks,
        present=put(batch.present, rows, after.present),
        target=None if batch.target is None or after.target is None else put(batch.target, rows, after.target),
        severity=level,
    )
