"""Robustness in one number: curves, what a method wins back, how evenly modalities are used.

Every measure is a pure function and declares its direction, its formula and its source in ``MEASURES``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from kintsugi.core.errors import DataError
from kintsugi.core.registry import Registry
from kintsugi.evaluation.summary import area

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Measure:
    """One measure, with what a table has to say of it.

    function: what computes it; higher_is_better: None where it inherits the direction of the metric that it is
    computed from; formula, source: in words, for people.
    """

    function: Callable[..., Any]
    higher_is_better: bool | None
    formula: str
    source: str

    @property
    def direction(self) -> str:
        """``higher``, ``lower``, or ``metric``: as the metric underneath."""
        return "metric" if self.higher_is_better is None else "higher" if self.higher_is_better else "lower"


MEASURES: Registry[Measure] = Registry("measure", "kintsugi.evaluation")


def declared(name: str, *, higher_is_better: bool | None, formula: str, source: str) -> Callable[[F], F]:
    """Decorator that puts a function into ``MEASURES`` and leaves it as it is."""

    def add(function: F) -> F:
        MEASURES.register(name)(Measure(function, higher_is_better, formula, source))
        return function

    return add


# curves ------------------------------------------------------------------------------------------------------------


@declared(
    "area",
    higher_is_better=None,
    formula="sum_k (x_{k+1} - x_k)(v_k + v_{k+1})/2 / (x_K - x_0)",
    source="trapezoid rule; MultiBench (Liang et al. 2021) without its min-max over other methods",
)
def curve_area(x: Sequence[float], values: Sequence[float]) -> float:
    """Area under a degradation curve divided by its range: a mean of the metric, in its unit.

    Args:
        x: rates or severities ``[K]``, in any order; values at the same x are averaged.
        values: the metric there ``[K]``.

    Raises:
        DataError: lengths differ, a number is not finite, or there are fewer than two different x.
    """
    frame = _curve(x, values, "area")
    return area(frame)


@declared(
    "auilc",
    higher_is_better=None,
    formula="sum_t (r_{t+1} - r_t)(v_t + v_{t+1})/2",
    source="TFR-Net (Yuan et al. 2021)",
)
def auilc(rates: Sequence[float], values: Sequence[float]) -> float:
    """Area under the indicator's line chart over missing rates, in units of metric × rate.

    It is not divided by the range, so only charts over the same rates can be compared. Whether rate 1.0 takes part is up
    to the caller; say it beside the number.

    Args:
        rates: missing rates ``[T]``, in any order.
        values: the metric there ``[T]``.

    Raises:
        DataError: as for :func:`curve_area`.
    """
    frame = _curve(rates, values, "AUILC")
    return area(frame) * float(frame["x"].max() - frame["x"].min())


@declared(
    "slope",
    higher_is_better=None,
    formula="sum_k (x_k - mean x)(v_k - mean v) / sum_k (x_k - mean x)^2",
    source="least squares",
)
def degradation_slope(x: Sequence[float], values: Sequence[float]) -> float:
    """What one step of severity (or a rate of 1) costs: the least-squares slope, in units of metric / x.

    Args:
        x: rates or severities ``[K]``.
        values: the metric there ``[K]``.

    Raises:
        DataError: as for :func:`curve_area`.
    """
    frame = _curve(x, values, "slope")
    dx = frame["x"].to_numpy() - frame["x"].mean()
    return float(dx @ frame["value"].to_numpy() / (dx @ dx))


@declared("worst", higher_is_better=None, formula="min_i v_i (max where lower is better)", source="minimum")
def worst(values: Sequence[float], *, higher_is_better: bool) -> float:
    """The worst of some values of a metric ``[K]``.

    Raises:
        DataError: there are none, or one is not finite.
    """
    v = numbers("worst", values=values)[0]
    return float(v.min() if higher_is_better else v.max())


@declared("drop", higher_is_better=False, formula="(v_full - v) / v_full", source="relative loss")
def relative_drop(full: float, value: float) -> float:
    """Share of the full value that is lost, for a metric of which more is better; below 0 where it rose.

    Raises:
        DataError: the full value is not above 0.
    """
    if not full > 0:
        raise DataError(f"relative drop: the full value is {full:g}, and a share of it needs one above 0")
    return (full - value) / full


# what a method wins back, and how evenly modalities are used ---------------------------------------------------------


@declared(
    "recovery_gain",
    higher_is_better=True,
    formula="(v_method(corrupt) - v_plain(corrupt)) / (v_plain(clean) - v_plain(corrupt))",
    source="defined here",
)
def recovery_gain(
    method: float, plain: float, clean: float, *, higher_is_better: bool = True, noise: float = 0.0
) -> float:
    """Share of the damage that a method undoes: 0 nothing, 1 all, below 0 where it makes things worse.

    Args:
        method: the metric of the method on corrupted data.
        plain: the metric of the plain model on corrupted data.
        clean: the metric of the plain model on clean data.
        higher_is_better: direction of the metric.
        noise: damage up to this, in units of the metric, cannot be told from none; the half-width of an interval fits.

    Returns:
        NaN where the corruption does no damage beyond noise: there is nothing to recover.

    Raises:
        DataError: noise below 0.
    """
    if noise < 0:
        raise DataError(f"recovery gain: noise is {noise:g}; give a width of 0 or more")
    damage = clean - plain if higher_is_better else plain - clean
    if not damage > noise:
        return math.nan
    return (method - plain) / (clean - plain)


@declared(
    "equity",
    higher_is_better=True,
    formula="(sum_m c_m)^2 / (M sum_m c_m^2), c_m = max(0, contribution of m)",
    source="fairness index of Jain, Chiu and Hawe 1984",
)
def equity(contributions: Mapping[str, float]) -> float:
    """How evenly the modalities contribute: 1 all alike, 1/M one alone.

    Args:
        contributions: modality -> contribution, such as Shapley values, positive where the modality helps; what harms
            counts as 0.

    Returns:
        NaN where no modality helps.

    Raises:
        DataError: there are none, or one is not finite.
    """
    c = np.maximum(numbers("equity", contributions=list(contributions.values()))[0], 0.0)
    return float(c.sum() ** 2 / (len(c) * (c @ c))) if c.any() else math.nan


# checks ------------------------------------------------------------------------------------------------------------


def numbers(what: str, **columns: Iterable[float]) -> list[np.ndarray]:
    """Columns of equal lengths as arrays ``[N]``.

    Raises:
        DataError: lengths differ, a column is empty, or a number is not finite.
    """
    arrays = {name: np.asarray(list(column), dtype=float) for name, column in columns.items()}
    if len({len(a) for a in arrays.values()}) > 1:
        lengths = ", ".join(f"{len(a)} {name}" for name, a in arrays.items())
        raise DataError(f"{what}: {lengths}; give as many of each")
    for name, a in arrays.items():
        if not len(a):
            raise DataError(f"{what}: {name} is empty; give at least one number")
        if not np.isfinite(a).all():
            place = int(np.flatnonzero(~np.isfinite(a))[0])
            raise DataError(f"{what}: {name}[{place}] is {a[place]}; leave out what was not measured")
    return list(arrays.values())


def _curve(x: Sequence[float], values: Sequence[float], what: str) -> pd.DataFrame:
    xs, vs = numbers(what, x=x, values=values)
    if len(set(xs.tolist())) < 2:
        raise DataError(f"{what}: all x are {xs[0]:g}; a curve needs two different ones")
    return pd.DataFrame({"x": xs, "value": vs})
