"""Was the damage noticed, and in the right modality? Measured on the reliabilities that a model or a monitor gives.

Reliability is a number of which less means more suspect. Damaged rows are the positives, and clean rows the negatives.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kintsugi.core.errors import DataError
from kintsugi.evaluation.measures import declared

RECALL = 0.95  # FPR95: Liang, Li and Srikant 2018


@declared(
    "detection_auroc",
    higher_is_better=True,
    formula="P(reliability of a damaged row < of a clean row) + P(equal)/2",
    source="Hanley and McNeil 1982",
)
def detection_auroc(reliability: ArrayLike, damaged: ArrayLike) -> float:
    """Area under the ROC curve of damage detection: 0.5 is chance, 1 perfect.

    Args:
        reliability: float ``[N]``.
        damaged: bool ``[N]``.

    Raises:
        DataError: shapes differ, a number is not finite, or all rows are damaged or all are clean.
    """
    from scipy.stats import rankdata

    suspect, bad = _detected(reliability, damaged)
    n = int(bad.sum())
    above = float(rankdata(suspect)[bad].sum()) - n * (n + 1) / 2
    return above / (n * (len(bad) - n))


@declared(
    "detection_aupr",
    higher_is_better=True,
    formula="sum_t (R_t - R_{t-1}) P_t over falling thresholds",
    source="average precision, as in scikit-learn",
)
def detection_aupr(reliability: ArrayLike, damaged: ArrayLike) -> float:
    """Average precision of damage detection; chance is the share of damaged rows, so compare at one share only.

    Args and errors as for :func:`detection_auroc`.
    """
    from sklearn.metrics import average_precision_score

    suspect, bad = _detected(reliability, damaged)
    return float(average_precision_score(bad, suspect))


@declared(
    "detection_fpr95",
    higher_is_better=False,
    formula="share of clean rows flagged at the strictest threshold that flags 95 % of damaged rows",
    source="Liang, Li and Srikant 2018",
)
def detection_fpr95(reliability: ArrayLike, damaged: ArrayLike) -> float:
    """False alarms at a recall of at least 95 %, as a share of the clean rows.

    Args and errors as for :func:`detection_auroc`.
    """
    suspect, bad = _detected(reliability, damaged)
    hits = np.sort(suspect[bad])[::-1]
    needed = int(np.ceil(RECALL * len(hits) - 1e-9))  # 0.95 * 20 is 19, also where floats say a little more
    return float((suspect[~bad] >= hits[needed - 1]).mean())


@declared(
    "localisation",
    higher_is_better=True,
    formula="share of damaged rows whose least reliable present modality is the damaged one; ties share",
    source="defined here",
)
def localisation(reliability: ArrayLike, damaged: ArrayLike, present: ArrayLike | None = None) -> float:
    """Was the right modality suspected? 1 always; chance is 1 / (modalities present).

    Args:
        reliability: float ``[N, M]``; what stands in absent slots is not read.
        damaged: int ``[N]``, the column of the one modality that is damaged, -1 for a clean row, which does not count.
        present: bool ``[N, M]``; default all.

    Raises:
        DataError: shapes do not fit, no row is damaged, or a damaged modality is absent or has no finite reliability.
    """
    r, column = np.asarray(reliability, dtype=float), np.asarray(damaged)
    there = np.ones(r.shape, dtype=bool) if present is None else np.asarray(present, dtype=bool)
    if r.ndim != 2 or there.shape != r.shape or column.shape != r.shape[:1] or column.dtype.kind not in "iu":
        raise DataError(
            f"localisation: reliability is {r.shape}, present {there.shape}, damaged {column.shape} of {column.dtype}; "
            "give [N, M], [N, M] and integers [N]"
        )
    if (column >= r.shape[1]).any() or (column < -1).any():
        raise DataError(f"localisation: damaged names a column outside 0 to {r.shape[1] - 1}; -1 is for clean rows")
    rows = np.flatnonzero(column >= 0)
    if not len(rows):
        raise DataError("localisation: no row is damaged; give the column of the damaged modality in some rows")
    absent = rows[~there[rows, column[rows]]]
    if len(absent):
        raise DataError(f"localisation: row {absent[0]} is damaged in a modality that it lacks; give -1 there")
    if not np.isfinite(r[rows][there[rows]]).all():
        raise DataError("localisation: the reliability of a present modality is not finite; give a number for each")
    least = np.where(there[rows], r[rows], np.inf)
    suspected = least == least.min(1, keepdims=True)
    right = suspected[np.arange(len(rows)), column[rows]]
    return float((right / suspected.sum(1)).mean())


def _detected(reliability: ArrayLike, damaged: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    r, bad = np.asarray(reliability, dtype=float), np.asarray(damaged, dtype=bool)
    if r.ndim != 1 or r.shape != bad.shape:
        raise DataError(f"detection: reliability is {r.shape} and damaged {bad.shape}; give [N] each")
    if not np.isfinite(r).all():
        row = int(np.flatnonzero(~np.isfinite(r))[0])
        raise DataError(f"detection: reliability[{row}] is {r[row]}; leave out rows without one")
    if bad.all() or not bad.any():
        raise DataError(f"detection: {int(bad.sum())} of {len(bad)} rows are damaged; give damaged and clean rows")
    return -r, bad
