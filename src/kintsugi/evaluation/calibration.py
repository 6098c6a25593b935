"""Does confidence mean what it says (calibration), and does it know which answers to withhold (selection)?

Confidence is a number of which more is surer; ties are treated as their average, so that the order of rows has no say.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from kintsugi.core.errors import ConfigError, DataError
from kintsugi.evaluation.measures import declared

BINS = 15  # Guo et al. 2017
SMALLEST = 1e-7  # probabilities are clipped there, as in the metric log_loss of the tasks
Floats = NDArray[np.float64]


# calibration -------------------------------------------------------------------------------------------------------


def reliability_diagram(
    confidence: ArrayLike, correct: ArrayLike, *, bins: int = BINS, adaptive: bool = False
) -> pd.DataFrame:
    """What a reliability diagram shows, one row a bin that is not empty.

    Columns: ``low`` and ``high`` (the bin's edges, or its least and greatest confidence with ``adaptive``), ``count``,
    ``confidence`` and ``accuracy`` (means in the bin), ``gap`` (accuracy - confidence; below 0: overconfident).

    Args:
        confidence: float ``[N]`` in [0, 1], of the answer given.
        correct: bool ``[N]``.
        bins: number of bins.
        adaptive: bins of equal counts instead of equal widths; a width bin is (low, high], the first one [0, high].

    Raises:
        DataError: lengths differ, there are no rows, or a confidence is not in [0, 1].
        ConfigError: fewer than one bin.
    """
    sure, right = _pair(confidence, correct, "calibration", ("confidence", "correct"))
    outside = np.flatnonzero((sure < 0) | (sure > 1))
    if len(outside):
        raise DataError(f"calibration: confidence[{outside[0]}] is {sure[outside[0]]:g}; give probabilities in [0, 1]")
    if bins < 1:
        raise ConfigError(f"calibration: {bins} bins; give at least one")
    if adaptive:
        order = np.argsort(sure, kind="stable")
        right = _share_ties(sure, right)
        groups = [g for g in np.array_split(order, bins) if len(g)]
        edges = [(float(sure[g[0]]), float(sure[g[-1]])) for g in groups]
    else:
        cuts = np.linspace(0, 1, bins + 1)
        place = np.clip(np.searchsorted(cuts, sure, side="left") - 1, 0, bins - 1)
        filled = [b for b in range(bins) if (place == b).any()]
        groups = [np.flatnonzero(place == b) for b in filled]
        edges = [(float(cuts[b]), float(cuts[b + 1])) for b in filled]
    rows = [
        {"low": low, "high": high, "count": len(g), "confidence": sure[g].mean(), "accuracy": right[g].mean()}
        for g, (low, high) in zip(groups, edges, strict=True)
    ]
    return pd.DataFrame(rows).assign(gap=lambda f: f["accuracy"] - f["confidence"])


@declared(
    "ece",
    higher_is_better=False,
    formula="sum_b (n_b / n) |acc_b - conf_b|, 15 bins of equal width",
    source="Guo et al. 2017; Naeini et al. 2015",
)
def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, *, bins: int = BINS) -> float:
    """ECE with bins of equal width, between 0 and 1.

    Args and errors as for :func:`reliability_diagram`.
    """
    return _gap(reliability_diagram(confidence, correct, bins=bins))


@declared(
    "adaptive_ece",
    higher_is_better=False,
    formula="sum_b (n_b / n) |acc_b - conf_b|, 15 bins of equal counts",
    source="Nguyen and O'Connor 2015",
)
def adaptive_calibration_error(confidence: ArrayLike, correct: ArrayLike, *, bins: int = BINS) -> float:
    """ECE with bins of equal counts, between 0 and 1.

    Args and errors as for :func:`reliability_diagram`.
    """
    return _gap(reliability_diagram(confidence, correct, bins=bins, adaptive=True))


def _gap(diagram: pd.DataFrame) -> float:
    return float((diagram["count"] * diagram["gap"].abs()).sum() / diagram["count"].sum())


@declared(
    "brier",
    higher_is_better=False,
    formula="(1/n) sum_i sum_k (p_ik - [y_i = k])^2",
    source="Brier 1950",
)
def brier_score(probabilities: ArrayLike, target: ArrayLike) -> float:
    """Brier score over all classes, between 0 and 2.

    Args:
        probabilities: float ``[N, C]``, rows that sum to 1.
        target: int ``[N]``, the true class.

    Raises:
        DataError: shapes do not fit, rows do not sum to 1, or a target is not a class.
    """
    p, y = _classified(probabilities, target, "Brier score")
    return float(((p - np.eye(p.shape[1])[y]) ** 2).sum(1).mean())


@declared(
    "nll",
    higher_is_better=False,
    formula="-(1/n) sum_i ln p_i,y_i, p clipped at 1e-7",
    source="logarithmic score of Good 1952",
)
def negative_log_likelihood(probabilities: ArrayLike, target: ArrayLike) -> float:
    """Mean negative log likelihood of the true class, in nats.

    Args and errors as for :func:`brier_score`.
    """
    p, y = _classified(probabilities, target, "NLL")
    return float(-np.log(np.maximum(p[np.arange(len(y)), y], SMALLEST)).mean())


# selection ---------------------------------------------------------------------------------------------------------


def risk_coverage(confidence: ArrayLike, risk: ArrayLike) -> pd.DataFrame:
    """The risk-coverage curve: columns ``coverage`` (k / N) and ``risk`` (mean over the k surest rows), N rows.

    Args:
        confidence: float ``[N]``.
        risk: float ``[N]``, 0 or more: the loss of each row, such as wrong (1) or right (0).

    Raises:
        DataError: lengths differ, there are no rows, or a risk is below 0.
    """
    sure, loss = _losses(confidence, risk)
    order = np.argsort(-sure, kind="stable")
    k = np.arange(1, len(loss) + 1)
    return pd.DataFrame({"coverage": k / len(k), "risk": np.cumsum(_share_ties(sure, loss)[order]) / k})


@declared(
    "aurc",
    higher_is_better=False,
    formula="(1/n) sum_k mean risk of the k most confident rows",
    source="Geifman, Uziel and El-Yaniv 2019",
)
def aurc(confidence: ArrayLike, risk: ArrayLike) -> float:
    """Area under the risk-coverage curve, in units of the risk.

    Args and errors as for :func:`risk_coverage`.
    """
    return float(risk_coverage(confidence, risk)["risk"].mean())


def optimal_aurc(risk: ArrayLike) -> float:
    """The least AURC that any confidence can reach: that of rows in the order of their risk. Exact for any risk.

    For wrong or right the paper approximates it by e + (1 - e) ln(1 - e), with the error rate e.
    """
    loss = np.asarray(risk, dtype=float)
    return aurc(-loss, loss)


@declared(
    "eaurc",
    higher_is_better=False,
    formula="AURC - AURC of the rows in the order of their risk",
    source="Geifman, Uziel and El-Yaniv 2019, with the exact optimum",
)
def excess_aurc(confidence: ArrayLike, risk: ArrayLike) -> float:
    """E-AURC: what a better order of the same answers could save; 0 is the best order.

    Args and errors as for :func:`risk_coverage`.
    """
    return aurc(confidence, risk) - optimal_aurc(risk)


@declared(
    "selective_risk",
    higher_is_better=False,
    formula="mean risk of the ceil(coverage * n) most confident rows",
    source="El-Yaniv and Wiener 2010",
)
def selective_risk(confidence: ArrayLike, risk: ArrayLike, coverage: float) -> float:
    """Risk where only a share of the rows, the surest, gets an answer, in units of the risk.

    Args:
        confidence: float ``[N]``.
        risk: float ``[N]``.
        coverage: in (0, 1].

    Raises:
        DataError: as for :func:`risk_coverage`.
        ConfigError: the coverage is not in (0, 1].
    """
    if not 0 < coverage <= 1:
        raise ConfigError(f"selective risk: coverage {coverage:g}; give a share above 0 and up to 1")
    curve = risk_coverage(confidence, risk)
    kept = int(np.ceil(coverage * len(curve) - 1e-9))  # 0.7 of 10 rows are 7, though 0.7 * 10 is more in floats
    return float(curve["risk"].iloc[max(kept, 1) - 1])


# checks ------------------------------------------------------------------------------------------------------------


def _pair(a: ArrayLike, b: ArrayLike, what: str, names: tuple[str, str]) -> tuple[Floats, Floats]:
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if x.ndim != 1 or x.shape != y.shape or not len(x):
        raise DataError(f"{what}: {names[0]} is {x.shape} and {names[1]} {y.shape}; give [N] each, of one row at least")
    for name, column in zip(names, (x, y), strict=True):
        if not np.isfinite(column).all():
            row = int(np.flatnonzero(~np.isfinite(column))[0])
            raise DataError(f"{what}: {name}[{row}] is {column[row]}; leave out rows without one")
    return x, y


def _losses(confidence: ArrayLike, risk: ArrayLike) -> tuple[Floats, Floats]:
    sure, loss = _pair(confidence, risk, "selection", ("confidence", "risk"))
    if (loss < 0).any():
        row = int(np.flatnonzero(loss < 0)[0])
        raise DataError(f"selection: risk[{row}] is {loss[row]:g}; give losses of 0 or more")
    return sure, loss


def _share_ties(key: Floats, values: Floats) -> Floats:
    """Each value replaced by the mean over rows of the same key: what a random order among them gives on average."""
    _, group, count = np.unique(key, return_inverse=True, return_counts=True)
    mean: Floats = np.bincount(group, weights=values) / count
    return mean[group]


def _classified(probabilities: ArrayLike, target: ArrayLike, what: str) -> tuple[Floats, NDArray[Any]]:
    p, y = np.asarray(probabilities, dtype=float), np.asarray(target)
    if p.ndim != 2 or y.shape != p.shape[:1] or not len(y):
        raise DataError(f"{what}: probabilities are {p.shape} and targets {y.shape}; give [N, C] and [N]")
    odd = np.flatnonzero(~(np.abs(p.sum(1) - 1) < 1e-3) | (p < 0).any(1))
    if len(odd):
        raise DataError(
            f"{what}: row {odd[0]} of the probabilities is {p[odd[0]]}; give rows that sum to 1, not scores"
        )
    if not np.issubdtype(y.dtype, np.integer) or y.min() < 0 or y.max() >= p.shape[1]:
        raise DataError(f"{what}: targets of {y.dtype} from {y.min()} to {y.max()}; give classes 0 to {p.shape[1] - 1}")
    return p, y
