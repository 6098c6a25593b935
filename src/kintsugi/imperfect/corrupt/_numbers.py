"""What operators on numbers have in common: signs, channels' units, and steps that are not seen."""

from __future__ import annotations

import torch
from torch import Tensor

from kintsugi.core.errors import DataError, UnknownName
from kintsugi.imperfect.plan import Plan


def signs(plan: Plan, index: Tensor, columns: int, stream: str = "sign") -> Tensor:
    """Few fair signs a row: float64 ``[R, columns]`` of -1 and 1 on the CPU."""
    return torch.where(plan.uniforms(index, columns, stream) < 0.5, -1.0, 1.0).double()


def channel(plan: Plan, name: str, x: Tensor) -> Tensor:
    """A number a channel of the plan, ``[C]``, as ``x`` ``[..., C]`` needs it.

    Raises:
        DataError: the plan was made for another number of channels.
    """
    values = plan.tensors[name]
    if len(values) != x.shape[-1]:
        raise DataError(
            f"plan {plan.hash} of {plan.operator}({plan.modality}, {plan.severity}) was made for rows "
            f"[{', '.join(['…'] * (x.ndim - 2) + [str(len(values))])}], not {list(x.shape[1:])}"
        )
    return values.to(x)


def wide(values: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """``x`` as ``[R, T * C]`` and ``values`` ``[C]`` as ``[T * C]``: a CPU is slow where the last axis is short."""
    return x.flatten(1), values.repeat(x.shape[1]) if x.ndim == 3 else values


def keep_unseen(damaged: Tensor, x: Tensor, mask: Tensor | None) -> Tensor:
    """``damaged``, but what stands in unseen steps stays: x ``[R, T, C]`` or ``[R, T]``, mask bool ``[R, T]``."""
    if mask is None:
        return damaged
    return torch.where(mask if x.ndim == 2 else mask[..., None], damaged, x)


def where_seen(change: Tensor, mask: Tensor | None) -> Tensor:
    """What is to be added, 0 in unseen steps: change ``[R, T, C]`` or one that expands to it, mask bool ``[R, T]``."""
    return change if mask is None else change * mask[..., None]


# units ---------------------------------------------------------------------------------------------------------------
# x1000: milli; 9.81: g and m/s²; degrees Celsius given as Fahrenheit
UNITS = {"milli": (1000.0, 0.0), "gravity": (9.81, 0.0), "fahrenheit": (1.8, 32.0)}


def unit_table(key: str, unit: str) -> Tensor:
    """Factor and offset of one of ``UNITS``, or of all of them: float64 ``[units, 2]``.

    Raises:
        UnknownName: no such unit.
    """
    if unit not in ("drawn", *UNITS):
        raise UnknownName(f"unit of {key}", str(unit), ("drawn", *UNITS))
    return torch.tensor(list(UNITS.values()) if unit == "drawn" else [UNITS[unit]], dtype=torch.float64)


def affine(factor: Tensor, offset: Tensor, units: tuple[Tensor, Tensor] | None) -> dict[str, Tensor]:
    """``original -> factor * original + offset`` as it looks on standardised values: ``factor`` and ``shift``.

    units: offset and factor that :meth:`kintsugi.core.data.Data.units` gives, of a shape that fits those of ``factor``;
    None: the values are the original ones.
    """
    base, size = (torch.zeros_like(factor), torch.ones_like(factor)) if units is None else units
    base, size = base.to(factor), size.to(factor)
    return {"factor": factor, "shift": (factor * base + offset - base) / size}
