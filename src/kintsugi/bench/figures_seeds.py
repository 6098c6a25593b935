"""The table of a store boiled down to one line a trial: clean, means, worst and areas of one metric."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kintsugi.bench.trial import protocol_text
from kintsugi.core.errors import UnknownName
from kintsugi.evaluation.intervals import LEVEL
from kintsugi.evaluation.summary import kind_of

if TYPE_CHECKING:
    from kintsugi.bench.store import Record

UNIT = ["dataset", "protocol", "method", "training", "origin"]
"""What seeds are averaged over. ``origin``: who ran it elsewhere, "" for this store: results of both are never mixed."""

SCORES = (
    "clean", "mean", "worst", "subset_mean", "subset_worst", "rate_mean", "rate_area", "auilc", "corruption_mean",
    "corruption_area",
)  # fmt: skip
ENDS = ["value", "low", "high"]


def latest(table: pd.DataFrame, records: Sequence[Record] = ()) -> pd.DataFrame:
    """The rows of the results that count, with columns ``unit``, ``t`` (numbers of unit and trial) and ``kind``.

    A store keeps what was run with other parameters or other versions of the library. Of each unit only the edition that
    was run last counts (parameters, versions and conditions of its protocol), and of it the last trial of each seed.

    Args:
        table: of :meth:`~kintsugi.bench.store.Store.table`; without ``started`` the order of its rows decides.
        records: of the same store, which know versions and conditions.
    """
    if table.empty:
        return table.assign(unit=[], t=[], kind=[])
    trials = table.drop_duplicates("trial")[[*UNIT, "seed", "parameters", "trial"]]
    started = table["started"].reindex(trials.index) if "started" in table else pd.Series(np.nan, trials.index)
    decided = {r.trial.hash: _decided(r) for r in records}
    trials = trials.assign(
        started=started.fillna(-math.inf),
        edition=trials["parameters"].astype(str)
        + pd.Series([decided.get(h, "") for h in trials["trial"]], trials.index),
    ).sort_values("started", kind="stable")
    newest = trials.groupby(UNIT, sort=False)["edition"].transform("last")
    kept = trials[trials["edition"] == newest].drop_duplicates([*UNIT, "seed"], keep="last").sort_index()
    # numbers by factorising, not by looking up a text for each of many rows
    codes, hashes = pd.factorize(table["trial"])
    place = pd.Index(hashes).get_indexer(pd.Index(kept["trial"]))
    numbers = np.full((2, len(hashes)), -1)
    numbers[:, place] = kept.groupby(UNIT, sort=False).ngroup().to_numpy(), np.arange(len(kept))
    unit, t = numbers[:, codes]
    groups, names = pd.factorize(table["group"])
    kind = np.array([kind_of(str(name)) for name in names], dtype=object)[groups]
    rows = table.assign(unit=unit, t=t, kind=pd.Categorical(kind))
    return rows if (t >= 0).all() else rows[t >= 0].reset_index(drop=True)


def _decided(record: Record) -> str:
    trial = record.trial
    return json.dumps(dict(trial.versions), sort_keys=True) + protocol_text(trial.protocol)


def of_metric(rows: pd.DataFrame, metric: str | Mapping[str, str] | None = None) -> pd.DataFrame:
    """The rows of one metric a data set; a condition in which it is defined for nobody is left out.

    Args:
        rows: of :func:`latest`.
        metric: its name, or data set -> name; default: the one that leads in most trials of the data set.

    Raises:
        UnknownName: no trial has this metric.
    """
    if rows.empty:
        return rows
    if metric is None:
        first = rows.drop_duplicates("t").groupby("dataset", sort=False)["metric"].agg(_commonest)
        chosen = rows[rows["metric"] == rows["dataset"].map(first)]
    elif not isinstance(metric, str):
        chosen = rows[rows["metric"] == rows["dataset"].map(dict(metric))]
    else:
        chosen = rows[rows["metric"] == metric]
        if chosen.empty:
            raise UnknownName("metric of this store", metric, [str(m) for m in rows["metric"].unique()])
    defined = chosen.groupby(["dataset", "protocol", "condition"], sort=False)["value"].transform("count")
    return chosen[defined > 0]


def _commonest(names: pd.Series[Any]) -> str:
    """Ties: the first."""
    return str(names.value_counts(sort=False).idxmax())


def seed_scores(chosen: pd.DataFrame, records: Iterable[Record] = ()) -> pd.DataFrame:
    """One line a trial, indexed by its number: unit, its names, seed, and each of ``SCORES`` with its ends over rows.

    ``…_low`` and ``…_high`` come from the bootstrap over test rows. For means over one kind of condition they are those
    of the trial's facts, where it has them. Else they are the mean of the ends of the conditions, which errs on the wide
    side: the standard deviation of a mean is at most the mean of the standard deviations.

    ``worst`` is one condition for all seeds of a unit, that with the worst mean over seeds; ``worst_in`` names it. A
    condition without a value spoils the means that it is part of and counts as the worst.

    Args:
        chosen: of :func:`of_metric`.
        records: whose facts know intervals of means.
    """
    kind, t = chosen["kind"], chosen["t"]
    about = ["unit", *UNIT, "seed", "metric", "higher_is_better", "n", "trial"]
    found = chosen.drop_duplicates("t").set_index("t")[about]
    with_subsets = t.isin(t[kind == "subset"])
    subsets = kind.isin(["clean", "subset"]) & with_subsets
    clean = means(chosen[kind == "clean"], ["t"])
    parts = {
        "clean": clean,
        "mean": means(chosen[kind != "clean"], ["t"]),
        "subset_mean": means(chosen[subsets], ["t"]),
        "rate_mean": means(chosen[kind == "rate"], ["t"]),
        "corruption_mean": means(chosen[kind == "corruption"], ["t"]),
        "rate_area": areas(chosen[kind == "rate"], clean),
        "auilc": areas(chosen[kind == "rate"], clean, divided=False),
        "corruption_area": areas(chosen[kind == "corruption"], clean),
        "worst": _worst(chosen),
        "subset_worst": _worst(chosen[subsets]),
    }
    for name in SCORES:
        names = {"value": name, "low": f"{name}_low", "high": f"{name}_high", "in": f"{name}_in"}
        found = found.join(parts[name].rename(columns=names))
    return _exact_ends(found, records)


def means(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Means of value, low and high; NaN where one of them is."""
    groups = rows.groupby(by, sort=False)[ENDS]
    return groups.mean().mask(groups.count().lt(groups.size(), axis=0))


