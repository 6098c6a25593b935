"""How a scikit-learn pipeline holds up when its inputs fail, with zeros and with means for what is absent."""

from __future__ import annotations

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

import kintsugi as kg


def loudness(wave: Tensor) -> Tensor:
    """Log energy of twenty pieces of a sound: [R, 8000] -> [R, 20]."""
    return wave.unfold(1, 400, 400).pow(2).mean(2).add(1e-6).log()


def letters(ids: Tensor) -> Tensor:
    """How often each byte occurs in a sentence: [R, 64] -> [R, 257]."""
    return torch.nn.functional.one_hot(ids, 257).sum(1).float()


def main() -> None:
    """Fit one model, wrap it twice, print both lines of the table."""
    train, _, test = kg.datasets.load("avdigits").split()
    logistic = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    models = {
        f"logistic, {absent}": kg.wrap(
            logistic,
            train.schema,
            absent=absent,
            reference=train,
            prepare={"speech": loudness, "clue": letters},
        )
        for absent in ("zero", "mean")
    }
    assert train.target is not None
    logistic.fit(models["logistic, zero"].matrix(train), train.target.numpy())  # avdigits has no holes of its own
    results = kg.evaluate(models, test, "standard", resamples=200)
    print(results.leaderboard()[["method", "clean", "mean", "worst", "worst_in"]].to_string(index=False))


if __name__ == "__main__":
    main()
