"""Several corruptions as one: in a row, one of several, sometimes, or together.

>>> Sometimes(Corruption("gaussian_noise", "image", 3), share=0.5)
"""

from __future__ import annotations

import hashlib
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kintsugi.core.data import Data
from kintsugi.core.errors import ConfigError
from kintsugi.imperfect.distortion import Distortion, number, put
from kintsugi.imperfect.seeds import stable_key, uniforms
from kintsugi.imperfect.spec import share as as_share

if TYPE_CHECKING:
    from kintsugi.core.batch import Batch


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
    for place, part in enumerate(parts):
        plans.append(part.plan(data, anew(seed, part, parts[:place])))
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

    def identified(self) -> Data:
        return After(self.data.identified(), self.distortion, self.made)

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
        for place, (part, its) in enumerate(zip(self.parts, plan.parts, strict=True)):
            batch = on_rows(batch, hits[:, place].to(batch.device), part, its)
        return batch

    def relabel(self, target: Tensor, index: Tensor, plan: Plans) -> Tensor:
        hits = self.hits(index, plan)
        for place, (part, its) in enumerate(zip(self.parts, plan.parts, strict=True)):
            hit = hits[:, place].view(-1, *[1] * (target.ndim - 1)).to(target.device)
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
