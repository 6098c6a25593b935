"""Steps that go missing whatever they hold: alone, in blocks, in bursts. Steps are what ``batch.mask`` counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from kintsugi.core.errors import ConfigError
from kintsugi.imperfect import _scores
from kintsugi.imperfect._exact import Bools, Floats, bursty, check_reach, lowest
from kintsugi.imperfect.mechanism import MECHANISMS, StepMechanism, as_names, number, said
from kintsugi.imperfect.mechanisms.stretches import check_length
from kintsugi.imperfect.seeds import stable_key, uniforms
from kintsugi.imperfect.spec import share

if TYPE_CHECKING:
    from kintsugi.core.data import Data


@dataclass(frozen=True)
class _Steps(StepMechanism):
    rate: float
    of: tuple[str, ...] = ()

    def names(self, data: Data) -> tuple[str, ...]:
        if self.of:
            for name in self.of:
                _scores.check_steps(data.schema[name])
            return self.of
        found = tuple(m.name for m in data.schema.modalities if _scores.has_steps(m))
        if not found:
            kinds = ", ".join(sorted({m.kind for m in data.schema.modalities}))
            raise ConfigError(f"{self}: no modality of {data.name} has steps that could go missing ({kinds})")
        return found

    def asked(self, data: Data) -> float:
        return self.rate


def draws(what: str, seed: int, name: str, data: Data, width: int) -> Floats:
    """Uniform draws ``[N, T]`` that belong to row and step."""
    return uniforms(stable_key(what, seed, name), data.index, width)


def hide_lowest(who: object, keys: Floats, seen: Tensor, rate: float, keep_one: bool) -> Tensor:
    """Bool ``[N, T]``: what is left when the ``seen`` steps of lowest key go, a share of them to the nearest step."""
    there: Bools = seen.numpy()
    free = there
    if keep_one:
        rows = np.flatnonzero(there.any(1))
        free = there.copy()
        free[rows, np.where(there[rows], keys[rows], -np.inf).argmax(1)] = False
    observed = int(there.sum())
    count = round(rate * observed)
    check_reach(
        who, count, int(free.sum()), observed, "the steps when every row keeps one",
        "ask for less, or for keep_one=False",
    )  # fmt: skip
    return torch.from_numpy(~lowest(keys, free, count))


@dataclass(frozen=True)
class Steps(_Steps):
    """See :func:`steps`."""

    keep_one: bool = False

    def left(self, seen: Mapping[str, Tensor], data: Data, seed: int) -> dict[str, Tensor]:
        return {
            name: hide_lowest(self, draws("steps", seed, name, data, s.shape[1]), s, self.rate, self.keep_one)
            for name, s in seen.items()
        }

    def __str__(self) -> str:
        return said("steps", self.rate, of=(self.of, ()), keep_one=(self.keep_one, False))


@dataclass(frozen=True)
class Blocks(_Steps):
    """See :func:`blocks`."""

    length: int | None = None

    def left(self, seen: Mapping[str, Tensor], data: Data, seed: int) -> dict[str, Tensor]:
        return {name: self._one(name, s, data, seed) for name, s in seen.items()}

    def _one(self, name: str, seen: Tensor, data: Data, seed: int) -> Tensor:
        if self.length is None:
            drawn = draws("blocks", seed, name, data, 2)
            return torch.from_numpy(~_segment(drawn, seen.numpy(), self.rate))
        keys = draws("blocks", seed, name, data, seen.shape[1])
        return hide_lowest(self, _reach(keys, self.length), seen, self.rate, keep_one=False)

    def __str__(self) -> str:
        return said("blocks", self.rate, of=(self.of, ()), length=(self.length, None))


def _segment(drawn: Floats, seen: Bools, rate: float) -> Bools:
    """One contiguous stretch of the seen steps of each row; all stretches together have a share of all seen steps.

    A row of n steps loses ``rate * n``, rounded up in as many rows as the total needs. A stretch of n + 1 steps contains
    that of n from the same draw.
    """
    there = seen.sum(1)
    exact = rate * there
    size = np.floor(exact).astype(int)
    spare = round(rate * int(there.sum())) - int(size.sum())
    size += lowest(-(exact - size + drawn[:, 0]), exact > size, spare)
    start = np.floor(drawn[:, 1] * (there - size + 1)).astype(int)[:, None]
    place = np.cumsum(seen, 1) - 1  # among the seen steps
    out: Bools = seen & (place >= start) & (place < start + size[:, None])
    return out


def _reach(keys: Floats, length: int) -> Floats:
    """The lowest key among a step and the ``length - 1`` before it: a block that starts there covers it."""
    if not keys.shape[1]:
        return keys
    ahead = functional.pad(torch.from_numpy(-keys), (length - 1, 0), value=-2.0)
    out: Floats = -functional.max_pool1d(ahead[:, None], length, stride=1)[:, 0].numpy()
    return out


@dataclass(frozen=True)
class GilbertElliott(_Steps):
    """See :func:`gilbert_elliott`."""

    length: float = 8.0
    jointly: bool = False

    def left(self, seen: Mapping[str, Tensor], data: Data, seed: int) -> dict[str, Tensor]:
        widths = {name: s.shape[1] for name, s in seen.items()}
        if self.jointly and len(set(widths.values())) > 1:
            raise ConfigError(f"{self}: bursts that several modalities share need steps of the same time, not {widths}")
        out: dict[str, Tensor] = {}
        for name, s in seen.items():
            drawn = draws("gilbert_elliott", seed, "" if self.jointly else name, data, s.shape[1])
            out[name] = hide_lowest(self, bursty(drawn, self.length), s, self.rate, keep_one=False)
        return out

    def __str__(self) -> str:
        return said("gilbert_elliott", self.rate, self.length, of=(self.of, ()), jointly=(self.jointly, False))


# what users call ----------------------------------------------------------------------------------------------------
@MECHANISMS.register("steps")
def steps(rate: float, of: str | Sequence[str] = "all", keep_one: bool = False) -> StepMechanism:
    """Steps missing completely at random: table cells, tokens, time steps, audio samples, entries of a vector.

    Args:
        rate: share of the observed steps of each modality; exact to the nearest step, over all rows together.
        of: names of modalities; default: all that have steps (images have none).
        keep_one: every row keeps a step; without it, a slot that loses all its steps is absent.

    Raises:
        ConfigError: the rate is no share; on planning: a modality without steps, or a rate that cannot be reached (the
            message names the largest that can).
    """
    return Steps(share("the rate of steps", rate), as_names("steps", of), bool(keep_one))


@MECHANISMS.register("blocks")
def blocks(rate: float, of: str | Sequence[str] = "all", length: int | None = None) -> StepMechanism:
    """Steps missing in blocks.

    Args:
        rate: share of the observed steps of each modality; exact to the nearest step, over all rows together.
        of: names of modalities; default: all that have steps.
        length: None: one contiguous stretch in each row, of a share ``rate`` of its steps, anywhere with equal chance.
            A number: blocks of so many steps that start anywhere; blocks that touch merge, and the last may be cut to
            meet the rate.

    Raises:
        ConfigError: the rate is no share, or the length no number from 1; on planning: a modality without steps.
    """
    if length is not None and (isinstance(length, bool) or not isinstance(length, int) or length < 1):
        raise ConfigError(f"blocks are of 1 step or more, not {length!r}")
    return Blocks(share("the rate of blocks", rate), as_names("blocks", of), length)


@MECHANISMS.register("gilbert_elliott")
def gilbert_elliott(
    rate: float, length: float = 8.0, of: str | Sequence[str] = "all", jointly: bool = False
) -> StepMechanism:
    """Steps missing in bursts along time: a Gilbert-Elliott chain in each row (Gilbert 1960, Elliott 1963).

    A good step turns bad with probability ``rate / (length (1 - rate))`` and a bad one good with ``1 / length``; the first
    is solved so that the rate comes out over all rows. A row starts as if the step before it was good.

    Args:
        rate: share of the observed steps of each modality; exact to the nearest step.
        length: mean length of a burst, in steps; at least ``1 / (1 - rate)``. The default of 8 is proposed here.
        of: names of modalities; default: all that have steps.
        jointly: the same bursts in all of them, which then need as many steps; default: one chain each.

    Raises:
        ConfigError: the rate is no share, or the length too short for it; on planning: a modality without steps.
    """
    found = GilbertElliott(
        share("the rate of gilbert_elliott", rate),
        as_names("gilbert_elliott", of),
        number("the length of gilbert_elliott", length, 1),
        bool(jointly),
    )
    check_length(str(found), found.rate, found.length)
    return found
