"""Slots that go missing for stretches of rows, and patterns that the data itself shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kintsugi.core.errors import ConfigError
from kintsugi.imperfect._exact import Bools, Floats, bursty
from kintsugi.imperfect.mechanism import MECHANISMS, Mechanism, as_names, number, said
from kintsugi.imperfect.mechanisms.dependent import hide_columns
from kintsugi.imperfect.seeds import stable_key, uniforms
from kintsugi.imperfect.spec import share as as_share

if TYPE_CHECKING:
    from kintsugi.core.data import Data


def check_length(who: str, rate: float, length: float) -> None:
    """Raise ConfigError where bursts of this mean length are too short for the rate."""
    if rate < 1 and length * (1 - rate) < 1 - 1e-9:  # runs of independent draws have a mean length of 1 / (1 - rate)
        raise ConfigError(
            f"{who}: bursts of mean length {length:g} reach a rate of {1 - 1 / length:.4g} at most; "
            f"for a rate of {rate:g} they must last {1 / (1 - rate):.4g} or more"
        )


@dataclass(frozen=True)
class Bursts(Mechanism):
    """See :func:`bursts`."""

    rate: float
    length: float
    of: tuple[str, ...] = ()
    jointly: bool = False
    keep_one: bool = False

    def keep(self, data: Data, seed: int) -> Tensor:
        order = data.index.argsort(stable=True).numpy()
        present = data.present.numpy()[order]
        columns = [data.schema.column(name) for name in self.of or data.schema.names]
        keys = self._keys(data, seed)[order]
        keys = bursty(np.ascontiguousarray(keys.T), self.length).T
        hidden = np.zeros_like(present)
        hidden[order] = hide_columns(self, keys, present, columns, self.rate, self.keep_one)
        return torch.from_numpy(~hidden)

    def _keys(self, data: Data, seed: int) -> Floats:
        width = data.present.shape[1]
        draws = uniforms(stable_key("bursts", seed), data.index, 1 if self.jointly else width)
        return np.repeat(draws, width, 1) if self.jointly else draws

    def asked(self, data: Data) -> dict[str, float]:
        of = self.of or data.schema.names
        return {name: self.rate if name in of else 0.0 for name in data.schema.names}

    def __str__(self) -> str:
        return said(
            "bursts", self.rate, self.length,
            of=(self.of, ()), jointly=(self.jointly, False), keep_one=(self.keep_one, False),
        )  # fmt: skip


@MECHANISMS.register("bursts")
def bursts(
    rate: float, length: float, of: str | Sequence[str] = "all", jointly: bool = False, keep_one: bool = False
) -> Mechanism:
    """A sensor fails for a while: slots go missing in bursts over consecutive rows, in the order of ``index``.

    A Gilbert-Elliott chain (Gilbert 1960, Elliott 1963): in order, a good row turns bad with probability
    ``rate / (length (1 - rate))`` and a bad one good with ``1 / length``; the first is solved so that the rate comes out.

    Args:
        rate: share of the observed slots of each modality; exact to the nearest slot (the last burst may be cut for it).
        length: mean length of a burst, in rows; at least ``1 / (1 - rate)``, which is that of independent draws.
        of: names of modalities; default: all.
        jointly: one chain for all of them, as where one logger records all; default: one each.
        keep_one: every row that had something keeps a slot, so that bursts may be interrupted.

    Raises:
        ConfigError: the rate is no share, the length too short for it, or ``jointly`` with ``keep_one``; on planning: the
            rate cannot be reached (the message names the largest that can).
    """
    found = Bursts(
        as_share("the rate of bursts", rate),
        number("the length of bursts", length, 1),
        as_names("bursts", of),
        bool(jointly),
        bool(keep_one),
    )
    check_length(str(found), found.rate, found.length)
    if jointly and keep_one:
        raise ConfigError(f"{found}: a burst that takes all modalities at once cannot leave one of them")
    return found


@dataclass(frozen=True)
class Natural(Mechanism):
    """See :func:`natural`."""

    share: float | None = None

    def keep(self, data: Data, seed: int) -> Tensor:
        patterns, counts = _patterns(self._seen(data))
        whole = patterns.all(1)
        incomplete = counts[~whole].sum()
        if not incomplete:
            raise ConfigError(
                f"{self}: {data.reference.name} has no incomplete row whose pattern could be used; use mcar or per_modality"
            )
        share = incomplete / counts.sum() if self.share is None else self.share
        weights = np.where(whole, 0, counts / incomplete * share)
        weights[whole] = 1 - share
        if not whole.any():
            patterns, weights = np.vstack([patterns, np.ones_like(patterns[:1])]), np.append(weights, 1 - share)
        return torch.from_numpy(assigned(data, "natural", seed, patterns, weights, data.present.all(1).numpy()))

    def _seen(self, data: Data) -> Bools:
        seen: Bools = data.reference.present.numpy()
        return seen[seen.any(1)]

    def asked(self, data: Data) -> None:
        return None

    def __str__(self) -> str:
        return said("natural", *(() if self.share is None else (self.share,)))


@MECHANISMS.register("natural")
def natural(share: float | None = None) -> Mechanism:
    """The data set's own holes: complete rows get patterns as they occur in it. Incomplete rows stay as they are.

    The distribution is that of the observed patterns of the training rows (``data.reference``), rows without anything
    left out; each pattern comes as often as there, to the nearest row. Slots that lost all their steps to a mechanism before
    are holes there too.

    Args:
        share: how many of the complete rows become incomplete; default: as many as the data set has.

    Raises:
        ConfigError: the share is none; on planning: no row of the data set is incomplete.
    """
    return Natural(None if share is None else as_share("the share of natural", share))


def _patterns(seen: Bools) -> tuple[Bools, NDArray[np.int64]]:
    """The distinct rows of ``seen`` and how often each occurs; by their bits, which sort faster than rows do."""
    packed = np.packbits(seen, axis=1)
    codes = np.zeros(len(seen), dtype=np.int64)
    for column in packed.T:
        codes = (
            np.unique(codes << 8 | column, return_inverse=True)[1] if packed.shape[1] > 1 else column.astype(np.int64)
        )
    _, first, counts = np.unique(codes, return_index=True, return_counts=True)
    return seen[first], counts


def assigned(data: Data, name: str, seed: int, patterns: Bools, weights: Floats, rows: Bools) -> Bools:
    """Bool ``[N, M]``: in ``rows`` (bool ``[N]``) what is left under patterns ``[P, M]`` that come with these weights.

    Each comes as often as its weight says, to the nearest row (cumulative rounding). A row that would be left with nothing
    keeps what it has.
    """
    places = np.flatnonzero(rows)
    draws = uniforms(stable_key(name, seed), data.index, 1)[places, 0]
    ends = np.rint(np.cumsum(weights) / np.sum(weights) * len(places)).astype(int)[:-1]  # of the last one: all the rest
    keep = np.ones(tuple(data.present.shape), dtype=bool)
    if len(places):
        inner = np.unique(ends[(ends > 0) & (ends < len(places))])
        ranked = np.partition(draws, inner) if len(inner) else draws
        edges = np.where(ends > 0, np.append(ranked, np.inf)[np.minimum(ends, len(places))], -np.inf)
        keep[places] = patterns[np.searchsorted(edges, draws, side="right")]
    present = data.present.numpy()
    keep[present.any(1) & ~(present & keep).any(1)] = True
    return keep
