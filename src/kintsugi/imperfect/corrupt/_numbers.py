"""What operators on numbers have in common: many draws a row, channels' units, and steps that are not seen."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kintsugi.core.errors import DataError, UnknownName
from kintsugi.imperfect.plan import Plan
from kintsugi.imperfect.seeds import row_seeds

# Odd factors and shifts of a 32-bit mix of low bias (C. Wellons, "Prospecting for hash functions", 2018, and the
# discussion of it, github.com/skeeto/hash-prospector/issues/19); 2^32 divided by the golden ratio steps the counter.
_STEP, _FIRST, _SECOND = np.uint32(0x9E3779B9), np.uint32(0x21F0AAAD), np.uint32(0x735A2D97)
_BLOCK = 1 << 16  # values that are mixed at once: two such buffers stay in a CPU's second cache
_UNIT = (1 - 2.0**-24) * 2.0**-31  # signed 32 bits to (-1, 1): the ends are the floats next to -1 and 1


def symmetric(plan: Plan, index: Tensor, columns: int, stream: str = "") -> Iterator[tuple[slice, Tensor]]:
    """Many uniform numbers a row, in (-1, 1): some rows at a time, as a slice and float32 ``[rows, columns]`` on the CPU.

    A counter is mixed with the 64 bits of the row, for many rows at once: 32 bits a number, in a third of the time that
    a generator a row takes. Column ``c`` of a row does not depend on how many columns there are. The tensor is one that
    is written anew: use it before the next.
    """
    seeds = row_seeds(plan.stream(stream), index)
    high, low = (seeds >> np.uint64(32)).astype(np.uint32)[:, None], seeds.astype(np.uint32)[:, None]
    counter = np.arange(1, columns + 1, dtype=np.uint32) * _STEP
    rows = min(max(1, _BLOCK // max(1, columns)), max(1, len(index)))
    z, moved = (np.empty((rows, columns), dtype=np.uint32) for _ in "ab")
    floats = torch.empty(rows, columns)
    for start in range(0, len(index), rows):
        here = slice(start, min(start + rows, len(index)))
        count = here.stop - start
        words, spare, block = z[:count], moved[:count], floats[:count]
        np.add(counter, low[here], out=words)
        _fold(words, spare, 16)
        np.multiply(words, _FIRST, out=words)
        np.bitwise_xor(words, high[here], out=words)  # so that no two rows run through the same numbers
        _fold(words, spare, 15)
        np.multiply(words, _SECOND, out=words)
        block.copy_(torch.from_numpy(words.view(np.int32))).mul_(_UNIT)
        yield here, block


def normal(plan: Plan, index: Tensor, columns: int, stream: str = "") -> Iterator[tuple[slice, Tensor]]:
    """Many standard normal numbers a row, by the inverse of their distribution: as in :func:`symmetric`.

    The largest that can be drawn is 5.4.
    """
    for here, block in symmetric(plan, index, columns, stream):
        yield here, torch.erfinv(block, out=block).mul_(math.sqrt(2))


def whole(blocks: Iterator[tuple[slice, Tensor]], rows: int, columns: int) -> Tensor:
    """All rows of :func:`symmetric` or :func:`normal` at once: float32 ``[rows, columns]``."""
    out = torch.empty(rows, columns)
    for here, block in blocks:
        out[here] = block
    return out


def _fold(words: NDArray[np.uint32], spare: NDArray[np.uint32], shift: int) -> None:
    np.right_shift(words, np.uint32(shift), out=spare)
    np.bitwise_xor(words, spare, out=words)


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


def each_seen(change: Tensor, mask: Tensor | None, here: slice) -> Tensor:
    """The same for some rows, ``[rows, T * C]``; mask bool ``[R, T]`` of all."""
    if mask is None:
        return change
    seen = mask[here]
    return (change.view(*seen.shape, -1) * seen[..., None]).flatten(1)


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
