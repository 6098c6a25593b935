"""A store in one line a method: every figure against one worked out by hand, on tables of a few lines."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kintsugi.bench import Record, Store, Trial
from kintsugi.bench.export import COLUMNS
from kintsugi.bench.figures import figures, figures_of
from kintsugi.core.errors import UnknownName
from kintsugi.evaluation.intervals import seed_interval
from kintsugi.evaluation.protocols import Condition, Protocol
from kintsugi.evaluation.reference import (
    effective_robustness,
    fit_reference,
    mean_corruption_error,
    relative_mean_corruption_error,
)
from kintsugi.evaluation.summary import summarise

NOISE, FOG = "corruption/noise(image)", "corruption/fog(image)"
ALL: dict[str, tuple[str, float, float]] = {  # condition -> group, x, value
    "clean": ("clean", 0.0, 0.9),
    "image": ("subset", math.nan, 0.6),
    "speech": ("subset", math.nan, 0.5),
    "mcar(0.25)": ("rate/mcar", 0.25, 0.8),
    "mcar(0.5)": ("rate/mcar", 0.5, 0.6),
    "noise(image, 1)": (NOISE, 1.0, 0.8),
    "noise(image, 3)": (NOISE, 3.0, 0.4),
    "fog(image, 1)": (FOG, 1.0, 0.9),
    "fog(image, 3)": (FOG, 3.0, 0.7),
}
DAMAGED = {name: ALL[name] for name in ("clean", *list(ALL)[5:])}


def values(conditions: Mapping[str, tuple[str, float, float]], *given: float) -> dict[str, tuple[str, float, float]]:
    """The same conditions with other values."""
    return {name: (g, x, v) for (name, (g, x, _)), v in zip(conditions.items(), given, strict=True)}


def lines(
    method: str = "a",
    conditions: Mapping[str, tuple[str, float, float]] = ALL,
    half: float = 0.02,
    **changed: Any,
) -> pd.DataFrame:
    """The rows of one trial, in the columns of a store."""
    said = {
        "dataset": "toy", "method": method, "seed": 0, "training": "complete", "metric": "accuracy", "n": 100,
        "higher_is_better": True, "mask_hash": "", "parameters": "{}", "protocol": "all", "fingerprint": "f00d",
        "origin": "", "started": 1.0,
    } | changed  # fmt: skip
    name = "/".join(str(said[k]) for k in ("dataset", "method", "seed", "training", "protocol", "parameters", "origin"))
    rows = [
        {"trial": name, **said, "condition": c, "group": g, "x": x, "value": v, "low": v - half, "high": v + half}
        for c, (g, x, v) in conditions.items()
    ]
    return pd.DataFrame(rows, columns=[*COLUMNS, "started"])


def table(*parts: pd.DataFrame) -> pd.DataFrame:
    return pd.concat(parts, ignore_index=True)


def only(found: pd.DataFrame, method: str = "a", **where: Any) -> dict[str, Any]:
    for column, value in {"method": method, **where}.items():
        found = found[found[column] == value]
    assert len(found) == 1
    return {str(k): v for k, v in found.iloc[0].to_dict().items()}


def trial_of(
    method: str = "a", seed: int = 0, conditions: Mapping[str, tuple[str, float, float]] = ALL, **changed: Any
) -> Trial:
    protocol = Protocol(
        changed.pop("protocol", "all"), tuple(_condition(c, g, x) for c, (g, x, _) in conditions.items())
    )
    said: dict[str, Any] = {
        "parameters": {}, "dataset": "toy", "fingerprint": "f00d", "training": "complete", "versions": {"torch": "2.6"},
    } | changed  # fmt: skip
    return Trial(method=method, seed=seed, protocol=protocol, **said)


def _condition(name: str, group: str, x: float) -> Condition:
    keep = tuple(k for k in name.split(" + ") if k != "nothing") if group == "subset" else None
    return Condition(name, group, keep=keep, x=None if math.isnan(x) else x)


def record(frame: pd.DataFrame, facts: dict[str, Any] | None = None, **changed: Any) -> Record:
    """What a store knows of a trial whose rows were made by :func:`lines`: its hash is what they say."""
    trial = trial_of(frame["method"].iloc[0], **changed)
    trial.__dict__["hash"] = frame["trial"].iloc[0]
    return Record(trial, "done", "", 1.0, 1.0, "", facts or {})


def keep(
    store: Store,
    conditions: Mapping[str, tuple[str, float, float]] = ALL,
    half: float = 0.02,
    facts: dict[str, Any] | None = None,
    metrics: Iterable[str] = ("accuracy",),
    higher: bool = True,
    **about: Any,
) -> Trial:
    """Store a trial with these values, F1 0.05 below them."""
    trial = trial_of(conditions=conditions, **about)
    names = {"seed": trial.seed, "training": trial.training, "dataset": trial.dataset, "higher_is_better": higher}
    lower = {n: (g, x, v - 0.05) for n, (g, x, v) in conditions.items()}
    parts = [lines(trial.method, lower if m == "f1" else conditions, half, metric=m, **names) for m in metrics]
    frame = table(*parts).assign(seconds=0.1)
    store.claim(trial)
    store.finish(trial, frame, facts=facts)
    return trial


# one trial ----------------------------------------------------------------------------------------------------------
def test_scores_of_one_trial_by_hand() -> None:
    found = only(figures_of(lines()))
    expected = {
        "clean": 0.9,
        "mean": (0.6 + 0.5 + 0.8 + 0.6 + 0.8 + 0.4 + 0.9 + 0.7) / 8,
        "worst": 0.4,
        "subset_mean": 2 / 3,
        "subset_worst": 0.5,
        "rate_mean": 0.7,
        "rate_area": 0.775,  # (0.25 * 0.85 + 0.25 * 0.7) / 0.5
        "auilc": 0.3875,
        "corruption_mean": 0.7,
        "corruption_area": ((0.85 + 2 * 0.6) / 3 + (0.9 + 2 * 0.8) / 3) / 2,
        "retained": 0.6625 / 0.9,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert (found["worst_in"], found["subset_worst_in"]) == ("noise(image, 3)", "speech")
    assert (found["seeds"], found["n"], found["rank"], found["interval"]) == (1, 100, 1, "rows")
    for name in expected.keys() - {"retained", "auilc"}:
        assert (found[f"{name}_low"], found[f"{name}_high"]) == pytest.approx((found[name] - 0.02, found[name] + 0.02))
    assert found["auilc_high"] == pytest.approx(0.3875 + 0.02 * 0.5)


def test_contributions_by_hand() -> None:
    found = only(figures_of(lines()))
    # no modality: 0; so image 0.6/2 + (0.9 - 0.5)/2, speech 0.5/2 + (0.9 - 0.6)/2
    assert (found["contribution:image"], found["contribution:speech"]) == pytest.approx((0.5, 0.4))
    assert found["equity"] == pytest.approx(0.81 / (2 * 0.41))


def test_contributions_start_from_the_condition_that_keeps_nothing() -> None:
    with_none = {**ALL, "nothing": ("subset", math.nan, 0.3)}
    frame = lines(conditions=with_none)
    found = only(figures_of(frame, [record(frame, conditions=with_none)]))
    assert (found["contribution:image"], found["contribution:speech"]) == pytest.approx((0.35, 0.25))


def test_contributions_of_an_error_count_what_it_falls_by_and_need_a_measured_start() -> None:
    errors = {**values(ALL, 1, 4, 6, *([2] * 6)), "nothing": ("subset", math.nan, 7.0)}
    frame = lines(conditions=errors, metric="mae", higher_is_better=False)
    found = only(figures_of(frame, [record(frame, conditions=errors)]))
    assert (found["contribution:image"], found["contribution:speech"]) == pytest.approx((4.0, 2.0))
    bare = figures_of(lines(conditions=values(ALL, 1, 4, 6, *([2] * 6)), metric="mae", higher_is_better=False))
    assert "equity" not in bare


def test_contributions_need_all_subsets() -> None:
    assert "equity" not in figures_of(lines(conditions={n: c for n, c in ALL.items() if n != "speech"}))


def test_columns_that_nobody_fills_stay_out() -> None:
    found = figures_of(lines(conditions={"clean": ALL["clean"]}))
    assert "mean" not in found
    assert "mce" not in found
    assert found["rank"].tolist() == [1]
    assert figures_of(pd.DataFrame(columns=COLUMNS)).empty


def test_the_same_as_the_summary_of_an_evaluation() -> None:
    rng = np.random.default_rng(0)
    parts = [
        lines(m, values(ALL, *rng.random(len(ALL))), seed=s, training=t)
        for m in "abc"
        for s in range(3)
        for t in ("complete", "mcar(0.3)")
    ]
    both = table(*parts)
    mine = figures_of(both).set_index(["method", "training"]).sort_index()
    theirs = summarise(both, "accuracy").set_index(["method", "training"]).sort_index()
    names = ["clean", "mean", "worst", "subset_mean", "subset_worst", "rate_mean", "rate_area", "corruption_mean"]
    names += ["corruption_area"]
    np.testing.assert_allclose(mine[names].to_numpy(float), theirs[names].to_numpy(float), rtol=1e-12)
    assert (mine[["worst_in", "subset_worst_in"]] == theirs[["worst_in", "subset_worst_in"]]).all(axis=None)


# seeds --------------------------------------------------------------------------------------------------------------
def test_intervals_over_seeds() -> None:
    steps = (0.0, 0.03, -0.09)
    found = only(
        figures_of(table(*(lines(conditions={n: (g, x, v + d) for n, (g, x, v) in ALL.items()}, seed=s)
                           for s, d in enumerate(steps))))
    )  # fmt: skip
    assert (found["seeds"], found["interval"]) == (3, "seeds")
    for name, start in (("clean", 0.9), ("mean", 0.6625), ("worst", 0.4), ("rate_area", 0.775)):
        expected = seed_interval([start + d for d in steps])
        assert (found[name], found[f"{name}_low"], found[f"{name}_high"]) == pytest.approx(tuple(expected))


def test_the_worst_condition_is_chosen_after_averaging() -> None:
    one = values(DAMAGED, 0.9, 0.2, 0.5, 0.6, 0.6)
    two = values(DAMAGED, 0.9, 0.8, 0.3, 0.6, 0.6)  # each seed has its own worst; the mean says severity 3
    found = only(figures_of(table(lines(conditions=one), lines(conditions=two, seed=1))))
    assert (found["worst_in"], found["worst"]) == ("noise(image, 3)", pytest.approx(0.4))
    assert found["worst_low"] == pytest.approx(seed_interval([0.5, 0.3]).low)


def test_worst_follows_the_direction() -> None:
    found = only(figures_of(lines(metric="mae", higher_is_better=False)))
    assert found["worst"] == pytest.approx(0.9)
    assert "retained" not in found


def test_means_take_the_intervals_that_the_trial_knows() -> None:
    frame = lines()
    facts = {"means": {"accuracy": {"subset": [0.6667, 0.66, 0.68], "corruption": [0.7, 0.69, 0.72]}}}
    found = only(figures_of(frame, [record(frame, facts)]))
    assert (found["subset_mean_low"], found["subset_mean_high"]) == (0.66, 0.68)
    assert (found["corruption_mean_low"], found["corruption_mean_high"]) == (0.69, 0.72)
    assert found["rate_mean_low"] == pytest.approx(0.68)  # no fact: the mean of the ends


def test_a_guess_is_what_the_trials_know_the_mean_over_seeds() -> None:
    parts = [lines(), lines(seed=1), lines("b"), lines("c")]
    facts = [
        {"guess": {"accuracy": 0.30, "log_loss": 2.0}},
        {"guess": {"accuracy": 0.32}},
        {"guess": {"accuracy": None}},
        {},
    ]
    known = [record(p, f, seed=int(p["seed"].iloc[0])) for p, f in zip(parts, facts, strict=True)]
    found = figures_of(table(*parts), known)
    assert only(found)["guess"] == pytest.approx(0.31)
    assert math.isnan(only(found, "b")["guess"])
    assert math.isnan(only(found, "c")["guess"])
    assert "guess" not in figures_of(table(*parts), [record(parts[0])])


# which results count ------------------------------------------------------------------------------------------------
def test_only_the_latest_edition_counts() -> None:
    old = [lines(seed=s, conditions=values(DAMAGED, 0.1, *[0.1] * 4), parameters='{"w": 1}', started=9.0 + s)
           for s in range(3)]  # fmt: skip
    new = [lines(seed=s, conditions=DAMAGED, parameters='{"w": 2}', started=20.0 + s) for s in range(2)]
    found = only(figures_of(table(*new, *old)))
    assert (found["seeds"], found["clean"]) == (2, pytest.approx(0.9))


def test_versions_and_conditions_tell_editions_apart() -> None:
    old = lines(started=1.0, seed=0).assign(trial="old")
    new = lines(started=2.0, seed=1, conditions=values(ALL, *[0.5] * 9)).assign(trial="new")
    known = [record(old, versions={"torch": "1"}), record(new, versions={"torch": "2"}, seed=1)]
    assert only(figures_of(table(old, new)))["seeds"] == 2  # nothing tells them apart
    assert only(figures_of(table(old, new), known))["clean"] == pytest.approx(0.5)


def test_results_of_others_are_not_mixed_with_ours() -> None:
    found = figures_of(table(lines(), lines(conditions=values(ALL, *[0.95] * 9), origin="paper", started=9.0)))
    assert found["origin"].tolist() == ["paper", ""]
    assert only(found, origin="")["clean"] == pytest.approx(0.9)


# ranks and metrics --------------------------------------------------------------------------------------------------
def test_ranks_are_over_all_training_conditions_with_ties_and_holes_last() -> None:
    parts = [
        lines("a", values(DAMAGED, 0.9, *[0.5] * 4)),
        lines("a", values(DAMAGED, 0.5, *[0.8] * 4), training="mcar(0.3)"),
        lines("b", values(DAMAGED, 0.99, *[0.5] * 4)),
        lines("c", values(DAMAGED, 0.99, 0.9, math.nan, 0.9, 0.9)),
    ]
    found = figures_of(table(*parts))
    assert list(zip(found["method"], found["training"], found["rank"], strict=True)) == [
        ("a", "mcar(0.3)", 1), ("a", "complete", 2), ("b", "complete", 2), ("c", "complete", 4),
    ]  # fmt: skip
    worse = figures_of(table(*parts).assign(higher_is_better=False))
    assert worse["method"].tolist()[-2:] == ["a", "c"]


def test_a_hole_spoils_means_and_is_the_worst() -> None:
    found = only(figures_of(table(lines("a", values(DAMAGED, 0.9, 0.8, math.nan, 0.9, 0.7)), lines("b", DAMAGED))))
    assert math.isnan(found["mean"])
    assert math.isnan(found["corruption_area"])
    assert math.isnan(found["worst"])
    assert found["worst_in"] == "noise(image, 3)"


def test_a_condition_without_a_value_for_anybody_is_left_out() -> None:
    holed = values(DAMAGED, 0.9, 0.8, math.nan, 0.9, 0.7)
    found = only(figures_of(table(lines("a", holed), lines("b", holed))))
    assert found["mean"] == pytest.approx(0.8)


def test_each_data_set_has_its_leading_metric() -> None:
    both = table(lines("a"), lines("a", metric="f1"), lines("b", metric="mae", higher_is_better=False, dataset="other"))
    found = figures_of(both)
    assert found[["dataset", "metric"]].to_numpy().tolist() == [["toy", "accuracy"], ["other", "mae"]]
    assert figures_of(both, metric="f1")["dataset"].tolist() == ["toy"]
    with pytest.raises(UnknownName, match="did you mean 'accuracy'"):
        figures_of(both, metric="acuracy")


# against a reference ------------------------------------------------------------------------------------------------
REFERENCE = values(DAMAGED, 0.9, 0.7, 0.3, 0.8, 0.6)


def grid(conditions: Mapping[str, tuple[str, float, float]]) -> dict[str, dict[float, float]]:
    found: dict[str, dict[float, float]] = {}
    for group, x, value in conditions.values():
        if group != "clean":
            found.setdefault(group, {})[x] = 1 - value
    return found


def test_figures_against_the_reference_by_hand() -> None:
    found = figures_of(table(lines(conditions=DAMAGED), lines("ref", REFERENCE)), reference="ref")
    a = only(found)
    # errors: noise 0.2 + 0.6 of 0.3 + 0.7, fog 0.1 + 0.3 of 0.2 + 0.4; less 0.1 each for the relative ones
    assert a["mce"] == pytest.approx((0.8 / 1.0 + 0.4 / 0.6) / 2)
    assert a["relative_mce"] == pytest.approx((0.6 / 0.8 + 0.2 / 0.4) / 2)
    assert (a["mce_over"], a["relative_mce_over"]) == (2, 2)
    assert a["recovery_gain"] == pytest.approx((0.7 - 0.6) / (0.9 - 0.6))
    assert a["mce"] == pytest.approx(mean_corruption_error(grid(DAMAGED), grid(REFERENCE)))
    assert a["relative_mce"] == pytest.approx(relative_mean_corruption_error(grid(DAMAGED), 0.1, grid(REFERENCE), 0.1))
    ref = only(found, "ref")
    assert (ref["mce"], ref["relative_mce"], ref["recovery_gain"]) == pytest.approx((1, 1, 0))


def test_seeds_are_averaged_before_ratios() -> None:
    other = values(DAMAGED, 0.9, 0.2, 0.2, 0.2, 0.2)
    found = only(
        figures_of(
            table(lines(conditions=DAMAGED), lines("ref", REFERENCE), lines("ref", other, seed=1)), reference="ref"
        )
    )
    assert found["mce"] == pytest.approx((0.8 / 1.3 + 0.4 / 1.1) / 2)


def test_corruptions_without_damage_beyond_noise_are_left_out() -> None:
    both = [lines(conditions=DAMAGED), lines("ref", REFERENCE, half=0.25)]
    a = only(figures_of(table(*both), reference="ref"))
    assert (a["relative_mce"], a["relative_mce_over"]) == (pytest.approx(0.75), 1)  # fog costs the reference 0.2
    assert a["mce_over"] == 2
    wide = only(figures_of(table(both[0], lines("ref", REFERENCE, half=0.35)), reference="ref"))
    assert "recovery_gain" not in wide
    flawless = lines("ref", values(DAMAGED, 0.9, 0.7, 0.3, 1.0, 1.0))
    a = only(figures_of(table(both[0], flawless), reference="ref"))
    assert (a["mce"], a["mce_over"]) == (pytest.approx(0.8), 1)


def test_errors_of_a_metric_of_which_less_is_better_are_its_values() -> None:
    frame = table(lines(conditions=values(DAMAGED, 1, 2, 4, 3, 3)), lines("ref", values(DAMAGED, 1, 3, 5, 2, 2)))
    a = only(figures_of(frame.assign(metric="mae", higher_is_better=False), reference="ref"))
    assert a["mce"] == pytest.approx((6 / 8 + 6 / 4) / 2)
    assert a["relative_mce"] == pytest.approx((4 / 6 + 4 / 2) / 2)
    assert a["recovery_gain"] == pytest.approx((3 - 3) / (1 - 3))


def test_a_score_beyond_one_has_no_error() -> None:
    frame = table(lines(conditions=values(DAMAGED, 2, 1, 1, 1, 1)), lines("ref", REFERENCE))
    found = figures_of(frame, reference="ref")
    assert "mce" not in found
    assert only(found)["recovery_gain"] == pytest.approx((1 - 0.6) / 0.3)


def test_the_reference_has_the_same_training_or_complete_rows() -> None:
    frame = table(
        lines(conditions=DAMAGED, training="mcar(0.3)"),
        lines(conditions=DAMAGED, training="mcar(0.5)"),
        lines("ref", REFERENCE),
        lines("ref", values(DAMAGED, 0.9, 0.6, 0.0, 0.6, 0.2), training="mcar(0.3)"),
    )
    found = figures_of(frame, reference="ref")
    assert only(found, training="mcar(0.3)")["mce"] == pytest.approx((0.8 / 1.4 + 0.4 / 1.2) / 2)
    assert only(found, training="mcar(0.5)")["mce"] == pytest.approx((0.8 / 1.0 + 0.4 / 0.6) / 2)


def test_other_conditions_than_the_reference_give_no_ratio() -> None:
    fewer = {n: c for n, c in DAMAGED.items() if n != "fog(image, 3)"}
    found = figures_of(table(lines(conditions=fewer), lines("b", DAMAGED), lines("ref", REFERENCE)), reference="ref")
    assert math.isnan(only(found)["mce"])
    assert only(found, "b")["mce"] == pytest.approx((0.8 / 1.0 + 0.4 / 0.6) / 2)


def test_effective_robustness_is_fitted_on_the_declared_methods_only() -> None:
    points = {"r1": (0.9, 0.6), "r2": (0.7, 0.4), "a": (0.8, 0.7)}
    frame = table(*(lines(m, values(DAMAGED, c, *[s] * 4)) for m, (c, s) in points.items()))
    found = figures_of(frame, reference=["r1", "r2"])
    fit = fit_reference([0.9, 0.7], [0.6, 0.4])
    assert only(found)["effective_robustness"] == pytest.approx(effective_robustness(0.8, 0.7, fit))
    assert only(found, "r1")["effective_robustness"] == pytest.approx(0, abs=1e-12)
    assert "effective_robustness" not in figures_of(frame, reference="r1")


def test_an_unknown_reference_is_named() -> None:
    with pytest.raises(
        UnknownName, match="unknown reference among the methods of this store 'late_fusio'; did you mean"
    ):
        figures_of(lines("late_fusion"), reference="late_fusio")
    assert "mce" not in figures_of(lines(conditions=DAMAGED))


# beside the metric --------------------------------------------------------------------------------------------------
def test_calibration_and_detection() -> None:
    def beside(metric: str, *given: float, seed: int) -> pd.DataFrame:
        return lines(conditions=values(DAMAGED, *given), metric=metric, seed=seed)

    parts = [lines(conditions=DAMAGED, seed=s) for s in range(2)]
    parts += [beside("ece", 0.1, 0.1, 0.2, 0.3, 0.4, seed=0), beside("ece", 0.3, 0.5, 0.5, 0.5, 0.5, seed=1)]
    parts += [beside("aurc", 0.2, 0.4, 0.4, 0.4, 0.4, seed=0)]
    detected = beside("detection_auroc", 0.0, 0.6, 0.8, math.nan, 0.7, seed=0)  # clean rows do not count
    found = only(figures_of(table(*parts, detected)))
    assert (found["ece_clean"], found["ece_degraded"]) == pytest.approx((0.2, 0.375))
    assert (found["aurc_clean"], found["aurc_degraded"]) == pytest.approx((0.2, 0.4))
    assert found["detection_auroc"] == pytest.approx(0.7)
    assert "localisation" not in found


def test_costs_are_those_of_the_method_whatever_it_was_trained_on() -> None:
    def cell(subset: list[str], size: int, start: float) -> dict[str, Any]:
        keys = ("flops", "p50", "p95", "memory")
        return {"subset": subset, "batch_size": size} | {k: start + i for i, k in enumerate(keys)}

    cells = [cell(["image", "speech"], 1, 10), cell(["image"], 1, 20), cell(["image", "speech"], 64, 30)]
    facts = {"costs": {"parameters": 7, "cells": cells}, "training": {"seconds": 4.0}, "evaluation": {"seconds": 1.0}}
    frames = [lines(), lines(seed=1), lines(training="mcar(0.3)"), lines("b")]
    known = [
        record(frames[0], facts),
        record(frames[1], {"training": {"seconds": 6.0}}, seed=1),
        record(frames[2], {"training": {"seconds": 9.0}}, training="mcar(0.3)"),
        record(frames[3]),
    ]
    found = figures_of(table(*frames), known)
    for training, seconds in (("complete", 5.0), ("mcar(0.3)", 9.0)):
        a = only(found, training=training)
        assert [a[k] for k in ("parameters", "flops", "p50_1", "p95_1", "p50_64", "memory_64")] == [
            7,
            10,
            11,
            12,
            31,
            33,
        ]
        assert a["train_seconds"] == seconds
    assert only(found, training="complete")["evaluate_seconds"] == 1.0
    assert math.isnan(only(found, "b")["parameters"])


# a store ------------------------------------------------------------------------------------------------------------
def test_figures_of_a_store(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    for seed in range(2):
        keep(store, DAMAGED, seed=seed, facts={"training": {"seconds": 2.0 + seed}})
    keep(store, REFERENCE, method="ref", half=0.01)
    store.add([trial_of("never run")])
    found = figures(store, reference="ref")
    assert found["method"].tolist() == ["a", "ref"]
    a = only(found)
    assert (a["seeds"], a["train_seconds"]) == (2, 2.5)
    assert a["mce"] == pytest.approx((0.8 / 1.0 + 0.4 / 0.6) / 2)
    assert json.loads(found.to_json(orient="records"))[0]["protocol"] == "all"
