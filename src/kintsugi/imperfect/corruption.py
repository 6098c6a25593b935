"""Corruption of inputs: operators by kind of modality, in two phases.

``plan`` looks at the data set once and returns a value with a hash; ``apply`` is stateless: a row gets the same
corruption whatever the batch, order, worker or process. A higher severity makes the same draws and damages more.

    >>> corrupt("gaussian_noise", "image", 3)
    >>> parse_corruption("gaussian_noise(image, 3) + white_noise(speech, 2)")
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from kintsugi.core.errors import ConfigError, DataError, UnknownName
from kintsugi.core.registry import Registry
from kintsugi.core.schema import KINDS, Modality
from kintsugi.imperfect.seeds import row_seeds, stable_key
from kintsugi.imperfect.spec import Call, calls, word

if TYPE_CHECKING:
    from kintsugi.core.batch import Batch
    from kintsugi.core.data import Data

Levels = Mapping[int, Mapping[str, float]]


@dataclass(frozen=True)
class Plan:
    """What an operator will do: everything that ``apply`` needs besides the rows. ``parameters`` is JSON."""

    operator: str
    modality: str
    severity: int
    seed: int
    parameters: Mapping[str, Any]

    @property
    def hash(self) -> str:
        """16 hexadecimal digits of the SHA-256 over all of it."""
        said = [self.operator, self.modality, self.severity, self.seed, self.parameters]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def key(self) -> int:
        """What the draws depend on, besides the row. Not the severity: all levels make the same draws."""
        return stable_key(self.seed, self.operator, self.modality)

    def generators(self, index: Tensor) -> Iterator[torch.Generator]:
        """A generator for each row, in order, on the CPU; it is one object, reseeded, so use it before the next.

        PyTorch's CPU generator takes 32 bits of the seed: two rows share their draws with a chance of 2^-32.
        """
        generator = torch.Generator()
        for seed in row_seeds(self.key, index).tolist():
            yield generator.manual_seed(seed)


class Operator(ABC):
    """One corruption of one kind of modality. A new one sets the class attributes and defines :meth:`damage`.

    key: its name; kind: kind of modality; title: what it does; source: where definition and parameters come from.
    parameters: preset -> severity 1 to 5 -> values. differentiable: gradients reach the clean input.
    """

    key: ClassVar[str]
    kind: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    parameters: ClassVar[Mapping[str, Levels]]
    differentiable: ClassVar[bool] = False

    @abstractmethod
    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Like :meth:`apply`, for one row or more and a severity of one or more."""

    def preset(self, modality: Modality) -> str:
        """The preset for such a modality; the first one unless the operator knows better."""
        return next(iter(self.parameters))

    def check(self, modality: Modality) -> None:
        """Raise ConfigError where this operator cannot be applied to this modality."""
        if modality.kind != self.kind:
            others = list_corruptions(modality.kind)
            raise ConfigError(
                f"{self.key} damages {self.kind}, and modality {modality.name!r} is {modality.kind}; "
                f"for {modality.kind} there is {', '.join(others) or 'no corruption yet'}"
            )

    def plan(self, data: Data, modality: str, severity: int, seed: int, preset: str | None = None) -> Plan:
        """The plan for this data set. Severity 0 does nothing.

        Raises:
            UnknownName: no such modality or preset.
            ConfigError: the modality is of another kind, or the severity is out of range.
        """
        found = data.schema[modality]
        self.check(found)
        check_severity(self.key, severity)
        chosen = self.preset(found) if preset is None else preset
        if chosen not in self.parameters:
            raise UnknownName(f"preset of {self.key}", chosen, self.parameters)
        values = dict(self.parameters[chosen][severity]) if severity else {}
        return Plan(self.key, modality, severity, int(seed), {"preset": chosen, **values})

    def apply(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Damage rows that are present.

        Args:
            x: ``[R, *shape]``; not changed. index: int64 ``[R]``: the rows. plan: from :meth:`plan`.
            mask: bool ``[R, T]``: steps that exist; None: all.

        Returns:
            The damaged rows, of the same shape, dtype and device, and their mask.
        """
        if len(x) == 0 or plan.severity == 0:
            return x, mask
        damaged, seen = self.damage(x, index, plan, mask)
        if damaged.shape != x.shape or damaged.dtype != x.dtype:
            raise DataError(f"{self.key} made {damaged.dtype} {list(damaged.shape)} of {x.dtype} {list(x.shape)}")
        return damaged, seen


OPERATORS: Registry[type[Operator]] = Registry("corruption", "kintsugi.imperfect")


def levels(**values: Sequence[float]) -> Levels:
    """Severity 1 to 5 -> values, from five values a name: ``levels(sd=(.1, .2, .3, .4, .5))``."""
    return {s: {name: five[s - 1] for name, five in values.items()} for s in range(1, 6)}


def check_severity(what: str, severity: object) -> None:
    """Raise ConfigError unless the severity is a whole number from 0 to 5."""
    if isinstance(severity, bool) or not isinstance(severity, int) or not 0 <= severity <= 5:
        raise ConfigError(f"the severity of {what} must be a whole number from 1 to 5, or 0 for none, not {severity!r}")


class Distortion(ABC):
    """What a data set can be corrupted with: one operator, several, or a kind of one's own."""

    @property
    @abstractmethod
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities whose input it may change."""

    @abstractmethod
    def plan(self, data: Data, seed: int) -> Any:
        """Look at the data set once. The result is a value with a ``hash``."""

    @abstractmethod
    def apply(self, batch: Batch, plan: Any) -> Batch:
        """A new batch; the old one, its targets and its ``truth`` stay as they are."""

    @abstractmethod
    def __str__(self) -> str: ...


@dataclass(frozen=True)
class Corruption(Distortion):
    """One operator on one modality.

    operator: its key; modality: a name of the schema; severity: 1 to 5, 0 does nothing; preset: which of the operator's
    parameter tables, default by what the modality looks like.
    """

    operator: str
    modality: str
    severity: int = 3
    preset: str | None = None

    def __post_init__(self) -> None:
        known = OPERATORS[self.operator].parameters
        check_severity(self.operator, self.severity)
        if not isinstance(self.modality, str):
            raise ConfigError(f"{self.operator} needs the name of a modality, not {self.modality!r}")
        if self.preset is not None and self.preset not in known:
            raise UnknownName(f"preset of {self.operator}", str(self.preset), known)

    @property
    def modalities(self) -> tuple[str, ...]:
        return (self.modality,)

    def plan(self, data: Data, seed: int) -> Plan:
        return OPERATORS[self.operator]().plan(data, self.modality, self.severity, seed, self.preset)

    def apply(self, batch: Batch, plan: Plan) -> Batch:
        name = self.modality
        rows = batch.present[:, batch.names.index(name)].nonzero().flatten()
        if plan.severity == 0 or len(rows) == 0:
            return batch
        x, mask = batch.inputs[name], batch.mask.get(name)
        seen = None if mask is None else mask[rows]
        damaged, seen = OPERATORS[self.operator]().apply(x[rows], batch.index[rows], plan, seen)
        masks = dict(batch.mask)
        if seen is not None:
            every = seen.new_ones(len(x), *seen.shape[1:]) if mask is None else mask
            masks[name] = _put(every, rows, seen)
        return replace(batch, inputs={**batch.inputs, name: _put(x, rows, damaged)}, mask=masks)

    def __str__(self) -> str:
        preset = "" if self.preset is None else f", preset={word(self.preset)}"
        return f"{self.operator}({word(self.modality)}, {self.severity}{preset})"


def _put(old: Tensor, rows: Tensor, new: Tensor) -> Tensor:
    """``old`` with other values in these rows; all rows: ``new`` as it is."""
    return new if len(rows) == len(old) else old.index_copy(0, rows, new)


@dataclass(frozen=True)
class Plans:
    """The plans of a :class:`Compose`, in order."""

    parts: tuple[Any, ...]

    @property
    def hash(self) -> str:
        """16 hexadecimal digits of the SHA-256 over the parts' hashes."""
        return hashlib.sha256(" ".join(part.hash for part in self.parts).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Compose(Distortion):
    """Several, one after the other: ``Compose((corrupt(...), corrupt(...)))``."""

    parts: tuple[Distortion, ...]

    def __post_init__(self) -> None:
        flat = [p for part in self.parts for p in (part.parts if isinstance(part, Compose) else (part,))]
        if not flat or not all(isinstance(part, Distortion) for part in flat):
            raise ConfigError(f"Compose needs one corruption or more, not {self.parts!r}")
        object.__setattr__(self, "parts", tuple(flat))

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for part in self.parts for name in part.modalities))

    def plan(self, data: Data, seed: int) -> Plans:
        plans, met = [], Counter[Any]()
        for part in self.parts:
            same = (part.operator, part.modality) if isinstance(part, Corruption) else part
            again = met[same]  # the second noise on one input must not repeat the draws of the first
            plans.append(part.plan(data, stable_key(seed, again) if again else seed))
            met[same] += 1
        return Plans(tuple(plans))

    def apply(self, batch: Batch, plan: Plans) -> Batch:
        for part, its in zip(self.parts, plan.parts, strict=True):
            batch = part.apply(batch, its)
        return batch

    def __str__(self) -> str:
        return " + ".join(map(str, self.parts))


