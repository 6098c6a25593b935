"""Figures that need a declared reference: mCE, relative mCE, recovery gain, effective robustness."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from kintsugi.bench.figures_seeds import ENDS, UNIT, means
from kintsugi.bench.job import COMPLETE
from kintsugi.core.errors import DataError, UnknownName
from kintsugi.evaluation.measures import recovery_gain
from kintsugi.evaluation.reference import effective_robustness, fit_reference


def bounded_units(chosen: pd.DataFrame) -> pd.Series[Any]:
    """Unit -> whether its metric is a share: more is better, and every value of the data set lies in [0, 1]."""
    # NaN is no value
    outside = ~chosen["value"].fillna(0.0).between(0, 1) | ~chosen["higher_is_better"].astype(bool)
    by_data = ~outside.groupby(chosen["dataset"]).any()
    units = chosen.drop_duplicates("unit").set_index("unit")
    return units["dataset"].map(by_data).astype(bool)


def against_reference(
    chosen: pd.DataFrame, found: pd.DataFrame, references: Sequence[str], bounded: pd.Series[Any]
) -> pd.DataFrame:
    """Figures relative to the reference, indexed by unit; all values are averaged over seeds first.

    The reference of a unit is that method on the same data set, under the same protocol and training condition; where it
    was not trained under that, the one trained on ``complete`` rows.

    - ``mce``, ``relative_mce`` (:mod:`kintsugi.evaluation.reference`): errors are 1 - value of a metric in [0, 1] of which
      more is better, and the value itself where less is better. Corruptions in which the reference makes no error are
      left out of mCE, and out of relative mCE those in which it loses no more than noise, half the width of its
      interval on clean rows, since a ratio to noise is noise. ``mce_over``, ``relative_mce_over``: corruptions that count.
    - ``recovery_gain`` (:func:`kintsugi.evaluation.measures.recovery_gain`): of the mean over corruptions, with that noise.
    - ``effective_robustness``: of the mean over corruptions, for metrics in [0, 1]. The line is fitted on the reference
      methods trained on ``complete`` rows, a point a method. So at least two methods have to be declared; a line through
      the seeds of one method would be a line through noise, and one through all methods would change with who is listed.

    NaN where a unit lacks conditions that the reference has, or has others.

    Args:
        chosen: rows of one metric a data set, with ``unit``, ``kind`` and ``t``.
        found: a line a unit, of :func:`~kintsugi.bench.figures_seeds.over_seeds`.
        references: labels; the first is the reference.
        bounded: of :func:`bounded_units`.

    Raises:
        UnknownName: no method has this label.
    """
    names = ["mce", "mce_over", "relative_mce", "relative_mce_over", "recovery_gain", "effective_robustness"]
    result = pd.DataFrame(math.nan, index=found.index, columns=names)
    for label in references:
        if label not in set(found["method"]):
            raise UnknownName("reference among the methods of this store", label, found["method"].unique())
    if not references:
        return result
    noise = _noise(chosen)
    damaged = chosen.loc[(chosen["kind"] == "corruption") & chosen["x"].notna(), ["unit", "group", "x", *ENDS]]
    slim = found[[*UNIT, "higher_is_better", "clean", "corruption_mean"]]
    for _, block in slim.groupby(["dataset", "protocol"], sort=False):
        mine = damaged[damaged["unit"].isin(block.index)]
        if mine.empty:
            continue
        grid = _errors(mine, block, bounded)
        for other, units in references_of(block, references[0]).items():
            _fill(result, grid, block, units, other, bounded, noise)
        result.loc[block.index, "effective_robustness"] = _effective(block, references, bounded)
    return result


def references_of(block: pd.DataFrame, label: str) -> dict[int, list[int]]:
    """Unit of the reference -> units that it is the reference of, in one data set and protocol; see above.

    Of several of that name, the one that was run here goes first.
    """
    there = block[block["method"] == label].sort_values("origin", kind="stable").drop_duplicates("training")
    known = {str(training): int(unit) for unit, training in zip(there.index.to_numpy(), there["training"], strict=True)}
    found: dict[int, list[int]] = {}
    for unit, training in zip(block.index.to_numpy(), block["training"], strict=True):
        other = known.get(str(training), known.get(COMPLETE))
        if other is not None:
            found.setdefault(other, []).append(int(unit))
    return found


def _noise(chosen: pd.DataFrame) -> pd.Series[Any]:
    """Half the width of the interval over rows of the clean value, the mean over seeds; 0 where there is none."""
    clean = means(chosen[chosen["kind"] == "clean"], ["unit"])
    return ((clean["high"] - clean["low"]) / 2).fillna(0.0)


def _errors(rows: pd.DataFrame, block: pd.DataFrame, bounded: pd.Series[Any]) -> pd.DataFrame:
    """Errors, units down, (group, severity) across; NaN where a unit has no value, or the metric is no error."""
    grid = means(rows, ["unit", "group", "x"])["value"].unstack("unit").T
    shares = bounded.reindex(grid.index)
    lower = ~block["higher_is_better"].astype(bool).reindex(grid.index)
    grid = grid.where(~shares, 1 - grid)
    return grid.where(shares | lower)


def _fill(
    result: pd.DataFrame,
    grid: pd.DataFrame,
    block: pd.DataFrame,
    units: list[int],
    other: int,
    bounded: pd.Series[Any],
    noise: pd.Series[Any],
) -> None:
    """Writes the figures of the units that share one reference."""
    least = float(noise.get(other, 0.0))
    higher, plain, clean = (block[name].to_dict()[other] for name in ("higher_is_better", "corruption_mean", "clean"))
    result.loc[units, "recovery_gain"] = [
        recovery_gain(float(v), plain, clean, higher_is_better=bool(higher), noise=least)
        for v in block.loc[units, "corruption_mean"]
    ]
    if other not in grid.index:
        return
    measured = grid.notna().eq(grid.loc[other].notna(), axis=1).all(axis=1)  # at the same corruptions and severities
    fitting = [unit for unit in units if unit in grid.index and measured[unit]]
    averaged = grid.T.groupby(level="group").mean().dropna(subset=[other])
    errors = (1 - block["clean"]).where(bounded.reindex(block.index), block["clean"])
    below, above = averaged[other], averaged[fitting]
    _write(result, "mce", above.div(below, axis=0)[(below > 0).to_numpy()])
    lost, mine = below - errors.to_dict()[other], above.sub(errors[fitting], axis=1)
    _write(result, "relative_mce", mine.div(lost, axis=0)[(lost > least).to_numpy()])


def _write(result: pd.DataFrame, name: str, ratios: pd.DataFrame) -> None:
    """ratios: corruptions down, units across."""
    if len(ratios):
        result.loc[ratios.columns, name] = ratios.mean(skipna=False)
        result.loc[ratios.columns, f"{name}_over"] = float(len(ratios))


def _effective(block: pd.DataFrame, references: Sequence[str], bounded: pd.Series[Any]) -> pd.Series[Any]:
    shares = block[bounded.reindex(block.index)]
    points = shares[shares["method"].isin(references) & (shares["training"] == COMPLETE) & (shares["origin"] == "")]
    points = points.dropna(subset=["clean", "corruption_mean"])
    result = pd.Series(math.nan, block.index)
    try:
        fit = fit_reference(points["clean"].tolist(), points["corruption_mean"].tolist())
    except DataError:  # fewer than two clean accuracies, or one at 0 or 1: no line
        return result
    inside = shares[(shares["clean"] > 0) & (shares["clean"] < 1)]
    for unit, clean, shifted in zip(inside.index, inside["clean"], inside["corruption_mean"], strict=True):
        result[unit] = effective_robustness(float(clean), float(shifted), fit)
    return result
