"""Slots that go missing whatever the data holds: a fixed pattern, completely at random, by modality, by class, as given."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kintsugi.core.errors import ConfigError, DataError
from kintsugi.imperfect._exact import Bools, Floats, chain, check_reach, coupled, exchange, lowest
from kintsugi.imperfect.mask import Mask, _digest
from kintsugi.imperfect.mechanism import MECHANISMS, Mechanism
from kintsugi.imperfect.seeds import stable_key, uniforms
from kintsugi.imperfect.spec import share, word

if TYPE_CHECKING:
    from kintsugi.core.data import Data


@dataclass(frozen=True)
class Pattern(Mechanism):
    """See :func:`pattern`."""

    names: tuple[str, ...]

    def keep(self, data: Data, seed: int) -> Tensor:
        keep = torch.zeros(len(data.schema.names), dtype=torch.bool)
        keep[[data.schema.column(name) for name in self.names]] = True
        return keep.expand(data.present.shape)

    def asked(self, data: Data) -> dict[str, float]:
        return {name: float(name not in self.names) for name in data.schema.names}

    def __str__(self) -> str:
        return f"pattern({'+'.join(map(word, self.names))})"


@dataclass(frozen=True)
class Mcar(Mechanism):
    """See :func:`mcar`."""

    rate: float
    keep_one: bool = True
    coupling: float = 0.0

    def keep(self, data: Data, seed: int) -> Tensor:
        present = data.present.numpy()
        own = uniforms(stable_key("mcar", seed), data.index, present.shape[1])
        keys = _together(own, "mcar", seed, data, self.coupling)
        free = present.copy()
        if self.keep_one:
            # The last slot that its row would lose as the rate grows is never lost: the rest is independent.
            last = np.where(present, own, -1).argmax(1)
            free[np.arange(len(free)), last] = False
        count = round(self.rate * int(present.sum()))
        check_reach(
            self, count, int(free.sum()), int(present.sum()), "its observed slots when every row keeps one",
            f"ask for less, or for mcar({self.rate:g}, keep_one=False)",
        )  # fmt: skip
        return torch.from_numpy(~lowest(keys, free, count))

    def asked(self, data: Data) -> float:
        return self.rate

    def __str__(self) -> str:
        return f"mcar({self.rate:g}{'' if self.keep_one else ', keep_one=False'}{_coupling(self.coupling)})"


def _together(own: Floats, name: str, seed: int, data: Data, coupling: float) -> Floats:
    if coupling == 0:
        return own
    return coupled(own, uniforms(stable_key(name, seed, "together"), data.index, 1)[:, 0], coupling)


def _coupling(value: float) -> str:
    return f", coupling={value:g}" if value else ""


@dataclass(frozen=True)
class PerModality(Mechanism):
    """See :func:`per_modality`."""

    rates: tuple[tuple[str, float], ...]
    keep_one: bool = False
    coupling: float = 0.0

    def keep(self, data: Data, seed: int) -> Tensor:
        present = data.present.numpy()
        draws = uniforms(stable_key("per_modality", seed), data.index, present.shape[1])
        keys = _together(draws, "per_modality", seed, data, self.coupling)
        hidden = np.zeros_like(present)
        for name, rate in self.rates:
            column = data.schema.column(name)
            here = present[:, column]
            hidden[:, column] = lowest(keys[:, column], here, round(rate * int(here.sum())))
        kept = present & ~hidden
        if self.keep_one:
            draws = uniforms(stable_key("leave_one", seed), data.index, present.shape[1] + 1)
            order = draws[:, -1].argsort(kind="stable")  # one that the rows carry along
            kept[order] = self._leave_one(kept.take(order, 0), present.take(order, 0), draws[:, :-1], order)
        return torch.from_numpy(kept)

    def _leave_one(self, kept: Bools, present: Bools, draws: Floats, order: NDArray[np.int64]) -> Bools:
        exchange(kept, present, draws, order)
        empty = np.flatnonzero(~kept.any(1) & present.any(1)).tolist()
        if not all(chain(kept, present, row) for row in empty):
            raise ConfigError(
                f"{self}: these rates leave rows with nothing, whichever slots are taken; "
                "lower a rate, or give up keep_one"
            )
        return kept

    def asked(self, data: Data) -> dict[str, float]:
        return {name: dict(self.rates).get(name, 0.0) for name in data.schema.names}

    def __str__(self) -> str:
        words = [f"{name}={rate:g}" for name, rate in self.rates]
        if any(word(name) != name or name in ("keep_one", "coupling") for name, _ in self.rates):
            words = [f"{{{', '.join(f'{name!r}: {rate:g}' for name, rate in self.rates)}}}"]
        words += ["keep_one=True"] if self.keep_one else []
        return f"per_modality({', '.join(words)}{_coupling(self.coupling)})"


@dataclass(frozen=True)
class Smil(Mechanism):
    """See :func:`smil`."""

    eta: float
    modality: str
    by_class: bool = True

    def keep(self, data: Data, seed: int) -> Tensor:
        column = data.schema.column(self.modality)
        here = data.present[:, column].numpy()
        draws = uniforms(stable_key("smil", seed), data.index, 1)[:, 0]
        stays = np.zeros_like(here)
        classes = self._classes(data)
        for label in np.unique(classes):
            rows = here & (classes == label)
            stays |= lowest(draws, rows, round(self.eta * int(rows.sum())))
        keep = torch.ones_like(data.present)
        keep[:, column] = torch.from_numpy(stays)
        return keep

    def _classes(self, data: Data) -> NDArray[np.int64]:
        if not self.by_class:
            return np.zeros(len(data), dtype=np.int64)
        target = data.target
        if target is None or target.ndim != 1 or target.is_floating_point():
            raise ConfigError(f"{self} keeps a share of each class, and this task has no classes; use by_class=False")
        unlabelled = ~data.target_present  # a class of its own
        classes: NDArray[np.int64] = target.masked_fill(unlabelled, -1).numpy()
        return classes

    def asked(self, data: Data) -> dict[str, float]:
        return {name: 1 - self.eta if name == self.modality else 0.0 for name in data.schema.names}

    def __str__(self) -> str:
        return f"smil({self.eta:g}, {word(self.modality)}{'' if self.by_class else ', by_class=False'})"


@dataclass(frozen=True, eq=False)
class Given(Mechanism):
    """See :func:`given`."""

    mask: Mask | Tensor

    def keep(self, data: Data, seed: int) -> Tensor:
        if isinstance(self.mask, Mask):
            self.mask.check(data)
            return self.mask.keep
        if self.mask.shape != data.present.shape:
            raise DataError(
                f"a mask of shape {list(self.mask.shape)} does not fit {data.name}: {list(data.present.shape)}"
            )
        return self.mask

    def plan(self, data: Data, seed: int) -> Mask:
        if not isinstance(self.mask, Mask):
            return super().plan(data, seed)
        self.mask.check(data)
        return self.mask

    def asked(self, data: Data) -> None:
        return None

    def __str__(self) -> str:
        if isinstance(self.mask, Mask):
            return f"given({self.mask.mechanism}, {self.mask.hash})"
        return f"given({_digest(repr(tuple(self.mask.shape)).encode() + np.packbits(self.mask.numpy()).tobytes())})"


# what users call ----------------------------------------------------------------------------------------------------
@MECHANISMS.register("pattern")
def pattern(*names: str | list[str] | tuple[str, ...]) -> Mechanism:
    """Only these modalities stay: ``pattern("image", "clue")``. Rows that have none of them become empty.

    Raises:
        ConfigError: no name is given.
    """
    flat = tuple(n for item in names for n in ([item] if isinstance(item, str) else item))
    if not flat or not all(isinstance(n, str) for n in flat):
        raise ConfigError(
            f"pattern needs the names of the modalities that stay, such as pattern(image, text), not {names!r}"
        )
    return Pattern(tuple(dict.fromkeys(flat)))


@MECHANISMS.register("mcar")
def mcar(rate: float, keep_one: bool = True, *, coupling: float = 0.0) -> Mechanism:
    """Missing completely at random: slots go missing alike and independently of everything in the data.

    Args:
        rate: share of the observed slots, in [0, 1]; exact to the nearest slot.
        keep_one: every row that had something keeps a slot. That bounds the rate: 1 - 1/M for complete rows. A row then
            loses each slot independently with one probability, solved so that the rate comes out; if it would lose
            all, one slot, any with equal chance, is given back.
        coupling: how much the slots of a row go together, in [0, 1]: the correlation of a gaussian copula between
            modalities. 0: independently; 1: a row loses all of them, or all but one, or none.

    Raises:
        ConfigError: the rate or the coupling is no share; on planning: the rate cannot be reached (the message names the
            largest that can).
    """
    return Mcar(share("the rate of mcar", rate), bool(keep_one), share("the coupling of mcar", coupling))


@MECHANISMS.register("per_modality")
def per_modality(
    rates: Mapping[str, float] | None = None, /, keep_one: bool = False, coupling: float = 0.0, **more: float
) -> Mechanism:
    """A rate for each modality, independently: ``per_modality({"image": 0.3, "speech": 0.5})``; others stay.

    Args:
        rates: share of the observed slots of each modality; exact to the nearest slot.
        keep_one: every row that had something keeps a slot; rows that would be empty exchange a slot with rows that
            have several, so the rates stay exact.
        coupling: how much the modalities go missing in the same rows, as in :func:`mcar`; the rates stay.
        more: rates by keyword.

    Raises:
        ConfigError: a rate is no share; on planning: rates and ``keep_one`` contradict each other.
    """
    if rates is not None and not isinstance(rates, Mapping):
        raise ConfigError(f"per_modality needs a rate for each modality, such as {{'image': 0.3}}, not {rates!r}")
    pairs = {**(rates or {}), **more}
    shares = tuple((n, share(f"the rate of {n!r}", r)) for n, r in pairs.items())
    return PerModality(shares, bool(keep_one), share("the coupling of per_modality", coupling))


@MECHANISMS.register("smil")
def smil(eta: float, modality: str, by_class: bool = True) -> Mechanism:
    """Severely missing: one modality is kept in a share of rows, lost in all others; the other modalities stay.

    The setting of SMIL (Ma et al., AAAI 2021). With 105 rows a class, ``eta`` = .05, .10, .15, .20 keeps 5, 10, 16, 21
    of each, as published (halves are rounded to even).

    Args:
        eta: share of the rows that keep it, out of the rows that have it.
        modality: its name.
        by_class: the share holds within each class; rows without a label count as a class.

    Raises:
        ConfigError: ``eta`` is no share; on planning: ``by_class`` without a target of class ids.
    """
    return Smil(share("eta of smil", eta), modality, bool(by_class))


@MECHANISMS.register("given")
def given(mask: Mask | Tensor | str | os.PathLike[str]) -> Mechanism:
    """A ready mask: a :class:`~kintsugi.imperfect.mask.Mask` (which must belong to the data), its file, or bool ``[N, M]``.

    In a tensor, True stands for slots that stay.

    Raises:
        DataError: a tensor that is not bool ``[N, M]``, a file that is no mask; on planning: it does not fit the data.
    """
    if isinstance(mask, str | os.PathLike):
        mask = Mask.load(mask)
    if not isinstance(mask, Mask) and not (isinstance(mask, Tensor) and mask.dtype == torch.bool and mask.ndim == 2):
        raise DataError("given needs a Mask, the path of one, or a bool tensor of shape [rows, modalities]")
    return Given(mask if isinstance(mask, Mask) else mask.cpu())