def corrupt(operator: str, modality: str, severity: int = 3, preset: str | None = None) -> Corruption:
    """A corruption of one modality: ``corrupt("gaussian_noise", "image", 3)``.

    Args:
        operator: see :func:`list_corruptions`. modality: a name of the schema.
        severity: 1 (mild) to 5 (severe); 0 does nothing.
        preset: which of the operator's parameter tables; default: by what the modality looks like.

    Raises:
        UnknownName: no such operator or preset.
        ConfigError: the severity is out of range.
    """
    return Corruption(operator, modality, severity, preset)


def parse_corruption(spec: Distortion | str | Mapping[str, Any] | Sequence[Any]) -> Distortion:
    """From ``"gaussian_noise(image, 3)"``, ``{"gaussian_noise": {"modality": "image", "severity": 3}}`` or a list.

    Text may join several by ``+``; str() is the way back.

    Raises:
        UnknownName: no such corruption.
        ConfigError: the spec cannot be read, or its arguments do not fit.
    """
    if isinstance(spec, Distortion):
        return spec
    if isinstance(spec, Sequence) and not isinstance(spec, str):
        return Compose(tuple(parse_corruption(each) for each in spec))
    parts = tuple(Call("corrupt", (call.name, *call.args), call.kwargs).apply(corrupt) for call in calls(spec))
    return parts[0] if len(parts) == 1 else Compose(parts)


def list_corruptions(kind: str | None = None) -> list[str]:
    """Sorted keys of the operators, all or those for one kind of modality.

    Raises:
        UnknownName: no such kind.
    """
    if kind is not None and kind not in KINDS:
        raise UnknownName("kind of modality", kind, KINDS)
    return [key for key in OPERATORS if kind in (None, OPERATORS[key].kind)]
