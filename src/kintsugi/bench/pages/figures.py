"""Numbers of a page from the trainings behind them: means over seeds, paired differences, and what can be said."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kintsugi.bench.pages.plan import HOSTS, Entry, Place, budget, entries, places, task_of
from kintsugi.core.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from kintsugi.bench.store import Store

KEPT = (
    "trial", "method", "without", "data", "seed", "updates", "value", "clean", "optimum", "chance", "validation", "seconds",
    "parameters", "learner", "parts",
)  # fmt: skip
SETTLED = 0.01  # a side that moves by less, from the usual budget to the longer one, is settled
Verdict = Literal["helps", "does not differ", "harms", "not measured"]


# what was run -----------------------------------------------------------------------------------------------------------
def results_of(store: Store) -> pd.DataFrame:
    """One line a training, in the columns ``KEPT``, sorted; the same trainings make the same table."""
    import pandas as pd

    lines = []
    for record in store.records("done"):
        facts, decided = record.facts, record.trial.parameters
        if "source" not in decided:
            continue  # a trial of a suite
        lines.append(
            {
                **{name: facts.get(name) for name in KEPT},
                "trial": record.trial.hash, "method": decided["method"], "without": decided.get("without"),
                "data": record.trial.dataset, "seed": record.trial.seed,
                "updates": decided.get("trainer", {}).get("updates", 0),
                "parts": json.dumps({**facts.get("parts", {}), **_best(facts)}, sort_keys=True),
            }
        )  # fmt: skip
    return sort(pd.DataFrame(lines, columns=list(KEPT)))


def _best(facts: Mapping[str, Any]) -> dict[str, float]:
    return {f"optimum {part}": value for part, value in (facts.get("optimum_parts") or {}).items()}


def sort(table: pd.DataFrame) -> pd.DataFrame:
    """By data, method, ablation, budget and seed."""
    order = ["data", "method", "without", "updates", "seed", "trial"]
    return table.sort_values(order, na_position="first").reset_index(drop=True)


def read_results(path: Path) -> pd.DataFrame:
    """A table that :func:`results_of` made, from a Parquet file.

    Raises:
        DataError: it is none.
    """
    import pandas as pd
    from pyarrow import ArrowException  # type: ignore[import-untyped]

    try:
        table = pd.read_parquet(path)
    except (ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a Parquet file of trainings: {error}") from error
    absent = [name for name in KEPT if name not in table.columns]
    if absent:
        raise DataError(f"{path} is no table of pages: it lacks {', '.join(absent)}")
    return table[list(KEPT)]


def joined(*tables: pd.DataFrame) -> pd.DataFrame:
    """Of several tables; a training that stands in two counts once."""
    import pandas as pd

    filled = [table for table in tables if len(table)]
    if not filled:
        return pd.DataFrame(columns=list(KEPT))
    return sort(pd.concat(filled, ignore_index=True).drop_duplicates("trial"))


# what it says -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Mean:
    """Over seeds. half: of the 95 % interval, Student's t; NaN of fewer than two seeds. n: seeds."""

    value: float
    half: float
    n: int

    @property
    def verdict(self) -> Verdict:
        """Of a difference, higher being better."""
        if self.n < 2 or not math.isfinite(self.half):
            return "not measured"
        return "helps" if self.value - self.half > 0 else "harms" if self.value + self.half < 0 else "does not differ"


def mean_of(values: Iterable[float]) -> Mean:
    """Mean and interval of one value a seed."""
    from scipy.stats import t

    found = [value for value in values if math.isfinite(value)]
    if len(found) < 2:
        return Mean(found[0] if found else math.nan, math.nan, len(found))
    spread = statistics.stdev(found) / math.sqrt(len(found))
    return Mean(statistics.fmean(found), float(t.ppf(0.975, len(found) - 1)) * spread, len(found))


Series = Mapping[int, float]  # seed -> value


def paired(mine: Series, other: Series) -> Mean:
    """The difference over the seeds that both have."""
    return mean_of(mine[seed] - other[seed] for seed in sorted(mine.keys() & other.keys()))


@dataclass(frozen=True)
class Cell:
    """What trainings with every seed came to: seed -> figure. value: of the metric; parts: name -> seed -> value."""

    value: Series
    validation: Series
    optimum: Series
    seconds: float
    parameters: float
    parts: Mapping[str, Series]


