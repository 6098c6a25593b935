"""How a scikit-learn pipeline holds up when its inputs fail, beside a method of this library: a table and a report.

python examples/foreign_sklearn.py -o report.html
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

import kintsugi as kg
from kintsugi.data.dataset import Dataset


def loudness(wave: Tensor) -> Tensor:
    """Log energy of twenty pieces of a sound: [R, 8000] -> [R, 20]."""
    return wave.unfold(1, 400, 400).pow(2).mean(2).add(1e-6).log()


def letters(ids: Tensor) -> Tensor:
    """How often each byte occurs in a sentence: [R, 64] -> [R, 257]."""
    return torch.nn.functional.one_hot(ids, 257).sum(1).float()


def some(data: Dataset, count: int | None) -> Dataset:
    """So many rows, from all over the data; None: all of them."""
    return data if count is None else data.subset(torch.linspace(0, len(data) - 1, count).long())


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-o", "--out", type=Path, help="write a report here, one HTML file")
    parser.add_argument("--rows", type=int, help="train on so many rows only")
    parser.add_argument("--test-rows", type=int, help="test on so many rows only")
    parser.add_argument("--epochs", type=int, default=6, help="of mean_fusion")
    return parser.parse_args()


def main() -> None:
    """Fit one pipeline and wrap it twice, train mean_fusion on the same rows, put all three to the test."""
    asked = arguments()
    train, val, test = kg.datasets.load("avdigits").split()
    train, test = some(train, asked.rows), some(test, asked.test_rows)

    logistic = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    models = {
        f"logistic ({absent})": kg.wrap(
            logistic,
            train.schema,
            absent=absent,
            reference=train,
            prepare={"speech": loudness, "clue": letters},
        )
        for absent in ("zero", "mean")
    }
    assert train.target is not None
    logistic.fit(models["logistic (zero)"].matrix(train), train.target.numpy())  # avdigits has no holes of its own
    fusion = kg.Classifier("mean_fusion", epochs=asked.epochs, seed=0).fit(train, val)

    # training= says what was done to the training rows: nothing, for any of them
    results = kg.evaluate(
        {**models, "mean_fusion": fusion}, test, "standard", training="complete", resamples=200, progress=None
    )
    print(results.leaderboard()[["method", "clean", "mean", "worst", "worst_in"]].to_string(index=False))
    if asked.out is not None:
        print(f"report: {results.to_html(asked.out, command=' '.join(['python', *sys.argv]))}")


if __name__ == "__main__":
    main()
