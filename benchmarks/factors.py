"""How near the methods come to what is possible: generated data whose Bayes-optimal accuracy is known for every subset.

    OMP_NUM_THREADS=1 python benchmarks/factors.py [--seeds 5] [--workers 2] [--synergy 0 1]

Training: 30 % of the slots of the training rows are missing (with synergy 0), none (with synergy 1).
"""

from __future__ import annotations

import argparse
import statistics
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

import kintsugi as kg
from kintsugi.demo import METHODS as KEYS

BUDGET = {0.0: (10_000, 20), 1.0: (6_000, 40)}  # synergy: rows (60 % of them for training), epochs


def score(key: str, synergy: float, seed: int) -> dict[str, float]:
    """Distance to the optimum, in points, of all modalities and of each alone; positive: below it."""
    torch.set_num_threads(1)
    rows, epochs = BUDGET[synergy]
    data = kg.datasets.load("factors", synergy=synergy, rows=rows, seed=seed)
    train, val, test = data.split()
    if synergy == 0:
        train = train.with_missing(kg.missing.mcar(0.3), seed=seed)
    model = kg.Classifier(key, epochs=epochs, lr=3e-3, seed=seed, progress=False).fit(train, val)
    names, bayes = data.schema.names, data.note["bayes"]
    found = {"all": 100 * (bayes[names] - model.score(test)), "accuracy": 100 * model.score(test)}
    for name in names:
        found[name] = 100 * (bayes[name,] - model.score(test.with_missing(kg.missing.pattern(name))))
    found["additive"] = 100 * data.note["additive"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--synergy", type=float, nargs="*", default=list(BUDGET), choices=list(BUDGET))
    parser.add_argument("--methods", nargs="*", default=list(KEYS))
    options = parser.parse_args()
    jobs = [(k, s, seed) for s in options.synergy for k in options.methods for seed in range(options.seeds)]
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        found = list(pool.map(score, *zip(*jobs, strict=True)))
    for synergy in options.synergy:
        print(f"\nsynergy={synergy:g}: points below the optimum, mean over {options.seeds} seeds (largest)")
        for key in options.methods:
            mine = [f for (k, s, _), f in zip(jobs, found, strict=True) if k == key and s == synergy]
            alone = {n: [f[n] for f in mine] for n in mine[0] if n not in ("all", "accuracy", "additive")}
            shown = ", ".join(f"{n} {statistics.mean(v):.1f} ({max(v):.1f})" for n, v in alone.items())
            both = [f["all"] for f in mine]
            line = f"{key:<22} all {statistics.mean(both):.1f} ({max(both):.1f})"
            if synergy == 0:
                print(f"{line}; alone: {shown}")
            else:
                accuracy = statistics.mean(f["accuracy"] for f in mine)
                additive = statistics.mean(f["additive"] for f in mine)
                kind = "joint" if kg.methods.card(key).joint else "additive"
                print(f"{line}; accuracy {accuracy:.1f}, best additive rule {additive:.1f}; card: {kind}")


if __name__ == "__main__":
    main()
