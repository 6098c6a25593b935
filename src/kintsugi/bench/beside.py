"""What a bench measures beside the metrics of a task: calibration, detection of damage, curves, predicted classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kintsugi.evaluation import calibration, detection
from kintsugi.evaluation.measures import MEASURES

if TYPE_CHECKING:
    from kintsugi.data.dataset import Dataset
    from kintsugi.evaluation.evaluator import Outcome

BINS = 15
POINTS = 25  # of a risk-coverage curve: enough for a picture, few bytes


class Beside:
    """Looks at the answers of one model.

    values: condition -> measure -> value; classes: condition -> predicted classes ``[N]``; facts: reliability diagram and
    risk-coverage curve, of the clean rows and of all degraded ones together.
    """

    def __init__(self) -> None:
        self.values: dict[str, dict[str, float]] = {}
        self.classes: dict[str, np.ndarray[Any, Any]] = {}
        self.facts: dict[str, Any] = {}

    def look(self, outcomes: Sequence[Outcome], rows: Dataset) -> None:
        """For ``evaluate(each=...)``."""
        self.values = {outcome.condition.name: {} for outcome in outcomes}
        self._detect(outcomes, rows)
        if rows.schema.task.exclusive:
            assert rows.target is not None
            self._calibrate(outcomes, rows.target.numpy())

    def _calibrate(self, outcomes: Sequence[Outcome], target: np.ndarray[Any, Any]) -> None:
        pooled: dict[str, list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]] = {"clean": [], "degraded": []}
        for outcome in outcomes:
            p = outcome.probabilities.double().numpy()
            chosen = p.argmax(1)
            sure, right = np.clip(p.max(1), 0, 1), chosen == target
            self.classes[outcome.condition.name] = chosen
            self.values[outcome.condition.name] |= {
                "ece": calibration.expected_calibration_error(sure, right),
                "adaptive_ece": calibration.adaptive_calibration_error(sure, right),
                "brier": calibration.brier_score(p, target),
                "aurc": calibration.aurc(sure, ~right),
                "eaurc": calibration.excess_aurc(sure, ~right),
            }
            pooled["clean" if outcome.condition.clean else "degraded"].append((sure, right))
        for name, parts in pooled.items():
            if parts:
                sure, right = (np.concatenate(side) for side in zip(*parts, strict=True))
                self.facts.setdefault("reliability", {})[name] = _diagram(sure, right)
                self.facts.setdefault("risk_coverage", {})[name] = _curve(sure, right)

    def _detect(self, outcomes: Sequence[Outcome], rows: Dataset) -> None:
        """Where a model says how reliable each modality is: was the corrupted one found?"""
        clean = next((o for o in outcomes if o.condition.clean), None)
        if clean is None or clean.reliability is None:
            return
        for outcome in outcomes:
            modality = _corrupted(outcome.condition.group)
            if modality not in rows.schema.names or outcome.reliability is None:
                continue
            column = rows.schema.column(modality)
            before, after = clean.present[:, column].numpy(), outcome.present[:, column].numpy()
            if not before.any() or not after.any():
                continue
            good = clean.reliability[:, column].numpy()[before]
            bad = outcome.reliability[:, column].numpy()[after]
            suspect = np.concatenate([good, bad])
            damaged = np.repeat([False, True], [len(good), len(bad)])
            self.values[outcome.condition.name] |= {
                "detection_auroc": detection.detection_auroc(suspect, damaged),
                "detection_fpr95": detection.detection_fpr95(suspect, damaged),
                "localisation": detection.localisation(
                    outcome.reliability.numpy()[after],
                    np.full(int(after.sum()), column),
                    outcome.present.numpy()[after],
                ),
            }

    def added(self, table: pd.DataFrame) -> pd.DataFrame:
        """The table with these measures after the metrics of each condition; they have no interval."""
        lines = [
            {
                **line, "metric": measure, "value": value, "low": math.nan, "high": math.nan,
                "higher_is_better": bool(MEASURES[measure].higher_is_better),
            }
            for line in table.drop_duplicates("condition").to_dict("records")
            for measure, value in self.values.get(str(line["condition"]), {}).items()
        ]  # fmt: skip
        if not lines:
            return table
        return pd.concat([table, pd.DataFrame(lines)[list(table.columns)]], ignore_index=True)


def _corrupted(group: str) -> str:
    """``corruption/fog(image)`` -> ``image``; of other groups nothing."""
    kind, _, rest = group.partition("/")
    return rest.partition("(")[2].removesuffix(")") if kind == "corruption" else ""


def _diagram(sure: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> list[list[float]]:
    """Confidence, accuracy and rows of each bin."""
    found = calibration.reliability_diagram(sure, right, bins=BINS)
    return [[round(c, 4), round(a, 4), int(n)] for c, a, n in found[["confidence", "accuracy", "count"]].to_numpy()]


def _curve(sure: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> list[list[float]]:
    """Coverage and risk at ``POINTS`` coverages."""
    found = calibration.risk_coverage(sure, ~right)
    places = np.unique(np.linspace(0, len(found) - 1, POINTS + 1).round().astype(int)[1:])
    return [[round(c, 4), round(r, 4)] for c, r in found.to_numpy()[places]]
