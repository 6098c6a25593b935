"""Calibration of a store's trials: reliability diagrams and risk-coverage curves, averaged over seeds."""

from __future__ import annotations

import math
from typing import Any

from kintsugi.report.data import UNIT, Shown, Unit, short

BINS = 15  # of equal width, as kintsugi.bench.beside makes them
POINTS = 20  # of a risk-coverage curve
KINDS = ("clean", "degraded")


def diagrams(shown: Shown) -> dict[Unit, dict[str, Any]]:
    """Unit -> ``reliability`` and ``risk``: of clean and of degraded rows, or None.

    A reliability diagram is confidence, accuracy and rows of each bin that is not empty, rows of all seeds together. Risk
    is the mean over seeds at 1/20, 2/20, …, 1 of the rows.
    """
    found: dict[Unit, list[dict[str, Any]]] = {}
    facts_of = {r.trial.hash: r.facts for r in shown.records if "reliability" in r.facts or "risk_coverage" in r.facts}
    for trial, *unit in shown.scores[["trial", *UNIT]].itertuples(index=False):
        if trial in facts_of:
            found.setdefault(tuple(unit), []).append(facts_of[trial])
    return {
        unit: {
            "reliability": [pooled(_of(facts, "reliability", kind)) for kind in KINDS],
            "risk": [averaged(_of(facts, "risk_coverage", kind)) for kind in KINDS],
        }
        for unit, facts in found.items()
    }


def _of(facts: list[dict[str, Any]], name: str, kind: str) -> list[list[list[float]]]:
    return [fact[name][kind] for fact in facts if fact.get(name, {}).get(kind)]


def pooled(seeds: list[list[list[float]]]) -> list[list[Any]] | None:
    """Reliability diagrams (confidence, accuracy, rows of each bin) as one: confidences, accuracies, counts."""
    sums = [[0.0, 0.0, 0] for _ in range(BINS)]
    for diagram in seeds:
        for confidence, accuracy, count in diagram:
            place = sums[min(BINS - 1, max(0, math.ceil(confidence * BINS) - 1))]
            place[0] += confidence * count
            place[1] += accuracy * count
            place[2] += int(count)
    filled = [(c / n, a / n, n) for c, a, n in sums if n]
    if not filled:
        return None
    return [[short(c, 3) for c, _, _ in filled], [short(a, 3) for _, a, _ in filled], [n for _, _, n in filled]]


def averaged(seeds: list[list[list[float]]]) -> list[Any] | None:
    """Risk-coverage curves (coverage, risk) as one: risk at ``POINTS`` coverages."""
    import numpy as np

    if not seeds:
        return None
    grid = np.arange(1, POINTS + 1) / POINTS
    curves = [np.interp(grid, *np.asarray(curve, float).T) for curve in seeds]
    return [short(float(risk), 3) for risk in np.mean(curves, 0)]
