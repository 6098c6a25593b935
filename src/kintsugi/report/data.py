"""A store in the few numbers that its page draws: means over seeds with intervals, four digits, names by index."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kintsugi.bench.store import Record, Store

if TYPE_CHECKING:
    import pandas as pd

UNIT = ["dataset", "protocol", "method", "training", "origin"]
BLOCK = ["dataset", "protocol"]
MOST_SUBSETS = 64  # rows of the table of subsets; beyond, subsets of one size are averaged
MOST_BYTES = 3_000_000  # of the page's data; beyond, LEAVABLE things go, one after the other
COSTS = ("parameters", "flops", "p50_1", "p50_64", "memory_64", "train_seconds")
OTHER = "other"  # leaf of what is not registered
Unit = tuple[str, str, str, str, str]
Point = tuple[float, float, float]


@dataclass(frozen=True)
class Shown:
    """What the page is made of, read from the store once.

    folder: of the store; counts: state -> trials; records: all trials; results: number of lines in the store; rows: those
    that count, of the metric of each data set, see :func:`kintsugi.bench.figures_seeds.latest`; scores: one line a trial;
    figures: one line a unit, see :mod:`kintsugi.bench.figures`.
    """

    folder: Path
    counts: dict[str, int]
    records: list[Record]
    results: int
    rows: pd.DataFrame
    scores: pd.DataFrame
    figures: pd.DataFrame

    @property
    def metrics(self) -> list[str]:
        """Those that are shown, one a data set."""
        return list(dict.fromkeys(self.figures["metric"])) if len(self.figures) else []


def read(store: Store, metric: str | None = None, reference: str | Sequence[str] | None = None) -> Shown:
    """Read a store and work out its figures.

    Raises:
        UnknownName: no result has this metric, or no method is called like the reference.
    """
    from kintsugi.bench.figures import figures_of
    from kintsugi.bench.figures_seeds import latest, of_metric, seed_scores

    table, records = store.table(), list(store.records())
    done = [record for record in records if record.state == "done"]
    rows = of_metric(latest(table, done), metric)
    scores = seed_scores(rows, done) if len(rows) else rows
    figures = figures_of(table, done, metric, reference)
    return Shown(store.folder, store.counts(), records, len(table), rows, scores, figures)


# means over seeds --------------------------------------------------------------------------------------------------


def over_seeds(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Mean and 95 % interval of each group: columns ``value``, ``low``, ``high``.

    Conditions that share ``by`` (masks of one missing rate) are averaged within a seed first. With two seeds or more the
    interval is Student's over seeds, mean ± t(n - 1) s / sqrt(n), as :func:`kintsugi.evaluation.intervals.seed_interval`;
    with one it is that over test rows.
    """
    import numpy as np
    from scipy.stats import t as student

    from kintsugi.evaluation.intervals import LEVEL

    each = rows.groupby([*by, "seed"], sort=False, as_index=False)[["value", "low", "high"]].mean()
    found = each.groupby(by, sort=False).agg(
        value=("value", "mean"), sd=("value", "std"), n=("value", "count"), low=("low", "mean"), high=("high", "mean")
    )
    several = found["n"] > 1
    half = student.ppf((1 + LEVEL) / 2, np.maximum(found["n"] - 1, 1)) * found["sd"] / np.sqrt(found["n"].clip(lower=1))
    found["low"] = found["low"].mask(several, found["value"] - half)
    found["high"] = found["high"].mask(several, found["value"] + half)
    return found[["value", "low", "high"]]


def short(value: Any, digits: int = 4) -> float | int | None:
    """A number of four significant digits; None where there is none."""
    if value is None or not math.isfinite(value):
        return None
    rounded = float(f"{value:.{digits}g}")
    return int(rounded) if rounded == int(rounded) else rounded


def spoken(name: str) -> str:
    """``gaussian_noise`` -> ``gaussian noise``."""
    return name.replace("_", " ")


def called(board: pd.DataFrame) -> list[str]:
    """Methods of one block, with their origin where that is needed to tell two apart."""
    from kintsugi.bench.versus import labels

    return [str(name) for name in labels(board.assign(training=""))]


def guess_of(board: pd.DataFrame) -> float | None:
    """What the same answer to every row gets in this block, the mean over its models; None: not known."""
    known = board["guess"].dropna() if "guess" in board else board.iloc[:0, 0]
    return float(known.mean()) if len(known) else None


def contributions(board: pd.DataFrame) -> list[str]:
    """Modalities whose share was worked out, in the order of the columns."""
    columns = [c for c in board.columns if c.startswith("contribution:")]
    ends = {f"{c}_{end}" for c in columns for end in ("low", "high")}
    return [c.partition(":")[2] for c in columns if c not in ends and board[c].notna().any()]


# the data of the page ----------------------------------------------------------------------------------------------


@dataclass
class Names:
    """Names in the order in which they were met, so that each is written once and its place after that."""

    known: dict[str, int] = field(default_factory=dict)

    def __call__(self, name: str) -> int:
        return self.known.setdefault(name, len(self.known))


@dataclass
class Block:
    """Curves and subsets of one data set under one protocol.

    curves: group -> unit -> x -> value, low, high; subsets: name -> unit -> value.
    """

    curves: dict[str, dict[Unit, dict[float, Point]]] = field(default_factory=dict)
    subsets: dict[str, dict[Unit, float]] = field(default_factory=dict)


