"""Measures of robustness, against values worked out by hand; the table of the docs against the registry."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from kintsugi.core.errors import DataError
from kintsugi.evaluation.measures import (
    MEASURES,
    auilc,
    curve_area,
    degradation_slope,
    equity,
    recovery_gain,
    relative_drop,
    worst,
)
from kintsugi.evaluation.reference import (
    corruption_errors,
    effective_robustness,
    fit_reference,
    mean_corruption_error,
    mean_relative_resistance,
    mean_resistance,
    relative_mean_corruption_error,
)

DOCS = Path(__file__).parents[1] / "docs" / "measures.rst"


# curves ------------------------------------------------------------------------------------------------------------
def test_area_is_a_mean_of_the_metric() -> None:
    # trapezoids: 0.1 * 0.85 + 0.4 * 0.6 = 0.325, over the range 0.5; in any order
    assert curve_area([0.5, 0.0, 0.1], [0.4, 0.9, 0.8]) == pytest.approx(0.65)
    assert auilc([0.5, 0.0, 0.1], [0.4, 0.9, 0.8]) == pytest.approx(0.325)
    assert curve_area([1, 3, 5], [0.7, 0.7, 0.7]) == pytest.approx(0.7)


def test_slope_is_numpys() -> None:
    x, v = [0, 1, 3, 5], [0.9, 0.7, 0.72, 0.3]
    assert degradation_slope(x, v) == pytest.approx(np.polyfit(x, v, 1)[0])
    assert degradation_slope([0, 2], [0.9, 0.5]) == pytest.approx(-0.2)


def test_worst_goes_by_the_direction() -> None:
    assert worst([0.3, 0.1, 0.2], higher_is_better=True) == 0.1
    assert worst([0.3, 0.1, 0.2], higher_is_better=False) == 0.3


@pytest.mark.parametrize(
    ("x", "values", "said"),
    [
        ([0, 1], [0.5], "2 x, 1 values"),
        ([1, 1], [0.5, 0.6], "two different"),
        ([0, 1], [0.5, math.nan], r"values\[1\] is nan"),
        ([], [], "empty"),
    ],
)
def test_a_curve_that_is_none(x: list[float], values: list[float], said: str) -> None:
    for function in (curve_area, auilc, degradation_slope):
        with pytest.raises(DataError, match=said):
            function(x, values)


# corruptions -------------------------------------------------------------------------------------------------------
MINE = {"noise": {1: 0.2, 3: 0.4}, "blur": {1: 0.3, 3: 0.3}}
ALEX = {"noise": {1: 0.5, 3: 0.7}, "blur": {1: 0.4, 3: 0.8}}


def test_mce_sums_before_it_divides() -> None:
    assert corruption_errors(MINE, ALEX) == pytest.approx({"noise": 0.5, "blur": 0.5})
    uneven = {"noise": {1: 0.1, 3: 0.9}, "blur": {1: 0.3, 3: 0.3}}
    # noise: 1.0 / 1.2, not (0.1 / 0.5 + 0.9 / 0.7) / 2
    assert mean_corruption_error(uneven, ALEX) == pytest.approx((1.0 / 1.2 + 0.5) / 2)
    assert mean_corruption_error(ALEX, ALEX) == pytest.approx(1)


def test_relative_mce_subtracts_clean_errors() -> None:
    # noise: (0.1 + 0.3) / (0.2 + 0.4), blur: (0.2 + 0.2) / (0.1 + 0.5)
    assert relative_mean_corruption_error(MINE, 0.1, ALEX, 0.3) == pytest.approx(2 / 3)
    with pytest.raises(DataError, match="does not degrade in noise"):
        relative_mean_corruption_error(MINE, 0.1, ALEX, 0.6)


def test_resistance() -> None:
    accuracy = {"noise": {1: 0.6, 3: 0.4}, "blur": {1: 0.8}}
    # against clean 0.8: (0.75 + 0.5) / 2 = 0.625 and 1: each corruption counts once, whatever its severities
    assert mean_resistance(accuracy, 0.8) == pytest.approx(0.8125)
    base = {"noise": {1: 0.5, 3: 0.3}, "blur": {1: 0.4}}
    assert mean_relative_resistance(accuracy, base) == pytest.approx((0.25 + 1.0) / 2)
    with pytest.raises(DataError, match="above 0"):
        mean_resistance(accuracy, 0.0)


def test_the_reference_has_the_same_conditions() -> None:
    with pytest.raises(DataError, match="blur"):
        mean_corruption_error(MINE, {"noise": ALEX["noise"]})
    with pytest.raises(DataError, match=r"noise has severities \[1, 3\] and the reference \[1\]"):
        mean_corruption_error(MINE, {**ALEX, "noise": {1: 0.5}})
    with pytest.raises(DataError, match="makes no error in blur"):
        mean_corruption_error(MINE, {**ALEX, "blur": {1: 0.0, 3: 0.0}})


def test_effective_robustness_is_zero_on_the_line() -> None:
    def through(clean: float) -> float:  # logit(shifted) = 0.5 logit(clean) - 1
        return 1 / (1 + math.exp(1 - 0.5 * math.log(clean / (1 - clean))))

    cleans = [0.6, 0.7, 0.9]
    fit = fit_reference(cleans, [through(c) for c in cleans])
    assert (fit.slope, fit.intercept) == pytest.approx((0.5, -1.0))
    assert effective_robustness(0.8, through(0.8), fit) == pytest.approx(0, abs=1e-12)
    # logit(0.8) = ln 4, so sigmoid(ln 2 - 1) = 2 / (2 + e)
    assert effective_robustness(0.8, 0.5, fit) == pytest.approx(0.5 - 2 / (2 + math.e))
    for bad in ([0.6, 1.0, 0.9], [0.6, 0.6, 0.6]):
        with pytest.raises(DataError, match=r"logit|two different"):
            fit_reference(bad, [0.3, 0.4, 0.5])


# recovery and equity -----------------------------------------------------------------------------------------------
def test_recovery_gain() -> None:
    assert recovery_gain(0.7, 0.5, 0.9) == pytest.approx(0.5)
    assert recovery_gain(0.4, 0.5, 0.9) == pytest.approx(-0.25)
    # an error that rose from 0.1 to 0.5 and is brought down to 0.2
    assert recovery_gain(0.2, 0.5, 0.1, higher_is_better=False) == pytest.approx(0.75)


@pytest.mark.parametrize(("plain", "noise"), [(0.9, 0.0), (0.95, 0.0), (0.88, 0.03)])
def test_nothing_to_recover(plain: float, noise: float) -> None:
    """No damage, a corruption that helps, damage within noise."""
    assert math.isnan(recovery_gain(0.93, plain, 0.9, noise=noise))


def test_nothing_to_recover_of_an_error() -> None:
    assert math.isnan(recovery_gain(0.1, 0.1, 0.2, higher_is_better=False))


def test_equity_goes_from_one_over_m_to_one() -> None:
    assert equity({"a": 0.2, "b": 0.2, "c": 0.2}) == pytest.approx(1)
    assert equity({"a": 0.2, "b": 0.0, "c": -0.1}) == pytest.approx(1 / 3)
    assert equity({"a": 0.3, "b": 0.1}) == pytest.approx(0.16 / (2 * 0.10))
    assert math.isnan(equity({"a": -0.1, "b": 0.0}))


def test_drop() -> None:
    assert relative_drop(0.8, 0.6) == pytest.approx(0.25)
    with pytest.raises(DataError, match="above 0"):
        relative_drop(0.0, 0.0)


# the registry ------------------------------------------------------------------------------------------------------
def documented() -> dict[str, list[str]]:
    """Name -> the other cells, from the list tables of the page."""
    rows: dict[str, list[str]] = {}
    cells: list[str] = []
    for line in DOCS.read_text().splitlines():
        if line.startswith("   * - ``"):
            cells = rows[line.split("``")[1]] = []
        elif not line.startswith("     - "):
            cells = []  # the heads of a table belong to no measure
        else:
            cells.append(line[7:].strip("`"))
    return rows


def test_the_page_lists_every_measure_as_it_is_declared() -> None:
    listed = documented()
    for name in MEASURES:
        one = MEASURES[name]
        assert listed.pop(name) == [one.formula, one.direction, one.source]
    assert not listed
