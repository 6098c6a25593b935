"""What each modality contributes: Shapley values over the subsets of the modalities.

Source: Shapley, A Value for n-Person Games (1953); sampling by Castro, Gomez and Tejada (2009).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from kintsugi.core.errors import ConfigError, DataError, UnknownName
from kintsugi.evaluation.measures import declared

EXACT_UP_TO = 10  # 1,024 subsets
PERMUTATIONS = 200
Subset = frozenset[str]
Value = Mapping[Subset, float] | Callable[[Subset], float]


@dataclass(frozen=True)
class Contributions:
    """Shapley values, in units of the metric; they sum to the value of all modalities less that of none.

    values: modality -> contribution, positive where it raises the metric; errors: modality -> standard error, 0 where
    exact; permutations: that were drawn, 0 where exact.
    """

    values: dict[str, float]
    errors: dict[str, float]
    permutations: int

    @property
    def exact(self) -> bool:
        """Every subset was counted."""
        return self.permutations == 0


@declared(
    "shapley",
    higher_is_better=None,
    formula="phi_m = sum_{S without m} |S|! (M - |S| - 1)! / M! (v(S + m) - v(S))",
    source="Shapley 1953; beyond 10 modalities sampled as in Castro et al. 2009",
)
def shapley(
    value: Value,
    modalities: Sequence[str],
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    exact_up_to: int = EXACT_UP_TO,
) -> Contributions:
    """Shapley value of each modality, exact for few modalities, else from random orders in which they join.

    Args:
        value: the metric for each subset (a frozenset of names), the empty one too: a mapping, or a function that is
            asked once a subset. The empty subset is what the prior alone scores.
        modalities: names.
        permutations: orders drawn, where it is not exact; each asks for up to M new subsets.
        seed: of the draw.
        exact_up_to: most modalities for which all subsets are counted.

    Raises:
        ConfigError: no modalities, a name twice, or fewer than two permutations where it samples.
        DataError: a subset without a value, or with one that is not finite.
    """
    names = list(modalities)
    if not names or len(set(names)) != len(names):
        raise ConfigError(f"Shapley values of the modalities {names}: give at least one, and each once")
    ask = _once(value)
    if len(names) <= exact_up_to:
        return Contributions(_exact(ask, names), dict.fromkeys(names, 0.0), 0)
    if permutations < 2:
        raise ConfigError(f"Shapley values: {permutations} permutations give no standard error; give at least two")
    gains = _sampled(ask, names, permutations, np.random.default_rng(seed))
    means, spread = gains.mean(0), gains.std(0, ddof=1) / math.sqrt(permutations)
    return Contributions(
        {n: float(x) for n, x in zip(names, means, strict=True)},
        {n: float(x) for n, x in zip(names, spread, strict=True)},
        permutations,
    )


def _exact(ask: Callable[[Iterable[str]], float], names: list[str]) -> dict[str, float]:
    m = len(names)
    weight = [math.factorial(s) * math.factorial(m - s - 1) / math.factorial(m) for s in range(m)]
    found = {}
    for name in names:
        others = [n for n in names if n != name]
        found[name] = sum(
            weight[size] * (ask((*rest, name)) - ask(rest)) for size in range(m) for rest in combinations(others, size)
        )
    return found


def _sampled(
    ask: Callable[[Iterable[str]], float], names: list[str], permutations: int, generator: np.random.Generator
) -> np.ndarray:
    """What each modality added when its turn came: ``[permutations, M]``."""
    gains = np.empty((permutations, len(names)))
    for row in gains:
        order = generator.permutation(len(names))
        before = ask(())
        for place, column in enumerate(order):
            after = ask(names[c] for c in order[: place + 1])
            row[column], before = after - before, after
    return gains


def _once(value: Value) -> Callable[[Iterable[str]], float]:
    known: dict[Subset, float] = {}

    def ask(names: Iterable[str]) -> float:
        subset = frozenset(names)
        if subset not in known:
            if isinstance(value, Mapping) and subset not in value:
                raise DataError(
                    f"no value for the modalities {_said(subset)}; Shapley values need one for every subset"
                )
            known[subset] = float(value[subset] if isinstance(value, Mapping) else value(subset))
            if not math.isfinite(known[subset]):
                raise DataError(f"the value for the modalities {_said(subset)} is {known[subset]}; measure it anew")
        return known[subset]

    return ask


def _said(subset: Subset) -> str:
    return " + ".join(sorted(subset)) or "none (what the prior alone scores)"


def subset_values(table: pd.DataFrame, metric: str, modalities: Sequence[str], *, empty: float) -> dict[Subset, float]:
    """Values for :func:`shapley` out of a table of results under protocol ``subsets``; seeds are averaged.

    Args:
        table: the ``table`` of :class:`~kintsugi.evaluation.Results`, the rows of one method on one data set.
        metric: its name.
        modalities: names, in the order of the schema.
        empty: the metric where nothing is there, such as the accuracy of always naming the commonest class.

    Raises:
        UnknownName: the table lacks the metric.
        DataError: several methods, data sets or training conditions, or a subset that was not measured.
    """
    chosen = table[table["metric"] == metric]
    if chosen.empty:
        raise UnknownName("metric of this table", metric, table["metric"].unique())
    for column in ("dataset", "method", "training"):
        if chosen[column].nunique() > 1:
            several = ", ".join(map(str, chosen[column].unique()))
            raise DataError(f"the table has several of {column} ({several}); keep the rows of one")
    means = chosen[chosen["group"].isin(["clean", "subset"])].groupby("condition")["value"].mean()
    found: dict[Subset, float] = {frozenset(): empty}
    for size in range(1, len(modalities) + 1):
        for names in combinations(modalities, size):
            condition = "clean" if size == len(modalities) else " + ".join(names)
            if condition not in means.index:
                raise DataError(f"the table lacks the condition {condition!r}; evaluate with protocol='subsets'")
            found[frozenset(names)] = float(means[condition])
    return found
