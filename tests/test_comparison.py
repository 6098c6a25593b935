"""Tests between methods: against a worked example of the literature, against scipy, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import friedmanchisquare, wilcoxon

from kintsugi.core.errors import ConfigError, DataError
from kintsugi.evaluation.comparison import beats, compare, friedman, holm, pairwise_wilcoxon
from kintsugi.evaluation.intervals import Interval

# Ranks of C4.5, C4.5+m, C4.5+cf, C4.5+m+cf on 14 data sets: Demšar 2006, table 6
DEMSAR = pd.DataFrame(
    [
        (4, 3, 2, 1), (1, 2, 3, 4), (4, 1, 2, 3), (4, 1, 3, 2), (4, 2, 3, 1), (1, 2.5, 4, 2.5), (3, 2, 4, 1),
        (2.5, 2.5, 4, 1), (4, 3, 2, 1), (2.5, 2.5, 2.5, 2.5), (4, 2.5, 1, 2.5), (3, 2, 4, 1), (4, 1, 2, 3), (3, 1, 4, 2),
    ],
    columns=["plain", "m", "cf", "m+cf"],
)  # fmt: skip


# one pair ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("low", "high", "more", "less"),
    [(0.1, 0.3, True, False), (-0.3, -0.1, False, True), (-0.1, 0.3, False, False), (0.0, 0.3, False, False),
     (math.nan, math.nan, False, False)],
)  # fmt: skip
def test_a_beats_b_only_where_the_interval_says_so(low: float, high: float, more: bool, less: bool) -> None:
    d = Interval(0.2, low, high)
    assert beats(d, higher_is_better=True) is more
    assert beats(d, higher_is_better=False) is less


def test_compare_names_the_winner_or_nobody() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=400)
    better = base + 0.2 + 0.1 * rng.normal(size=400)
    assert compare(better, base, higher_is_better=True).winner == "A"
    assert compare(base, better, higher_is_better=True, names=("x", "y")).winner == "y"
    assert compare(better, base, higher_is_better=False).winner == "B"
    same = compare(base, rng.permutation(base), higher_is_better=True, names=("x", "y"))
    assert same.winner is None
    assert "cannot be told apart" in str(same)
    assert str(compare(better, base, higher_is_better=False)).startswith("B beats A: A - B = +0.")


def test_rows_that_are_not_pairs() -> None:
    with pytest.raises(DataError, match="A has 2 rows and B 1"):
        compare([0.0, 1.0], [1.0], higher_is_better=True)
    with pytest.raises(DataError, match="B has a value that is not finite"):
        compare([0.0, 1.0], [1.0, math.nan], higher_is_better=True)


# many comparisons --------------------------------------------------------------------------------------------------
def test_holm_by_hand() -> None:
    # sorted 0.01, 0.02, 0.022, 0.6 times 4, 3, 2, 1: 0.04, 0.06, 0.044 -> 0.06 (never falling), 0.6
    assert holm({"w": 0.022, "x": 0.01, "y": 0.6, "z": 0.02}) == pytest.approx(
        {"w": 0.06, "x": 0.04, "y": 0.6, "z": 0.06}
    )
    assert holm({"a": 0.7, "b": 0.9}) == {"a": 1.0, "b": 1.0}
    with pytest.raises(DataError, match="p of a is nan"):
        holm({"a": math.nan})


# many data sets ----------------------------------------------------------------------------------------------------
def test_the_example_of_demsar() -> None:
    found = friedman(DEMSAR, higher_is_better=False)
    assert found.ranks == pytest.approx({"plain": 3.143, "m": 2.0, "cf": 2.893, "m+cf": 1.964}, abs=5e-4)
    assert found.critical_difference == pytest.approx(1.25, abs=0.006)
    # the paper: at 0.10, plain is worse than both with m, and the rest cannot be told apart
    at = friedman(DEMSAR, higher_is_better=False, alpha=0.10)
    assert at.critical_difference == pytest.approx(1.12, abs=0.006)
    assert at.differ("plain", "m+cf")
    assert at.differ("plain", "m")
    assert not at.differ("cf", "m")
    assert not found.differ("plain", "m")


@pytest.mark.parametrize(("k", "q"), [(3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_critical_values_are_those_of_the_table(k: int, q: float) -> None:
    """Demšar 2006, table 5a."""
    scores = pd.DataFrame(np.random.default_rng(0).random((6, k)))
    found = friedman(scores, higher_is_better=True).critical_difference
    assert found / math.sqrt(k * (k + 1) / 36) == pytest.approx(q, abs=1e-3)


def test_friedman_is_that_of_scipy_with_ties_too() -> None:
    drawn = np.random.default_rng(1).random((12, 4)).round(1)
    scores = pd.DataFrame(drawn + np.array([0, 0.1, 0.2, 0.4]), columns=list("abcd")).round(1)
    theirs = friedmanchisquare(*scores.to_numpy().T)
    found = friedman(scores, higher_is_better=True)
    assert (found.statistic, found.p) == pytest.approx((theirs.statistic, theirs.pvalue))
    assert min(found.ranks, key=lambda n: found.ranks[n]) == "d"
    n, k = scores.shape
    assert found.f == pytest.approx((n - 1) * found.statistic / (n * (k - 1) - found.statistic))


def test_the_critical_difference_decides_as_nemenyis_test_of_another_library() -> None:
    other = pytest.importorskip("scikit_posthocs", reason="scikit-posthocs is in the extra oracle")
    drawn = np.random.default_rng(3).random((15, 5)) + np.array([0, 0.1, 0.3, 0.5, 0.6])
    scores = pd.DataFrame(drawn, columns=list("abcde"))
    found, p = friedman(scores, higher_is_better=True), other.posthoc_nemenyi_friedman(scores)
    decided = {
        (a, b): abs(found.ranks[a] - found.ranks[b]) > found.critical_difference
        for a in scores
        for b in scores
        if a < b
    }
    assert set(decided.values()) == {True, False}
    for (a, b), differ in decided.items():
        assert (p.loc[a, b] < 0.05) == differ, (a, b)


def test_the_same_order_everywhere() -> None:
    found = friedman(pd.DataFrame([[1, 2, 3]] * 5, columns=list("abc")), higher_is_better=True)
    assert found.ranks == {"a": 3.0, "b": 2.0, "c": 1.0}
    assert (found.statistic, found.f) == (10.0, math.inf)
    assert found.f_p == pytest.approx(1 / 6**4)  # four further data sets fall into one of 3! orders
    tied = friedman(pd.DataFrame([[1, 1, 2]] * 3, columns=list("abc")), higher_is_better=True)
    assert tied.f_p == pytest.approx(1 / 3**2)


def test_what_cannot_be_ranked() -> None:
    scores = pd.DataFrame([[1, 2, 3], [1, 2, math.nan]], columns=list("abc"), index=["mosi", "avd"])
    with pytest.raises(DataError, match="c has no score on avd"):
        friedman(scores, higher_is_better=True)
    with pytest.raises(DataError, match="2 methods on 2 data sets"):
        friedman(scores[["a", "b"]], higher_is_better=True)
    with pytest.raises(DataError, match="alike"):
        friedman(pd.DataFrame(np.ones((3, 3))), higher_is_better=True)
    with pytest.raises(ConfigError, match="alpha"):
        friedman(pd.DataFrame(np.ones((3, 3))), higher_is_better=True, alpha=5)


@pytest.mark.parametrize("higher", [True, False])
def test_pairs_over_data_sets(higher: bool) -> None:
    rng = np.random.default_rng(2)
    base = rng.random(15)
    scores = pd.DataFrame({"a": base, "b": base + 0.2 + 0.1 * rng.random(15), "c": base})
    found = pairwise_wilcoxon(scores, higher_is_better=higher).set_index(["better", "worse"])
    pair = ("b", "a") if higher else ("a", "b")
    assert found.loc[pair, "p"] == pytest.approx(wilcoxon(scores["b"], scores["a"]).pvalue)
    assert (found.loc[pair, "difference"] > 0) is np.bool_(higher)
    assert found.loc[("a", "c"), "p"] == 1.0
    assert found.loc[pair, "p_holm"] == pytest.approx(3 * found.loc[pair, "p"])
