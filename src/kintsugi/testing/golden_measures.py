"""Golden numbers of measures (calibration, detection of damage, areas, ranks): each on drawn arguments."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

import numpy as np
import pandas as pd

from kintsugi.core.errors import ConfigError
from kintsugi.evaluation.measures import MEASURES
from kintsugi.evaluation.reference import fit_reference
from kintsugi.testing.golden_numbers import Numbers

ROWS = 200
OPERATORS, SEVERITIES = ("fog", "snow"), (1.0, 3.0, 5.0)


def measure_numbers() -> Numbers:
    """Name -> what each measure of this library gives.

    Raises:
        ConfigError: a measure has an argument that there is no value for.
    """
    return {name: plain(_called(name)) for name in MEASURES if _is_own(MEASURES[name].function)}


def _is_own(function: Any) -> bool:
    return str(function.__module__).startswith("kintsugi.")


def _called(name: str) -> Any:
    function = MEASURES[name].function
    values = {**_arguments(), **_others().get(name, {})}
    chosen: dict[str, Any] = {}
    for argument, parameter in inspect.signature(function).parameters.items():
        if parameter.default is parameter.empty:
            if argument not in values:
                raise ConfigError(f"golden numbers: there is no value for {argument} of the measure {name}")
            chosen[argument] = values[argument]
    return function(**chosen)


def _arguments() -> dict[str, Any]:
    """A value for each argument that measures have in common."""
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.2, 1, ROWS)
    correct = rng.uniform(0, 1, ROWS) < confidence
    target = rng.integers(0, 3, ROWS)
    scores = rng.uniform(0, 1, (ROWS, 3)) + np.eye(3)[target]
    damaged = rng.uniform(0, 1, (ROWS, 3)) < 0.3
    return {
        "confidence": confidence,
        "correct": correct,
        "risk": 1.0 - correct,
        "coverage": 0.7,
        "probabilities": scores / scores.sum(1, keepdims=True),
        "target": target,
        "damaged": damaged,
        "reliability": rng.uniform(0, 1, (ROWS, 3)) - 0.4 * damaged,
        "x": (0.0, 0.2, 0.5, 0.9),
        "rates": (0.0, 0.2, 0.5, 0.9),
        "values": (0.9, 0.8, 0.75, 0.5),
        "full": 0.9,
        "value": 0.6,
        "clean": 0.9,
        "shifted": 0.7,
        "fit": fit_reference([0.6, 0.7, 0.8, 0.9], [0.5, 0.55, 0.7, 0.75]),
        "method": 0.7,
        "plain": 0.5,
        "contributions": {"image": 0.3, "text": 0.2, "table": -0.1},
        "errors": _grid(0.3),
        "reference": _grid(0.5),
        "reference_clean": 0.2,
        "higher_is_better": True,
        "scores": pd.DataFrame(rng.uniform(0, 1, (6, 3)), columns=["a", "b", "c"]),
        "modalities": ("image", "text", "table"),
    }


def _others() -> Mapping[str, Mapping[str, Any]]:
    """Arguments of the same name that mean something else."""
    worth = {"image": 0.3, "text": 0.2, "table": 0.15}
    each = ~np.random.default_rng(1).integers(0, 2, ROWS).astype(bool)
    return {
        "shapley": {"value": lambda kept: 0.3 + sum(worth[name] for name in kept) ** 1.5},
        "localisation": {"damaged": np.arange(ROWS) % 3},
        "mra": {"values": _grid(0.6)},
        "mrra": {"values": _grid(0.6)},
        **{
            name: {"damaged": each, "reliability": np.where(each, 0.4, 0.6) + 0.3 * np.sin(np.arange(ROWS))}
            for name in ("detection_auroc", "detection_aupr", "detection_fpr95")
        },
    }


def _grid(start: float) -> dict[str, dict[float, float]]:
    return {
        name: {severity: start + 0.05 * severity + 0.03 * place for severity in SEVERITIES}
        for place, name in enumerate(OPERATORS)
    }


def plain(value: Any) -> Numbers:
    """A result as golden numbers: numbers, text, and what is made of them."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, np.ndarray | pd.Series | list | tuple):
        return [plain(each) for each in (value if isinstance(value, list | tuple) else value.tolist())]
    if isinstance(value, bool | np.bool_) or value is None:
        return str(value)
    if isinstance(value, int | np.integer):
        return int(value)
    return float(value) if isinstance(value, float | np.floating) else str(value)
