"""Kill -9 at random moments over one suite, resumed each time: is anything lost, double or different?

python benchmarks/bench_kill.py --kills 20

The trials of the suite take 0.3 to 1 s each and do nothing but wait, so that what is measured is the bench and not a method.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
from common import machine

from kintsugi.bench import Store, Trial
from kintsugi.bench.job import Done, Job, Planned, Source
from kintsugi.bench.processes import Processes
from kintsugi.bench.running import Ledger, run
from kintsugi.evaluation.protocols import Condition, Protocol

TRIALS = 12
PROTOCOL = Protocol("two", (Condition("clean", "clean", x=0.0), Condition("image", "subset", keep=("image",))))


def perform(job: Job) -> Done:
    """In a worker: writes down what it begins, waits, and gives values that the seed decides."""
    with Path(os.environ["BEGUN"]).open("a") as file:
        file.write(f"{job.seed} {os.getpid()}\n")
    time.sleep(job.params["seconds"])
    random = np.random.default_rng(job.seed)
    lines = [
        {
            "dataset": "toy", "method": job.method, "seed": job.seed, "training": job.training, "condition": c.name,
            "group": c.group, "x": math.nan if c.x is None else c.x, "metric": "accuracy", "value": random.random(),
            "low": 0.0, "high": 1.0, "n": 1000, "higher_is_better": True, "seconds": time.time(), "mask_hash": "",
        }
        for c in PROTOCOL.conditions
    ]  # fmt: skip
    return Done(pd.DataFrame(lines), {c.name: random.integers(0, 10, 1000) for c in PROTOCOL.conditions}, {})


def suite() -> list[Planned]:
    random, found = Random(0), []
    for seed in range(TRIALS):
        job = Job(Source("toy"), "waiting", seed, params={"seconds": round(random.uniform(0.3, 1.0), 3)})
        found.append(Planned(job, Trial("waiting", job.params, "toy", "f00d", job.training, seed, PROTOCOL, {})))
    return found


def start(folder: Path, workers: int) -> subprocess.Popen[bytes]:
    """A process that runs what the store lacks."""
    command = [sys.executable, __file__, "--run", str(folder), "--workers", str(workers)]
    return subprocess.Popen(command, env={**os.environ, "BEGUN": str(folder.with_suffix(".begun"))})


def begun(folder: Path) -> list[tuple[int, int]]:
    """Seed of a trial and number of the process, of each beginning."""
    log = folder.with_suffix(".begun")
    lines = log.read_text().splitlines() if log.exists() else []
    return [(int(seed), int(pid)) for seed, pid in (line.split() for line in lines)]


def living(pids: set[int]) -> int:
    count = 0
    for pid in pids:
        stat = Path(f"/proc/{pid}/stat")
        count += stat.exists() and stat.read_text().rpartition(")")[2].split()[0] not in "ZX"
    return count


def results(folder: Path) -> tuple[bytes, ...]:
    """Export without timing as CSV and Parquet, and the outcomes of all trials."""
    store = Store.open(folder, create=False)
    exports = (store.export(folder / name).read_bytes() for name in ("a.csv", "a.parquet"))
    outcomes = b"".join(array.tobytes() for p in suite() for _, array in sorted(store.outcomes(p.trial).items()))
    return (*exports, outcomes)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", type=Path)
    args = parser.parse_args()
    if args.run:
        run(Ledger(Store.open(args.run), suite()), Processes(args.workers, perform="bench_kill:perform"))
        return
    work = Path(tempfile.mkdtemp(prefix="kintsugi-kill-"))
    try:
        sys.exit(kills(work, args.kills, args.workers, Random(args.seed)))
    finally:
        shutil.rmtree(work)


def kills(work: Path, wanted: int, workers: int, random: Random) -> int:
    print(machine())
    began = time.monotonic()
    if start(work / "calm", workers).wait():
        raise SystemExit("the undisturbed run failed")
    whole = time.monotonic() - began
    print(f"undisturbed: {TRIALS} trials with {workers} workers in {whole:.1f} s")
    folder, done, again, survivors, ended_itself, inside, began = work / "runs", 0, 0, 0, 0, 0, time.monotonic()
    while done < wanted:
        ended, before = finished(folder), len(begun(folder))
        if len(ended) == TRIALS:  # nothing is left to be disturbed: a new suite under the same kills
            again += check(folder, work / "calm")
            shutil.rmtree(folder)
            folder.with_suffix(".begun").unlink()
            continue
        whole, code = disturbed(folder, workers, whole, random)
        ended_itself += code == 0
        done += code == -signal.SIGKILL
        now = begun(folder)[before:]
        inside += bool(now)
        assert ended <= finished(folder), "a result is lost"
        assert ended.isdisjoint(seed for seed, _ in now), "a trial that has a result was run again"
        assert not folder.exists() or Store.open(folder).check() == [], "the store is damaged"
        time.sleep(1.0)
        survivors += living({pid for _, pid in now})
    if start(folder, workers).wait():
        raise SystemExit("the last run failed")
    again += check(folder, work / "calm")
    print(
        f"{done} kills in {time.monotonic() - began:.0f} s ({inside} of them after a trial had begun; {ended_itself} runs ended "
        f"before their kill); suites that came to their end: {again}, each export (CSV, Parquet) and all outcomes byte for byte "
        f"those of the undisturbed run; results lost: 0; trials with a result run again: 0; workers alive 1 s after: {survivors}"
    )
    return int(survivors > 0)


def disturbed(folder: Path, workers: int, whole: float, random: Random) -> tuple[float, int]:
    """A run that is killed at some moment of ``whole`` seconds; gives these anew where it ended before, and its exit code."""
    child, began = start(folder, workers), time.monotonic()
    try:
        child.wait(random.uniform(0, whole))
        return time.monotonic() - began, child.returncode
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGKILL)
        return whole, child.wait()


def finished(folder: Path) -> set[int]:
    return {r.trial.seed for r in Store.open(folder).records("done")} if folder.exists() else set()


def check(folder: Path, calm: Path) -> int:
    """One suite at its end; 1 where everything is right."""
    counts = Counter(seed for seed, _ in begun(folder))
    assert Store.open(folder).counts() == {"done": TRIALS}, "a trial is lost"
    assert results(folder) == results(calm), "the results differ"
    print(
        f"  suite done: {TRIALS} results, {counts.total()} beginnings, {counts.total() - TRIALS} of them cut by a kill"
    )
    return 1


if __name__ == "__main__":
    main()
