"""What a trial costs beside training and evaluation: 100 trials of about 1 s in one warm worker.

OMP_NUM_THREADS=1 python benchmarks/bench_overhead.py [--trials 100] [--epochs 2]

The share is that of the time after start-up which is neither training nor evaluation as the worker took it. Where it goes
is shown beside it: claiming and keeping in the parent (the store), and the rest (pipe, waiting, machine facts, the first
reading of the data).
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import machine

from kintsugi.bench import Store
from kintsugi.bench.job import Job, Planned, Source
from kintsugi.bench.processes import Processes
from kintsugi.bench.running import Ledger, run


class Timed:
    """A function, and the seconds that its calls took."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.seconds = function, 0.0

    def __call__(self, *args: Any) -> Any:
        began = time.perf_counter()
        try:
            return self.function(*args)
        finally:
            self.seconds += time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=4, help="so that a trial takes about 1 s")
    parser.add_argument("--protocol", default="clean")
    args = parser.parse_args()
    trainer = {"epochs": args.epochs, "patience": args.epochs}
    jobs = [
        Job(Source("handwritten"), "mean_fusion", seed, "complete", args.protocol, trainer=trainer)
        for seed in range(args.trials)
    ]
    planned = [Planned(job, job.trial()) for job in jobs]
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder) / "runs")
        ledger = Ledger(store, planned)
        claims, keeps = Timed(ledger.next), Timed(ledger.done)
        for name, timed in (("next", claims), ("done", keeps)):
            setattr(ledger, name, timed)
        tally = run(ledger, Processes(1))
        records = list(store.records("done"))
    count, whole = len(records), tally.seconds - tally.startup
    median = statistics.median(record.seconds for record in records if record.seconds is not None)
    training, evaluation = (sum(r.facts[part]["seconds"] for r in records) for part in ("training", "evaluation"))
    rest = whole - training - evaluation
    print(
        f"{count} trials in {whole:.1f} s after {tally.startup:.1f} s of start-up (median {median:.2f} s): training "
        f"{training:.1f} s, evaluation {evaluation:.1f} s, outside {rest:.2f} s = {rest / whole:.1%} (wanted: less than 5 %)"
    )
    claim, keep = 1000 * claims.seconds / count, 1000 * keeps.seconds / count
    print(
        f"outside, for each trial: claim {claim:.1f} ms, keep {keep:.1f} ms, all else {1000 * rest / count - claim - keep:.1f} "
        f"ms; load of the machine {os.getloadavg()[0]:.1f}"
    )


if __name__ == "__main__":
    main()
