"""Throughput of two workers against one, over trials of real training; start-up is shown apart.

python benchmarks/bench_workers.py [--trials 60] [--epochs 9]

One worker and two take turns, each time over a part of the trials. In between, two plain processes that only count are put
against one: what these gain is what the machine had to give at that time, whatever else ran on it.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from common import machine

from kintsugi.bench import Store
from kintsugi.bench.job import Job, Planned, Source
from kintsugi.bench.processes import Processes
from kintsugi.bench.running import Ledger, run

COUNT = "for _ in range(60_000_000): pass"  # about two seconds


@dataclass
class Measured:
    """Of all turns with one number of workers. cpu: seconds of processor time of the workers, start-up included."""

    done: int = 0
    seconds: float = 0.0
    startup: list[float] = field(default_factory=list)
    cpu: float = 0.0
    trials: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Trials a minute, without the seconds until the first worker was ready."""
        return 60 * self.done / self.seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=9, help="so that a trial takes 2 s or more")
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    planned = [Planned(job, job.trial()) for job in jobs(args.trials, args.epochs)]
    print(machine())
    measured = {1: Measured(), 2: Measured()}
    control: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(args.turns):
            for workers in (1, 2):
                part = planned[turn :: args.turns]
                turn_of(Store.open(Path(folder) / f"{workers}-{turn}"), part, workers, measured[workers])
                control[workers].append(counting(workers))
                print(
                    f"  turn {turn + 1}, {workers} worker(s): load of the machine {os.getloadavg()[0]:.1f}", flush=True
                )
    for workers, m in measured.items():
        print(
            f"{workers} worker(s): {m.done} trials in {m.seconds:.1f} s, {m.rate:.1f} a minute; median trial "
            f"{statistics.median(m.trials):.2f} s; start-up {', '.join(f'{s:.1f}' for s in m.startup)} s, not counted; "
            f"processor time of the workers {m.cpu:.1f} s"
        )
    print(f"2 workers / 1 worker: {measured[2].rate / measured[1].rate:.2f} (wanted: at least 1.7)")
    plain = 2 * sum(control[1]) / sum(control[2])
    print(f"control, 2 counting processes / 1: {plain:.2f} (2 on a machine where nothing else runs)")


def jobs(trials: int, epochs: int) -> list[Job]:
    trainer = {"epochs": epochs, "patience": epochs}
    return [
        Job(Source("handwritten"), "mean_fusion", seed, "mcar(0.3)", "clean", trainer=trainer) for seed in range(trials)
    ]


def turn_of(store: Store, planned: list[Planned], workers: int, into: Measured) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    tally = run(Ledger(store, planned), Processes(workers))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    into.done += tally.done
    into.seconds += tally.seconds - tally.startup
    into.startup.append(tally.startup)
    into.cpu += after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    into.trials += [r.seconds for r in store.records("done") if r.seconds is not None]


def counting(processes: int) -> float:
    """Seconds until each of these processes has counted."""
    began = time.perf_counter()
    started = [subprocess.Popen([sys.executable, "-c", COUNT], start_new_session=True) for _ in range(processes)]
    for process in started:
        process.wait()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
