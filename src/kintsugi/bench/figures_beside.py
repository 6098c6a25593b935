"""Figures beside the metric: contributions of modalities, calibration, detection of damage, costs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import pandas as pd

from kintsugi.bench.figures_seeds import means
from kintsugi.evaluation.contribution import Subset, shapley
from kintsugi.evaluation.measures import equity

if TYPE_CHECKING:
    from kintsugi.bench.store import Record

JOINED = " + "  # how conditions of protocol ``subsets`` are named
COSTS = ("parameters", "flops", "p50_1", "p95_1", "p50_64", "memory_64")


# contributions -----------------------------------------------------------------------------------------------------
def contributions(chosen: pd.DataFrame, records: Iterable[Record], bounded: pd.Series[Any]) -> pd.DataFrame:
    """Shapley value of each modality and their equity, indexed by unit, where all subsets of the modalities were tried.

    Positive where the modality helps: values of a metric of which less is better change their sign. Seeds are averaged
    first.

    The value of no modality at all is that of the condition that keeps nothing, where the protocol has one. Where it has
    not, metrics in [0, 1] of which more is better take 0: an answer to nothing earns nothing, and contributions add up to
    the clean value. Another value would shift all contributions by the same constant, so that their order and their
    differences do not depend on it; equity does. Other metrics have no such value, and no contributions.

    Args:
        chosen: rows of one metric a data set.
        records: whose protocols know the condition that keeps nothing.
        bounded: unit -> whether the metric is a share.
    """
    rows = chosen[chosen["kind"].isin(["clean", "subset"])]
    rows = rows[rows["unit"].isin(rows.loc[rows["kind"] == "subset", "unit"])]
    averaged = means(rows, ["unit", "condition"])["value"].reset_index()
    higher = chosen.drop_duplicates("unit").set_index("unit")["higher_is_better"].astype(bool)
    nothing = _nothing(chosen, records)
    parsed = {name: frozenset(str(name).split(JOINED)) for name in averaged["condition"].unique()}
    lines: dict[Any, dict[str, float]] = {}
    for unit, part in averaged.groupby("unit", sort=False):
        values = dict(zip(part["condition"], part["value"], strict=True))
        empty = values.pop(nothing[unit], math.nan) if unit in nothing else 0.0 if bounded[unit] else math.nan
        found = _shapley(values, parsed, empty)
        if found is not None:
            sign = 1 if higher[unit] else -1
            helped = {name: sign * value for name, value in found.items()}
            lines[unit] = {f"contribution:{n}": v for n, v in helped.items()} | {"equity": equity(helped)}
    return pd.DataFrame.from_dict(lines, orient="index")


def _nothing(chosen: pd.DataFrame, records: Iterable[Record]) -> dict[Any, str]:
    """Unit -> name of the condition that keeps no modality."""
    trials = chosen.drop_duplicates("t")
    units = dict(zip(trials["trial"], trials["unit"], strict=True))
    return {
        units[record.trial.hash]: condition.name
        for record in records
        if record.trial.hash in units
        for condition in record.trial.protocol.conditions
        if condition.keep == () and condition.missing is None and not condition.corruptions
    }


def _shapley(values: Mapping[Any, float], parsed: Mapping[Any, Subset], empty: float) -> dict[str, float] | None:
    """Contributions out of the values of conditions; None where a subset is missing."""
    subsets = [name for name in values if name != "clean"]
    # the order in which they stand alone is that of the schema
    names = list(dict.fromkeys(m for name in subsets if len(parsed[name]) == 1 for m in parsed[name]))
    known: dict[Subset, float] = {parsed[name]: values[name] for name in subsets}
    known |= {frozenset(): empty, frozenset(names): values.get("clean", math.nan)}
    wanted = [frozenset(s) for size in range(len(names) + 1) for s in combinations(names, size)]
    if len(names) < 2 or not all(math.isfinite(known.get(subset, math.nan)) for subset in wanted):
        return None
    return shapley(known, names).values


# calibration and detection -----------------------------------------------------------------------------------------
def calibration_and_detection(rows: pd.DataFrame) -> pd.DataFrame:
    """``ece_clean``, ``ece_degraded``, ``aurc_…``: means over conditions, then seeds; of detection over corruptions.

    Args:
        rows: of all metrics, with ``unit``, ``t`` and ``kind``; indexed by unit in what comes back.
    """
    clean, damaged = rows["kind"] == "clean", rows["kind"] == "corruption"
    parts = {
        f"{measure}_{where}": (rows["metric"] == measure) & here
        for measure in ("ece", "aurc")
        for where, here in (("clean", clean), ("degraded", ~clean))
    }
    parts |= {name: (rows["metric"] == name) & damaged for name in ("detection_auroc", "localisation")}
    found = {}
    for name, here in parts.items():
        # a measure beside the metric is left out where it is not defined, such as a detection without damaged rows
        mine = rows[here].dropna(subset=["value"])
        found[name] = mine.groupby(["unit", "t"])["value"].mean().groupby("unit").mean()
    return pd.DataFrame(found)


# a guess -----------------------------------------------------------------------------------------------------------
def guesses(chosen: pd.DataFrame, records: Iterable[Record]) -> pd.DataFrame:
    """Column ``guess``, indexed by unit: what the model's answer to a row with nothing gets on all test rows, mean over seeds.

    Args:
        chosen: rows of one metric a data set.
        records: of the trials; those of before do not know it.
    """
    known = {record.trial.hash: record.facts.get("guess") or {} for record in records}
    trials = chosen.drop_duplicates("trial")
    values = [known.get(trial, {}).get(metric) for trial, metric in zip(trials["trial"], trials["metric"], strict=True)]
    found = pd.Series(values, index=trials["unit"], dtype=float)
    return found.groupby(level=0).mean().to_frame("guess")


# costs -------------------------------------------------------------------------------------------------------------
def costs(rows: pd.DataFrame, records: Sequence[Record]) -> pd.DataFrame:
    """Costs from the facts of trials, indexed by unit, the mean over the trials that measured them.

    Of one answer with all modalities: ``flops`` (batch of 1), ``p50_1``, ``p95_1``, ``p50_64`` (seconds a batch of 1 and
    of 64), ``memory_64`` (bytes beyond the model), and ``parameters``. A suite measures them once a method and data set;
    training condition and protocol do not change them, so those of the same method, parameters and data set hold.
    ``train_seconds``, ``evaluate_seconds``: of the unit's own trials.
    """
    trials = rows.drop_duplicates("trial").set_index("trial")
    lines = [
        {"trial": record.trial.hash, **_costs(record.facts), **_seconds(record.facts)}
        for record in records
        if record.trial.hash in trials.index
    ]
    if not lines:
        return pd.DataFrame()
    facts = pd.DataFrame(lines).set_index("trial").reindex(columns=[*COSTS, "train_seconds", "evaluate_seconds"])
    facts = facts.astype(float).reindex(trials.index)
    own = facts.groupby(trials["unit"]).mean()
    alike = [trials[column] for column in ("dataset", "method", "origin", "parameters")]
    shared = facts[list(COSTS)].groupby(alike).transform("mean").groupby(trials["unit"]).first()
    return own.fillna(shared)


def _costs(facts: Mapping[str, Any]) -> dict[str, float | None]:
    found = facts.get("costs") or {}
    cells = found.get("cells") or []
    most = max((len(cell["subset"]) for cell in cells), default=0)
    sizes = {cell["batch_size"]: cell for cell in cells if len(cell["subset"]) == most}
    one, many = sizes.get(1, {}), sizes.get(64, {})
    return {
        "parameters": found.get("parameters"),
        "flops": one.get("flops"),
        "p50_1": one.get("p50"),
        "p95_1": one.get("p95"),
        "p50_64": many.get("p50"),
        "memory_64": many.get("memory"),
    }


def _seconds(facts: Mapping[str, Any]) -> dict[str, float | None]:
    return {
        "train_seconds": (facts.get("training") or {}).get("seconds"),
        "evaluate_seconds": (facts.get("evaluation") or {}).get("seconds"),
    }