@dataclass
class Judgement:
    """Everything that the page of a method shows.

    cells: (role of the place, strength, budget in updates) -> (method, ablation) -> figures.
    """

    key: str
    places: tuple[Place, ...]
    updates: int
    longer: int | None
    ablations: tuple[str, ...]
    cells: dict[tuple[str, float, int], dict[tuple[str, str | None], Cell]]
    lacking: int  # trainings that were not run yet
    rests: bool = True  # on a premise; a plain host does not
    metric: str = "accuracy"

    def cell(
        self, role: str, strength: float, name: str, without: str | None = None, updates: int | None = None
    ) -> Cell | None:
        """Figures of one side, if there are any."""
        return self.cells.get((role, strength, updates or self.updates), {}).get((name, without))

    def host(self, role: str, strength: float, part: str = "", updates: int | None = None) -> dict[int, float]:
        """The plain host on all rows: with each seed, natural views or random subsets, as validation rows prefer.

        part: of the test rows; "": all.
        """
        both = [c for name in HOSTS if name != self.key and (c := self.cell(role, strength, name, updates=updates))]
        seeds = set.intersection(*(set(c.value) for c in both)) if both else set()
        chosen = {seed: max(both, key=lambda c: c.validation[seed]) for seed in seeds}
        return {seed: _of(c, part).get(seed, math.nan) for seed, c in chosen.items()}

    def against(self, role: str, strength: float, without: str, part: str = "", updates: int | None = None) -> Mean:
        """Method minus ablation."""
        mine, other = (
            self.cell(role, strength, self.key, None, updates),
            self.cell(role, strength, self.key, without, updates),
        )
        return paired(_of(mine, part), _of(other, part))

    def against_host(self, role: str, strength: float, part: str = "", updates: int | None = None) -> Mean:
        """Method minus the plain host on all rows."""
        return paired(
            _of(self.cell(role, strength, self.key, None, updates), part), self.host(role, strength, part, updates)
        )

    def against_other(self, role: str, strength: float, name: str) -> Mean:
        """Method minus late fusion or the plain baseline."""
        return paired(_of(self.cell(role, strength, self.key), ""), _of(self.cell(role, strength, name), ""))

    def growth(self, without: str) -> Mean:
        """How much more the method is ahead of its ablation at strength 1 than at 0."""
        ahead = [
            {seed: value - other.value[seed] for seed, value in mine.value.items() if seed in other.value}
            for strength in (1.0, 0.0)
            if (mine := self.cell("own", strength, self.key))
            and (other := self.cell("own", strength, self.key, without))
        ]
        return paired(*ahead) if len(ahead) == 2 else Mean(math.nan, math.nan, 0)

    def moves(self) -> dict[str, Mean]:
        """Side -> how far it moves from the usual budget to the longer one, over the seeds that have both."""
        if self.longer is None:
            return {}
        sides: list[tuple[str, str, str | None]] = [(self.key, self.key, None)]
        sides += [(f"without {part or 'its mechanism'}", self.key, part) for part in self.ablations]
        sides += [(host, host, None) for host in HOSTS if host != self.key]
        found = {}
        for label, name, without in sides:
            short, long = (self.cell("own", 1.0, name, without, updates) for updates in (self.updates, self.longer))
            if short and long:
                found[label] = paired(long.value, short.value)
        return found

    @property
    def settled(self) -> bool | None:
        """Does no side move by more than a point? None: not measured."""
        moved = self.moves()
        return None if not moved else all(abs(each.value) < SETTLED for each in moved.values())

    @property
    def verdict(self) -> Verdict:
        """Against the ablation; of several, the least."""
        found = [self.against("own", 1.0, part).verdict for part in self.ablations]
        for worst in ("not measured", "harms", "does not differ"):
            if worst in found or not found:
                return worst
        return "helps"

    @property
    def helpful(self) -> tuple[str, ...]:
        """Mechanisms without which the method is worse; "" of the only one."""
        return tuple(part for part in self.ablations if self.against("own", 1.0, part).verdict == "helps")

    @property
    def verdict_host(self) -> Verdict:
        """Against the plain host on all rows."""
        return self.against_host("own", 1.0).verdict


def _of(cell: Cell | None, part: str) -> Series:
    if cell is None:
        return {}
    return cell.parts.get(part, {}) if part else cell.value


def judge(key: str, results: pd.DataFrame, quick: bool = False) -> Judgement:
    """What the trainings of a table say of a method.

    Args:
        key: of the method. results: as :func:`results_of` gives them; trainings of other versions do not count.
        quick: by the small budget.

    Raises:
        UnknownName: no such method.
    """
    from kintsugi.core.catalogue import METHODS
    from kintsugi.core.methods import judged_ablations

    size = budget(quick)
    lines = {line["trial"]: line for line in results.to_dict("records")}
    groups: dict[tuple[str, float, int], dict[tuple[str, str | None], list[tuple[Entry, Any]]]] = {}
    lacking = 0
    for entry in entries(key, size):
        line = lines.get(entry.job.trial().hash)
        lacking += line is None
        if line is not None:
            group = groups.setdefault((entry.place.role, entry.strength, entry.updates), {})
            group.setdefault((entry.method, entry.without), []).append((entry, line))
    cells = {where: {who: _cell(found) for who, found in group.items()} for where, group in groups.items()}
    card, parts = METHODS.card(key), judged_ablations(METHODS[key])
    metric = "accuracy" if task_of(card) == "classification" else "R²"
    return Judgement(key, places(key), size.updates, size.longer, parts, cells, lacking, bool(card.worlds), metric)


def _cell(found: Sequence[tuple[Entry, Any]]) -> Cell:
    parts: dict[str, dict[int, float]] = {}
    for entry, line in found:
        for name, value in json.loads(line["parts"] or "{}").items():
            parts.setdefault(name, {})[entry.seed] = value
    return Cell(
        {entry.seed: line["value"] for entry, line in found},
        {entry.seed: line["validation"] for entry, line in found},
        {
            entry.seed: line["optimum"]
            for entry, line in found
            if line["optimum"] is not None and line["optimum"] == line["optimum"]
        },
        statistics.median(line["seconds"] for _, line in found),
        statistics.median(line["parameters"] for _, line in found),
        parts,
    )
