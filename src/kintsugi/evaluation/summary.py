"""A table of results in a few figures for each method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from kintsugi.evaluation.results import Run

UNIT = ["dataset", "method", "training"]
MEANS = ("subset", "rate", "corruption")


def kind_of(group: str) -> str:
    """``corruption/gaussian_noise(image)`` -> ``corruption``."""
    return group.partition("/")[0]


def summarise(table: pd.DataFrame, metric: str, runs: Sequence[Run] = ()) -> pd.DataFrame:
    """One row a data set, method and training condition.

    Values of several seeds are averaged before anything else. Columns, those that the conditions give:

    - ``clean``, with ``clean_low`` and ``clean_high``;
    - ``mean``: over all conditions but the clean one; ``worst`` of all, and ``worst_in``, its name;
    - ``subset_mean``: over all subsets of the modalities, the full one too; ``subset_worst``, ``subset_worst_in``;
    - ``corruption_mean``: over operators and severities; ``rate_mean``: over missing rates above 0;
    - ``…_low``, ``…_high`` of these means, where the results come with their runs;
    - ``rate_area``, ``corruption_area``: area under the degradation curve divided by its range, the mean over curves:
      (1 / (x_K - x_0)) sum_k (x_{k+1} - x_k) (v_k + v_{k+1}) / 2, starting from the clean value at x = 0;
    - ``guess``: what always giving the answer to a row with nothing gets, where the table knows it;
    - ``clean_spread``, ``mean_spread``: standard deviation over seeds (n - 1), where there are several.

    Args:
        table: the tidy frame of :class:`~kintsugi.evaluation.Results`.
        metric: its name.
        runs: for the intervals of means.
    """
    chosen = table[table["metric"] == metric]
    rows = [
        {**dict(zip(UNIT, names, strict=True)), "metric": metric, **_figures(part, _intervals(runs, names, metric))}
        for names, part in chosen.groupby(UNIT, sort=False)
    ]
    return pd.DataFrame(rows).dropna(axis=1, how="all")


def _figures(part: pd.DataFrame, intervals: dict[str, tuple[float, float]]) -> dict[str, Any]:
    higher = bool(part["higher_is_better"].iloc[0])
    averaged = _over_seeds(part, ["condition"])
    kinds = averaged["group"].map(kind_of)
    clean = averaged[kinds == "clean"]
    degraded = averaged[kinds != "clean"]
    subsets = averaged[kinds.isin(["clean", "subset"])] if (kinds == "subset").any() else averaged.iloc[:0]
    figures: dict[str, Any] = {
        "higher_is_better": higher,
        "seeds": part["seed"].nunique(),
        "n": int(part["n"].iloc[0]),
        "clean": _mean(clean["value"]),
        "clean_low": _mean(clean["low"]),
        "clean_high": _mean(clean["high"]),
        "mean": _mean(degraded["value"]),
    }
    figures |= _worst("", averaged, higher)
    for kind, rows in {"subset": subsets, **{k: averaged[kinds == k] for k in ("rate", "corruption")}}.items():
        figures[f"{kind}_mean"] = _mean(rows["value"])
        figures[f"{kind}_low"], figures[f"{kind}_high"] = intervals.get(kind, (math.nan, math.nan))
    figures |= _worst("subset_", subsets, higher)
    start = figures["clean"]
    for kind in ("rate", "corruption"):
        here = averaged[kinds == kind]
        figures[f"{kind}_area"] = _mean(pd.Series([area(c, start) for _, c in here.groupby("group")], dtype=float))
    figures["guess"] = _mean(part["guess"]) if "guess" in part else math.nan
    return figures | _spread(part)


def _over_seeds(part: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    return part.groupby(by, sort=False, as_index=False).agg(
        group=("group", "first"), x=("x", "first"), value=("value", "mean"), low=("low", "mean"), high=("high", "mean")
    )


def _mean(values: pd.Series[Any]) -> float:
    return float(values.mean()) if len(values) else math.nan


def _worst(prefix: str, rows: pd.DataFrame, higher: bool) -> dict[str, Any]:
    if not len(rows) or rows["value"].isna().all():
        return {f"{prefix}worst": math.nan, f"{prefix}worst_in": None}
    worst = rows.sort_values("value", ascending=higher, kind="stable").iloc[0]
    return {f"{prefix}worst": float(worst["value"]), f"{prefix}worst_in": worst["condition"]}


def _spread(part: pd.DataFrame) -> dict[str, float]:
    clean = part["group"] == "clean"
    return {
        f"{name}_spread": float(part[rows].groupby("seed")["value"].mean().std(ddof=1))
        for name, rows in (("clean", clean), ("mean", ~clean))
    }


def area(curve: pd.DataFrame, start: float = math.nan) -> float:
    """Trapezoid area under ``value`` over ``x``, divided by the range of ``x``; values at the same ``x`` are averaged.

    Args:
        curve: columns ``x`` and ``value``.
        start: the value at x = 0, where the curve lacks it.
    """
    points = curve.dropna(subset=["x"]).groupby("x")["value"].mean()
    x, y = points.index.to_numpy(float), points.to_numpy(float)
    if 0.0 not in x and not math.isnan(start):
        x, y = np.append(x, 0.0), np.append(y, start)
    if len(x) < 2:
        return math.nan
    order = x.argsort()
    return float(np.trapezoid(y[order], x[order]) / (x.max() - x.min()))


def _intervals(runs: Sequence[Run], unit: Any, metric: str) -> dict[str, tuple[float, float]]:
    """Intervals of means by kind of condition; the mean over seeds."""
    mine = [run.means.get(metric, {}) for run in runs if (run.dataset, run.method, run.training) == tuple(unit)]
    found = {}
    for kind in MEANS:
        ends = np.array([[m[kind].low, m[kind].high] for m in mine if kind in m])
        if len(ends):
            low, high = ends.mean(0)
            found[kind] = (float(low), float(high))
    return found


def leaderboard(summary: pd.DataFrame) -> pd.DataFrame:
    """A summary with the best first and a ``rank`` in each data set: by ``mean``, or by ``clean`` where that is all."""
    by = "mean" if "mean" in summary else "clean"
    sign = np.where(summary["higher_is_better"], -1.0, 1.0)
    ranked = summary.assign(_order=summary[by] * sign)
    ranked.insert(0, "rank", ranked.groupby("dataset")["_order"].rank(method="min", na_option="bottom").astype(int))
    ranked = ranked.sort_values("rank", kind="stable")
    order = {name: i for i, name in enumerate(summary["dataset"].unique())}
    ranked = ranked.sort_values("dataset", key=lambda names: names.map(order), kind="stable")
    return ranked.drop(columns="_order").reset_index(drop=True)


def curves(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Degradation curves: dataset, method, training, group, x, value, low, high.

    Seeds, and masks of one rate, are averaged, their intervals too. Each curve starts from the clean value at x = 0.
    """
    chosen = table[(table["metric"] == metric) & table["x"].notna()]
    parts = []
    for names, part in chosen.groupby(UNIT, sort=False):
        start = part[part["group"] == "clean"]
        for group, curve in part[part["group"] != "clean"].groupby("group", sort=False):
            with_start = pd.concat([start.assign(x=0.0), curve])
            points = with_start.groupby("x", as_index=False)[["value", "low", "high"]].mean()
            for column, name in zip([*UNIT, "group"], [*names, group], strict=True):
                points[column] = str(name)
            parts.append(points)
    columns = [*UNIT, "group", "x", "value", "low", "high"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)
