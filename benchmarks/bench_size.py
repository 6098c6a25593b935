"""How large a store is: bytes of SQLite for each condition of a trial, bytes of outcomes for each row that was scored.

OMP_NUM_THREADS=1 python benchmarks/bench_size.py           # the 63 subsets of handwritten, every method, one epoch each
OMP_NUM_THREADS=1 python benchmarks/bench_size.py RUNS/     # a store that is there
"""

from __future__ import annotations

import argparse
import sqlite3
import tempfile
from pathlib import Path

from kintsugi.bench import Store
from kintsugi.bench.running import InProcess, Ledger, run
from kintsugi.bench.store import DATABASE
from kintsugi.bench.suite import load_suite


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="?", type=Path)
    asked = parser.parse_args()
    if asked.runs is not None:
        sizes(asked.runs)
        return
    with tempfile.TemporaryDirectory() as folder:
        suite = load_suite("handwritten-subsets", {"seeds": 1, "trainer.epochs": 1, "costs": True})
        with Store.open(folder) as store:
            tally = run(Ledger(store, suite.planned()), InProcess())
            print(f"{tally.done} trials, {len(tally.failed)} failed")
        sizes(Path(folder))


def sizes(folder: Path) -> None:
    with Store.open(folder, create=False) as store:
        done = list(store.records("done"))
        conditions = sum(len(record.trial.protocol) for record in done)
        table = store.table()
        rows = table.drop_duplicates(["trial", "condition"])["n"].sum()
    db = sqlite3.connect(folder / DATABASE)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # what is still in the log counts
    db.close()
    sqlite = (folder / DATABASE).stat().st_size
    facts = sum(len(str(record.facts)) for record in done)
    outcomes = sum(file.stat().st_size for file in folder.glob("trials/*/outcomes.npz"))
    print(f"{len(done)} trials, {conditions} conditions, {len(table)} results ({table['metric'].nunique()} metrics)")
    print(
        f"SQLite: {sqlite:,} bytes, {sqlite / conditions:.0f} a condition, of which facts about {facts / conditions:.0f}"
    )
    print(f"outcomes: {outcomes:,} bytes, {outcomes / rows:.2f} a row of a condition")


if __name__ == "__main__":
    main()
