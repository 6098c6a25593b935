"""How a model behind an HTTP API holds up when its inputs fail, beside a method of this library: a table and a report.

Nothing is sent anywhere: ``Service`` stands in for the other side. What counts is ``ask``, a plain function.

python examples/foreign_callable.py -o report.html
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import kintsugi as kg
from kintsugi.data.dataset import Dataset

MOST = 100  # rows of one request


class Service:
    """The other side: arrays in, probabilities out, its classes in an order of its own. It knows nothing of holes."""

    labels = ("9", "8", "7", "6", "5", "4", "3", "2", "1", "0")

    def __init__(self, inputs: dict[str, np.ndarray], target: np.ndarray) -> None:
        self.scale = {name: (x.mean(0), x.std(0) + 0.1 * x.std()) for name, x in inputs.items()}
        whole = self._whole(inputs)
        self.centres = np.stack([whole[target == int(label)].mean(0) for label in self.labels])

    def _whole(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        parts = [
            ((inputs[name] - mean) / spread).reshape(len(inputs[name]), -1)
            for name, (mean, spread) in self.scale.items()
        ]
        return np.concatenate(parts, 1)

    def post(self, request: dict[str, np.ndarray]) -> list[list[float]]:
        """Probabilities of the ten classes for each row, by the distance to the centre of each class."""
        if len(next(iter(request.values()))) > MOST:
            raise ValueError(f"413: at most {MOST} rows in one request")
        apart = ((self._whole(request)[:, None] - self.centres) ** 2).mean(2)
        odds = np.exp(-10 * (apart - apart.min(1, keepdims=True)))
        answer: list[list[float]] = (odds / odds.sum(1, keepdims=True)).tolist()
        return answer


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
    """Wrap the function that asks the service, train mean_fusion on the same rows, put both to the test."""
    asked = arguments()
    train, val, test = kg.datasets.load("handwritten").split()
    train, test = some(train, asked.rows), some(test, asked.test_rows)

    rows = train.batch(torch.arange(len(train)))
    assert rows.target is not None
    service = Service({name: x.numpy() for name, x in rows.inputs.items()}, rows.target.numpy())

    def ask(given: dict[str, Tensor]) -> np.ndarray:
        """Probabilities [B, 10], in as many requests as it takes."""
        arrays = {name: x.numpy() for name, x in given.items()}
        count = len(next(iter(arrays.values())))
        said = []
        for start in range(0, count, MOST):
            said += service.post({name: x[start : start + MOST] for name, x in arrays.items()})
        return np.array(said, np.float32)

    remote = kg.wrap(ask, train.schema, absent="mean", reference=train, output="probabilities", labels=service.labels)
    fusion = kg.Classifier("mean_fusion", epochs=asked.epochs, seed=0).fit(train, val)

    # training= says what was done to the training rows: nothing, for either
    results = kg.evaluate(
        {"remote": remote, "mean_fusion": fusion}, test, "standard", training="complete", resamples=200, progress=None
    )
    print(results.leaderboard()[["method", "clean", "mean", "worst", "worst_in"]].to_string(index=False))
    if asked.out is not None:
        print(f"report: {results.to_html(asked.out, command=' '.join(['python', *sys.argv]))}")


if __name__ == "__main__":
    main()
