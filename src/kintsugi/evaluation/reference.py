"""Robustness to corruption against clean data and against a declared reference: mCE, mRA, effective robustness.

No model is the reference by default: its values are an argument, so that a number cannot depend on who else is listed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from kintsugi.core.errors import DataError
from kintsugi.evaluation.measures import declared, degradation_slope, numbers

Grid = Mapping[str, Mapping[float, float]]  # corruption -> severity -> value


def corruption_errors(errors: Grid, reference: Grid) -> dict[str, float]:
    """CE of each corruption: sum over severities of the errors / the same of the reference.

    Args:
        errors: corruption -> severity -> error, say 1 - accuracy.
        reference: the same of the declared reference model.

    Raises:
        DataError: corruptions or severities differ, or the reference makes no error in a corruption.
    """
    return _ratios(errors, reference, 0.0, 0.0, "mCE", "makes no error")


@declared(
    "mce",
    higher_is_better=False,
    formula="mean_c [sum_s E_{c,s} / sum_s E^ref_{c,s}]",
    source="Hendrycks and Dietterich 2019",
)
def mean_corruption_error(errors: Grid, reference: Grid) -> float:
    """mCE against a declared reference, as a ratio: 1 is as the reference (the paper prints it times 100).

    Args and errors as for :func:`corruption_errors`.
    """
    return float(np.mean(list(corruption_errors(errors, reference).values())))


@declared(
    "relative_mce",
    higher_is_better=False,
    formula="mean_c [sum_s (E_{c,s} - E_clean) / sum_s (E^ref_{c,s} - E^ref_clean)]",
    source="Hendrycks and Dietterich 2019",
)
def relative_mean_corruption_error(errors: Grid, clean: float, reference: Grid, reference_clean: float) -> float:
    """Relative mCE: how much more is lost to corruption than the reference loses; 1 is as much.

    It is unstable where the reference hardly degrades, and undefined where it does not degrade.

    Args:
        errors: corruption -> severity -> error.
        clean: error on clean data.
        reference: corruption -> severity -> error of the declared reference model.
        reference_clean: its error on clean data.

    Raises:
        DataError: corruptions or severities differ, or the reference does not degrade in a corruption.
    """
    ratios = _ratios(errors, reference, clean, reference_clean, "relative mCE", "does not degrade")
    return float(np.mean(list(ratios.values())))


@declared(
    "mra",
    higher_is_better=True,
    formula="mean_c mean_s M_{c,s} / M_clean",
    source="MultiCorrupt (Beemelmanns et al. 2024); Robo3D (Kong et al. 2023) calls it mRR",
)
def mean_resistance(values: Grid, clean: float) -> float:
    """mRA, mean resistance ability: share of the clean value that is left; for metrics of which more is better.

    Args:
        values: corruption -> severity -> metric.
        clean: the metric on clean data.

    Raises:
        DataError: there are no values, or the clean one is not above 0.
    """
    if not clean > 0:
        raise DataError(f"mRA: the clean value is {clean:g}, and a share of it needs one above 0")
    _same_grid(values, values, "mRA")
    return float(np.mean([np.mean(list(row.values())) / clean for row in values.values()]))


@declared(
    "mrra",
    higher_is_better=True,
    formula="mean_c [sum_s M_{c,s} / sum_s M^ref_{c,s} - 1]",
    source="MultiCorrupt (Beemelmanns et al. 2024)",
)
def mean_relative_resistance(values: Grid, reference: Grid) -> float:
    """mRRA: how much more is left under corruption than of the reference; 0 is as much.

    Args:
        values: corruption -> severity -> metric of which more is better.
        reference: the same of the declared reference model.

    Raises:
        DataError: corruptions or severities differ, or the reference is at 0 in a corruption.
    """
    ratios = _ratios(values, reference, 0.0, 0.0, "mRRA", "is not above 0")
    return float(np.mean(list(ratios.values()))) - 1


class LogitFit(NamedTuple):
    """logit(shifted accuracy) = intercept + slope * logit(clean accuracy)."""

    slope: float
    intercept: float

    def expected(self, clean: float) -> float:
        """Shifted accuracy that the reference models lead to expect of this clean accuracy."""
        return float(1 / (1 + np.exp(-(self.intercept + self.slope * _logit([clean], "clean accuracy")[0]))))


def fit_reference(clean: Sequence[float], shifted: Sequence[float]) -> LogitFit:
    """Least-squares line through the logits of the accuracies of reference models, ``[R]`` each.

    Raises:
        DataError: fewer than two different clean accuracies, or one that is not between 0 and 1.
    """
    x = _logit(clean, "clean accuracies of the reference models")
    y = _logit(shifted, "shifted accuracies of the reference models")
    slope = degradation_slope(x.tolist(), y.tolist())
    return LogitFit(slope, float(y.mean() - slope * x.mean()))


@declared(
    "effective_robustness",
    higher_is_better=True,
    formula="acc_shift - sigmoid(a + b logit(acc_clean)), a and b fitted on reference models",
    source="Taori et al. 2020",
)
def effective_robustness(clean: float, shifted: float, fit: LogitFit) -> float:
    """Accuracy under shift beyond what the clean accuracy leads to expect, as a difference of accuracies.

    Args:
        clean: accuracy on clean data, between 0 and 1.
        shifted: accuracy under shift.
        fit: of reference models, by :func:`fit_reference`.

    Raises:
        DataError: the clean accuracy is not between 0 and 1.
    """
    return shifted - fit.expected(clean)


# checks ------------------------------------------------------------------------------------------------------------


def _logit(accuracies: Sequence[float], what: str) -> np.ndarray:
    (p,) = numbers("effective robustness", **{what: accuracies})
    for value in p:
        if not 0 < value < 1:
            raise DataError(f"effective robustness: {what}: {value:g} has no logit; give shares between 0 and 1")
    return np.asarray(np.log(p) - np.log1p(-p))


def _same_grid(values: Grid, reference: Grid, what: str) -> None:
    if not values:
        raise DataError(f"{what}: no corruptions; give corruption -> severity -> value")
    if odd := sorted(set(values) ^ set(reference)):
        raise DataError(f"{what}: only one of the model and the reference has {', '.join(odd)}; give both the same")
    for name, row in values.items():
        if not row or set(row) != set(reference[name]):
            have, want = sorted(row), sorted(reference[name])
            raise DataError(f"{what}: {name} has severities {have} and the reference {want}; give both the same")
        numbers(f"{what} of {name}", values=row.values(), reference=reference[name].values())


def _ratios(
    values: Grid, reference: Grid, clean: float, reference_clean: float, what: str, fault: str
) -> dict[str, float]:
    _same_grid(values, reference, what)
    ratios = {}
    for name, row in values.items():
        below = sum(v - reference_clean for v in reference[name].values())
        if not below > 0:
            raise DataError(
                f"{what}: the reference {fault} in {name}; leave that corruption out or declare another one"
            )
        ratios[name] = sum(v - clean for v in row.values()) / below
    return ratios
