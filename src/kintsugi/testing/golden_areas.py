"""Golden numbers of training with its defaults, and of evaluation; neither is registered anywhere."""

from __future__ import annotations

from typing import Any

import torch

from kintsugi.core.data import Splits
from kintsugi.core.methods import METHODS
from kintsugi.evaluation import Protocol, evaluate, get_protocol
from kintsugi.evaluation.intervals import Bootstrap, formula_of, measure, paired_difference, seed_interval
from kintsugi.imperfect.missing import parse_mechanism
from kintsugi.tasks import Classification
from kintsugi.testing import build
from kintsugi.testing.fixture import toy
from kintsugi.testing.golden_measures import measure_numbers
from kintsugi.testing.golden_methods import answers, with_holes
from kintsugi.testing.golden_numbers import Numbers, sha
from kintsugi.testing.golden_operators import together_numbers
from kintsugi.training.sampling import generator
from kintsugi.training.trainer import Trainer
from kintsugi.training.views import VIEWS

PLAIN = "mean_fusion"


# training -------------------------------------------------------------------------------------------------------------
def training_numbers() -> Numbers:
    """The plainest method trained with defaults of the trainer, and with every other setting that one process can use.

    Losses of all epochs, scores of the epochs, and answers; and what each view leaves.
    """
    return {
        "defaults": _fit(epochs=5),
        "adam, constant, accumulated": _fit(
            epochs=4, optimizer="adam", schedule="constant", accumulate=2, batch_size=16, clip=0.0, select=False
        ),
        "sgd, patient": _fit(epochs=6, optimizer="sgd", lr=0.05, weight_decay=0.1, patience=1, seed=1),
        "views": _views(),
    }


def _views() -> Numbers:
    """View -> how many slots it leaves of rows with holes, and which."""
    data = toy(rows=96, modalities=4).with_missing(parse_mechanism("mcar(0.3)"), seed=1)
    batch = data.batch(torch.arange(len(data)))
    kept = {name: view(batch, generator("golden", "views")) for name, view in VIEWS.items()}
    return {name: {"slots": int(keep.sum()), "which": sha(keep)} for name, keep in kept.items()}


def _fit(**options: Any) -> Numbers:
    data = toy(rows=144).with_missing(parse_mechanism("mcar(0.3)"), seed=1)
    train, val, test = data.split()
    pipeline = build(METHODS[PLAIN], data.schema)
    trainer = Trainer(progress=False, **options)
    trainer.fit(pipeline, Splits(train, val, test))
    epochs: dict[str, Numbers] = {}
    for record in trainer.history:
        values = {name: value for name, value in record.items() if isinstance(value, float)}
        epochs[f"answers of epoch {record['epoch'] + 1}"] = values  # after some updates: the tolerance of answers
    return {**epochs, "answers": answers(pipeline, with_holes(test))}


# evaluation -----------------------------------------------------------------------------------------------------------
def evaluation_numbers() -> Numbers:
    """For each task the plainest method, untrained, under subsets, rates and a corruption: values with their intervals;
    every measure and interval; and what several operators are made into.
    """
    found: dict[str, Numbers] = {
        "measures": measure_numbers(),
        "intervals": _interval_numbers(),
        "operators together": together_numbers(),
    }
    for task in ("classification", "multilabel", "regression"):
        data = toy(task, rows=120)
        pipeline = build(METHODS[PLAIN], data.schema)
        conditions = [
            condition
            for spec in ("subsets", "rates(0.5)", "corruptions(3, feature_noise)")
            for condition in get_protocol(spec, data.schema).conditions
            if condition.name != "clean" or spec == "subsets"
        ]
        results = evaluate(pipeline, data, Protocol("golden", tuple(conditions)), resamples=50, name=PLAIN)
        rows = results.table[["condition", "metric", "value", "low", "high", "n"]]
        found[task] = {
            f"{condition}, {metric}": [float(value), float(low), float(high), int(n)]
            for condition, metric, value, low, high, n in rows.itertuples(index=False)
        }
    return found


def _interval_numbers() -> Numbers:
    """Over seeds, in pairs, and of each metric of classification where one class never occurs; by two ways to resample."""
    drawn = generator("golden", "intervals")
    probabilities = (2 * torch.randn(40, 4, generator=drawn)).softmax(1)
    target = torch.randint(0, 3, (40,), generator=drawn)
    probabilities[:, 3] = 0  # of a class that is neither predicted nor there
    probabilities = probabilities / probabilities.sum(1, keepdim=True)
    metrics = Classification(("a", "b", "c", "d")).metrics()
    bootstrap = Bootstrap(40, 300)
    found: dict[str, Numbers] = {
        "over seeds": list(seed_interval([0.71, 0.74, 0.69, 0.80, 0.77])),
        "in pairs": list(paired_difference(probabilities[:, 0], probabilities[:, 1], resamples=300)),
    }
    for name, measured in measure(metrics, probabilities, target, bootstrap).items():
        formula = formula_of(metrics[name], probabilities, target)
        assert formula is not None
        found[name] = {
            "measured": list(measured.interval),
            "by sums": list(bootstrap.interval(formula.value(), bootstrap.replicates(formula))),
        }
    return found
