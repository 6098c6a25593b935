"""Is one method better than another? Intervals of paired differences, and tests over many data sets.

Source of the tests over data sets: Demšar, Statistical Comparisons of Classifiers over Multiple Data Sets (2006).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from torch import Tensor

from kintsugi.core.errors import ConfigError, DataError
from kintsugi.evaluation.intervals import LEVEL, RESAMPLES, Interval, paired_difference
from kintsugi.evaluation.measures import declared


@dataclass(frozen=True)
class Comparison:
    """Two methods on the same rows.

    difference: of their means, a - b, with its interval; winner: the name of the better one, or None where the interval
    does not say.
    """

    a: str
    b: str
    difference: Interval
    winner: str | None

    def __str__(self) -> str:
        d = self.difference
        said = f"{d.value:+.4g} [{d.low:+.4g}, {d.high:+.4g}]"
        if self.winner is None:
            return f"{self.a} and {self.b} cannot be told apart: {said}"
        return f"{self.winner} beats {self.b if self.winner == self.a else self.a}: {self.a} - {self.b} = {said}"


def beats(difference: Interval, *, higher_is_better: bool) -> bool:
    """Does A beat B? Only where the whole interval of A - B lies on the better side of 0, end included.

    An interval with an unknown end (NaN) never says so.
    """
    return difference.low > 0 if higher_is_better else difference.high < 0


def compare(
    a: Tensor | Sequence[float],
    b: Tensor | Sequence[float],
    *,
    higher_is_better: bool,
    names: tuple[str, str] = ("A", "B"),
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Comparison:
    """Compares two methods by a paired bootstrap over rows.

    Args:
        a: a value for each row ``[N]``, such as right or wrong, or its loss.
        b: the same of the other method, on the same rows in the same order.
        higher_is_better: direction of these values.
        names: of the methods.
        resamples: of the bootstrap.
        seed: of its draws.
        level: of the interval.

    Raises:
        DataError: the lengths differ, there are no rows, or a value is not finite.
    """
    if len(a) != len(b) or not len(a):
        raise DataError(f"{names[0]} has {len(a)} rows and {names[1]} {len(b)}; give values of the same rows")
    for name, values in zip(names, (a, b), strict=True):
        if not np.isfinite(np.asarray(values, dtype=float)).all():
            raise DataError(f"{name} has a value that is not finite; leave that row out of both")
    d = paired_difference(a, b, resamples=resamples, seed=seed, level=level)
    mirrored = Interval(-d.value, -d.high, -d.low)
    winner = None
    if beats(d, higher_is_better=higher_is_better):
        winner = names[0]
    elif beats(mirrored, higher_is_better=higher_is_better):
        winner = names[1]
    return Comparison(*names, d, winner)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's correction: p-values that may all be held against one level, and hold for the whole family at it.

    The i-th smallest of m becomes max over j <= i of min(1, (m - j + 1) p_(j)); Holm 1979.

    Args:
        p_values: name of the comparison -> p.

    Returns:
        Adjusted values, in the order given.

    Raises:
        DataError: a value that is not in [0, 1].
    """
    for name, p in p_values.items():
        if not 0 <= p <= 1:
            raise DataError(f"Holm's correction: p of {name} is {p}; give values in [0, 1]")
    adjusted: dict[str, float] = {}
    running = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda n: p_values[n])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = running
    return {name: adjusted[name] for name in p_values}


@dataclass(frozen=True)
class Friedman:
    """Friedman's test over data sets.

    ranks: average rank of each method, 1 the best; statistic, p: Friedman's chi-square with its correction for ties;
    f, f_p: that of Iman and Davenport, less conservative; critical_difference: of average ranks, by Nemenyi;
    datasets: how many; alpha: level of the critical difference.
    """

    ranks: dict[str, float]
    statistic: float
    p: float
    f: float
    f_p: float
    critical_difference: float
    datasets: int
    alpha: float

    def differ(self, a: str, b: str) -> bool:
        """Average ranks at least a critical difference apart. Look at it only where ``f_p`` is below ``alpha``."""
        return abs(self.ranks[a] - self.ranks[b]) >= self.critical_difference


