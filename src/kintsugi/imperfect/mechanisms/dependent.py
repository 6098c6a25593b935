"""Slots that go missing depending on the data: on what is observed (MAR), on what goes missing or the label (MNAR).

Both are logistic: slot ``m`` of row ``i`` is lost with probability ``sigmoid(a + strength * s_i)``, where the score ``s`` has
mean 0 and standard deviation 1. With a draw ``u`` that is ``logit(u) - strength * s < a``, so the rows of lowest
``logit(u) - strength * s`` are lost, and the intercept ``a`` is where the rate asked for comes out, exactly.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from kintsugi.core.errors import ConfigError
from kintsugi.imperfect import _scores
from kintsugi.imperfect._exact import Bools, Floats, check_reach, logit, lowest
from kintsugi.imperfect.mechanism import MECHANISMS, Mechanism, as_names, number, said
from kintsugi.imperfect.seeds import stable_key, uniforms
from kintsugi.imperfect.spec import share

if TYPE_CHECKING:
    from kintsugi.core.data import Data


@dataclass(frozen=True)
class _Logistic(Mechanism):
    rate: float
    by: str
    of: tuple[str, ...] = ()
    strength: float = 2.0
    keep_one: bool = True

    def affected(self, data: Data) -> tuple[str, ...]:
        """The modalities that lose slots."""
        return self.of or data.schema.names

    @abstractmethod
    def scores(self, data: Data) -> Floats:
        """``[N, M]``, standardised by column."""

    def keep(self, data: Data, seed: int) -> Tensor:
        columns = [data.schema.column(name) for name in self.affected(data)]
        draws = uniforms(stable_key(type(self).__name__.lower(), seed), data.index, data.present.shape[1])
        keys = logit(draws) - self.strength * self.scores(data)
        hidden = hide_columns(self, keys, data.present.numpy(), columns, self.rate, self.keep_one)
        return torch.from_numpy(~hidden)

    def asked(self, data: Data) -> dict[str, float]:
        affected = self.affected(data)
        return {name: self.rate if name in affected else 0.0 for name in data.schema.names}


def hide_columns(
    who: Mechanism, keys: Floats, present: Bools, columns: Sequence[int], rate: float, keep_one: bool
) -> Bools:
    """In each of these columns, a share of the observed slots: those of lowest key. ``keys``, ``present``: ``[N, M]``.

    ``keep_one``: where a row could lose all that it has, the slot of highest key stays.
    """
    free = np.zeros_like(present)
    free[:, columns] = present[:, columns]
    if keep_one:
        bare = np.flatnonzero(~(present & ~free).any(1) & present.any(1))
        free[bare, np.where(present[bare], keys[bare], -np.inf).argmax(1)] = False
    most = [(int(free[:, c].sum()), int(present[:, c].sum())) for c in columns]
    short = [pair for pair in most if round(rate * pair[1]) > pair[0]]
    if short:
        can, has = min(short, key=lambda pair: pair[0] / pair[1])
        check_reach(
            who, round(rate * has), can, has, "the slots of a modality when every row keeps one",
            "ask for less, or for keep_one=False",
        )  # fmt: skip
    hidden = np.zeros_like(present)
    for column, (_, observed) in zip(columns, most, strict=True):
        hidden[:, column] = lowest(keys[:, column], free[:, column], round(rate * observed))
    return hidden


@dataclass(frozen=True)
class Mar(_Logistic):
    """See :func:`mar`."""

    def affected(self, data: Data) -> tuple[str, ...]:
        own = self._own(data)
        if own in self.of:
            raise ConfigError(
                f"{self}: what decides must stay observed, and {own!r} would go missing itself; for that there is mnar"
            )
        return self.of or tuple(name for name in data.schema.names if name != own)

    def _own(self, data: Data) -> str | None:
        name = self.by.partition(".")[0]
        if name == "context" and name not in data.schema.names:
            return None
        data.schema.column(name)
        return name

    def scores(self, data: Data) -> Floats:
        found, _ = _scores.driver(data, self.by)
        return np.repeat(found[:, None], len(data.schema.names), 1)

    def __str__(self) -> str:
        return _text("mar", self, 2.0)


@dataclass(frozen=True)
class Mnar(_Logistic):
    """See :func:`mnar`."""

    def scores(self, data: Data) -> Floats:
        out = np.zeros(tuple(data.present.shape))
        if self.by == "label":
            out += _scores.standardised(_scores.label_score(data))[:, None]
            return out
        for name in self.affected(data):
            out[:, data.schema.column(name)] = _scores.standardised(_scores.score(data, name))
        return out

    def __str__(self) -> str:
        return _text("mnar", self, -2.0, by=(self.by, "value"))


def _text(name: str, found: _Logistic, strength: float, by: tuple[str, str] | None = None) -> str:
    keywords = {
        **({"by": by} if by else {}),
        "of": (found.of, ()),
        "strength": (found.strength, strength),
        "keep_one": (found.keep_one, True),
    }
    return said(name, found.rate, *([] if by else [found.by]), **keywords)


@MECHANISMS.register("mar")
def mar(
    rate: float, by: str, of: str | Sequence[str] = "all", strength: float = 2.0, keep_one: bool = True
) -> Mechanism:
    """Missing at random: slots go missing depending on something that stays observed, such as an MRI by the age.

    Args:
        rate: share of the observed slots of each modality that goes missing; exact to the nearest slot.
        by: what decides: a modality (``tab``; its score: mean brightness of images, log energy of audio, number of tokens,
            mean of the standardised numbers otherwise), a cell of a table or vector (``"tab.3"``, counted from 0) or what
            batches carry as context (``"context.site"``). Rows in which it is absent count as average.
        of: what goes missing: names of modalities; default: all but the one that decides.
        strength: change of the log-odds of being lost by one standard deviation of the score. Positive: rows of a high
            score lose more. The default of 2 is proposed here: it takes the rate from .12 to .88 within two standard
            deviations around a rate of one half.
        keep_one: every row that had something keeps a slot.

    Raises:
        ConfigError: the rate is no share; on planning: it cannot be reached (the message names the largest that can), or
            what decides would go missing itself.
        UnknownName: on planning: no such modality.
    """
    if not isinstance(by, str) or not by:
        raise ConfigError(f"mar needs what decides: a modality, a cell such as 'tab.3', or 'context.site', not {by!r}")
    return Mar(
        share("the rate of mar", rate),
        by,
        as_names("mar", of),
        number("the strength of mar", strength),
        bool(keep_one),
    )


@MECHANISMS.register("mnar")
def mnar(
    rate: float, by: str = "value", of: str | Sequence[str] = "all", strength: float = -2.0, keep_one: bool = True
) -> Mechanism:
    """Missing not at random: slots go missing depending on what they hold, or on the label.

    So the simulator reads what it is about to hide, and the pattern of holes tells of it: that is what the words mean. What
    another mechanism hid before, it does not read.

    Args:
        rate: share of the observed slots of each modality that goes missing; exact to the nearest slot.
        by: ``value``: each modality by its own score (mean brightness of images, log energy of audio, number of tokens,
            mean of the standardised numbers otherwise); ``label``: by the class id, the value, or how many labels hold.
        of: what goes missing: names of modalities; default: all.
        strength: change of the log-odds of being lost by one standard deviation of the score. The default is negative:
            the dark, the quiet and the short go missing, and the low label. Its size is proposed here, as for :func:`mar`.
        keep_one: every row that had something keeps a slot.

    Raises:
        ConfigError: the rate is no share, or ``by`` is neither; on planning: the rate cannot be reached (the message names
            the largest that can), or there is no label.
    """
    if by not in ("value", "label"):
        raise ConfigError(f"mnar depends on the 'value' or on the 'label', not on {by!r}; for others there is mar")
    return Mnar(
        share("the rate of mnar", rate),
        by,
        as_names("mnar", of),
        number("the strength of mnar", strength),
        bool(keep_one),
    )
