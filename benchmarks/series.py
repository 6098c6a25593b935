"""Corruption of time series against tsaug: series a second on one thread, for 256 series of 9 channels and 128 steps.

Run with ``pip install tsaug==0.2.1`` and ``OMP_NUM_THREADS=1 python benchmarks/series.py``. Both take and return
float32 ``[256, 128, 9]``. Ours seeds each row by itself, so that a row gets the same damage in any batch; tsaug draws
from one generator for the whole batch. The definitions are alike, not equal: tsaug's drift and warp draw knots of a curve,
and its dropout draws the places of blocks of one length.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import numpy as np
import torch
from common import interleaved, machine, ratio

from kintsugi.imperfect.operator import OPERATORS, Operator
from kintsugi.imperfect.plan import Plan

ROWS, STEPS, CHANNELS, RUNS, REPEATS = 256, 128, 9, 7, 10
PARAMETERS: dict[str, dict[str, object]] = {
    "sensor_noise": {"k": 0.4},
    "drift": {"k": 1.0, "shape": "linear"},
    "time_warp": {"warp": 0.2},
    "dropout_bursts": {"rate": 0.2, "length": 8},
    "quantisation": {"bits": 4},
}


def ours(key: str, x: torch.Tensor) -> Callable[[], object]:
    """One call on the whole batch."""
    one = torch.ones(CHANNELS, dtype=torch.float64)
    plan = Plan(key, "sensor", 3, 0, PARAMETERS[key], {"sd": one, "low": -4 * one, "high": 4 * one})
    operator, index = OPERATORS[key](), torch.arange(ROWS)
    assert isinstance(operator, Operator)
    return lambda: repeated(lambda: operator.apply(x, index, plan))


def repeated(job: Callable[[], object]) -> None:
    """Results are let go, as in training."""
    for _ in range(REPEATS):
        job()


def theirs(x: np.ndarray) -> dict[str, Callable[[], object]]:
    import tsaug  # type: ignore[import-not-found]

    made = {
        "sensor_noise": tsaug.AddNoise(scale=0.4),
        "drift": tsaug.Drift(max_drift=0.5, n_drift_points=3),
        "time_warp": tsaug.TimeWarp(n_speed_change=3, max_speed_ratio=1.5),
        "dropout_bursts": tsaug.Dropout(p=0.2, size=8, fill=np.nan),
        "quantisation": tsaug.Quantize(n_levels=16),
    }
    return {key: (lambda a=a: repeated(lambda: a.augment(x))) for key, a in made.items()}  # type: ignore[misc]


def main() -> None:
    print(machine())
    x = torch.randn(ROWS, STEPS, CHANNELS, generator=torch.Generator().manual_seed(0))
    others = theirs(x.numpy().copy())
    for key in PARAMETERS:
        seconds = interleaved(RUNS, tsaug=others[key], kintsugi=ours(key, x))
        a, b = (ROWS * REPEATS / statistics.median(seconds[name]) for name in ("kintsugi", "tsaug"))
        print(f"{key}: {a:,.0f} series/s, tsaug {b:,.0f}; {ratio(seconds, 'tsaug', 'kintsugi')}")


if __name__ == "__main__":
    main()
