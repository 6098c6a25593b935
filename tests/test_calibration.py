"""Calibration, selection and detection, against values worked out by hand and against other implementations."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score
from torchmetrics.functional.classification import binary_calibration_error

from kintsugi.core.errors import ConfigError, DataError
from kintsugi.evaluation.calibration import (
    adaptive_calibration_error,
    aurc,
    brier_score,
    excess_aurc,
    expected_calibration_error,
    negative_log_likelihood,
    optimal_aurc,
    reliability_diagram,
    risk_coverage,
    selective_risk,
)
from kintsugi.evaluation.detection import detection_aupr, detection_auroc, detection_fpr95, localisation

RNG = np.random.default_rng(0)
SURE = RNG.random(500)
RIGHT = RNG.random(500) < SURE**2


# calibration -------------------------------------------------------------------------------------------------------
def test_ece_by_hand() -> None:
    # bins of 0.5: (0.2, 0.4 | one of two right), (0.9 | right): 2/3 * |0.5 - 0.3| + 1/3 * |1 - 0.9|
    assert expected_calibration_error([0.2, 0.9, 0.4], [0, 1, 1], bins=2) == pytest.approx(0.5 / 3)


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_ece_is_that_of_torchmetrics(bins: int) -> None:
    """Its binary form takes the probability of class 1 as the confidence and the class as right or wrong."""
    theirs = binary_calibration_error(torch.tensor(SURE), torch.tensor(RIGHT).int(), n_bins=bins)
    assert expected_calibration_error(SURE, RIGHT, bins=bins) == pytest.approx(float(theirs), abs=1e-6)


def test_bins_are_closed_above() -> None:
    diagram = reliability_diagram([0.0, 0.5, 0.75, 1.0], [0, 1, 1, 1], bins=4)
    assert diagram[["low", "high", "count"]].to_numpy().tolist() == [
        [0, 0.25, 1],
        [0.25, 0.5, 1],
        [0.5, 0.75, 1],
        [0.75, 1, 1],
    ]
    assert diagram["gap"].tolist() == [0, 0.5, 0.25, 0]


def test_adaptive_bins_hold_as_many_rows_each() -> None:
    sure, right = [0.9, 0.8, 0.95, 0.99], [1, 0, 0, 1]
    diagram = reliability_diagram(sure, right, bins=2, adaptive=True)
    assert diagram["count"].tolist() == [2, 2]
    assert diagram[["low", "high"]].to_numpy().tolist() == [[0.8, 0.9], [0.95, 0.99]]
    # (|0.5 - 0.85| + |0.5 - 0.97|) / 2, where equal widths would put all four into one bin
    assert adaptive_calibration_error(sure, right, bins=2) == pytest.approx(0.41)
    assert expected_calibration_error(sure, right, bins=2) == pytest.approx(0.41)
    assert expected_calibration_error(sure, [0, 0, 1, 1], bins=2) == pytest.approx(0.41)
    assert adaptive_calibration_error(sure, [0, 0, 1, 1], bins=2) == pytest.approx((0.85 + 0.03) / 2)


def test_the_order_of_ties_has_no_say() -> None:
    sure = [0.6, 0.6, 0.6, 0.6, 0.9]
    found = {
        (round(adaptive_calibration_error(sure, [*right, 1], bins=3), 12), round(aurc(sure, [*right, 1]), 12))
        for right in permutations([0, 0, 1, 1])
    }
    assert len(found) == 1


def test_brier_and_nll() -> None:
    p, y = [[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]], [0, 1]
    assert brier_score(p, y) == pytest.approx((0.09 + 0.04 + 0.01 + 0.01 + 0.49 + 0.36) / 2)
    assert negative_log_likelihood(p, y) == pytest.approx(-(math.log(0.7) + math.log(0.3)) / 2)
    many = RNG.dirichlet(np.ones(4), 100)
    target = RNG.integers(4, size=100)
    assert negative_log_likelihood(many, target) == pytest.approx(log_loss(target, many, labels=range(4)))
    assert negative_log_likelihood([[1.0, 0.0]], [1]) == pytest.approx(7 * math.log(10))


def test_what_cannot_be_calibrated() -> None:
    with pytest.raises(DataError, match=r"confidence\[1\] is 1.5"):
        expected_calibration_error([0.5, 1.5], [1, 0])
    with pytest.raises(DataError, match=r"\(2,\) and correct \(1,\)"):
        expected_calibration_error([0.5, 0.5], [1])
    with pytest.raises(DataError, match="not scores"):
        brier_score([[2.0, -1.0]], [0])
    with pytest.raises(DataError, match="classes 0 to 1"):
        brier_score([[0.5, 0.5]], [2])
    with pytest.raises(ConfigError, match="at least one"):
        expected_calibration_error([0.5], [1], bins=0)


# selection ---------------------------------------------------------------------------------------------------------
def test_aurc_by_hand() -> None:
    # surest first: right, wrong, right, wrong -> 0, 1/2, 1/3, 1/2
    sure, wrong = [0.6, 0.9, 0.7, 0.8], [1, 0, 0, 1]
    assert risk_coverage(sure, wrong)["risk"].tolist() == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert aurc(sure, wrong) == pytest.approx(1 / 3)
    # the best order has the two wrong ones last: 0, 0, 1/3, 1/2
    assert optimal_aurc(wrong) == pytest.approx(5 / 24)
    assert excess_aurc(sure, wrong) == pytest.approx(1 / 8)


def test_the_optimum_is_the_least_of_all_orders() -> None:
    risk = np.array([0.3, 0.0, 2.0, 0.7, 0.1])
    tried = [aurc(np.array(order, dtype=float), risk) for order in permutations(range(5))]
    assert optimal_aurc(risk) == pytest.approx(min(tried))
    assert excess_aurc(-risk, risk) == pytest.approx(0)


def test_the_optimum_tends_to_the_formula_of_the_paper() -> None:
    wrong = np.arange(20000) < 4000
    assert optimal_aurc(wrong) == pytest.approx(0.2 + 0.8 * math.log(0.8), abs=1e-4)


def test_a_confidence_that_says_nothing_has_the_error_rate_as_aurc() -> None:
    assert aurc(np.ones(10), np.arange(10) < 3) == pytest.approx(0.3)


def test_selective_risk() -> None:
    sure, wrong = np.arange(10)[::-1], np.arange(10) >= 6  # the four least sure are wrong
    found = [selective_risk(sure, wrong, c) for c in (0.05, 0.6, 0.7, 0.75, 1.0)]
    assert found == pytest.approx([0, 0, 1 / 7, 2 / 8, 0.4])
    with pytest.raises(ConfigError, match="coverage 0"):
        selective_risk(sure, wrong, 0.0)
    with pytest.raises(DataError, match=r"risk\[0\] is -1"):
        aurc([1.0, 2.0], [-1, 0])


# detection ---------------------------------------------------------------------------------------------------------
def test_detection_by_hand() -> None:
    reliability, damaged = [0.1, 0.3, 0.2, 0.9], [True, True, False, False]
    assert detection_auroc(reliability, damaged) == pytest.approx(3 / 4)
    # falling suspicion: hit (precision 1), false alarm, hit (2/3)
    assert detection_aupr(reliability, damaged) == pytest.approx((1 + 2 / 3) / 2)
    assert detection_fpr95(reliability, damaged) == pytest.approx(1 / 2)


def test_auroc_is_that_of_scikit_learn_with_ties() -> None:
    damaged = RNG.random(300) < 0.3
    reliability = (RNG.random(300) - 0.2 * damaged).round(1)
    assert detection_auroc(reliability, damaged) == pytest.approx(roc_auc_score(damaged, -reliability))
    assert detection_auroc(np.ones(4), [1, 0, 0, 1]) == pytest.approx(0.5)


def test_fpr95_may_miss_one_of_twenty() -> None:
    damaged = np.arange(40) < 20
    reliability = np.where(damaged, 0.1, 0.5)
    reliability[0] = 0.9  # missed
    assert detection_fpr95(reliability, damaged) == 0
    reliability[1] = 0.9  # two missed are too many, and at 0.9 every row is flagged
    assert detection_fpr95(reliability, damaged) == 1
    assert detection_fpr95(np.ones(40), damaged) == 1  # one score for all: flagging the damaged flags the clean


def test_localisation() -> None:
    r = np.array([[0.1, 0.5, 0.9], [0.2, 0.2, 0.9], [0.9, 0.8, 0.1], [0.0, 0.0, 0.0]])
    damaged = np.array([0, 1, 1, -1])
    # right, one of two that tie, wrong; the clean row does not count
    assert localisation(r, damaged) == pytest.approx(0.5)
    present = np.ones((4, 3), dtype=bool)
    present[2, 2] = False  # what was wrongly suspected is not there
    r[2, 2] = math.nan
    assert localisation(r, damaged, present) == pytest.approx(2.5 / 3)


def test_what_cannot_be_detected() -> None:
    with pytest.raises(DataError, match="2 of 2 rows"):
        detection_auroc([0.1, 0.2], [1, 1])
    with pytest.raises(DataError, match="no row is damaged"):
        localisation([[0.1, 0.2]], [-1])
    with pytest.raises(DataError, match="lacks"):
        localisation([[0.1, 0.2]], [1], [[True, False]])
    with pytest.raises(DataError, match="outside 0 to 1"):
        localisation([[0.1, 0.2]], [2])
