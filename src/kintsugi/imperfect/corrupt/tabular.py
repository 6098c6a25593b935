"""Corruptions of tables: ``[R, cells]`` with a mask of cells; numbers as read, categories as codes 1 to n, 0 unknown.

Shares are those of Jenga (Schelter et al., EDBT 2021) in kind, and which rows are hit may depend on values, as there.
"""

from __future__ import annotations

from abc import abstractmethod
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor

from kintsugi.core.data import Data
from kintsugi.core.errors import ConfigError
from kintsugi.core.schema import Modality
from kintsugi.imperfect.corrupt._numbers import affine, channel, unit_table
from kintsugi.imperfect.corrupt._windows import CHOICES, in_window, window
from kintsugi.imperfect.operator import OPERATORS, Operator, levels
from kintsugi.imperfect.plan import Plan
from kintsugi.imperfect.scales import scale
from kintsugi.imperfect.seeds import stable_key, uniforms
from kintsugi.imperfect.spec import share

_LEVELS = levels(share=(0.05, 0.1, 0.2, 0.4, 0.6))
_SHARES = "shares: proposed here, within the 1 to 99 % of Jenga's examples"
_JENGA = f"definition: Jenga, Schelter et al., EDBT 2021; {_SHARES}"


def kinds(modality: Modality) -> Tensor:
    """Number of categories of each cell, 0 for a number: int64 ``[cells]``."""
    cells = modality.shape[0]
    if cells is None:
        raise ConfigError(f"modality {modality.name!r}: the number of cells must be known")
    return torch.tensor(modality.categories or (0,) * cells)


