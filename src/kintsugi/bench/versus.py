"""Is one method better than another? Differences between training seeds of one store, and ranks over data sets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kintsugi.bench.differences import Difference, Sample, paired
from kintsugi.bench.figures_seeds import SCORES, latest, of_metric, seed_scores
from kintsugi.bench.versus_changes import Changes, changes
from kintsugi.core.errors import ConfigError, DataError, UnknownName
from kintsugi.evaluation.comparison import beats, friedman, holm
from kintsugi.evaluation.intervals import LEVEL, Interval

if TYPE_CHECKING:
    from kintsugi.bench.store import Store

__all__ = ["Changes", "changes", "labels", "pairs", "pairs_of", "ranks"]

PAIRS = ["a", "b", "difference", "low", "high", "p", "p_holm", "winner", "interval", "seeds"]


# all pairs of a store ----------------------------------------------------------------------------------------------
def pairs(
    store: Store,
    dataset: str,
    protocol: str,
    training: str | None = None,
    metric: str | None = None,
    condition: str = "mean",
    level: float = LEVEL,
) -> pd.DataFrame:
    """Every two methods on one data set, under one protocol: which is better, if the interval says so.

    See :func:`~kintsugi.bench.differences.paired` for how. A winner is named by the interval of its pair alone; ``p_holm``
    holds for all pairs at once.

    Args:
        store: of the trials.
        dataset, protocol: names.
        training: condition; None: all of them, and methods are called ``method (training)`` where there are several.
        metric: its name; default: the leading one of the data set.
        condition: ``clean``, ``mean`` (over degraded conditions), or another of the scores of a trial: ``worst``,
            ``subset_mean``, ``subset_worst``, ``rate_mean``, ``rate_area``, ``auilc``, ``corruption_mean``,
            ``corruption_area``.
        level: of the intervals.

    Returns:
        Columns ``a``, ``b``, ``difference`` (a - b), ``low``, ``high``, ``p``, ``p_holm``, ``winner`` ("" where the
        interval does not say), ``interval`` (``paired seeds``, ``rows``, or ``none``), ``seeds`` (in common). Results
        that were not run here are called ``method [origin]`` where a method of the store has their name.

    Raises:
        UnknownName: no trial of this data set, protocol, training condition or metric, or no such score.
    """
    rows = latest(store.table(), list(store.records("done")))
    for column, wanted in (("dataset", dataset), ("protocol", protocol), ("training", training)):
        if wanted is None:
            continue
        if wanted not in set(rows[column]):
            raise UnknownName(f"{column} of {store.folder}", wanted, map(str, rows[column].unique()))
        rows = rows[rows[column] == wanted]
    return pairs_of(seed_scores(of_metric(rows, metric)), condition, level)


def pairs_of(
    scores: pd.DataFrame, condition: str = "mean", level: float = LEVEL, against: str | None = None
) -> pd.DataFrame:
    """:func:`pairs` of the lines of one data set and protocol in :func:`~kintsugi.bench.figures_seeds.seed_scores`.

    Args:
        scores: see above.
        condition, level: as for :func:`pairs`.
        against: a name of :func:`labels`: only its pairs, as ``a``.
    """
    if condition not in SCORES:
        raise UnknownName("score", condition, SCORES)
    if scores.empty:
        return pd.DataFrame(columns=PAIRS)
    named = labels(scores)
    higher = bool(scores["higher_is_better"].iloc[0])
    samples = {name: Sample.of(part, condition) for name, part in scores.groupby(named, sort=False)}
    wanted = combinations(samples, 2) if against is None else [(against, name) for name in samples if name != against]
    lines = [_line(str(a), str(b), paired(samples[a], samples[b], level), higher) for a, b in wanted]
    table = pd.DataFrame(lines, columns=[c for c in PAIRS if c != "p_holm"])
    tested = table["p"].dropna()
    adjusted = holm({str(place): float(p) for place, p in tested.items()})
    table["p_holm"] = [adjusted.get(str(place), math.nan) for place in table.index]
    return table[PAIRS]


def _line(a: str, b: str, found: Difference, higher: bool) -> dict[str, Any]:
    d = found.interval
    mirrored = Interval(-d.value, -d.high, -d.low)
    ahead = a if beats(d, higher_is_better=higher) else b if beats(mirrored, higher_is_better=higher) else ""
    return {
        "a": a, "b": b, "difference": d.value, "low": d.low, "high": d.high, "p": found.p, "winner": ahead,
        "interval": found.how, "seeds": found.seeds,
    }  # fmt: skip


def labels(lines: pd.DataFrame) -> pd.Series[Any]:
    """What units of one data set and protocol are called: the method, with whatever is needed to tell it apart.

    Args:
        lines: with ``method``, ``training``, ``origin``, several a unit or one.
    """
    several = lines["training"].nunique() > 1
    own = set(lines.loc[lines["origin"] == "", "method"])
    clash = lines.drop_duplicates(["method", "origin"])["method"].value_counts()
    return pd.Series(
        [
            method
            + (f" [{origin}]" if origin and (method in own or clash[method] > 1) else "")
            + (f" ({training})" if several else "")
            for method, training, origin in zip(lines["method"], lines["training"], lines["origin"], strict=True)
        ],
        lines.index,
        dtype=object,
    )


# over data sets ----------------------------------------------------------------------------------------------------
def ranks(figures: pd.DataFrame, column: str = "mean", alpha: float = 0.05) -> dict[str, Any]:
    """Average ranks of methods over data sets, protocols and training conditions, with their critical difference.

    A block is a data set, protocol and training condition. Blocks of one data set are not independent of each other, so
    that p is smaller than it should be where there are several. Only methods that have the score in every block take
    part, results that were not run here included; metrics may differ from block to block.

    Args:
        figures: of :func:`~kintsugi.bench.figures.figures`.
        column: the score that is ranked.
        alpha: level of the test and of the critical difference.

    Returns:
        ``reason``: in words why there are no ranks, else ""; then the rest is None. ``ranks``: method -> average rank,
        best first; ``critical_difference``; ``p``: of the test by Iman and Davenport, which is exact where all blocks have
        the same order; ``differ``: it is below alpha;
        ``groups``: lists of methods, best first, that cannot be told apart: each as large as can be, all methods where
        they do not differ; ``blocks``: names of the blocks; ``left_out``: methods without a score in some block.

    Raises:
        ConfigError: the figures have no such column.
    """
    if column not in figures:
        raise ConfigError(f"the figures have no column {column!r}; rank by one of {', '.join(SCORES)}")
    sign = np.where(figures["higher_is_better"].astype(bool), 1.0, -1.0)
    names = ["dataset", "protocol", "training"]
    # of two results of one name the first counts, and those that were run here go first
    frame = figures.assign(_score=figures[column] * sign).sort_values("origin", kind="stable")
    scored = frame.drop_duplicates([*names, "method"]).pivot(index=names, columns="method", values="_score")
    scored = scored.dropna(how="all")
    left_out = sorted(str(m) for m in scored.columns[scored.isna().any()])
    complete = scored.dropna(axis=1)
    blocks = [", ".join(map(str, key)) for key in complete.index]
    empty = dict.fromkeys(("ranks", "critical_difference", "p", "differ", "groups"))
    about = {"blocks": blocks, "left_out": left_out, "alpha": alpha}
    if reason := _too_few(len(blocks), complete.shape[1], left_out):
        return {"reason": reason, **empty, **about}
    try:
        # equal scores that were summed in another order are equal
        test = friedman(complete.round(12), higher_is_better=True, alpha=alpha)
    except DataError as error:
        return {"reason": str(error), **empty, **about}
    ordered = dict(sorted(test.ranks.items(), key=lambda item: (item[1], item[0])))
    differ = test.f_p < alpha
    groups = _groups(ordered, test.critical_difference) if differ else [list(ordered)]
    found = {"ranks": ordered, "critical_difference": test.critical_difference, "p": test.f_p, "differ": differ}
    return {"reason": "", **found, "groups": groups, **about}


def _too_few(blocks: int, methods: int, left_out: Sequence[str]) -> str:
    if blocks < 2:
        return (
            f"Ranks need at least 2 blocks (data set, protocol and training condition); there {_is(blocks)}. "
            "Add a data set or a training condition."
        )
    if methods < 3:
        lost = f" ({', '.join(left_out)} lack a score in some)" if left_out else ""
        return f"Ranks need at least 3 methods with a score in every one of the {blocks} blocks; there {_is(methods)}{lost}."
    return ""


def _is(count: int) -> str:
    return "is 1" if count == 1 else f"are {count or 'none'}"


def _groups(ordered: dict[str, float], critical: float) -> list[list[str]]:
    """Runs of methods less than a critical difference apart, without those that lie inside another."""
    names, found = list(ordered), list[list[str]]()
    reached = 0
    for start, name in enumerate(names):
        end = max(place for place in range(start, len(names)) if ordered[names[place]] - ordered[name] < critical) + 1
        if end - start > 1 and end > reached:
            found.append(names[start:end])
            reached = end
    return found
