"""Who is better, and what changed: intervals of differences against scipy and by hand, in one store and between two."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm, ttest_ind, ttest_rel

from kintsugi.bench import Store
from kintsugi.bench.differences import Sample, over_rows, paired, welch
from kintsugi.bench.figures import figures_of
from kintsugi.bench.figures_seeds import latest, of_metric, seed_scores
from kintsugi.bench.store import Record
from kintsugi.bench.versus import Changes, changes, labels, pairs, pairs_of, ranks
from kintsugi.bench.versus_notes import made_with_that_differs
from kintsugi.core.errors import ConfigError, DataError, UnknownName
from kintsugi.evaluation.comparison import friedman, holm
from test_bench_figures import ALL, DAMAGED, keep, lines, table, trial_of, values

A, B, C = (0.90, 0.80, 0.85), (0.80, 0.75, 0.70), (0.50, 0.42, 0.44)
ONE = {"clean": ALL["clean"], "image": ALL["image"]}
METHODS = {"a": A, "b": B, "c": C}


def seeds(method: str, given: tuple[float, ...], first: int = 0, **changed: Any) -> pd.DataFrame:
    """Trials that score this clean, and half of it on the other condition."""
    return table(*(lines(method, values(ONE, v, v / 2), seed=first + s, **changed) for s, v in enumerate(given)))


def scores(*parts: pd.DataFrame) -> pd.DataFrame:
    return seed_scores(of_metric(latest(table(*parts))))


def sample(*given: float, half: float = 0.02, first: int = 0) -> Sample:
    return Sample({first + s: v for s, v in enumerate(given)}, half)


def fill(store: Store, methods: dict[str, tuple[float, ...]], first: int = 0, half: float = 0.02, **about: Any) -> None:
    for method, given in methods.items():
        for seed, value in enumerate(given):
            keep(store, values(ONE, value, value / 2), half=half, method=method, seed=first + seed, **about)


@pytest.fixture
def two(tmp_path: Path) -> tuple[Store, Store]:
    return Store.open(tmp_path / "a"), Store.open(tmp_path / "b")


def verdicts(found: Changes, figure: str = "clean") -> dict[str, str]:
    mine = found.table[found.table["figure"] == figure]
    return dict(zip(mine["method"], mine["verdict"], strict=True))


# one pair ----------------------------------------------------------------------------------------------------------
def test_paired_differences_by_hand_and_by_scipy() -> None:
    found = paired(sample(*A), sample(*B))
    half = 4.302653 * 0.05 / math.sqrt(3)  # differences 0.1, 0.05, 0.15; t of 2 degrees of freedom
    assert tuple(found.interval) == pytest.approx((0.1, 0.1 - half, 0.1 + half))
    assert found.p == pytest.approx(ttest_rel(A, B).pvalue)
    assert (found.how, found.seeds) == ("paired seeds", 3)
    assert tuple(paired(sample(*A), sample(*B), 0.9).interval) == pytest.approx(
        (0.1, *ttest_rel(A, B).confidence_interval(0.9))
    )


def test_only_seeds_in_common_are_paired() -> None:
    a = Sample({0: 0.1, 1: 0.9, 2: 0.8, 3: 0.85}, 0.02)
    b = Sample({1: 0.8, 2: 0.75, 3: 0.7, 7: 0.0}, 0.02)
    assert paired(a, b) == paired(Sample({1: 0.9, 2: 0.8, 3: 0.85}, 0.02), Sample({1: 0.8, 2: 0.75, 3: 0.7}, 0.02))
    few = paired(sample(0.9, 0.8), sample(0.1, 0.1))
    assert (few.how, few.interval.value) == ("none", pytest.approx(0.75))
    assert math.isnan(few.interval.low)
    assert math.isnan(paired(sample(0.9, 0.8), sample(0.1, 0.1, first=5)).interval.value)


def test_differences_without_spread_fall_back_on_rows() -> None:
    found = paired(sample(0.9, 0.8, 0.7, half=0.03), sample(0.8, 0.7, 0.6, half=0.04))
    assert found.how == "rows"
    assert tuple(found.interval) == pytest.approx((0.1, 0.05, 0.15))  # sqrt(0.03^2 + 0.04^2)
    assert found.p == pytest.approx(2 * norm.sf(0.1 / (0.05 / norm.ppf(0.975))))
    assert paired(sample(0.9, 0.9, 0.9, half=math.nan), sample(0.8, 0.8, 0.8)).how == "none"


def test_welch_against_scipy() -> None:
    a, b = sample(*A, 0.7), sample(*B, first=9)
    test = ttest_ind([*A, 0.7], B, equal_var=False)
    found = welch(a, b)
    assert found.p == pytest.approx(test.pvalue)
    assert tuple(found.interval)[1:] == pytest.approx(tuple(test.confidence_interval(0.95)))
    assert (found.how, found.seeds) == ("seeds", 3)
    assert welch(sample(0.9, 0.8), b).how == "none"
    assert welch(sample(0.9, 0.9, 0.9), sample(0.8, 0.8, 0.8)).how == "rows"


def test_rows_at_another_level() -> None:
    wide = over_rows(sample(0.9, half=0.03), sample(0.8, half=0.04), 0.99).interval
    assert wide.high - wide.value == pytest.approx(0.05 * norm.ppf(0.995) / norm.ppf(0.975))


# all pairs ---------------------------------------------------------------------------------------------------------
def test_pairs_name_a_winner_where_the_interval_says_so() -> None:
    found = pairs_of(scores(*(seeds(m, v) for m, v in METHODS.items())), "clean")
    assert found[["a", "b", "winner"]].to_numpy().tolist() == [["a", "b", ""], ["a", "c", "a"], ["b", "c", "b"]]
    p = {f"{a}{b}": float(ttest_rel(METHODS[a], METHODS[b]).pvalue) for a, b in ("ab", "ac", "bc")}
    assert found["p"].tolist() == pytest.approx(list(p.values()))
    assert found["p_holm"].tolist() == pytest.approx(list(holm(p).values()))
    degraded = pairs_of(scores(*(seeds(m, v) for m, v in METHODS.items())), "mean", against="c")
    assert degraded[["a", "b", "winner"]].to_numpy().tolist() == [["c", "a", "a"], ["c", "b", "b"]]
    assert degraded["difference"][0] == pytest.approx((np.mean(C) - np.mean(A)) / 2)


def test_the_direction_of_the_metric_decides_who_wins() -> None:
    both = scores(
        seeds("a", A, metric="mae", higher_is_better=False), seeds("c", C, metric="mae", higher_is_better=False)
    )
    assert pairs_of(both, "clean")["winner"].tolist() == ["c"]


def test_two_seeds_name_nobody() -> None:
    found = pairs_of(scores(seeds("a", A[:2]), seeds("c", C[:2])), "clean")
    assert found[["winner", "interval", "seeds"]].to_numpy().tolist() == [["", "none", 2]]
    assert found[["low", "high", "p", "p_holm"]].isna().all(axis=None)


def test_labels_tell_apart_what_shares_a_name() -> None:
    frame = pd.DataFrame(
        [("a", "complete", ""), ("a", "mcar(0.3)", ""), ("a", "complete", "paper"), ("z", "complete", "paper")],
        columns=["method", "training", "origin"],
    )
    assert labels(frame).tolist() == ["a (complete)", "a (mcar(0.3))", "a [paper] (complete)", "z (complete)"]
    assert labels(frame.iloc[[0, 3]]).tolist() == ["a", "z"]


def test_pairs_of_a_store(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    fill(store, METHODS)
    fill(store, {"a": (0.2, 0.1, 0.1)}, training="mcar(0.3)")
    found = pairs(store, "toy", "all", "complete", condition="clean")
    assert found["winner"].tolist() == ["", "a", "b"]
    assert pairs(store, "toy", "all", condition="clean", metric="accuracy")["a"].tolist()[0] == "a (complete)"
    assert pairs(store, "toy", "all", "mcar(0.3)").empty
    for wrong, said in (
        (("tpy", "all"), "unknown dataset of .*'tpy'; did you mean 'toy'"),
        (("toy", "al"), "unknown protocol"),
        (("toy", "all", "mcar(0.4)"), "unknown training"),
        (("toy", "all", "complete", "f1"), "unknown metric"),
        (("toy", "all", "complete", None, "corruption"), "unknown score 'corruption'"),
    ):
        with pytest.raises(UnknownName, match=said):
            pairs(store, *wrong)


# over data sets ----------------------------------------------------------------------------------------------------
def board(rows: dict[str, list[float]], methods: str = "abcd", higher: bool = True) -> pd.DataFrame:
    return figures_of(
        table(
            *(
                lines(m, values(ONE, v, v), dataset=d, higher_is_better=higher, metric="acc" if higher else "mae")
                for d, given in rows.items()
                for m, v in zip(methods, given, strict=True)
            )
        )
    )


MANY = {f"d{i}": [0.9, 0.88 + 0.03 * (i % 2), 0.5, 0.4 + 0.15 * (i % 2)] for i in range(10)}


def test_ranks_are_those_of_friedman_with_groups() -> None:
    found = ranks(board(MANY))
    test = friedman(pd.DataFrame(MANY.values(), columns=list("abcd")), higher_is_better=True)
    assert found["reason"] == ""
    assert found["ranks"] == {"a": 1.5, "b": 1.5, "c": 3.5, "d": 3.5}
    assert (found["p"], found["critical_difference"]) == pytest.approx((test.f_p, test.critical_difference))
    assert found["differ"]
    assert found["groups"] == [["a", "b"], ["c", "d"]]
    assert found["blocks"][0] == "d0, all, complete"


def test_groups_overlap_as_far_as_they_reach() -> None:
    steady = {f"d{i}": [0.9, 0.8, 0.7, 0.6] for i in range(4)}  # ranks 1 to 4; the critical difference is 2.345
    found = ranks(board(steady))
    assert found["critical_difference"] == pytest.approx(2.569 * math.sqrt(4 * 5 / 24), abs=1e-3)
    assert found["groups"] == [["a", "b", "c"], ["b", "c", "d"]]


def test_the_same_order_everywhere_is_judged_by_its_chance() -> None:
    two_blocks = ranks(board({"x": [0.9, 0.8, 0.7], "y": [0.9, 0.8, 0.7]}, "abc"))
    assert two_blocks["p"] == pytest.approx(1 / 6)  # of six orders, the second block has that of the first
    assert two_blocks["groups"] == [["a", "b", "c"]]
    tied = ranks(board({d: [0.9, 0.8, 0.8] for d in "xyz"}, "abc"))
    assert tied["p"] == pytest.approx(1 / 9)


def test_ranks_of_errors_and_of_scores_go_together() -> None:
    scores_, errors = {"x": [0.9, 0.8, 0.7]}, {"y": [0.1, 0.2, 0.3]}
    both = pd.concat([board(scores_, "abc"), board(errors, "abc", higher=False)], ignore_index=True)
    assert ranks(both)["ranks"] == {"a": 1.0, "b": 2.0, "c": 3.0}


def test_where_methods_do_not_differ_all_are_one_group() -> None:
    rng = np.random.default_rng(112)  # drawn so that two average ranks lie a critical difference apart all the same
    rows = {f"d{i}": [*rng.random(10)] for i in range(20)}
    rows = {name: [v[0] + 0.35, v[1] - 0.35, *v[2:]] for name, v in rows.items()}
    found = ranks(board({name: [(v + 1) / 3 for v in row] for name, row in rows.items()}, "abcdefghij"))
    gap = max(found["ranks"].values()) - min(found["ranks"].values())
    assert gap > found["critical_difference"]
    assert found["p"] > 0.05
    assert not found["differ"]
    assert [sorted(g) for g in found["groups"]] == [list("abcdefghij")]


@pytest.mark.parametrize(
    ("rows", "methods", "said"),
    [
        ({"x": [0.9, 0.8, 0.7]}, "abc", "at least 2 blocks .* there is 1"),
        ({"x": [0.9, 0.8], "y": [0.9, 0.8]}, "ab", "at least 3 methods .* there are 2"),
        ({"x": [0.9, 0.8, 0.7], "y": [0.9, 0.8, math.nan]}, "abc", r"there are 2 \(c lack a score in some\)"),
        ({"x": [0.5, 0.5, 0.5], "y": [0.4, 0.4, 0.4]}, "abc", "score alike"),
    ],
)
def test_ranks_say_what_they_lack(rows: dict[str, list[float]], methods: str, said: str) -> None:
    import re

    found = ranks(board(rows, methods))
    assert re.search(said, found["reason"])
    assert found["ranks"] is None


def test_ranks_leave_out_and_name_methods_with_holes() -> None:
    found = ranks(board({d: [*v[:3], math.nan if d == "d3" else v[3]] for d, v in MANY.items()}))
    assert found["left_out"] == ["d"]
    assert list(found["ranks"]) == ["a", "b", "c"]
    with pytest.raises(ConfigError, match="no column 'rate_mean'"):
        ranks(board(MANY), "rate_mean")


# two stores --------------------------------------------------------------------------------------------------------
def test_a_store_did_not_change_from_itself(two: tuple[Store, Store]) -> None:
    fill(two[0], METHODS)
    found = changes(two[0], two[0])
    assert set(found.table["verdict"]) == {"same"}
    assert found.table["figure"].tolist() == ["clean", "mean", "worst"] * 3
    assert not found.worse
    assert found.summary() == "9 figures of 3 units compared at 0.95: 9 same"


def test_changes_are_paired_over_seeds(two: tuple[Store, Store]) -> None:
    fill(two[0], METHODS)
    fill(two[1], {"a": (0.80, 0.71, 0.74), "b": (0.81, 0.73, 0.71), "c": (0.60, 0.53, 0.53)})
    found = changes(*two)
    assert verdicts(found) == {"a": "worse", "b": "same", "c": "better"}
    assert verdicts(found, "mean") == verdicts(found, "worst") == verdicts(found)
    assert found.worse
    line = found.table.iloc[0]
    assert (line["a"], line["b"], line["difference"]) == pytest.approx((0.85, 0.75, -0.1))
    test = ttest_rel((0.80, 0.71, 0.74), A)
    assert (line["low"], line["high"]) == pytest.approx(tuple(test.confidence_interval(0.95)))
    assert line["interval"] == "paired seeds"
    said = found.summary().split("\n")
    assert said[0] == "9 figures of 3 units compared at 0.95: 3 worse, 3 better, 3 same"
    assert said[1].startswith("worse: a on toy, training complete, protocol all: accuracy clean 0.85 → 0.75, -0.1 [")
    assert "Of 9 figures that do not change, about 0.2 would be called worse by chance" in found.summary()
    assert set(verdicts(changes(*two, level=0.999)).values()) == {"same"}


def test_the_direction_decides_what_is_worse(two: tuple[Store, Store]) -> None:
    for store, given in zip(two, (A, (0.80, 0.71, 0.74)), strict=True):
        fill(store, {"a": given}, metrics=["mae"], higher=False)
    assert verdicts(changes(*two)) == {"a": "better"}


def test_other_seeds_are_compared_unpaired(two: tuple[Store, Store]) -> None:
    fill(two[0], {"a": A})
    fill(two[1], {"a": C}, first=10)
    line = changes(*two).table.iloc[0]
    assert (line["interval"], line["verdict"]) == ("seeds", "worse")
    assert line["low"] == pytest.approx(ttest_ind(C, A, equal_var=False).confidence_interval(0.95).low)


def test_few_seeds_are_compared_by_rows(two: tuple[Store, Store]) -> None:
    fill(two[0], {"a": (0.9,), "b": (0.9,), "c": (0.9,)}, half=0.03)
    fill(two[1], {"a": (0.86,), "b": (0.84,), "c": (0.9,)}, half=0.04)
    found = changes(*two)
    assert verdicts(found) == {"a": "same", "b": "worse", "c": "same"}
    line = found.table.iloc[0]
    assert (line["interval"], line["low"], line["high"]) == ("rows", pytest.approx(-0.09), pytest.approx(0.01))


def test_nothing_known_of_noise_is_not_the_same(two: tuple[Store, Store]) -> None:
    fill(two[0], {"a": (0.9,), "b": (0.9,)}, half=math.nan)
    fill(two[1], {"a": (0.5,), "b": (0.9,)}, half=math.nan)
    found = changes(*two)
    assert verdicts(found) == {"a": "unknown", "b": "same"}
    assert not found.worse
    assert "unknown: a on toy" in found.summary()


def test_a_score_that_is_gone_is_worse(two: tuple[Store, Store]) -> None:
    fill(two[0], {"a": A, "b": A})
    fill(two[1], {"a": A, "b": (0.9, 0.8, math.nan)})
    found = changes(*two)
    assert verdicts(found) == {"a": "same", "b": "worse"}
    assert verdicts(changes(*two[::-1])) == {"a": "same", "b": "better"}


def test_another_data_set_of_the_name_is_refused(two: tuple[Store, Store]) -> None:
    fill(two[0], {"a": A})
    fill(two[1], {"a": A}, fingerprint="beef")
    with pytest.raises(
        DataError, match="data set 'toy' is not the same in both stores: fingerprint f00d in A, beef in B"
    ):
        changes(*two)


def test_a_protocol_with_other_conditions_is_refused(two: tuple[Store, Store]) -> None:
    keep(two[0], ALL)
    keep(two[1], DAMAGED)
    with pytest.raises(DataError, match=r"protocol 'all' on 'toy' .* 'image' is only in A"):
        changes(*two)


def test_what_differs_beside_results_is_named(two: tuple[Store, Store]) -> None:
    fill(two[0], {"a": A, "b": B, "gone": C}, parameters={"params": {"width": 8, "old": 1, "kept": 2}})
    fill(two[1], {"a": A}, parameters={"params": {"width": 16, "kept": 2}}, versions={"torch": "2.7", "sources": "x"})
    fill(two[1], {"b": B, "new": C}, parameters={"params": {"width": 8, "old": 1, "kept": 2}})
    failed = trial_of("gone")
    two[1].claim(failed)
    two[1].fail(failed, "Traceback\n  somewhere\nValueError: no\n")
    found = changes(*two)
    assert found.only_a == [("toy", "all", "gone", "complete", "")]
    assert found.only_b == [("toy", "all", "new", "complete", "")]
    said = found.summary().split("\n")
    assert (
        "parameters differ: a on toy, training complete, protocol all: params.old 1 → absent, params.width 8 → 16"
        in said
    )
    assert "made with: torch 2.6 → 2.7; sources of a differ" in said
    assert "only in A: gone on toy, training complete, protocol all; failed in B: ValueError: no" in said
    assert "only in B: new on toy, training complete, protocol all" in said
    assert found.worse  # what was there has failed
    assert not replace(found, failed={}).worse


def test_strict_compares_only_what_was_made_with_the_same(two: tuple[Store, Store]) -> None:
    fill(two[0], {"a": A, "b": B})
    fill(two[1], {"a": A}, versions={"torch": "2.7"})
    fill(two[1], {"b": B})
    loose, strict = changes(*two), changes(*two, strict=True)
    assert loose.passed
    assert verdicts(loose) == {"a": "same", "b": "same"}
    assert verdicts(strict) == {"b": "same"}
    assert not strict.worse
    assert not strict.passed
    assert (
        "not compared, being made with something else: a on toy, training complete, protocol all: torch 2.6 → 2.7"
        in strict.summary()
    )
    assert changes(two[0], two[0], strict=True).passed
    (other,) = (Store.open(two[0].folder.with_name("c")),)
    fill(other, {"a": A, "b": B}, versions={"torch": "2.7"})
    nothing = changes(two[0], other, strict=True)  # no unit is left
    assert nothing.table.empty
    assert not nothing.passed


def test_packages_that_changed_places_between_seeds_are_seen() -> None:
    def records(*versions: str) -> list[Record]:
        return [
            Record(trial_of("a", seed=seed), "done", "", None, None, "", {"made_with": {"torch": version}})
            for seed, version in enumerate(versions)
        ]

    unit = ("toy", "all", "a", "complete", "")
    assert made_with_that_differs(records("2.6", "2.7"), records("2.6", "2.7")) == {}
    assert made_with_that_differs(records("2.6", "2.7"), records("2.7", "2.6")) == {
        unit: ("torch 2.6 → 2.7", "torch 2.7 → 2.6")
    }
    assert made_with_that_differs(records("2.6"), records("2.6", "2.7")) == {unit: ("torch 2.6 → 2.6 and 2.7",)}


def test_results_of_which_nobody_knows_what_they_were_made_with_are_not_strictly_the_same(
    two: tuple[Store, Store],
) -> None:
    for store in two:
        fill(store, {"a": A}, versions={"method a": 1, "training": 1})  # and no facts beside the result
    loose, strict = changes(*two), changes(*two, strict=True)
    assert loose.passed
    assert "of 1 units nobody knows what they were made with" in loose.summary()
    assert not strict.passed
    assert strict.table.empty
    assert "training complete, protocol all: nobody knows what they were made with" in strict.summary()


def test_versions_of_what_is_registered_are_compared(two: tuple[Store, Store]) -> None:
    fill(two[0], {"a": A}, versions={"method a": 1, "training": 1})
    fill(two[1], {"a": A}, versions={"method a": 2, "training": 1})
    assert "versions differ: method a 1 → 2" in changes(*two).summary()
    assert "versions differ" not in changes(two[1], two[1]).summary()


def test_a_store_of_before_is_compared_by_what_it_names(two: tuple[Store, Store]) -> None:
    before = {"params": {"width": 8}, "trainer": {"lr": 0.1}, "metrics": []}
    after = {"params": {"width": 16, "dim": 4}, "trainer": {"lr": 0.1, "clip": 1.0}, "metrics": ["accuracy"]}
    fill(two[0], {"a": A}, parameters=before, versions={"torch": "2.6", "sources": "x"})
    fill(two[1], {"a": A}, parameters=after, versions={"method a": 1, "training": 1})
    said = changes(*two).summary()
    assert "parameters differ: a on toy, training complete, protocol all: params.width 8 → 16\n" in said
    assert "versions differ: A names no versions of methods and operators" in said
    back = changes(*two[::-1]).summary()
    assert "parameters differ: a on toy, training complete, protocol all: params.width 16 → 8\n" in back


def test_the_leading_metric_of_the_first_store_is_compared(two: tuple[Store, Store]) -> None:
    fill(two[0], {"a": A}, metrics=["f1", "accuracy"])
    fill(two[1], {"a": A}, metrics=["accuracy", "f1"])
    leading = changes(*two).table
    assert leading["metric"].tolist() == ["f1"] * 3
    assert leading[["a", "b"]].iloc[0].tolist() == pytest.approx([0.8, 0.8])
    assert changes(*two, metric="accuracy").table["metric"].tolist() == ["accuracy"] * 3
    with pytest.raises(UnknownName, match="unknown metric of this store 'f2'"):
        changes(*two, metric="f2")


def test_a_metric_that_the_second_store_lacks_is_named(two: tuple[Store, Store]) -> None:
    fill(two[0], {"a": A}, metrics=["f1"])
    fill(two[1], {"a": A})
    with pytest.raises(UnknownName, match="unknown metric of toy in B 'f1'"):
        changes(*two)


def test_stores_with_nothing_in_common(two: tuple[Store, Store]) -> None:
    fill(two[0], {"a": A})
    found = changes(*two)
    assert found.table.empty
    assert found.only_a == [("toy", "all", "a", "complete", "")]
    assert "nothing in common" in found.summary()
    assert not found.worse
