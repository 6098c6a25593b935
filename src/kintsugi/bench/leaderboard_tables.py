"""A table of the leaderboard page, and the sentence below it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from kintsugi.bench.versus import labels, pairs_of

SCORES = {
    "clean": "Clean",
    "mean": "Mean",
    "subset_mean": "Subsets",
    "rate_area": "Rates",
    "corruption_mean": "Corruptions",
    "worst": "Worst",
}
COSTS = {"mce": "mCE", "parameters": "Params", "p50_1": "ms", "train_seconds": "Train s"}
LEGEND = {
    "mean": "Mean: over all degraded conditions; the rank goes by it",
    "subset_mean": "Subsets: mean over all subsets of the modalities that were tried, the full one too",
    "rate_area": "Rates: area under the curve over missing rates, from 0, divided by its range",
    "corruption_mean": "Corruptions: mean over operators and severities",
    "worst": "Worst: the worst condition, by its mean over seeds, with its name",
    "mce": "mCE: mean corruption error relative to {}, less is better",
    "parameters": "Params: parameters of the pipeline",
    "p50_1": "ms: median milliseconds for one row with all modalities",
    "train_seconds": "Train s: seconds of training, mean over seeds",
}
MARK = "†"
MANY = 12  # methods of a data set from which on its table is split by leaf
ELSEWHERE = "not of this library"


def legend(shown: pd.DataFrame, references: Sequence[str]) -> list[str]:
    """What the columns mean, those that are there."""
    reference = code(references[0]) if references else "a reference"
    return [f"- {text.format(reference)}" for column, text in LEGEND.items() if column in shown]


@dataclass(frozen=True)
class Board:
    """One data set under one protocol.

    lines: its rows of :func:`~kintsugi.bench.figures.figures`, best first; scores: its lines of
    :func:`~kintsugi.bench.figures_seeds.seed_scores`; share: the metric is printed in percent.
    """

    lines: pd.DataFrame
    scores: pd.DataFrame
    share: bool

    @property
    def ranked_by(self) -> str:
        """``mean``, or ``clean`` where nothing was degraded."""
        return "mean" if "mean" in self.lines and self.lines["mean"].notna().any() else "clean"

    def about(self) -> str:
        """The metric, its direction and unit, the test rows, and what the same answer to every row gets."""
        line = self.lines.iloc[0]
        better = "more" if line["higher_is_better"] else "less"
        unit = " in percent" if self.share else ""
        known = self.lines["guess"].dropna() if "guess" in self.lines else self.lines.iloc[:0, 0]
        guess = f" A guess gets {self._score(float(known.mean()))}." if len(known) else ""
        return f"Metric: {code(line['metric'])}{unit}, {better} is better; {int(line['n']):,} test rows.{guess}"

    def leading(self, leaves: Mapping[str, str]) -> list[int]:
        """Places of the rows that the short table shows: of each leaf the first, and all of ``general``.

        Args:
            leaves: method -> leaf; a method that it lacks is one of its own.
        """
        found: dict[str, int] = {}
        places = []
        for place, method in enumerate(self.lines["method"]):
            leaf = leaves.get(method, f"{ELSEWHERE} {method}")
            if leaf == "general" or leaf not in found:
                places.append(place)
            found.setdefault(leaf, place)
        return places

    def of_leaves(self, leaves: Mapping[str, str]) -> dict[str, list[int]]:
        """Leaf -> places of its rows, best first; leaves in the order of their best row."""
        found: dict[str, list[int]] = {}
        for place, method in enumerate(self.lines["method"]):
            found.setdefault(leaves.get(method, ELSEWHERE), []).append(place)
        return found

    def table(self, only: Collection[int] | None = None) -> list[str]:
        """Lines of the table, ranks and bold figures as among all rows.

        Args:
            only: places of the rows that are shown; None: all.
        """
        heads = {c: h for c, h in (SCORES | COSTS).items() if c in self.lines and self.lines[c].notna().any()}
        several = self.lines["training"].nunique() > 1
        bold = {column: self._best(column) for column in heads if column in SCORES}
        first = ["Rank", "Method", *(["Training"] if several else [])]
        rows = [[*first, *heads.values()], ["---:", *[":---"] * (len(first) - 1), *["---:"] * len(heads)]]
        for place, line in enumerate(self.lines.to_dict("records")):
            if only is not None and place not in only:
                continue
            mark = f" {MARK}" if line["origin"] else ""
            names = [f"{line['rank']}", code(line["method"]) + mark, *([code(line["training"])] if several else [])]
            cells = [self._cell(line, column, bold.get(column) == place) for column in heads]
            rows.append([*names, *cells])
        return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]

    def _cell(self, line: dict[Any, Any], column: str, bold: bool) -> str:
        value = line[column]
        if math.isnan(value):
            return "–"
        if column in COSTS:
            return _cost(column, value)
        half = (line.get(f"{column}_high", math.nan) - line.get(f"{column}_low", math.nan)) / 2
        said = self._score(value) + ("" if math.isnan(half) else f" ± {self._score(half)}")
        where = f" ({code(line['worst_in'])})" if column == "worst" else ""
        return (f"**{said}**" if bold else said) + where

    def _score(self, value: float) -> str:
        return f"{100 * value:.1f}" if self.share else number(value)

    def _best(self, column: str) -> int | None:
        """Place of the row that beats every other in this column."""
        values = self.lines[column].dropna()
        if len(values) < 2:
            return None
        signed = values.to_numpy(float) * (1 if self.lines["higher_is_better"].iloc[0] else -1)
        place = int(values.index.to_numpy()[signed.argmax()])
        name = str(self.names[place])
        return place if (pairs_of(self.scores, column, against=name)["winner"] == name).all() else None

    @property
    def names(self) -> pd.Series[Any]:
        """What each row is called in sentences."""
        return labels(self.lines)

    def verdict(self) -> str:
        """Who cannot be told apart from the first, in a sentence."""
        by = "mean over degraded conditions" if self.ranked_by == "mean" else "clean value"
        first = str(self.names.iloc[0])
        if len(self.lines) < 2:
            return f"{code(first)} is alone here; there is nothing to compare it with."
        found = pairs_of(self.scores, self.ranked_by, against=first)
        silent = found[found["interval"] == "none"]["b"].tolist()
        level = found[(found["winner"] != first) & (found["interval"] != "none")]["b"].tolist()
        said = []
        if level:
            one = "does" if len(level) == 1 else "do"
            said.append(f"{joined(level)} {one} not differ beyond noise from the first, {code(first)}, by the {by}.")
        elif len(silent) < len(found):
            others = "every other" if not silent else "every other that it can be compared with"
            said.append(f"{code(first)} beats {others} by the {by}.")
        if silent:
            whom = "any other" if len(silent) == len(found) else joined(silent)
            said.append(
                f"Whether {code(first)} beats {whom} cannot be said: fewer than three seeds in common, or no score."
            )
        return " ".join(said)

    def outsiders(self) -> str:
        """Which rows were not run here; "" for none."""
        there = self.lines[self.lines["origin"] != ""]
        if there.empty:
            return ""
        names = self.names[there.index]
        said = [f"{code(name)} from {code(origin)}" for name, origin in zip(names, there["origin"], strict=True)]
        return f"{MARK} Not run here: {', '.join(said)}."


def _cost(column: str, value: float) -> str:
    match column:
        case "parameters":
            return (
                f"{value / 1e6:.1f} M" if value >= 1e6 else f"{value / 1e3:.0f} k" if value >= 1e3 else f"{value:.0f}"
            )
        case "p50_1":
            return f"{1000 * value:.1f}"
        case "mce":
            return f"{value:.2f}"
    return f"{value:.1f}"


def number(value: float) -> str:
    """Three decimals below ten, four digits above."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.4g}"


def code(text: Any) -> str:
    """What a user gave, so that Markdown reads nothing into it."""
    plain = " ".join(str(text).split()).replace("`", "'")
    return f"`{plain}`" if plain else ""


def joined(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    said = [code(name) for name in names]
    return said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}" if said else "none"
