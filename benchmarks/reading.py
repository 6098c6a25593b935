"""How quickly tables are read: 100,000 rows of 30 columns of CSV, and 20,000 pictures; beside another tree's.

python benchmarks/reading.py --against ../kintsugi-before --runs 5

Each run is a fresh process of one tree or the other, in turn, so that whatever else the machine does falls on both. A run
builds the table (reading and deciding what columns are), reads all batches, and takes the fingerprint, which is timed by
itself.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parents[1] / "src"
STEPS = ("build", "batches", "fingerprint")
BATCH = 256


def write_csv(path: Path, rows: int) -> None:
    """20 columns of numbers (one with holes), 8 of categories, one of text and a target."""
    import pandas as pd

    random = np.random.default_rng(0)
    columns: dict[str, Any] = {f"n{i}": random.normal(size=rows).round(4) for i in range(20)}
    columns["n0"][random.random(rows) < 0.1] = np.nan
    columns |= {f"c{i}": random.choice([f"level {j}" for j in range(3 + 4 * i)], rows) for i in range(8)}
    words = np.array(["fever", "cough", "no", "pain", "since", "monday", "left", "knee"])
    columns["note"] = [" ".join(line) for line in words[random.integers(0, len(words), (rows, 6))]]
    columns["y"] = random.choice(["home", "ward", "clinic"], rows)
    pd.DataFrame(columns).to_csv(path, index=False)


def write_pictures(folder: Path, rows: int) -> None:
    """PNG files of 28 x 28 grey pixels and a Parquet file that names them."""
    import pandas as pd
    from PIL import Image

    random = np.random.default_rng(0)
    (folder / "pictures").mkdir()
    for row in range(rows):
        Image.fromarray(random.integers(0, 255, (28, 28), dtype=np.uint8)).save(folder / "pictures" / f"{row}.png")
    names = [f"pictures/{row}.png" for row in range(rows)]
    pd.DataFrame({"scan": names, "y": random.choice(["a", "b"], rows)}).to_parquet(folder / "scans.parquet")


def timed(what: str, folder: Path) -> dict[str, float]:
    """Seconds of each step, in this process."""
    import torch

    import kintsugi as kg
    from kintsugi.data import table  # noqa: F401 - what an import costs is not counted

    torch.set_num_threads(1)
    began = time.perf_counter()
    if what == "csv":
        numbers, categories = [f"n{i}" for i in range(20)], [f"c{i}" for i in range(8)]
        readers = {"chart": kg.tabular([*numbers, *categories]), "note": kg.text("note", length=48)}
        data = kg.Table.from_csv(folder / "rows.csv", modalities=readers, target="y")
    else:
        data = kg.Table.from_parquet(
            folder / "scans.parquet", modalities={"scan": kg.image("scan", size=(28, 28))}, target="y"
        )
    built = time.perf_counter()
    count = sum(len(batch) for batch in data.batches(BATCH))
    read = time.perf_counter()
    assert count == len(data)
    assert data.fingerprint
    return dict(zip(STEPS, (built - began, read - built, time.perf_counter() - read), strict=True))


def in_process(source: Path, what: str, folder: Path) -> dict[str, float]:
    """Likewise in a fresh one that imports the library from a tree."""
    done = subprocess.run(
        [sys.executable, __file__, "--one", what, str(folder)], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{source}: {done.stderr}")
    said = json.loads(done.stdout)
    if Path(said["file"]).parents[1] != source.resolve():
        raise SystemExit(f"{source} was to be measured, but {said['file']} was imported")
    return {step: float(said[step]) for step in STEPS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="checkout of another commit; default: this tree alone")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--one", nargs=2, metavar=("WHAT", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        import kintsugi

        print(json.dumps({**timed(args.one[0], Path(args.one[1])), "file": kintsugi.__file__}))
        return
    trees = {"this": HERE} | ({} if args.against is None else {"other": args.against / "src"})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_csv(folder / "rows.csv", args.rows)
        write_pictures(folder, args.pictures)
        for what, title in (("csv", f"CSV of {args.rows} rows, 30 columns"), ("pictures", f"{args.pictures} pictures")):
            seconds: dict[str, list[dict[str, float]]] = {tree: [] for tree in trees}
            for run in range(args.runs):
                for tree in list(trees) if run % 2 else reversed(list(trees)):
                    seconds[tree].append(in_process(trees[tree], what, folder))
            print(title)
            for step in (*STEPS, "build + batches"):
                print(f"  {step}: {line(seconds, step)}")


def line(seconds: dict[str, list[dict[str, float]]], step: str) -> str:
    """Medians, and the median of the ratios of neighbouring runs: above 1 this tree is quicker."""
    parts = step.split(" + ")
    mine = [sum(run[part] for part in parts) for run in seconds["this"]]
    text = f"{statistics.median(mine):.2f} s"
    if "other" in seconds:
        other = [sum(run[part] for part in parts) for run in seconds["other"]]
        ratios = sorted(theirs / ours for ours, theirs in zip(mine, other, strict=True))
        text += (
            f"; before {statistics.median(other):.2f} s; speed {statistics.median(ratios):.2f} times that of before "
            f"({ratios[0]:.2f} – {ratios[-1]:.2f})"
        )
    return text


if __name__ == "__main__":
    main()
