"""Operators: what can happen to inputs, each a class with a card; the base does what they have in common.

``plan`` looks at the data set once and returns a value with a hash; ``apply`` is stateless: a row gets the same
corruption whatever the batch, order, worker or process. A higher severity makes the same draws and damages more.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from kintsugi.core.errors import ConfigError, DataError, UnknownName
from kintsugi.core.registry import Registry
from kintsugi.core.schema import KINDS, Modality
from kintsugi.imperfect._memory import empty_like
from kintsugi.imperfect.plan import Plan

if TYPE_CHECKING:
    from kintsugi.core.batch import Batch
    from kintsugi.core.data import Data

Levels = Mapping[int, Mapping[str, Any]]
CROSS = "cross-modal"
# A block that stays in a CPU's cache, changed in place, takes 0.6 times what a whole batch of 224-pixel images takes.
BLOCK_BYTES = 1 << 20
OTHER_DEVICE_BYTES, WORKER_BYTES = 1 << 28, 1 << 21


class Carded(ABC):
    """What every operator says of itself.

    key: its name; kind: kind of modality; title: what it does; source: where definition and parameters come from.
    parameters: preset -> severity 1 to 5 -> values. options: further values that a user may set, with their
    defaults; one whose default is None must be given.
    differentiable: gradients reach the clean input.
    random: rows differ under one plan. gaps: it may return fewer seen steps. not_monotone: why damage does not grow with
    every level, empty where it does.
    """

    key: ClassVar[str]
    kind: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    parameters: ClassVar[Mapping[str, Levels]]
    options: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    differentiable: ClassVar[bool] = False
    random: ClassVar[bool] = True
    gaps: ClassVar[bool] = False
    not_monotone: ClassVar[str] = ""

    @classmethod
    def check_values(cls, preset: str | None, given: Mapping[str, Any]) -> None:
        """Raise UnknownName for a preset or a value that this operator does not know, ConfigError for a strange one."""
        if preset is not None and preset not in cls.parameters:
            raise UnknownName(f"preset of {cls.key}", str(preset), cls.parameters)
        known = {**cls.options, **next(iter(cls.parameters.values()))[3]}
        for name, value in given.items():
            if name not in known:
                raise UnknownName(f"parameter of {cls.key}", name, known)
            usual = known[name]
            number = isinstance(usual, int | float) and not isinstance(usual, bool)
            if number and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise ConfigError(f"{name} of {cls.key} is a number such as {usual!r}, not {value!r}")

    def _values(self, preset: str, severity: int, given: Mapping[str, Any]) -> dict[str, Any]:
        self.check_values(preset, given)
        level = self.parameters[preset][severity] if severity else {}
        return {"preset": preset, **self.options, **level, **(given if severity else {})}


class Operator(Carded):
    """One corruption of one kind of modality. A new one sets the class attributes and defines :meth:`damage`.

    Where it needs something of the whole data set (scales, partners, noise from other rows), it defines :meth:`look`.
    """

    block: ClassVar[int] = BLOCK_BYTES

    @abstractmethod
    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Damage a block of rows, at a severity of 1 or more.

        Args:
            x: ``[R, *shape]``, R at least 1, of float32 or float64 (of int64: text); a private copy that may be changed in
                place and returned; masked steps may hold NaN. index: int64 ``[R]``. plan: from :meth:`plan`.
            mask: bool ``[R, T]``: steps that exist and are seen; None: all. Not to be changed in place.

        Returns:
            The damaged rows, of the same shape and dtype, and their mask (the one given where nothing went missing).
        """

    def look(self, data: Data, modality: Modality, values: dict[str, Any], seed: int) -> dict[str, Tensor]:
        """Tensors for the plan, worked out from the data set; ``values``, the plan's parameters, may be added to."""
        return {}

    def others(self, data: Data) -> Data | None:
        """The rows that :meth:`damage` may read besides its own, as ``plan.others``."""
        return None

    def preset(self, modality: Modality) -> str:
        """The preset for such a modality; the first one unless the operator knows better."""
        return next(iter(self.parameters))

    def check(self, modality: Modality) -> None:
        """Raise ConfigError where this operator cannot be applied to this modality."""
        if modality.kind != self.kind:
            others = [key for key in OPERATORS if OPERATORS[key].kind == modality.kind]
            raise ConfigError(
                f"{self.key} damages {self.kind}, and modality {modality.name!r} is {modality.kind}; "
                f"for {modality.kind} there is {', '.join(others) or 'no corruption yet'}"
            )

    def plan(
        self, data: Data, modality: str, severity: int, seed: int, preset: str | None = None, **given: Any
    ) -> Plan:
        """The plan for this data set. Severity 0 does nothing; ``given`` values replace those of the level.

        Raises:
            UnknownName: no such modality, preset or parameter.
            ConfigError: the modality is of another kind, or the severity is out of range.
        """
        found = data.schema[modality]
        self.check(found)
        check_severity(self.key, severity)
        values = self._values(self.preset(found) if preset is None else preset, severity, given)
        if not severity:
            return Plan(self.key, modality, 0, int(seed), values)
        tensors = self.look(data, found, values, int(seed))
        return Plan(self.key, modality, severity, int(seed), values, tensors, self.others(data))

    def apply(
        self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None = None, workers: int = 1
    ) -> tuple[Tensor, Tensor | None]:
        """Damage rows that are present.

        Args:
            x: ``[R, *shape]``; not changed. index: int64 ``[R]``: the rows. plan: from :meth:`plan`.
            mask: bool ``[R, T]``: steps that exist; None: all. workers: threads; the result is the same.

        Returns:
            The damaged rows, of the same shape, dtype and device, and their mask.

        Raises:
            DataError: rows that are not of this kind: integers, NaN or infinity where seen, images outside [0, 1].
        """
        if x.shape[0] == 0 or plan.severity == 0:
            return x, mask
        self._check_rows(x, index, plan, mask)
        if x.requires_grad:
            return self._block(x.clone(memory_format=torch.contiguous_format), index, plan, mask)
        limit = self.block if x.device.type == "cpu" else OTHER_DEVICE_BYTES
        if workers > 1:  # threads hand the interpreter to each other at every call: fewer and larger ones cost less
            limit = max(limit, min(WORKER_BYTES, x.numel() * x.element_size() // (2 * workers)))
        size = max(1, limit // max(1, x[0].numel() * x.element_size()))
        out = empty_like(x)
        if x.shape[0] <= size and workers <= 1:
            return self._block(out.copy_(x), index, plan, mask)

        def one(start: int) -> Tensor | None:
            here = slice(start, start + size)
            block = out[here].copy_(x[here])
            damaged, seen = self._block(block, index[here], plan, None if mask is None else mask[here])
            if damaged.data_ptr() != block.data_ptr():
                block.copy_(damaged)
            return seen

        starts = range(0, len(x), size)
        if workers <= 1:
            seen = [one(start) for start in starts]
        else:
            with ThreadPoolExecutor(workers) as pool:
                seen = list(pool.map(one, starts))
        there = [s for s in seen if s is not None]
        if not there:
            return out, None
        joined = torch.cat(there)
        return out, mask if mask is not None and torch.equal(joined, mask) else joined

    def _block(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        small = x.dtype in (torch.float16, torch.bfloat16)
        work = x.float() if small else x
        if x.is_floating_point():
            self._check_values(work, index, plan, mask)
        damaged, seen = self.damage(work, index, plan, mask)
        damaged = damaged.to(x.dtype) if small else damaged
        if damaged.shape != x.shape or damaged.dtype != x.dtype:
            raise DataError(f"{self.key} made {damaged.dtype} {list(damaged.shape)} of {x.dtype} {list(x.shape)}")
        if seen is not None and (seen.dtype != torch.bool or len(seen) != len(x)):
            raise DataError(f"{self.key} made a mask of {seen.dtype} {list(seen.shape)} for {len(x)} rows")
        return damaged, seen

    def _check_rows(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> None:
        if plan.operator != self.key:
            raise ConfigError(f"plan {plan.hash} is one of {plan.operator}, not of {self.key}")
        kind = KINDS[self.kind]
        if x.ndim != kind.axes:
            wrong = f"rows of {kind.axes} axes, batch first, not {list(x.shape)}"
        elif kind.vocabulary and x.dtype != kind.dtype:
            wrong = f"token ids of {str(kind.dtype).removeprefix('torch.')}, not {x.dtype}"
        elif not kind.vocabulary and not x.is_floating_point():
            wrong = f"floats, not {x.dtype}" + ("; divide bytes by 255 first" if self.kind == "image" else "")
        elif index.shape[0] != x.shape[0] or (
            mask is not None and (mask.shape[0] != x.shape[0] or mask.dtype != torch.bool)
        ):
            shapes = f"{list(x.shape)}, index {list(index.shape)}, mask {None if mask is None else list(mask.shape)}"
            wrong = f"rows with one index and one bool mask each; these are {shapes}"
        else:
            return
        raise DataError(f"{self.key}({plan.modality}, {plan.severity}), plan {plan.hash}, damages {self.kind}: {wrong}")

    def _check_values(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> None:
        if x.numel() == 0:
            return
        if self.kind != "image":
            total = float(x.detach().sum())  # one pass, that NaN and infinity come through; so does a sum out of range
            if total - total == 0:
                return
        else:
            low, high = (float(v) for v in torch.aminmax(x.detach()))  # NaN comes through here too
            if low < -1e-3 or high > 1.001:
                raise DataError(
                    f"{self.key}: images of {plan.modality!r} must lie in [0, 1], and rows {_rows(index)} hold values from "
                    f"{low:g} to {high:g}; divide bytes by 255, and do not standardise before corruption"
                )
            if low - low == 0 == high - high:  # both finite
                return
        seen = torch.ones_like(x, dtype=torch.bool)
        if mask is not None:
            seen = mask.reshape(*mask.shape, *[1] * (x.ndim - mask.ndim)).expand_as(x)
        bad = (~torch.isfinite(x) & seen).flatten(1).any(1)
        if bool(bad.any()):
            raise DataError(
                f"{self.key}: NaN or infinity in present data: modality {plan.modality!r}, row "
                f"{int(index[bad.cpu()][0])}; mark the slot or the step as absent, or repair it"
            )


class CrossOperator(Carded):
    """A corruption of what modalities have to do with each other, or of labels.

    A new one sets the class attributes and defines :meth:`damage` or :meth:`relabel`, and :meth:`look` where it needs
    something of the whole data set.
    """

    kind = CROSS
    least: ClassVar[int] = 1
    most: ClassVar[int | None] = 1

    def damage(self, batch: Batch, here: Tensor, plan: Plan) -> Batch:
        """A new batch in which the modalities of the plan are damaged; ``here``: bool ``[B, K]``, their presence."""
        return batch

    def relabel(self, target: Tensor, index: Tensor, plan: Plan) -> Tensor:
        """Other targets ``[B, ...]`` for these rows."""
        return target

    def look(self, data: Data, modalities: tuple[str, ...], values: dict[str, Any], seed: int) -> dict[str, Tensor]:
        """Tensors for the plan, worked out from the data set; ``values``, the plan's parameters, may be added to."""
        return {}

    def others(self, data: Data) -> Data | None:
        """The rows that :meth:`damage` may read besides its own, as ``plan.others``."""
        return None

    def check(self, modalities: tuple[Modality, ...]) -> None:
        """Raise ConfigError where this operator cannot be applied to these modalities."""

    def plan(
        self,
        data: Data,
        modalities: tuple[str, ...],
        severity: int,
        seed: int,
        preset: str | None = None,
        **given: Any,
    ) -> Plan:
        """The plan for this data set. Severity 0 does nothing; ``given`` values replace those of the level.

        Raises:
            UnknownName: no such modality, preset or parameter.
            ConfigError: modalities that do not fit, or a severity out of range.
        """
        self.check_count(modalities)
        self.check(tuple(data.schema[name] for name in modalities))
        check_severity(self.key, severity)
        values = self._values(next(iter(self.parameters)) if preset is None else preset, severity, given)
        name = "+".join(modalities)
        if not severity:
            return Plan(self.key, name, 0, int(seed), values)
        tensors = self.look(data, modalities, values, int(seed))
        return Plan(self.key, name, severity, int(seed), values, tensors, self.others(data))

    @classmethod
    def check_count(cls, modalities: tuple[str, ...]) -> None:
        """Raise ConfigError where there are too few or too many of them."""
        if len(modalities) < cls.least or (cls.most is not None and len(modalities) > cls.most):
            most = "or more" if cls.most is None else "" if cls.most == cls.least else f"to {cls.most}"
            wanted = "no modality" if cls.most == 0 else f"{cls.least} {most} modalities".replace("  ", " ")
            raise ConfigError(f"{cls.key} takes {wanted}, not {', '.join(modalities) or 'none'}")


AnyOperator = type[Operator] | type[CrossOperator]
OPERATORS: Registry[AnyOperator] = Registry("corruption", "kintsugi.imperfect")


def levels(**values: Sequence[Any]) -> Levels:
    """Severity 1 to 5 -> values, from five values a name: ``levels(sd=(.1, .2, .3, .4, .5))``."""
    return {s: {name: five[s - 1] for name, five in values.items()} for s in range(1, 6)}


def check_severity(what: str, severity: object) -> None:
    """Raise ConfigError unless the severity is a whole number from 0 to 5."""
    if isinstance(severity, bool) or not isinstance(severity, int) or not 0 <= severity <= 5:
        raise ConfigError(f"the severity of {what} must be a whole number from 1 to 5, or 0 for none, not {severity!r}")


def list_corruptions(kind: str | None = None) -> list[str]:
    """Sorted keys of the operators, all or those for one kind of modality, or for ``cross-modal``.

    Raises:
        UnknownName: no such kind.
    """
    if kind is not None and kind not in (*KINDS, CROSS):
        raise UnknownName("kind of modality", kind, (*KINDS, CROSS))
    return [key for key in OPERATORS if kind in (None, OPERATORS[key].kind)]


def _rows(index: Tensor) -> str:
    rows = [int(i) for i in index[:5]]
    return ", ".join(map(str, rows)) + (", …" if len(index) > 5 else "")
