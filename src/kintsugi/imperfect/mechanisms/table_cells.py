"""Cells of a table that go missing depending on cells: the multivariate amputation of Schouten et al. (2018)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from kintsugi.core.errors import ConfigError
from kintsugi.imperfect import _scores
from kintsugi.imperfect._exact import Floats, check_reach, logit, lowest
from kintsugi.imperfect.mechanism import MECHANISMS, StepMechanism, number, said
from kintsugi.imperfect.mechanisms.steps import draws
from kintsugi.imperfect.spec import share

if TYPE_CHECKING:
    from kintsugi.core.data import Data

# Which rows are likely to lose cells, by their standardised weighted sum (Schouten et al. 2018, section 3.2).
TAILS: Mapping[str, Callable[[Floats], Floats]] = {
    "right": lambda s: s,
    "left": lambda s: -s,
    "tail": lambda s: np.abs(s),
    "mid": lambda s: -np.abs(s),
}


@dataclass(frozen=True)
class Cells(StepMechanism):
    """See :func:`cells`."""

    rate: float
    of: str
    by: str = "mar"
    incomplete: tuple[int, ...] | None = None
    weights: tuple[float, ...] | None = None
    tail: str = "right"
    strength: float = 1.0

    def names(self, data: Data) -> tuple[str, ...]:
        modality = data.schema[self.of]
        if modality.kind not in ("tabular", "vector"):
            raise ConfigError(f"{self} takes cells of a table or a vector; modality {self.of!r} is {modality.kind}")
        return (self.of,)

    def holes(self, width: int) -> list[int]:
        """The cells that can go missing."""
        found = list(range(width // 2, width)) if self.incomplete is None else list(self.incomplete)
        if not found or not all(0 <= c < width for c in found):
            raise ConfigError(
                f"{self}: cells are counted from 0 to {width - 1}, and one of them at least must be named"
            )
        return found

    def _weights(self, width: int) -> Floats:
        holes = self.holes(width)
        observed = [c for c in range(width) if c not in holes]
        weights = np.zeros(width)
        if self.weights is not None:
            if len(self.weights) != width:
                raise ConfigError(f"{self} has {len(self.weights)} weights for {width} cells")
            weights[:] = self.weights
            wrong = holes if self.by == "mar" else []
            if any(weights[c] for c in wrong):
                raise ConfigError(
                    f"{self}: what goes missing must not decide, so its weights must be 0; or ask for mnar"
                )
        elif self.by != "mcar":
            weights[observed if self.by == "mar" else holes] = 1.0
        if self.by == "mar" and not weights.any():
            raise ConfigError(f"{self}: no cell is left to decide; name fewer cells as incomplete")
        return weights

    def score(self, data: Data) -> Floats:
        """Float64 ``[N]``: weighted sum of the standardised cells, itself standardised; an unseen cell counts as average."""
        values = _scores.cells(data, self.of)
        weights = self._weights(values.shape[1])
        columns = [w * _scores.standardised(column) for w, column in zip(weights, values.T, strict=True) if w]
        summed = np.sum(columns, 0) if columns else np.zeros(len(values))
        return _scores.standardised(torch.from_numpy(summed))

    def left(self, seen: Mapping[str, Tensor], data: Data, seed: int) -> dict[str, Tensor]:
        there = seen[self.of].numpy()
        free = np.zeros_like(there)
        holes = self.holes(data.schema[self.of].shape[0] or there.shape[1])
        free[:, holes] = there[:, holes]
        keys = logit(draws("cells", seed, self.of, data, 1)[:, 0]) - self.strength * TAILS[self.tail](self.score(data))
        observed, count = int(there.sum()), round(self.rate * int(there.sum()))
        check_reach(
            self, count, int(free.sum()), observed, f"the cells of {self.of!r} when {len(holes)} of them can go missing",
            "ask for less, or name more cells as incomplete",
        )  # fmt: skip
        return {self.of: torch.from_numpy(~lowest(np.repeat(keys[:, None], there.shape[1], 1), free, count))}

    def asked(self, data: Data) -> float:
        return self.rate

    def __str__(self) -> str:
        return said(
            "cells", self.rate, self.of, by=(self.by, "mar"), incomplete=(_listed(self.incomplete), None),
            weights=(_listed(self.weights), None), tail=(self.tail, "right"), strength=(self.strength, 1.0),
        )  # fmt: skip


def _listed(values: tuple[float, ...] | None) -> list[float] | None:
    return None if values is None else list(values)


@MECHANISMS.register("cells")
def cells(
    rate: float,
    of: str,
    by: str = "mar",
    incomplete: Sequence[int] | None = None,
    weights: Sequence[float] | None = None,
    tail: str = "right",
    strength: float = 1.0,
) -> StepMechanism:
    """Cells of a table or vector that go missing together, in rows that are chosen by other cells or by themselves.

    The multivariate amputation of Schouten, Lugtig and Vink (J. Stat. Comput. Simul. 2018), as pyampute implements it, with one
    pattern: each row has a weighted sum of its standardised cells, whose sigmoid, shifted until the rate comes out, is the
    probability that it loses its ``incomplete`` cells, all at once. There the rate is a share of rows; here, as everywhere
    in this library, of the observed cells.

    Args:
        rate: share of the observed cells; exact to the nearest cell.
        of: name of the table or vector.
        by: ``mcar``: any row alike; ``mar``: by cells that stay; ``mnar``: by cells that go.
        incomplete: cells that can go missing, counted from 0; default: the second half.
        weights: one a cell; default: 1 for each cell that decides. For ``mar``, 0 for incomplete ones.
        tail: rows that lose more: ``right``: of a high sum, ``left``: of a low one, ``tail``: of an extreme one, ``mid``: of
            a middling one.
        strength: change of the log-odds by one standard deviation of the sum; 1 as in pyampute.

    Raises:
        ConfigError: an argument that makes no sense; on planning: a rate that cannot be reached (the message names the
            largest that can), or cells that the table lacks.
    """
    if by not in ("mcar", "mar", "mnar"):
        raise ConfigError(f"cells go missing by 'mcar', 'mar' or 'mnar', not by {by!r}")
    if tail not in TAILS:
        raise ConfigError(f"the tail of cells is one of {', '.join(TAILS)}, not {tail!r}")
    if not isinstance(of, str):
        raise ConfigError(f"cells takes the name of one table, not {of!r}")
    try:
        holes = None if incomplete is None else tuple(dict.fromkeys(int(c) for c in incomplete))
        each = None if weights is None else tuple(float(w) for w in weights)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"cells takes lists of numbers: incomplete={incomplete!r}, weights={weights!r}") from error
    return Cells(share("the rate of cells", rate), of, by, holes, each, tail, number("the strength of cells", strength))
