"""Bootstrap intervals: the formulas against torchmetrics, coverage, pairing."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from kintsugi.core.schema import Task
from kintsugi.evaluation.intervals import (
    Bootstrap,
    Formula,
    formula_of,
    measure,
    paired_difference,
    seed_interval,
)
from kintsugi.tasks import Classification, Multilabel, Regression

G = torch.Generator().manual_seed(0)


def rows(task: Task, n: int = 90) -> tuple[Tensor, Tensor]:
    if task.key == "classification":
        target = torch.randint(task.outputs - 1, (n,), generator=G)  # one class never occurs
        return (torch.randn(n, task.outputs, generator=G) + 2 * torch.eye(task.outputs)[target]).softmax(1), target
    if task.key == "multilabel":
        target = torch.rand(n, task.outputs, generator=G) < torch.tensor([0.5, 0.2, 0.0])
        return (torch.randn(n, task.outputs, generator=G) + target).sigmoid(), target.long()
    target = 100 + 3 * torch.randn(n, task.outputs, generator=G)
    values = target + torch.randn(n, task.outputs, generator=G)
    return (values[:, 0], target[:, 0]) if task.outputs == 1 else (values, target)


TASKS = [
    Classification(["a", "b", "c", "d"]),
    Multilabel(["a", "b", "c"]),
    Regression(),
    Regression(("a", "b"), (0.0, 0.0), (1.0, 1.0)),
]
EXACT = {
    "classification": {"accuracy", "macro_f1", "log_loss"},
    "multilabel": {"macro_f1", "label_accuracy"},
    "regression": {"mae", "rmse", "r2"},
}


@pytest.mark.parametrize("task", TASKS, ids=lambda t: f"{t.key}{t.outputs}")
def test_formulas_are_the_metrics(task: Task) -> None:
    """With unit weights, and on a resample: counting rows is the same as repeating them."""
    probabilities, target = rows(task)
    counts = next(Bootstrap(len(target), 3).counts())[1]
    repeated = torch.arange(len(target)).repeat_interleave(counts.long())
    known = set()
    for name, metric in task.metrics().items():
        formula = formula_of(metric, probabilities, target)
        if formula is None:
            continue
        known.add(name)
        metric.update(probabilities, target)
        assert formula.value() == pytest.approx(float(metric.compute()), rel=1e-4), name
        metric.reset()
        metric.update(probabilities[repeated], target[repeated])
        weighted = formula.finish(counts.double()[None] @ formula.rows.double())
        assert float(weighted) == pytest.approx(float(metric.compute()), rel=1e-4), name
        assert weighted.dtype == torch.float64
    assert known == EXACT[task.key]


@pytest.mark.filterwarnings("ignore:No positive samples:UserWarning")
def test_other_metrics_are_resampled() -> None:
    task = TASKS[1]
    probabilities, target = rows(task)
    measured = measure(dict(task.metrics().items()), probabilities, target, Bootstrap(90, 300))
    assert len(measured["average_precision"].replicates) == 100
    assert len(measured["macro_f1"].replicates) == 300
    low, high = measured["average_precision"].interval[1:]
    assert low < measured["average_precision"].interval.value < high


def test_metrics_set_up_in_another_way_are_resampled() -> None:
    """A formula that does not give the metric's own value is not used."""
    from torchmetrics.classification import MulticlassAccuracy

    probabilities, target = rows(TASKS[0])
    odd = MulticlassAccuracy(4, average="micro", top_k=3)
    measured = measure({"top": odd}, probabilities, target, Bootstrap(90, 200))["top"]
    assert len(measured.replicates) == 100
    assert measured.interval.value == pytest.approx(
        float((probabilities.topk(3).indices == target[:, None]).any(1).float().mean())
    )


def test_draws_are_seeded_and_complete() -> None:
    one, again, other = (torch.cat(list(Bootstrap(40, 25, seed).counts())) for seed in (0, 0, 1))
    assert one.shape == (25, 40)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(one.sum(1), torch.full((25,), 40.0))


def test_large_sets_are_drawn_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    from kintsugi.evaluation import intervals

    monkeypatch.setattr(intervals, "_MOST_CACHED", 10)
    bootstrap = Bootstrap(1 << 21, 5)
    blocks = [tuple(block.shape) for block in bootstrap.counts()]
    assert blocks == [(2, 1 << 21), (2, 1 << 21), (1, 1 << 21)]
    assert bootstrap._cached is None
    values = torch.rand(1 << 21)
    formula = Formula(torch.stack([values, torch.ones_like(values)], 1), lambda s: s[:, 0] / s[:, 1])
    assert torch.equal(bootstrap.replicates(formula), bootstrap.replicates(formula))


def test_intervals_cover_what_they_should() -> None:
    """Of 300 samples of a coin that falls right seven times in ten, about 95 % hold 0.7 in their interval."""
    from torchmetrics.classification import MulticlassAccuracy

    bootstrap, g, held = Bootstrap(200, 500), torch.Generator().manual_seed(3), 0
    metric = MulticlassAccuracy(2, average="micro")
    widths = []
    for _ in range(300):
        right = (torch.rand(200, generator=g) < 0.7).long()
        probabilities = torch.stack([1 - right, right], 1).float()
        _, low, high = measure({"a": metric}, probabilities, torch.ones(200).long(), bootstrap)["a"].interval
        held += low <= 0.7 <= high
        widths.append(high - low)
    assert 0.91 <= held / 300 <= 0.98
    assert sum(widths) / 300 == pytest.approx(2 * 1.96 * math.sqrt(0.7 * 0.3 / 200), rel=0.05)


def test_undefined_resamples_are_left_out() -> None:
    replicates = torch.tensor([math.nan, 1.0, 2.0, 3.0, math.inf])
    assert Bootstrap(5).interval(2.0, replicates) == pytest.approx((2.0, 1.05, 2.95))
    assert math.isnan(Bootstrap(5).interval(2.0, torch.full((3,), math.nan)).low)


def test_seed_interval_by_hand() -> None:
    # mean 2, standard deviation 1, t(0.975; 2) = 4.30265
    half = 4.30265 / math.sqrt(3)
    assert seed_interval([1.0, 2.0, 3.0]) == pytest.approx((2.0, 2 - half, 2 + half), abs=1e-4)
    value, low, high = seed_interval([0.5])
    assert value == 0.5
    assert math.isnan(low)
    assert math.isnan(high)


def test_pairing_is_surer_than_two_intervals() -> None:
    g = torch.Generator().manual_seed(1)
    a = torch.rand(300, generator=g)
    b = a - 0.02 - 0.01 * torch.rand(300, generator=g)
    value, low, high = paired_difference(a, b)
    assert low < value < high
    assert low > 0
    assert value == pytest.approx(float((a - b).mean()), abs=1e-6)
    same: Any = paired_difference([1, 0, 1], [1, 0, 1])
    assert same == (0, 0, 0)
