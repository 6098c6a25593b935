"""How slots go missing. A mechanism plans a :class:`Mask` for a data set, a value that is stored with results.

A *slot* is one modality of one row; a *rate* is a share of the slots that the data has (*observed*). Rates are exact:
what is asked comes out, to the nearest slot. With one seed, a higher rate hides what a lower one hid, and more (but for
``per_modality`` with ``keep_one``).

    >>> mcar(0.3)
    >>> pattern("image", "clue")
    >>> parse_mechanism("smil(0.1, speech)")
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kintsugi.core.errors import ConfigError, DataError
from kintsugi.core.registry import Registry
from kintsugi.imperfect.seeds import stable_key, uniforms
from kintsugi.imperfect.spec import calls, share, word

if TYPE_CHECKING:
    from kintsugi.core.data import Data

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Asked = float | dict[str, float]


# the mask -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Mask:
    """What a mechanism takes away from a data set.

    keep: bool ``[N, M]``, True: left as observed (so True as well where nothing was there to take).
    unit: what a rate counts. asked: the rate asked for, overall or by modality. realised: share of the observed slots
    that were taken, overall, ``realised_by_modality`` and ``realised_by_row`` (``[N]``, 0 in rows that had nothing).
    seed, mechanism: where it came from. rows: hash of the data's ``index``.
    """

    keep: Tensor
    unit: str
    asked: Asked
    realised: float
    realised_by_modality: dict[str, float]
    realised_by_row: Tensor
    seed: int
    mechanism: str
    rows: str

    @classmethod
    def of(cls, keep: Tensor, data: Data, *, asked: Asked | None, seed: int, mechanism: str) -> Mask:
        """The mask that leaves ``keep`` (bool ``[N, M]``) of ``data``. ``asked`` None: whatever it came to."""
        present = data.present
        taken = present & ~keep
        by_modality = dict(zip(data.schema.names, _ratio(taken.sum(0), present.sum(0)).tolist(), strict=True))
        return cls(
            keep=~taken,
            unit="slot",
            asked=by_modality if asked is None else asked,
            realised=float(_ratio(taken.sum(), present.sum())),
            realised_by_modality=by_modality,
            realised_by_row=_ratio(taken.sum(1), present.sum(1)).float(),
            seed=int(seed),
            mechanism=mechanism,
            rows=_rows_hash(data),
        )

    @property
    def hash(self) -> str:
        """16 hexadecimal digits of the SHA-256 over the bits of ``keep`` and its shape."""
        bits = np.packbits(self.keep.numpy())
        return _digest(repr(tuple(self.keep.shape)).encode() + bits.tobytes())

    def check(self, data: Data) -> None:
        """Does this mask belong to these rows, in this order?

        Raises:
            DataError: it does not.
        """
        names = tuple(self.realised_by_modality)
        size, shape = tuple(self.keep.shape), tuple(data.present.shape)
        said = f"mask {self.hash} ({self.mechanism}) of shape {list(size)}"
        if size != shape or names != data.schema.names:
            raise DataError(
                f"{said} for {', '.join(names)} does not fit {data.name}: {list(shape)}, {', '.join(data.schema.names)}"
            )
        if self.rows != _rows_hash(data):
            raise DataError(
                f"{said} was planned for other rows than these of {data.name}, or for another order of them"
            )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write one NPZ file: the bits, the rates by row, and the rest as JSON. ``path`` is used as it is."""
        target = Path(path)
        facts = {
            name: getattr(self, name)
            for name in ("unit", "asked", "realised", "realised_by_modality", "seed", "mechanism", "rows", "hash")
        }
        facts["shape"] = list(self.keep.shape)
        with open(target, "wb") as file:
            np.savez_compressed(
                file,
                bits=np.packbits(self.keep.numpy()),
                by_row=self.realised_by_row.numpy(),
                facts=np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8),
            )
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Mask:
        """The mask that :meth:`save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            DataError: the file is no mask, or it was altered.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                facts = json.loads(file["facts"].tobytes())
                bits, by_row = file["bits"], file["by_row"]
            shape, stored = tuple(facts.pop("shape")), facts.pop("hash")
            keep = np.unpackbits(bits, count=math.prod(shape)).astype(bool).reshape(shape)
            mask = cls(keep=torch.from_numpy(keep), realised_by_row=torch.from_numpy(by_row), **facts)
        except (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} is not a mask written by Mask.save: {error}") from error
        if mask.hash != stored:
            raise DataError(f"{path} was altered: its bits have hash {mask.hash}, not {stored}")
        return mask

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mask) and (self.hash, self.rows) == (other.hash, other.rows)

    def __hash__(self) -> int:
        return hash((self.hash, self.rows))

    def __repr__(self) -> str:
        return (
            f"<Mask {self.hash}: {self.mechanism}, seed {self.seed}, {self.realised:.4f} of the observed slots hidden>"
        )


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return part.double() / whole.clamp(min=1)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _rows_hash(data: Data) -> str:
    return _digest(data.index.cpu().numpy().astype(np.int64).tobytes())


# mechanisms ---------------------------------------------------------------------------------------------------------
class Mechanism(ABC):
    """How slots go missing: a value without state. A new one defines :meth:`keep`, :meth:`asked` and ``__str__``.

    It reads ``data.present``, ``index``, ``target`` and ``schema.names``, never the inputs.
    """

    @abstractmethod
    def keep(self, data: Data, seed: int) -> Tensor:
        """Bool ``[N, M]``: what is left; its value does not matter where nothing is observed."""

    @abstractmethod
    def asked(self, data: Data) -> Asked | None:
        """The rate asked for, overall or by modality; None: it follows from the mask."""

    @abstractmethod
    def __str__(self) -> str: ...

    def plan(self, data: Data, seed: int) -> Mask:
        """The mask for these rows: the same for the same rows and seed, whatever order the rows are in."""
        return Mask.of(self.keep(data, seed), data, asked=self.asked(data), seed=seed, mechanism=str(self))


MECHANISMS: Registry[Callable[..., Mechanism]] = Registry("missingness mechanism", "kintsugi.imperfect")


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

    def keep(self, data: Data, seed: int) -> Tensor:
        present = data.present.numpy()
        draws = uniforms(stable_key("mcar", seed), data.index, present.shape[1])
        free = present.copy()
        if self.keep_one:
            # The last slot that its row would lose as the rate grows is never lost: the rest is independent.
            last = np.where(present, draws, -1).argmax(1)
            free[np.arange(len(free)), last] = False
        count = round(self.rate * int(present.sum()))
        self._check(count, int(free.sum()), int(present.sum()))
        return torch.from_numpy(~_lowest(draws, free, count))

    def _check(self, count: int, free: int, observed: int) -> None:
        if count > free:
            most = math.floor(free / observed * 1e4) / 1e4  # rounded down, so that the rate named can be asked for
            raise ConfigError(
                f"{self}: this data can lose at most {most:g} of its observed slots when every row keeps one; "
                f"ask for less, or for mcar({self.rate:g}, keep_one=False)"
            )

    def asked(self, data: Data) -> float:
        return self.rate

    def __str__(self) -> str:
        return f"mcar({self.rate:g}{'' if self.keep_one else ', keep_one=False'})"


@dataclass(frozen=True)
class PerModality(Mechanism):
    """See :func:`per_modality`."""

    rates: tuple[tuple[str, float], ...]
    keep_one: bool = False

    def keep(self, data: Data, seed: int) -> Tensor:
        present = data.present.numpy()
        draws = uniforms(stable_key("per_modality", seed), data.index, present.shape[1])
        hidden = np.zeros_like(present)
        for name, rate in self.rates:
            column = data.schema.column(name)
            here = present[:, column]
            hidden[:, column] = _lowest(draws[:, column], here, round(rate * int(here.sum())))
        kept = present & ~hidden
        if self.keep_one:
            draws = uniforms(stable_key("leave_one", seed), data.index, present.shape[1] + 1)
            order = draws[:, -1].argsort(kind="stable")  # one that the rows carry along
            kept[order] = self._leave_one(kept[order], present[order], draws[order, :-1])
        return torch.from_numpy(kept)

    def _leave_one(self, kept: Bools, present: Bools, draws: Floats) -> Bools:
        _exchange(kept, present, draws)
        empty = np.flatnonzero(~kept.any(1) & present.any(1)).tolist()
        if not all(_chain(kept, present, row) for row in empty):
            raise ConfigError(
                f"{self}: these rates leave rows with nothing, whichever slots are taken; "
                "lower a rate, or give up keep_one"
            )
        return kept

    def asked(self, data: Data) -> dict[str, float]:
        return {name: dict(self.rates).get(name, 0.0) for name in data.schema.names}

    def __str__(self) -> str:
        words = [f"{name}={rate:g}" for name, rate in self.rates]
        if any(word(name) != name or name == "keep_one" for name, _ in self.rates):
            words = [f"{{{', '.join(f'{name!r}: {rate:g}' for name, rate in self.rates)}}}"]
        return f"per_modality({', '.join([*words, *(['keep_one=True'] if self.keep_one else [])])})"


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
            stays |= _lowest(draws, rows, round(self.eta * int(rows.sum())))
        keep = torch.ones_like(data.present)
        keep[:, column] = torch.from_numpy(stays)
        return keep

    def _classes(self, data: Data) -> NDArray[np.int64]:
        if not self.by_class:
            return np.zeros(len(data), dtype=np.int64)
        target = data.target
        if target is None or target.ndim != 1 or target.is_floating_point():
            raise ConfigError(f"{self} keeps a share of each class, and this task has no classes; use by_class=False")
        classes: NDArray[np.int64] = target.masked_fill(
            ~data.target_present, -1
        ).numpy()  # unlabelled: a class of its own
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
def mcar(rate: float, keep_one: bool = True) -> Mechanism:
    """Missing completely at random: slots go missing alike and independently of everything in the data.

    Args:
        rate: share of the observed slots, in [0, 1]; exact to the nearest slot.
        keep_one: every row that had something keeps a slot. That bounds the rate: 1 - 1/M for complete rows. A row then
            loses each slot independently with one probability, solved so that the rate comes out; if it would lose
            all, one slot, any with equal chance, is given back.

    Raises:
        ConfigError: the rate is no share; on planning: it cannot be reached (the message names the largest that can).
    """
    return Mcar(share("the rate of mcar", rate), bool(keep_one))


@MECHANISMS.register("per_modality")
def per_modality(rates: Mapping[str, float] | None = None, /, keep_one: bool = False, **more: float) -> Mechanism:
    """A rate for each modality, independently: ``per_modality({"image": 0.3, "speech": 0.5})``; others stay.

    Args:
        rates: share of the observed slots of each modality; exact to the nearest slot.
        keep_one: every row that had something keeps a slot; rows that would be empty exchange a slot with rows that
            have several, so the rates stay exact.
        more: rates by keyword.

    Raises:
        ConfigError: a rate is no share; on planning: rates and ``keep_one`` contradict each other.
    """
    if rates is not None and not isinstance(rates, Mapping):
        raise ConfigError(f"per_modality needs a rate for each modality, such as {{'image': 0.3}}, not {rates!r}")
    pairs = {**(rates or {}), **more}
    return PerModality(tuple((n, share(f"the rate of {n!r}", r)) for n, r in pairs.items()), bool(keep_one))


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
    """A ready mask: a :class:`Mask` (which must belong to the data), its file, or bool ``[N, M]``, True: stays.

    Raises:
        DataError: a tensor that is not bool ``[N, M]``, a file that is no mask; on planning: it does not fit the data.
    """
    if isinstance(mask, str | os.PathLike):
        mask = Mask.load(mask)
    if not isinstance(mask, Mask) and not (isinstance(mask, Tensor) and mask.dtype == torch.bool and mask.ndim == 2):
        raise DataError("given needs a Mask, the path of one, or a bool tensor of shape [rows, modalities]")
    return Given(mask if isinstance(mask, Mask) else mask.cpu())


def parse_mechanism(spec: Mechanism | str | Mapping[str, Any]) -> Mechanism:
    """From ``"mcar(0.3)"``, ``"pattern(image, clue)"`` or ``{"mcar": {"rate": 0.3}}``; str() is the way back.

    Raises:
        UnknownName: no such mechanism.
        ConfigError: the spec cannot be read, or its arguments do not fit.
    """
    if isinstance(spec, Mechanism):
        return spec
    found = calls(spec)
    if len(found) != 1:
        raise ConfigError(f"{spec!r} names {len(found)} mechanisms; missingness takes one")
    return found[0].apply(MECHANISMS[found[0].name])


# exact counts -------------------------------------------------------------------------------------------------------
def _lowest(draws: Floats, among: Bools, count: int) -> Bools:
    """The ``count`` places of lowest draw among these: what a threshold on the draws gives, to the exact number."""
    order = np.where(among, draws, np.inf).ravel().argsort(kind="stable")
    chosen = np.zeros(among.size, dtype=bool)
    chosen[order[:count]] = True
    return chosen.reshape(among.shape)


def _exchange(kept: Bools, present: Bools, draws: Floats) -> None:
    """Empty rows get a slot from rows that keep two or more, in place; columns keep their sums. All are ``[N, M]``."""
    columns = kept.shape[1]
    wish = np.where(present, draws, -1).argsort(1)[:, ::-1]  # each row's columns in its own random order
    before = -1
    while (left := int((~kept.any(1) & present.any(1)).sum())) and left != before:
        before = left
        for turn in range(columns):
            for column in range(columns):
                takers = np.flatnonzero(~kept.any(1) & present[:, column] & (wish[:, turn] == column))
                givers = np.flatnonzero(kept[:, column] & (kept.sum(1) > 1))
                moved = min(len(takers), len(givers))
                kept[takers[:moved], column] = True
                kept[givers[:moved], column] = False


def _chain(kept: Bools, present: Bools, row: int) -> bool:
    """A slot for an empty row where no row can simply give one: rows pass slots on until one with two gives its second.

    A shortest augmenting path over the columns; False: there is none, so the columns' sums cannot be met.
    """
    columns = kept.shape[1]
    came: dict[int, tuple[int, int | None]] = {c: (row, None) for c in range(columns) if present[row, c]}
    queue = list(came)
    for column in queue:  # grows while it is walked
        donors = (kept[:, column] & (kept.sum(1) > 1)).nonzero()[0]
        if len(donors):
            kept[donors[0], column] = False
            _pass_on(kept, came, column)
            return True
        for other in set(range(columns)) - came.keys():
            movers = (kept[:, column] & present[:, other]).nonzero()[0]
            if len(movers):
                came[other] = (int(movers[0]), column)
                queue.append(other)
    return False


def _pass_on(kept: Bools, came: Mapping[int, tuple[int, int | None]], column: int | None) -> None:
    while column is not None:
        taker, before = came[column]
        kept[taker, column] = True
        if before is not None:
            kept[taker, before] = False
        column = before
