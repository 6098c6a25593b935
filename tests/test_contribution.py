"""Shapley values: by hand, against the definition by orders, sampled; values out of a table of results."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pandas as pd
import pytest

from kintsugi.core.errors import ConfigError, DataError, UnknownName
from kintsugi.evaluation.contribution import shapley, subset_values


def game(m: int, seed: int = 0) -> dict[frozenset[str], float]:
    rng = np.random.default_rng(seed)
    names = [f"m{i}" for i in range(m)]
    return {frozenset(s): float(rng.random()) for size in range(m + 1) for s in combinations(names, size)}


def test_two_modalities_by_hand() -> None:
    value = {frozenset(): 0.5, frozenset("a"): 0.7, frozenset("b"): 0.6, frozenset("ab"): 0.9}
    found = shapley(value, ["a", "b"])
    assert found.exact
    # a alone adds 0.2, after b 0.3
    assert found.values == pytest.approx({"a": 0.25, "b": 0.15})


def test_it_is_the_mean_over_orders() -> None:
    value = game(4)
    names = ["m0", "m1", "m2", "m3"]
    gains: dict[str, list[float]] = {n: [] for n in names}
    for order in permutations(names):
        for place, name in enumerate(order):
            gains[name].append(value[frozenset(order[: place + 1])] - value[frozenset(order[:place])])
    found = shapley(value, names).values
    assert found == pytest.approx({n: np.mean(g) for n, g in gains.items()})
    assert sum(found.values()) == pytest.approx(value[frozenset(names)] - value[frozenset()])


def test_a_sample_covers_the_exact_value_and_says_how_sure_it_is() -> None:
    value = game(5)
    names = [f"m{i}" for i in range(5)]
    exact = shapley(value, names)
    few, many = (shapley(value, names, exact_up_to=4, permutations=n, seed=1) for n in (100, 1600))
    assert not many.exact
    for n in names:
        assert abs(many.values[n] - exact.values[n]) < 4 * many.errors[n]
        assert 3 < few.errors[n] / many.errors[n] < 5.5  # falls with the root of 16
    assert sum(many.values.values()) == pytest.approx(sum(exact.values.values()))


def test_a_seed_repeats_the_draw_and_each_subset_is_asked_once() -> None:
    names = [f"m{i:02d}" for i in range(12)]
    asked: list[frozenset[str]] = []

    def value(subset: frozenset[str]) -> float:
        asked.append(subset)
        return len(subset) ** 0.5 + ("m03" in subset) * len(subset)

    first = shapley(value, names, permutations=20, seed=3)
    assert len(asked) == len(set(asked))
    assert first.permutations == 20
    assert shapley(value, names, permutations=20, seed=3) == first
    assert shapley(value, names, permutations=20, seed=4) != first


def test_an_additive_value_has_no_sampling_error() -> None:
    worth = {f"m{i:02d}": float(i) for i in range(11)}
    found = shapley(lambda s: sum(worth[n] for n in s), list(worth), permutations=5)
    assert found.values == pytest.approx(worth)
    assert max(found.errors.values()) == pytest.approx(0, abs=1e-12)


def test_what_has_no_shapley_value() -> None:
    value = game(2)
    del value[frozenset()]
    with pytest.raises(DataError, match="none"):
        shapley(value, ["m0", "m1"])
    with pytest.raises(DataError, match="is nan"):
        shapley(lambda s: float("nan"), ["a"])
    with pytest.raises(ConfigError, match="each once"):
        shapley(game(2), ["m0", "m0"])
    with pytest.raises(ConfigError, match="at least two"):
        shapley(game(2), ["m0", "m1"], exact_up_to=1, permutations=1)


# out of a table ----------------------------------------------------------------------------------------------------
def table() -> pd.DataFrame:
    rows = [
        {"condition": c, "group": g, "seed": s, "value": v + 0.1 * s, "dataset": "d", "method": "m", "training": "t"}
        for c, g, v in [
            ("clean", "clean", 0.8), ("a", "subset", 0.6), ("b", "subset", 0.4), ("mcar(0.1)", "rate/mcar", 0.7),
        ]
        for s in (0, 1)
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(metric="accuracy")


def test_values_out_of_a_table_average_seeds() -> None:
    found = subset_values(table(), "accuracy", ["a", "b"], empty=0.25)
    expected = {frozenset(): 0.25, frozenset("a"): 0.65, frozenset("b"): 0.45, frozenset("ab"): 0.85}
    assert found == pytest.approx(expected)


def test_a_table_that_does_not_say() -> None:
    with pytest.raises(DataError, match="lacks the condition 'b'"):
        subset_values(table().query("condition != 'b'"), "accuracy", ["a", "b"], empty=0.25)
    with pytest.raises(UnknownName, match="accuracy"):
        subset_values(table(), "acuracy", ["a", "b"], empty=0.25)
    with pytest.raises(DataError, match="several of method"):
        subset_values(pd.concat([table(), table().assign(method="n")]), "accuracy", ["a", "b"], empty=0.25)
