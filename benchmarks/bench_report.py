"""The report of a store of 100,000 results: seconds to write and to open, and bytes of its data.

python benchmarks/bench_report.py [--results 100000]

It is opened in headless Chromium and its DOM printed, which waits for the page to have loaded; an empty page, opened in turn,
says what of that is the browser's own start.
"""

from __future__ import annotations

import argparse
import math
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from common import machine

from kintsugi.bench import Store, Trial
from kintsugi.evaluation.protocols import Condition, Protocol
from kintsugi.report import write_report

MODALITIES = ("image", "speech", "text", "vitals")
METRICS = {"accuracy": True, "macro_f1": True, "log_loss": False, "ece": False}


def protocol() -> Protocol:
    """49 conditions, as many as ``standard`` has for a few modalities."""
    found = [Condition("clean", "clean", x=0.0)]
    found += [Condition(" + ".join(c), "subset", keep=c) for size in (3, 2, 1) for c in combinations(MODALITIES, size)]
    found += [Condition(f"mcar({r})", "rate/mcar", missing=f"mcar({r})", x=r) for r in (0.1, 0.3, 0.5, 0.7)]
    for number in range(10):
        modality = MODALITIES[number % 4]
        for severity in (1, 3, 5):
            spec = f"damage_{number}({modality}, {severity})"
            group = f"corruption/damage_{number}({modality})"
            found.append(Condition(spec, group, corruptions=(spec,), x=float(severity)))
    return Protocol("standard", tuple(found))


def fill(store: Store, results: int) -> int:
    """Made-up results of ten methods, five seeds and two training conditions, on as many data sets as it takes."""
    rng, shared, made = np.random.default_rng(0), protocol(), 0
    dataset = 0
    while made < results:
        for training in ("complete", "mcar(0.3)"):
            for method in range(10):
                for seed in range(5):
                    trial = Trial(
                        f"method {method}", {"params": {"dim": 32}}, f"data set {dataset}", f"{dataset:040d}", training, seed,
                        shared, {"torch": "0"}, {"rows": 2000},
                    )  # fmt: skip
                    rows = table(trial, 0.9 - 0.03 * method, rng)
                    store.finish(trial, rows, None, facts(method, rng))
                    made += len(rows)
        dataset += 1
    return made


def table(trial: Trial, base: float, rng: np.random.Generator) -> pd.DataFrame:
    conditions = trial.protocol.conditions
    level = np.array([0.0 if c.x is None else c.x if c.x >= 1 else 3 * c.x for c in conditions])
    kept = np.array([4 if c.keep is None else len(c.keep) for c in conditions])
    score = base - 0.03 * level - 0.1 * (4 - kept) / 4 + rng.normal(0, 0.004, len(conditions))
    parts = []
    for metric, higher in METRICS.items():
        value = score if higher else 1 - score
        parts.append(
            pd.DataFrame(
                {
                    "dataset": trial.dataset, "method": trial.method, "seed": trial.seed, "training": trial.training,
                    "condition": [c.name for c in conditions], "group": [c.group for c in conditions],
                    "x": [math.nan if c.x is None else c.x for c in conditions], "metric": metric, "value": value,
                    "low": value - 0.012, "high": value + 0.013, "n": 500, "higher_is_better": higher, "seconds": 0.1,
                    "mask_hash": "",
                }
            )
        )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def facts(method: int, rng: np.random.Generator) -> dict[str, Any]:
    bins = [[(b + 0.6) / 15, min(1.0, (b + 0.6) / 15 + float(rng.normal(0, 0.03))), 30] for b in range(15)]
    curve = [[(i + 1) / 25, 0.2 * ((i + 1) / 25) ** 2] for i in range(25)]
    return {
        "training": {"seconds": 10.0 + method, "epochs": 3}, "evaluation": {"seconds": 3.0}, "machine": {"cores": 2},
        "reliability": {"clean": bins, "degraded": bins}, "risk_coverage": {"clean": curve, "degraded": curve},
    }  # fmt: skip


def opened(chromium: str, page: Path) -> tuple[float, str]:
    """Seconds until the browser has printed the page, and what it printed."""
    with tempfile.TemporaryDirectory() as profile:
        words = [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", f"--user-data-dir={profile}",
            "--dump-dom", page.resolve().as_uri(),
        ]  # fmt: skip
        began = time.perf_counter()
        said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        return time.perf_counter() - began, said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=5)
    asked = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        page, empty = Path(folder) / "report.html", Path(folder) / "empty.html"
        empty.write_text("<!doctype html><title>empty</title>")
        with Store.open(Path(folder) / "runs") as store:
            made = fill(store, asked.results)
            began = time.perf_counter()
            write_report(store, page, reference="method 0")
            print(f"{made} results, written in {time.perf_counter() - began:.1f} s")
        text = page.read_text()
        data = max(
            (len(part) for part in re.findall(r"<script[^>]*application/json[^>]*>(.*?)</script>", text, re.S)),
            default=0,
        )
        print(f"page {len(text) / 1e6:.1f} MB, its data {data / 1e6:.2f} MB")
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        if chromium is None:
            print("no Chromium here, so it was not opened")
            return
        both = [(opened(chromium, empty)[0], opened(chromium, page)[0]) for _ in range(asked.runs)]
        blank, whole = (statistics.median(side) for side in zip(*both, strict=True))
        print(f"opened in {whole:.2f} s, an empty page in {blank:.2f} s: {whole - blank:.2f} s of it are the report's")


if __name__ == "__main__":
    main()
