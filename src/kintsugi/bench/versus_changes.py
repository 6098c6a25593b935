"""What changed from one store to another beyond noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from kintsugi.bench.differences import FEWEST_SEEDS, Difference, Sample, over_rows, paired, welch
from kintsugi.bench.figures_seeds import UNIT, latest, of_metric, seed_scores
from kintsugi.bench.versus_notes import (
    Unit,
    failures_of,
    made_with_that_differs,
    parameters_that_differ,
    said_made_with,
    unit_of,
    units_of,
    versions_that_differ,
)
from kintsugi.core.errors import DataError, UnknownName
from kintsugi.evaluation.comparison import beats
from kintsugi.evaluation.intervals import LEVEL, Interval

if TYPE_CHECKING:
    from kintsugi.bench.store import Store

FIGURES = ("clean", "mean", "worst")
COLUMNS = [
    *UNIT, "metric", "figure", "a", "b", "difference", "low", "high", "verdict", "interval", "seeds", "parameters",
]  # fmt: skip


@dataclass(frozen=True)
class Changes:
    """From store A (before) to store B (after).

    table: one row a unit that both have and figure (``clean``, ``mean`` over degraded conditions, ``worst``): ``a``,
    ``b``, ``difference`` (b - a), ``low``, ``high``, ``verdict``, ``interval``, ``seeds``, ``parameters`` (those that
    differ, in words). A verdict is ``better`` or ``worse`` where the whole interval lies on that side of 0, or where a
    score is there in one store and not a number in the other; ``unknown`` where values differ and nothing says by how
    much they may; else ``same``.
    only_a, only_b: units (data set, protocol, method, training, origin) of one store; failed: unit -> last line of its
    traceback in B, of those only in A; versions: what is registered and has another version, in words; level: of the
    intervals.
    made_with: unit -> what its results were made with that differs (packages, Python, sources), in words; strict: these
    units were not compared.
    """

    table: pd.DataFrame
    only_a: list[Unit]
    only_b: list[Unit]
    level: float = LEVEL
    failed: Mapping[Unit, str] = field(default_factory=dict)
    versions: tuple[str, ...] = ()
    made_with: Mapping[Unit, tuple[str, ...]] = field(default_factory=dict)
    strict: bool = False

    @property
    def worse(self) -> bool:
        """Some figure is worse beyond noise, or what A has failed in B."""
        return bool(self.failed) or bool((self.table["verdict"] == "worse").any())

    @property
    def passed(self) -> bool:
        """Nothing is worse, and with ``strict`` all that both have was made with the same."""
        return not self.worse and not (self.strict and self.made_with)

    def summary(self) -> str:
        """Lines for people: what is worse, better and unknown, what differs in parameters, what one store lacks."""
        counts = self.table["verdict"].value_counts()
        said = ", ".join(f"{counts[v]} {v}" for v in ("worse", "better", "unknown", "same") if v in counts)
        units = len(self.table.drop_duplicates(UNIT))
        lines = [
            f"{len(self.table)} figures of {units} units compared at {self.level:.4g}: {said or 'nothing in common'}"
        ]
        for verdict in ("worse", "better", "unknown"):
            lines += [_told(line) for line in self.table[self.table["verdict"] == verdict].to_dict("records")]
        tested = int((self.table["interval"] != "none").sum())
        if counts.get("worse", 0) and tested:
            lines.append(
                f"Of {tested} figures that do not change, about {tested * (1 - self.level) / 2:.1f} would be called worse "
                "by chance; a higher level calls fewer."
            )
        changed = self.table[self.table["parameters"] != ""].drop_duplicates(UNIT)
        lines += [f"parameters differ: {_named(line)}: {line['parameters']}" for line in changed.to_dict("records")]
        if self.versions:
            lines.append(f"versions differ: {', '.join(self.versions)}")
        if self.made_with:
            lines.append(f"made with: {said_made_with(self.made_with)}")
        for unit, words in self.made_with.items() if self.strict else ():
            lines.append(
                f"not compared, being made with something else: {_named(dict(zip(UNIT, unit, strict=True)))}: "
                f"{', '.join(words)}"
            )
        for name, only in (("A", self.only_a), ("B", self.only_b)):
            for unit in only:
                failed = f"; failed in B: {self.failed[unit]}" if name == "A" and unit in self.failed else ""
                lines.append(f"only in {name}: {_named(dict(zip(UNIT, unit, strict=True)))}{failed}")
        return "\n".join(lines)


def _named(line: Mapping[Any, Any]) -> str:
    origin = f", from {line['origin']}" if line["origin"] else ""
    return f"{line['method']} on {line['dataset']}, training {line['training']}, protocol {line['protocol']}{origin}"


def _told(line: Mapping[Any, Any]) -> str:
    ends = f" [{line['low']:+.4g}, {line['high']:+.4g}] over {line['interval']}" if line["interval"] != "none" else ""
    return (
        f"{line['verdict']}: {_named(line)}: {line['metric']} {line['figure']} {line['a']:.4g} → {line['b']:.4g}, "
        f"{line['difference']:+.4g}{ends}"
    )


def changes(a: Store, b: Store, metric: str | None = None, level: float = LEVEL, strict: bool = False) -> Changes:
    """What changed from store A to store B.

    The interval of b - a is, as column ``interval`` says: over the seeds that both have (``paired seeds``, at least 3);
    else over the seeds of each (``seeds``, Welch's, at least 3 each); else over test rows (``rows``), taken as
    independent, which is too wide for the same rows and leaves out the noise of training. See
    :mod:`kintsugi.bench.differences`. Each figure is judged by itself: of many, some change by chance.

    Args:
        a: the store to compare with.
        b: the one that may have changed.
        metric: its name; default: the leading one of each data set in A.
        level: of the intervals.
        strict: compare only what was made with the same packages, Python and sources.

    Raises:
        DataError: a data set has another fingerprint in B, or a protocol other conditions.
        UnknownName: a store has no such metric.
    """
    records = list(a.records()), list(b.records())
    rows = [latest(s.table(), [r for r in rs if r.state == "done"]) for s, rs in zip((a, b), records, strict=True)]
    units = [units_of(one) for one in rows]
    both = [unit for unit in units[0] if unit in units[1]]
    only_a, only_b = ([u for u in mine if u not in theirs] for mine, theirs in (units, units[::-1]))
    _check_data(*rows)
    counted = [set(map(str, one["trial"])) for one in rows]
    done = [
        [r for r in rs if r.trial.hash in mine and unit_of(r.trial) in both]
        for rs, mine in zip(records, counted, strict=True)
    ]
    made_with = made_with_that_differs(*done)
    before, after = (_shared(one, [u for u in both if not (strict and u in made_with)]) for one in rows)
    _check_protocols(before, after)
    partial = {r.trial.hash for rs in done for r in rs if not r.trial.registered}
    parameters = parameters_that_differ(before, after, partial)
    before, after = _same_conditions(*_same_metric(before, after, metric))
    return Changes(
        _table(seed_scores(before), seed_scores(after), parameters, level),
        only_a,
        only_b,
        level,
        failures_of(records[1], only_a),
        versions_that_differ(*done),
        made_with,
        strict,
    )


# what can be compared ----------------------------------------------------------------------------------------------
def _shared(rows: pd.DataFrame, both: list[Unit]) -> pd.DataFrame:
    numbers = rows.drop_duplicates("unit")
    wanted = set(both)
    here = [tuple(map(str, unit)) in wanted for unit in numbers[UNIT].itertuples(index=False)]
    return rows[rows["unit"].isin(numbers["unit"][here])]


def _check_data(a: pd.DataFrame, b: pd.DataFrame) -> None:
    prints = [one.drop_duplicates("dataset").set_index("dataset")["fingerprint"].to_dict() for one in (a, b)]
    for name in prints[0].keys() & prints[1].keys():
        if prints[0][name] != prints[1][name]:
            raise DataError(
                f"data set {name!r} is not the same in both stores: fingerprint {prints[0][name]} in A, {prints[1][name]} "
                "in B; results on different rows cannot be compared. Run one of them again on the data of the other"
            )


def _check_protocols(a: pd.DataFrame, b: pd.DataFrame) -> None:
    block = ["dataset", "protocol"]
    found = [{k: set(part) for k, part in one.groupby(block, sort=False)["condition"]} for one in (a, b)]
    for key, conditions in found[0].items():
        if odd := sorted(conditions ^ found[1].get(key, conditions)):
            dataset, protocol = key if isinstance(key, tuple) else (key, "")
            raise DataError(
                f"protocol {protocol!r} on {dataset!r} has not the same conditions in both stores: {odd[0]!r} is only in "
                f"{'A' if odd[0] in conditions else 'B'}; means over them cannot be compared. Run both under one protocol"
            )


def _same_metric(a: pd.DataFrame, b: pd.DataFrame, metric: str | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    before = of_metric(a, metric)
    wanted = {
        str(d): str(m) for d, m in before.drop_duplicates("dataset")[["dataset", "metric"]].itertuples(index=False)
    }
    after = of_metric(b, wanted)
    for dataset, name in wanted.items():
        there = b.loc[b["dataset"] == dataset, "metric"]
        if name not in set(there):
            raise UnknownName(f"metric of {dataset} in B", name, map(str, there.unique()))
    return before, after


def _same_conditions(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Without conditions in which the metric is defined in one store only, and units that lack the metric in one."""
    columns = [*UNIT, "condition"]
    keys = [pd.MultiIndex.from_frame(one[columns]) for one in (a, b)]
    return a[keys[0].isin(keys[1])], b[keys[1].isin(keys[0])]


# what came of it ---------------------------------------------------------------------------------------------------
def _table(before: pd.DataFrame, after: pd.DataFrame, parameters: Mapping[Unit, str], level: float) -> pd.DataFrame:
    mine = {tuple(map(str, key)): part for key, part in after.groupby(UNIT, sort=False)}
    lines = []
    for key, part in before.groupby(UNIT, sort=False):
        unit = tuple(map(str, key))
        other, higher = mine[unit], bool(part["higher_is_better"].iloc[0])
        for figure in FIGURES:
            a, b = Sample.of(part, figure), Sample.of(other, figure)
            if math.isnan(a.mean) and math.isnan(b.mean):
                continue
            found = _difference(b, a, level)
            value = found.interval
            lines.append(
                {
                    **dict(zip(UNIT, unit, strict=True)), "metric": part["metric"].iloc[0], "figure": figure,
                    "a": a.mean, "b": b.mean, "difference": b.mean - a.mean, "low": value.low, "high": value.high,
                    "verdict": _verdict(a.mean, b.mean, value, higher), "interval": found.how, "seeds": found.seeds,
                    "parameters": parameters.get(unit, ""),
                }
            )  # fmt: skip
    return pd.DataFrame(lines, columns=COLUMNS)


def _difference(b: Sample, a: Sample, level: float) -> Difference:
    if len(a.values.keys() & b.values.keys()) >= FEWEST_SEEDS:
        return paired(b, a, level)
    if min(len(a.values), len(b.values)) >= FEWEST_SEEDS:
        return welch(b, a, level)
    return over_rows(b, a, level)


def _verdict(a: float, b: float, difference: Interval, higher: bool) -> str:
    if math.isnan(a) != math.isnan(b):
        return "worse" if math.isnan(b) else "better"
    if beats(difference, higher_is_better=higher):
        return "better"
    if beats(difference, higher_is_better=not higher):
        return "worse"
    return "unknown" if math.isnan(difference.low) and a != b else "same"