class Cells(Operator):
    """A share of the eligible cells that are seen is damaged; the others stay.

    share: expected share, in each eligible column by itself. rows: ``uniform`` (at random), ``other`` (the rows whose
    value in another column, drawn by the plan, lies within a contiguous window of percentiles as wide as the share and
    placed at random) or ``self`` (the same for the column itself). Percentiles are those of the reference rows; ties,
    as of categories, are broken at random for each row, so that the share comes out all the same. With ``other`` and
    ``self``, cells whose deciding cell is unseen are not hit.
    """

    kind = "tabular"
    parameters = {"default": _LEVELS}  # noqa: RUF012
    options = MappingProxyType({"rows": "uniform"})
    numbers: ClassVar[bool] = True
    categories: ClassVar[int] = 0
    """Cells of at least so many categories are eligible; 0: none is."""

    def eligible(self, codes: Tensor) -> Tensor:
        """Bool ``[cells]``; codes: see :func:`kinds`."""
        numbers = (codes == 0) & self.numbers
        return numbers | (codes >= self.categories) & (codes > 0) if self.categories else numbers

    def check(self, modality: Modality) -> None:
        super().check(modality)
        if not bool(self.eligible(kinds(modality)).any()):
            wanted = "numbers" if self.numbers else "categories to choose from"
            raise ConfigError(f"{self.key} damages {wanted}, and modality {modality.name!r} has no cell of that kind")

    def look(self, data: Data, modality: Modality, values: dict[str, Any], seed: int) -> dict[str, Tensor]:
        share(f"{self.key}: share", values["share"])
        if values["rows"] not in CHOICES:
            raise ConfigError(f"{self.key}: rows must be {', '.join(CHOICES)}, not {values['rows']!r}")
        found: dict[str, Tensor] = {"categories": kinds(modality)}
        if values["rows"] != "uniform":
            key = stable_key(seed, self.key, modality.name, "window")
            found |= window(scale(data, modality.name), key, values["rows"] == "other")
        return found

    def hits(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> Tensor:
        """Bool ``[R, cells]``: eligible, seen and drawn; on the device of ``x``."""
        channel(plan, "categories", x)  # raises where the plan was made for another table
        codes = plan.tensors["categories"]
        seen = torch.ones(x.shape, dtype=torch.bool) if mask is None else mask.cpu()
        part, drawn = plan.parameters["share"], plan.uniforms(index, x.shape[1])
        hit = drawn < part if plan.parameters["rows"] == "uniform" else in_window(x.detach().cpu(), seen, drawn, plan)
        return (hit & seen & self.eligible(codes)).to(x.device)


@OPERATORS.register("cells_missing")
class CellsMissing(Cells):
    """Cells go missing: NaN, and False in the mask. With ``rows`` they are missing at random or not at random."""

    key = "cells_missing"
    title = "cells go missing"
    source = _JENGA
    categories = 1
    gaps = True

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return _gone(x, self.hits(x, index, plan, mask), mask)


@OPERATORS.register("outliers")
class Outliers(Cells):
    """Numbers become ones that are "far out" by Tukey's rule: beyond a quartile by u times the interquartile range.

    u is uniform in 3 to 6 (3 is Tukey's limit), the side a coin. A column whose quartiles coincide takes its standard
    deviation in place of that range, and one that never varies stays as it is.
    """

    key = "outliers"
    title = "numbers far out"
    source = (
        f"definition: far out values, Tukey, Exploratory Data Analysis, 1977; up to twice that: proposed; {_SHARES}"
    )

    def look(self, data: Data, modality: Modality, values: dict[str, Any], seed: int) -> dict[str, Tensor]:
        found = scale(data, modality.name)
        low, high = found.quantile(0.25), found.quantile(0.75)
        spread = torch.where(high > low, high - low, found.sd)
        return {**super().look(data, modality, values, seed), "low": low, "high": high, "spread": spread}

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        low, high, spread = (channel(plan, name, x) for name in ("low", "high", "spread"))
        far = (3 + 3 * plan.uniforms(index, x.shape[1], "far")).to(x) * spread
        above = (plan.uniforms(index, x.shape[1], "side") < 0.5).to(x.device)
        hit = self.hits(x, index, plan, mask) & (spread > 0)
        return torch.where(hit, torch.where(above, high + far, low - far), x), mask


@OPERATORS.register("cell_noise")
class CellNoise(Cells):
    """``x + N(0, (u sd)²)``; u, uniform in 1 to 5, is drawn for each column by the plan. sd 0: stays as it is."""

    key = "cell_noise"
    title = "gaussian noise on numbers"
    source = _JENGA
    differentiable = True

    def look(self, data: Data, modality: Modality, values: dict[str, Any], seed: int) -> dict[str, Tensor]:
        sd = scale(data, modality.name).sd
        times = 1 + 4 * _by_column(self, modality, seed, len(sd))
        return {**super().look(data, modality, values, seed), "sd": sd * times}

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        noise = torch.special.ndtri(plan.uniforms(index, x.shape[1], "noise").clamp(min=1e-12)).to(x)
        hit = self.hits(x, index, plan, mask)
        return torch.where(hit, x + noise * channel(plan, "sd", x), x), mask


class _Affine(Cells):
    """``factor * original + offset`` in original units where the data set knows them."""

    differentiable = True

    @abstractmethod
    def factors(self, modality: Modality, values: dict[str, Any], seed: int, cells: int) -> tuple[Tensor, Tensor]:
        """Factor and offset of each column, float64 ``[cells]``."""

    def look(self, data: Data, modality: Modality, values: dict[str, Any], seed: int) -> dict[str, Tensor]:
        found = super().look(data, modality, values, seed)
        drawn = self.factors(modality, values, seed, len(found["categories"]))
        return {**found, **affine(*drawn, data.units(modality.name))}

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        wrong = x * channel(plan, "factor", x) + channel(plan, "shift", x)
        return torch.where(self.hits(x, index, plan, mask), wrong, x), mask


@OPERATORS.register("scale_shift")
class ScaleShift(_Affine):
    """Numbers become 10, 100 or 1000 times as large; which, is drawn for each column by the plan.

    Of the original values, where the data set knows how they were standardised.
    """

    key = "scale_shift"
    title = "numbers times 10, 100 or 1000"
    source = _JENGA

    def factors(self, modality: Modality, values: dict[str, Any], seed: int, cells: int) -> tuple[Tensor, Tensor]:
        power = 1 + (3 * _by_column(self, modality, seed, cells)).floor()
        return 10.0**power, torch.zeros(cells, dtype=torch.float64)


@OPERATORS.register("unit_error")
class UnitError(_Affine):
    """Numbers are given in a wrong unit, of the original values where the data set knows how they were standardised.

    unit: ``drawn`` (one of the three for each column, by the plan), ``milli`` (times 1000), ``gravity`` (times 9.81, as
    m/s² for g) or ``fahrenheit`` (``1.8 x + 32``).
    """

    key = "unit_error"
    title = "numbers in a wrong unit"
    source = f"definition: confused SI prefixes, g and m/s², °C and °F; {_SHARES}"
    options = MappingProxyType({"rows": "uniform", "unit": "drawn"})

    def factors(self, modality: Modality, values: dict[str, Any], seed: int, cells: int) -> tuple[Tensor, Tensor]:
        table = unit_table(self.key, values["unit"])
        which = (len(table) * _by_column(self, modality, seed, cells)).long()
        return table[which, 0], table[which, 1]


@OPERATORS.register("swapped_columns")
class SwappedColumns(Cells):
    """Two columns exchange their values, as when two fields of a form are mixed up.

    Columns are paired at random for each row: numbers with numbers (in original units where the data set knows them),
    categories with categories of as many codes, which so stay legal; of an odd number one is left over. A pair is hit as
    a whole, by what decides for its first column, and only where both cells are seen.
    """

    key = "swapped_columns"
    title = "two columns exchange their values"
    source = f"{_JENGA}; pairs that differ from row to row instead of one for all: proposed here"
    categories = 1
    differentiable = True

    def eligible(self, codes: Tensor) -> Tensor:
        return (codes[:, None] == codes).sum(1) > 1

    def check(self, modality: Modality) -> None:
        Operator.check(self, modality)
        if not bool(self.eligible(kinds(modality)).any()):
            raise ConfigError(f"{self.key} needs two columns of a kind, and modality {modality.name!r} has none")

    def look(self, data: Data, modality: Modality, values: dict[str, Any], seed: int) -> dict[str, Tensor]:
        found = super().look(data, modality, values, seed)
        one = torch.ones(len(found["categories"]), dtype=torch.float64)
        base, size = data.units(modality.name) or (0 * one, one)
        return {**found, "base": base.double(), "size": size.double()}

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        hit = self.hits(x, index, plan, mask)
        seen = torch.ones_like(hit) if mask is None else mask
        partner, first = (t.to(x.device) for t in _pairs(plan, index))
        pair = hit & first & seen.gather(1, partner)
        base, size = channel(plan, "base", x), channel(plan, "size", x)
        theirs = ((x * size + base).gather(1, partner) - base) / size
        return torch.where(pair | pair.gather(1, partner), theirs, x), mask


def _pairs(plan: Plan, index: Tensor) -> tuple[Tensor, Tensor]:
    """The partner of each cell (itself: none), int64 ``[R, cells]``, and which of two is the first, bool."""
    codes = plan.tensors["categories"]
    order = plan.uniforms(index, len(codes), "pairs")
    partner = torch.arange(len(codes)).repeat(len(index), 1)
    first = torch.zeros(partner.shape, dtype=torch.bool)
    for kind in torch.unique(codes).tolist():
        alike = (codes == kind).nonzero().flatten()
        shuffled = alike[order[:, alike].argsort(1)]
        for at in range(0, len(alike) - 1, 2):
            a, b = shuffled[:, at : at + 1], shuffled[:, at + 1 : at + 2]
            partner.scatter_(1, a, b).scatter_(1, b, a)
            first.scatter_(1, a, True)
    return partner, first


@OPERATORS.register("category_noise")
class CategoryNoise(Cells):
    """A category becomes another one of its column, each as likely; never 0, which is "never seen in training".

    An unseen category (code 0) becomes any of the column's. Columns of a single category are not eligible.
    """

    key = "category_noise"
    title = "another category"
    source = f"definition: a wrong category at random (Jenga permutes the categories of a column instead); {_SHARES}"
    numbers = False
    categories = 2

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        hit = self.hits(x, index, plan, mask)
        codes = plan.tensors["categories"].to(x.device)
        now = torch.where(hit, x.detach(), 1).round().long()
        known = (now > 0).long()
        step = (plan.uniforms(index, x.shape[1], "which").to(x.device) * (codes - known)).long()
        # counted on around the circle of codes: 0 to n - 2 steps past the next one, so never the same
        other = (now - 1 + known + step).remainder(codes.clamp(min=1)) + 1
        return torch.where(hit, other.to(x.dtype), x), mask


@OPERATORS.register("broken_characters")
class BrokenCharacters(Cells):
    """What was typed or transferred cannot be read: a number goes missing, a category becomes 0, "never seen".

    It is what broken characters do to a table once it is read; the cell of a category stays seen.
    """

    key = "broken_characters"
    title = "cells that cannot be read"
    source = f"{_JENGA}; done to cells as they are read, not to characters"
    categories = 1
    gaps = True

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        hit = self.hits(x, index, plan, mask)
        number = (plan.tensors["categories"] == 0).to(x.device)
        return _gone(torch.where(hit & ~number, 0, x), hit & number, mask)


def _gone(x: Tensor, hit: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    return x.masked_fill(hit, torch.nan), ~hit if mask is None else mask & ~hit


def _by_column(operator: Operator, modality: Modality, seed: int, cells: int) -> Tensor:
    """A uniform number for each column, of the plan: float64 ``[cells]``."""
    key = stable_key(seed, operator.key, modality.name, "column")
    return torch.from_numpy(uniforms(key, torch.arange(cells), 1)[:, 0])
