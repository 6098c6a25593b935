"""Rows a second of the mask draw of each mechanism, on 1,000,000 rows of three modalities in memory.

OMP_NUM_THREADS=1 python benchmarks/masks.py

What a mechanism reads from the inputs (scores of MAR and MNAR, which steps exist) is read once for each data set and
remembered; it is not part of the draw, and is timed apart.
"""

from __future__ import annotations

import statistics
import time

import torch
from common import interleaved, machine

from kintsugi.core.batch import Batch
from kintsugi.core.schema import Modality, Schema
from kintsugi.data.dataset import Dataset, TensorSource
from kintsugi.imperfect.missing import Mechanism, parse_mechanism
from kintsugi.tasks import Classification

ROWS = 1_000_000
STEP_ROWS, STEPS = 50_000, 20
SLOTS = (
    "pattern(a+b)", "mcar(0.3)", "mcar(0.3, keep_one=False)", "mcar(0.3, coupling=0.5)", "per_modality(a=0.3, b=0.5)",
    "per_modality(a=0.5, b=0.5, c=0.5, keep_one=True)", "smil(0.1, a)", "mar(0.3, c)", "mnar(0.3)", "mnar(0.3, by=label)",
    "bursts(0.3, 20)", "natural(0.3)", "map_missing(0.7, text=a, image=b)", "random-0.3-keep1", "mmin6", "imml-mcar-0.3",
    "labels(0.5)",
)  # fmt: skip
STEPPED = (
    "steps(0.3)", "steps(0.3, keep_one=True)", "blocks(0.3)", "blocks(0.3, length=4)", "gilbert_elliott(0.3, 5)",
)  # fmt: skip


def make(rows: int, steps: int | None) -> Dataset:
    g = torch.Generator().manual_seed(0)
    names = ("a", "b", "c")
    shape = (1,) if steps is None else (steps, 1)
    kind = "vector" if steps is None else "series"
    schema = Schema(tuple(Modality(n, kind, shape) for n in names), Classification(["x", "y"]))
    x = {n: torch.randn(rows, *shape, generator=g) for n in names}
    present = torch.rand(rows, 3, generator=g) > 0.02
    y = torch.randint(2, (rows,), generator=g)
    return Dataset(TensorSource(schema, Batch(names, x, present, torch.arange(rows), y)))


def measure(data: Dataset, specs: tuple[str, ...], units: int, what: str) -> None:
    found: dict[str, Mechanism] = {spec: parse_mechanism(spec) for spec in specs}
    for spec, mechanism in found.items():
        began = time.perf_counter()
        mask = mechanism.plan(data, 0)
        first = time.perf_counter() - began
        again = statistics.median(interleaved(3, draw=lambda m=mechanism: m.plan(data, 0))["draw"])
        print(
            f"{spec}: {units / again / 1e6:.2f} M {what}/s (first time {first:.2f} s); "
            f"asked {mask.asked}, realised {mask.realised:.4f}",
            flush=True,
        )


def main() -> None:
    print(machine())
    measure(make(ROWS, None), SLOTS, ROWS, "rows")
    measure(make(STEP_ROWS, STEPS), STEPPED, STEP_ROWS * STEPS * 3, "steps")


if __name__ == "__main__":
    main()
