"""How a plain PyTorch module holds up when its inputs fail, beside a method of this library: a table and a report.

python examples/foreign_torch.py -o report.html
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

import kintsugi as kg
from kintsugi.data.dataset import Dataset


class Late(nn.Module):
    """A network of one's own: an image and the ids of a sentence in, ten logits out. It knows nothing of holes."""

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU())
        self.read = nn.EmbeddingBag(257 * 257, 64)
        self.say = nn.Linear(128, 10)

    def forward(self, image: Tensor, clue: Tensor) -> Tensor:
        pairs = clue[:, :-1] * 257 + clue[:, 1:]
        return self.say(torch.cat([self.look(image), self.read(pairs)], 1))


def fit(net: Late, image: Tensor, clue: Tensor, target: Tensor, epochs: int) -> None:
    """A loop of one's own."""
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(epochs):
        for part in torch.randperm(len(target)).split(100):
            loss = nn.functional.cross_entropy(net(image[part], clue[part]), target[part])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()


def some(data: Dataset, count: int | None) -> Dataset:
    """So many rows, from all over the data; None: all of them."""
    return data if count is None else data.subset(torch.linspace(0, len(data) - 1, count).long())


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-o", "--out", type=Path, help="write a report here, one HTML file")
    parser.add_argument("--rows", type=int, help="train on so many rows only")
    parser.add_argument("--test-rows", type=int, help="test on so many rows only")
    parser.add_argument("--epochs", type=int, default=6, help="of mean_fusion; the network gets 15")
    return parser.parse_args()


def main() -> None:
    """Train the network, wrap it, train mean_fusion on the same rows, put both to the test."""
    asked = arguments()
    torch.manual_seed(0)
    train, val, test = kg.datasets.load("avdigits").split()
    train, test = some(train, asked.rows), some(test, asked.test_rows)

    rows = train.batch(torch.arange(len(train)))
    assert rows.target is not None
    net = Late()
    fit(net, rows.inputs["image"], rows.inputs["clue"], rows.target, epochs=15)
    schema = kg.Schema((train.schema["image"], train.schema["clue"]), train.schema.task)  # it hears nothing
    late = kg.wrap(net, schema, inputs="positional", reference=train)
    fusion = kg.Classifier("mean_fusion", epochs=asked.epochs, seed=0).fit(train, val)

    # training= says what was done to the training rows: nothing, for either
    results = kg.evaluate(
        {"late": late, "mean_fusion": fusion}, test, "standard", training="complete", resamples=200, progress=None
    )
    print(results.leaderboard()[["method", "clean", "mean", "worst", "worst_in"]].to_string(index=False))
    if asked.out is not None:
        print(f"report: {results.to_html(asked.out, command=' '.join(['python', *sys.argv]))}")


if __name__ == "__main__":
    main()