def page_data(shown: Shown) -> tuple[dict[str, Any], list[str]]:
    """What the script of the page reads, and what had to stay out so that it keeps within ``MOST_BYTES``."""
    data, left = _data(shown), list[str]()
    for what, leave_out in LEAVABLE.items():
        if len(encoded(data)) <= MOST_BYTES:
            break
        for block in data["blocks"]:
            for unit in block["units"]:
                leave_out(unit)
        left.append(what)
    return data, left


def _without_bands(unit: dict[str, Any]) -> None:
    unit["curves"] = [line[:1] if line else line for line in unit["curves"]]


def _without_trust(unit: dict[str, Any]) -> None:
    unit.pop("reliability", None)
    unit.pop("risk", None)


LEAVABLE = {"the bands of the curves": _without_bands, "reliability and risk-coverage": _without_trust}


def encoded(data: Any) -> str:
    """JSON that is safe inside a script element."""
    said = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return said.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _blocks(shown: Shown) -> dict[tuple[str, str], Block]:
    blocks: dict[tuple[str, str], Block] = {}
    on_curve = shown.rows[shown.rows["x"].notna() & (shown.rows["group"] != "clean")]
    for key, *point in over_seeds(on_curve, [*UNIT, "group", "x"]).itertuples(name=None):
        *unit, group, x = key
        block = blocks.setdefault((unit[0], unit[1]), Block())
        block.curves.setdefault(group, {}).setdefault(tuple(unit), {})[x] = tuple(point)
    for (*unit, left), value in _subsets(shown.rows).items():
        block = blocks.setdefault((unit[0], unit[1]), Block())
        block.subsets.setdefault(left, {})[tuple(unit)] = value
    return blocks


def _subsets(rows: pd.DataFrame) -> dict[Any, float]:
    """(unit, subset) -> mean over seeds, of the blocks that tried subsets; many subsets are averaged by their size."""
    import pandas as pd

    tried = rows.loc[rows["group"] == "subset", BLOCK].drop_duplicates()
    here = rows[rows["group"].isin(["clean", "subset"])].merge(tried, on=BLOCK)
    if here.empty:
        return {}
    here = here.assign(left=here["condition"].where(here["group"] == "subset", "all"))
    count = here.groupby(BLOCK)["left"].transform("nunique")
    size = here["condition"].str.count(r" \+ ") + 1
    averaged = (count > MOST_SUBSETS) & (here["left"] != "all")
    here["left"] = here["left"].mask(averaged, pd.Series([f"any {s}" for s in size], here.index))
    found: dict[Any, float] = here.groupby([*UNIT, "left"], sort=False)["value"].mean().to_dict()
    return found


def _data(shown: Shown) -> dict[str, Any]:
    from kintsugi.report.trust import diagrams

    methods, trainings = Names(), Names()
    blocks, trust = _blocks(shown), diagrams(shown)
    said = []
    for key, board in shown.figures.groupby(BLOCK, sort=False):
        dataset, protocol = (str(name) for name in key)
        block = blocks.get((dataset, protocol), Block())
        axes = {g: sorted({x for points in units.values() for x in points}) for g, units in block.curves.items()}
        modalities = contributions(board)
        board = board.assign(called=called(board)).sort_values("rank", kind="stable")
        units = []
        for line in board.to_dict("records"):
            unit: Unit = tuple(line[c] for c in UNIT)
            one = {"m": methods(line["called"]), "t": trainings(line["training"]), **_figures(line, modalities)}
            one["curves"] = [_line(block.curves[g].get(unit, {}), xs) for g, xs in axes.items()]
            one["subsets"] = [short(values.get(unit)) for values in block.subsets.values()]
            units.append(one | trust.get(unit, {}))
        said.append(
            {
                "title": f"{dataset}, {protocol}",
                "metric": spoken(board["metric"].iloc[0]),
                "higher": bool(board["higher_is_better"].iloc[0]),
                "guess": short(guess_of(board)),
                "curves": [_place(group) | {"x": xs} for group, xs in axes.items()],
                "subsets": list(block.subsets),
                "modalities": modalities,
                "units": units,
            }
        )
    names = {"methods": list(methods.known), "trainings": list(trainings.known)}
    return {**names, "blocks": said}


def _figures(line: dict[Any, Any], modalities: list[str]) -> dict[str, Any]:
    """Figures of one unit that the charts need."""
    said: dict[str, Any] = {
        name: [short(line.get(f"{name}{end}")) for end in ("", "_low", "_high")] for name in ("clean", "mean")
    }
    said["cost"] = [short(line.get(cost)) for cost in COSTS]
    if modalities:
        said["share"] = [
            [short(line.get(f"contribution:{m}{end}")) for end in ("", "_low", "_high")] for m in modalities
        ]
        said["equity"] = short(line.get("equity"))
    return said


def _line(points: dict[float, Point], xs: list[float]) -> list[list[float | int | None]] | None:
    """Values, then ends of the intervals where there are any, at each x; None where the unit has no such curve."""
    if not points:
        return None
    empty = (math.nan, math.nan, math.nan)
    found = [[short(points.get(x, empty)[part]) for x in xs] for part in range(3)]
    return found if any(v is not None for v in found[1]) else found[:1]


def _place(group: str) -> dict[str, str]:
    """``corruption/gaussian_noise(image)`` -> kind, heading, title of the chart, label of its axis."""
    kind, _, rest = group.partition("/")
    if kind == "rate":
        return {"kind": "rate", "heading": "", "title": rest, "axis": "share of slots missing"}
    operator, _, modality = rest.partition("(")
    heading = modality.removesuffix(")") or "inputs"
    return {"kind": kind, "heading": heading, "title": spoken(operator or kind), "axis": "severity"}
