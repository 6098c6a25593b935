"""Rows that get one pattern out of several, and other mechanisms behind published settings."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from kintsugi.core.errors import ConfigError
from kintsugi.imperfect._exact import Bools, Floats, lowest
from kintsugi.imperfect.mechanism import MECHANISMS, Mechanism, said
from kintsugi.imperfect.mechanisms.stretches import assigned
from kintsugi.imperfect.seeds import stable_key, uniforms
from kintsugi.imperfect.spec import share

if TYPE_CHECKING:
    from kintsugi.core.data import Data


def subsets(count: int, complete: bool = False) -> Bools:
    """The non-empty subsets of ``count`` modalities: bool ``[P, M]``, True: stays."""
    every: Bools = np.array([p for p in product([False, True], repeat=count) if any(p)])
    return every if complete else every[~every.all(1)]


class _Weighted(Mechanism):
    """Each row gets one of several patterns; they come as often as their weights say, to the nearest row."""

    name: str

    @abstractmethod
    def table(self, data: Data, seed: int) -> tuple[Bools, Floats]:
        """Patterns bool ``[P, M]`` and weights ``[P]``."""

    def keep(self, data: Data, seed: int) -> Tensor:
        patterns, weights = self.table(data, seed)
        return torch.from_numpy(assigned(data, self.name, seed, patterns, weights, data.present.any(1).numpy()))

    def asked(self, data: Data) -> dict[str, float] | None:
        return None

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class RandomSubset(_Weighted):
    """One of the non-empty subsets of so many modalities, each equally often."""

    name: str
    count: int
    complete: bool

    def table(self, data: Data, seed: int) -> tuple[Bools, Floats]:
        if len(data.schema) != self.count:
            raise ConfigError(f"{self.name} is about {self.count} modalities, and {data.name} has {len(data.schema)}")
        patterns = subsets(self.count, self.complete)
        return patterns, np.ones(len(patterns))

    def asked(self, data: Data) -> dict[str, float]:
        share = 1 - subsets(self.count, self.complete).mean(0)
        return dict(zip(data.schema.names, share.tolist(), strict=True))


@dataclass(frozen=True)
class Imml(_Weighted):
    """The four ways of iMML's Amputer; ``rate`` is the share of rows that become incomplete."""

    kind: str
    rate: float

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"imml-{self.kind}-{self.rate:g}"

    def table(self, data: Data, seed: int) -> tuple[Bools, Floats]:
        count = len(data.schema)
        if count < 2:
            raise ConfigError(f"{self}: a single modality cannot go missing and leave another")
        drawn = uniforms(stable_key("imml", seed), torch.arange(count), count + 1)  # a row for each set, a column each
        if self.kind == "mem":
            patterns, weights = np.eye(count, dtype=bool), np.ones(count)
        elif self.kind == "mcar":
            patterns, weights = _flipped(count)
        elif self.kind == "pm":
            some = drawn[0, :count].argsort()[: 1 + int(drawn[0, count] * (count - 1))]
            patterns, weights = _partial(count, some)
        else:
            patterns, weights = np.ones((count - 1, count), dtype=bool), np.ones(count - 1)
            for size in range(1, count):
                patterns[size - 1, drawn[size, :count].argsort()[:size]] = False
        weights = weights / weights.sum() * self.rate
        return np.vstack([patterns, np.ones((1, count), dtype=bool)]), np.append(weights, 1 - self.rate)


def _flipped(count: int) -> tuple[Bools, Floats]:
    """Each modality stays by a fair coin; where that is none or all of them, one of them, drawn alike, is flipped."""
    patterns = subsets(count)
    size = patterns.sum(1)
    weights = np.ones(len(patterns)) + ((size == 1).astype(float) + (size == count - 1)) / count
    return patterns, weights


def _partial(count: int, some: np.ndarray) -> tuple[Bools, Floats]:
    """Only ``some`` modalities go missing: a single one always, of several a draw that is neither none nor all."""
    if len(some) == 1:
        patterns = np.ones((1, count), dtype=bool)
        patterns[0, some] = False
        return patterns, np.ones(1)
    inner, weights = _flipped(len(some))
    patterns = np.ones((len(inner), count), dtype=bool)
    patterns[:, some] = inner
    return patterns, weights


@dataclass(frozen=True)
class KeepOne(Mechanism):
    """A random modality of each row stays; the others go, a share of all slots, or all of them where that is less."""

    rate: float

    def keep(self, data: Data, seed: int) -> Tensor:
        present = data.present.numpy()
        draws = uniforms(stable_key("keep_one", seed), data.index, 2 * present.shape[1])
        own, stays = np.split(draws, 2, axis=1)
        free = present.copy()
        free[np.arange(len(free)), np.where(present, stays, -1).argmax(1)] = False
        return torch.from_numpy(~lowest(own, free, round(self.rate * int(present.sum()))))

    def asked(self, data: Data) -> float:
        return self.rate

    def __str__(self) -> str:
        return f"random-{self.rate:g}-keep1"


@dataclass(frozen=True)
class MapMissing(Mechanism):
    """See :func:`map_missing`."""

    eta: float
    what: str = "both"
    text: str | None = None
    image: str | None = None

    def _pair(self, data: Data) -> tuple[str, str]:
        return _one(data, "text", self.text, self), _one(data, "image", self.image, self)

    def keep(self, data: Data, seed: int) -> Tensor:
        columns = [data.schema.column(name) for name in self._pair(data)]
        both = data.present[:, columns].all(1).numpy()
        order = uniforms(stable_key("map", seed), data.index, 1)[:, 0]
        hit = lowest(order, both, round(self.eta * int(both.sum())))
        keep = torch.ones_like(data.present)
        if self.what == "both":
            text = np.zeros_like(
                hit
            )  # in the order of the draws, every second one: a higher share takes more of the same
            text[np.flatnonzero(hit)[order[hit].argsort(kind="stable")][::2]] = True
            keep[:, columns[0]] = torch.from_numpy(~text)
            keep[:, columns[1]] = torch.from_numpy(~(hit & ~text))
        else:
            keep[:, columns[self.what == "image"]] = torch.from_numpy(~hit)
        return keep

    def asked(self, data: Data) -> None:
        return None

    def __str__(self) -> str:
        return said("map_missing", self.eta, self.what, text=(self.text, None), image=(self.image, None))


def _one(data: Data, kind: str, name: str | None, who: object) -> str:
    if name is not None:
        data.schema.column(name)
        return name
    found = [m.name for m in data.schema.modalities if m.kind == kind]
    if len(found) != 1:
        raise ConfigError(
            f"{who}: {data.name} has {len(found)} modalities of kind {kind}; "
            "say which are meant: map_missing(0.7, both, text=note, image=scan)"
        )
    return found[0]


@MECHANISMS.register("map_missing")
def map_missing(eta: float = 0.7, what: str = "both", text: str | None = None, image: str | None = None) -> Mechanism:
    """The setting of missing-aware prompts (Lee et al., CVPR 2023): a share of the rows lacks the text or the image.

    Args:
        eta: share of the rows that have both; exact to the nearest row.
        what: ``text``, ``image``, or ``both``: half of these rows lack the text, the other half the image; none lacks both.
        text: name of the modality that stands for the text; default: the only one of that kind.
        image: likewise.

    Raises:
        ConfigError: ``eta`` is no share, or ``what`` is none of these; on planning: not exactly one text or image, and no
            name given.
    """
    if what not in ("both", "text", "image"):
        raise ConfigError(f"map_missing takes 'both', 'text' or 'image' away, not {what!r}")
    return MapMissing(share("eta of map_missing", eta), what, text, image)