@declared(
    "average_rank",
    higher_is_better=False,
    formula="R_j = (1/N) sum_i r_ij; critical difference q_alpha sqrt(k (k + 1) / (6 N))",
    source="Friedman 1937; Iman and Davenport 1980; Nemenyi 1963, as in Demšar 2006",
)
def friedman(scores: pd.DataFrame, *, higher_is_better: bool, alpha: float = 0.05) -> Friedman:
    """Do methods differ over data sets, and how far apart must average ranks be?

    The critical difference takes q_alpha from the studentised range with infinite degrees of freedom, over sqrt(2).

    Args:
        scores: a row a data set, a column a method; equal scores share their ranks.
        higher_is_better: direction of the scores.
        alpha: level.

    Raises:
        DataError: fewer than three methods or two data sets, a hole, or all methods equal everywhere.
        ConfigError: alpha is not between 0 and 1.
    """
    from scipy.stats import chi2, f, studentized_range

    if not 0 < alpha < 1:
        raise ConfigError(f"alpha is {alpha:g}; give a level between 0 and 1, such as 0.05")
    n, k = _complete(scores, least=3, what="Friedman's test")
    ranks = scores.rank(axis=1, ascending=not higher_is_better).to_numpy(float)
    mean = ranks.mean(0)
    # Conover's form: the variance of the ranks as they are, so that ties are taken into account
    spread = float(((ranks - (k + 1) / 2) ** 2).sum())
    if spread == 0:
        raise DataError("Friedman's test: all methods score alike on every data set; there is nothing to rank")
    statistic = (k - 1) * n * n * float(((mean - (k + 1) / 2) ** 2).sum()) / spread
    rest = n * (k - 1) - statistic
    ratio = (n - 1) * statistic / rest if rest > 1e-9 else math.inf  # the same order on every data set
    # Where all data sets agree F is infinite, and p is exact: the chance that n - 1 further ones fall into the same order.
    tied = Counter(mean.tolist()).values()
    orders = math.factorial(k) // math.prod(math.factorial(count) for count in tied)
    return Friedman(
        ranks={str(name): float(r) for name, r in zip(scores.columns, mean, strict=True)},
        statistic=statistic,
        p=float(chi2.sf(statistic, k - 1)),
        f=ratio,
        f_p=float(orders) ** (1 - n) if math.isinf(ratio) else float(f.sf(ratio, k - 1, (k - 1) * (n - 1))),
        critical_difference=float(studentized_range.ppf(1 - alpha, k, np.inf))
        / math.sqrt(2)
        * math.sqrt(k * (k + 1) / (6 * n)),
        datasets=n,
        alpha=alpha,
    )


def pairwise_wilcoxon(scores: pd.DataFrame, *, higher_is_better: bool) -> pd.DataFrame:
    """Wilcoxon's signed-rank test of every two methods over data sets, corrected by Holm for all of them.

    Args:
        scores: a row a data set, a column a method.
        higher_is_better: direction of the scores.

    Returns:
        Columns ``better``, ``worse`` (by the median difference), ``difference`` (that median, better - worse), ``p``,
        ``p_holm``; a row a pair. Two methods that never differ get p = 1.

    Raises:
        DataError: fewer than two methods or data sets, or a hole.
    """
    from scipy.stats import wilcoxon

    _complete(scores, least=2, what="Wilcoxon's test")
    rows, values = [], {}
    for a, b in combinations(scores.columns, 2):
        d = (scores[a] - scores[b]).to_numpy(float)
        middle = float(np.median(d))
        if (middle < 0) == higher_is_better and middle != 0:
            a, b, middle = b, a, -middle
        p = float(wilcoxon(d).pvalue) if d.any() else 1.0
        values[f"{a} - {b}"] = p
        rows.append({"better": a, "worse": b, "difference": middle, "p": p})
    return pd.DataFrame(rows).assign(p_holm=list(holm(values).values()))


def _complete(scores: pd.DataFrame, *, least: int, what: str) -> tuple[int, int]:
    n, k = scores.shape
    if k < least or n < 2:
        raise DataError(f"{what}: {k} methods on {n} data sets; it needs {least} methods and 2 data sets at least")
    holes = scores.isna().to_numpy()
    if holes.any():
        row, column = (int(x) for x in np.argwhere(holes)[0])
        raise DataError(
            f"{what}: {scores.columns[column]} has no score on {scores.index[row]}; leave out that data set or method"
        )
    return n, k
