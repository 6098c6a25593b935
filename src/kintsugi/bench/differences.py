"""How far apart two scores are, with an interval: over seeds, in pairs or not, or over test rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from kintsugi.evaluation.intervals import LEVEL, Interval, seed_interval

FEWEST_SEEDS = 3


@dataclass(frozen=True)
class Sample:
    """A score of one unit: seed -> value, and half the width of its 95 % interval over test rows (NaN: unknown)."""

    values: dict[int, float]
    half: float

    @classmethod
    def of(cls, scores: pd.DataFrame, column: str) -> Sample:
        """Of the lines of a unit in :func:`~kintsugi.bench.figures_seeds.seed_scores`; halves are averaged over seeds."""
        values = {int(s): float(v) for s, v in zip(scores["seed"], scores[column], strict=True)}
        halves = (scores[f"{column}_high"] - scores[f"{column}_low"]) / 2
        return cls(values, float(halves.mean()))

    @property
    def mean(self) -> float:
        """Over seeds."""
        return float(np.mean(list(self.values.values())))


@dataclass(frozen=True)
class Difference:
    """a - b. interval: with its ends; how: ``paired seeds``, ``seeds``, ``rows`` or ``none``; p: two-sided; seeds: of it."""

    interval: Interval
    how: str
    p: float
    seeds: int


def paired(a: Sample, b: Sample, level: float = LEVEL) -> Difference:
    """a - b by the t-interval and the paired t-test of the differences between trainings with the same seed.

    It takes in the noise of training, but not that of which rows happen to be the test rows, on which all are compared.
    The labels of those rows are not stored, so that whether an answer was right cannot be paired row by row.

    Fewer than 3 seeds in common: no interval. Where the differences are all alike, as between methods that draw nothing,
    seeds say nothing about noise; then the intervals over rows decide: see :func:`over_rows`.
    """
    seeds = sorted(a.values.keys() & b.values.keys())
    d = np.array([a.values[s] - b.values[s] for s in seeds])
    if len(d) < FEWEST_SEEDS or not np.isfinite(d).all():
        return Difference(
            Interval(float(d.mean()) if len(d) else math.nan, math.nan, math.nan), "none", math.nan, len(d)
        )
    if _alike(d, [a, b]):
        return over_rows(a, b, level)
    from scipy.stats import t as student

    interval = seed_interval(d.tolist(), level)
    statistic = interval.value / (float(d.std(ddof=1)) / math.sqrt(len(d)))
    return Difference(interval, "paired seeds", float(2 * student.sf(abs(statistic), len(d) - 1)), len(d))


def welch(a: Sample, b: Sample, level: float = LEVEL) -> Difference:
    """a - b by Welch's t-interval: seeds that are not the same, at least 3 on each side.

    Source: Welch 1947; degrees of freedom by Satterthwaite 1946.
    """
    from scipy.stats import t as student

    x, y = (np.array(list(s.values.values())) for s in (a, b))
    seeds = min(len(x), len(y))
    value = float(x.mean() - y.mean())
    if seeds < FEWEST_SEEDS or not np.isfinite([*x, *y]).all():
        return Difference(Interval(value, math.nan, math.nan), "none", math.nan, seeds)
    parts = [float(v.var(ddof=1)) / len(v) for v in (x, y)]
    if _alike(x, [a]) and _alike(y, [b]):
        return over_rows(a, b, level)
    error = math.sqrt(sum(parts))
    freedom = sum(parts) ** 2 / sum(part**2 / (len(v) - 1) for part, v in zip(parts, (x, y), strict=True))
    half = float(student.ppf((1 + level) / 2, freedom)) * error
    p = float(2 * student.sf(abs(value) / error, freedom))
    return Difference(Interval(value, value - half, value + half), "seeds", p, seeds)


def over_rows(a: Sample, b: Sample, level: float = LEVEL) -> Difference:
    """a - b by the intervals over test rows, taken as independent: half-width sqrt(half_a^2 + half_b^2).

    On the same test rows that is too wide, since rows that are hard are hard for both; it knows no noise of training. p is
    that of a normal distribution with such an interval.
    """
    from scipy.stats import norm

    value, half = a.mean - b.mean, math.hypot(a.half, b.half)
    seeds = min(len(a.values), len(b.values))
    if not math.isfinite(half):
        return Difference(Interval(value, math.nan, math.nan), "none", math.nan, seeds)
    error = half / float(norm.ppf((1 + LEVEL) / 2))
    wide = error * float(norm.ppf((1 + level) / 2))
    p = float(2 * norm.sf(abs(value) / error)) if error > 0 else float(value == 0)
    return Difference(Interval(value, value - wide, value + wide), "rows", p, seeds)


def _alike(values: np.ndarray[Any, Any], of: Sequence[Sample]) -> bool:
    """No spread but that of rounding."""
    scale = max(abs(v) for sample in of for v in sample.values.values())
    return bool(np.ptp(values) <= 1e-12 * max(scale, 1e-300))