def areas(rows: pd.DataFrame, clean: pd.DataFrame, divided: bool = True) -> pd.DataFrame:
    """Trapezoid area under each curve of each trial from the clean value at x = 0, the mean over its curves.

    The same number as :func:`kintsugi.evaluation.summary.area`, for all trials at once; of ends as well, since the area is
    a mean with weights.

    Args:
        rows: ``t``, ``group``, ``x``, value, low, high; what shares a group is a curve, values at one x are averaged.
        clean: value, low, high of the clean condition, indexed by ``t``.
        divided: by the range of x; else in units of metric × x.
    """
    curve = ["t", "group"]
    points = means(rows[rows["x"].notna()], [*curve, "x"]).reset_index()
    starts = points[curve].drop_duplicates().assign(x=0.0)
    starts = starts[starts["t"].isin(clean.index)].join(clean, on="t")
    points = pd.concat([points, starts], ignore_index=True).drop_duplicates(
        [*curve, "x"]
    )  # a measured start goes first
    points = points.sort_values([*curve, "x"])
    groups = points.groupby(curve, sort=False)
    width = groups["x"].diff()
    strips = points[ENDS].add(groups[ENDS].shift()).mul(width / 2, axis=0)
    parts = points[curve].join(strips)[width.notna()].groupby(curve, sort=False)[ENDS]
    total = parts.sum().mask(parts.count().lt(parts.size(), axis=0))
    if divided:
        span = groups["x"].max() - groups["x"].min()
        total = total.div(span.reindex(total.index), axis=0)
    return means(total.reset_index(), ["t"])


def _worst(rows: pd.DataFrame) -> pd.DataFrame:
    """Value, low, high and name of the worst condition of each unit, indexed by ``t``."""
    averaged = means(rows, ["unit", "condition"])["value"].rename("averaged").reset_index()
    higher = rows.drop_duplicates("unit").set_index("unit")["higher_is_better"].astype(bool)
    sign = np.where(averaged["unit"].map(higher).astype(bool), 1.0, -1.0)
    order = (averaged["averaged"] * sign).fillna(-math.inf)
    places = order.groupby(averaged["unit"], sort=False).idxmin()
    worst = averaged.loc[places].set_index("unit")["condition"]
    here = rows[rows["condition"] == rows["unit"].map(worst)]
    return here.set_index("t")[[*ENDS, "condition"]].rename(columns={"condition": "in"})


def _exact_ends(scores: pd.DataFrame, records: Iterable[Record]) -> pd.DataFrame:
    """Ends of means as the trial's own bootstrap, in which all conditions share their resamples, gave them."""
    known = {(r.trial.hash, metric): kinds for r in records for metric, kinds in r.facts.get("means", {}).items()}
    if not known:
        return scores
    mine = [known.get(key, {}) for key in zip(scores["trial"], scores["metric"], strict=True)]
    changed: dict[str, pd.Series[Any]] = {}
    for kind in ("subset", "rate", "corruption"):
        for place, end in ((1, "low"), (2, "high")):
            name = f"{kind}_mean_{end}"
            given = [kinds[kind][place] if kind in kinds else None for kinds in mine]
            changed[name] = pd.Series(given, scores.index, dtype=float).fillna(scores[name])
    return scores.assign(**changed)


def over_seeds(scores: pd.DataFrame, level: float = LEVEL) -> pd.DataFrame:
    """One line a unit: mean over seeds of each score, and its t-interval mean ± t(n - 1) s / sqrt(n).

    The same as :func:`kintsugi.evaluation.intervals.seed_interval`. For a single seed the interval is that over test rows;
    ``interval`` says ``seeds`` or ``rows``.
    """
    from scipy.stats import t as student

    groups = scores.groupby("unit", sort=False)
    found = groups[[*UNIT, "metric", "higher_is_better", "n"]].first()
    n = groups.size()
    found["seeds"] = n
    found["interval"] = np.where(n > 1, "seeds", "rows")
    factor: pd.Series[float] = pd.Series(student.ppf((1 + level) / 2, n.clip(lower=2) - 1), n.index) / np.sqrt(n)
    for name in SCORES:
        values = groups[name]
        found[name] = values.mean().mask(values.count() < n)
        half = (values.std() * factor).mask(values.count() < n)
        for sign, end in ((-1, "low"), (1, "high")):
            alone = groups[f"{name}_{end}"].mean()
            found[f"{name}_{end}"] = (found[name] + sign * half).where(n > 1, alone)
    for name in ("worst_in", "subset_worst_in"):
        found[name] = groups[name].first()
    return found
