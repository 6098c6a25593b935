"""Metrics by name: against scikit-learn and SciPy, for every task, to choose the epoch, and what a guess gets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torch import Tensor

from kintsugi.core.errors import ConfigError, UnknownName
from kintsugi.core.metrics import METRICS, metric_names, named_metric, named_metrics
from kintsugi.evaluation.intervals import Bootstrap, formula_of, measure
from kintsugi.tasks import Classification, Multilabel, Ordinal, Regression

TWO, FOUR = Classification(["well", "ill"]), Classification(list("abcd"))
LABELS = Multilabel(["p", "q", "r"])
ONE, TWO_NUMBERS = Regression(), Regression(("a", "b"), (0.0, 0.0), (1.0, 1.0))


def answered(classes: int, seed: int, n: int = 120) -> tuple[Tensor, Tensor]:
    """Probabilities that are better than chance, some of them tied, and classes of unequal frequency."""
    g = torch.Generator().manual_seed(seed)
    target = torch.multinomial(torch.arange(1.0, classes + 1), n, replacement=True, generator=g)
    logits = torch.randn(n, classes, generator=g) + 1.2 * torch.eye(classes)[target]
    return logits.mul(4).round().div(4).softmax(1), target


def labelled(seed: int, n: int = 120) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    target = (torch.rand(n, 3, generator=g) < torch.tensor([0.5, 0.2, 0.8])).long()
    return (torch.randn(n, 3, generator=g) + target - 0.5).sigmoid(), target


def specificity(true: Any, said: Any) -> float:
    return float(sk.recall_score(true, said, pos_label=0))


BINARY = {
    "accuracy": lambda y, p: sk.accuracy_score(y, p.argmax(1)),
    "macro_f1": lambda y, p: sk.f1_score(y, p.argmax(1), average="macro"),
    "log_loss": sk.log_loss,
    "auroc": lambda y, p: sk.roc_auc_score(y, p[:, 1]),
    "average_precision": lambda y, p: sk.average_precision_score(y, p[:, 1]),
    "balanced_accuracy": lambda y, p: sk.balanced_accuracy_score(y, p.argmax(1)),
    "sensitivity": lambda y, p: sk.recall_score(y, p.argmax(1)),
    "specificity": lambda y, p: specificity(y, p.argmax(1)),
    "f1": lambda y, p: sk.f1_score(y, p.argmax(1)),
    "mcc": lambda y, p: sk.matthews_corrcoef(y, p.argmax(1)),
}
SEVERAL = {
    **{name: BINARY[name] for name in ("accuracy", "macro_f1", "balanced_accuracy", "mcc")},
    "log_loss": lambda y, p: sk.log_loss(y, p / p.sum(1, keepdims=True)),
    "auroc": lambda y, p: sk.roc_auc_score(y, p / p.sum(1, keepdims=True), multi_class="ovr", average="macro"),
    "average_precision": lambda y, p: sk.average_precision_score(np.eye(p.shape[1])[y], p, average="macro"),
    "sensitivity": lambda y, p: sk.recall_score(y, p.argmax(1), average="macro"),
    "specificity": lambda y, p: np.mean([specificity(y == k, p.argmax(1) == k) for k in range(p.shape[1])]),
    "f1": lambda y, p: sk.f1_score(y, p.argmax(1), average="macro"),
}
OF_LABELS = {
    "macro_f1": lambda y, p: sk.f1_score(y, p > 0.5, average="macro"),
    "average_precision": lambda y, p: sk.average_precision_score(y, p, average="macro"),
    "label_accuracy": lambda y, p: ((p > 0.5) == y).mean(),
    "exact_match": lambda y, p: sk.accuracy_score(y, p > 0.5),
    "log_loss": lambda y, p: np.mean([sk.log_loss(y[:, k], p[:, k]) for k in range(3)]),
    "auroc": lambda y, p: sk.roc_auc_score(y, p, average="macro"),
    "balanced_accuracy": lambda y, p: each(sk.balanced_accuracy_score, y, p),
    "sensitivity": lambda y, p: each(sk.recall_score, y, p),
    "specificity": lambda y, p: each(specificity, y, p),
    "f1": lambda y, p: sk.f1_score(y, p > 0.5, average="macro"),
    "mcc": lambda y, p: each(sk.matthews_corrcoef, y, p),
}


def each(score: Any, y: Any, p: Any) -> float:
    return float(np.mean([score(y[:, k], p[:, k] > 0.5) for k in range(y.shape[1])]))


def value_of(task: Any, name: str, values: Tensor, target: Tensor) -> float:
    """In two batches, as validation asks."""
    metric, half = named_metric(task, name), len(target) // 3
    for rows in (slice(0, half), slice(half, None)):
        metric.update(values[rows], target[rows])
    return float(metric.compute())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", BINARY)
def test_metrics_of_two_classes_are_those_of_scikit_learn(name: str, seed: int) -> None:
    values, target = answered(2, seed)
    assert value_of(TWO, name, values, target) == pytest.approx(BINARY[name](target.numpy(), values.numpy()), abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", SEVERAL)
def test_metrics_of_four_classes_are_those_of_scikit_learn(name: str, seed: int) -> None:
    values, target = answered(4, seed)
    found = value_of(FOUR, name, values, target)
    assert found == pytest.approx(SEVERAL[name](target.numpy(), values.double().numpy()), abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", OF_LABELS)
def test_metrics_of_labels_are_those_of_scikit_learn(name: str, seed: int) -> None:
    values, target = labelled(seed)
    assert value_of(LABELS, name, values, target) == pytest.approx(
        OF_LABELS[name](target.numpy(), values.numpy()), abs=1e-5
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("task", [ONE, TWO_NUMBERS], ids=["one", "two"])
def test_metrics_of_numbers_are_those_of_scikit_learn_and_scipy(task: Regression, seed: int) -> None:
    from scipy.stats import pearsonr

    g = torch.Generator().manual_seed(seed)
    y = 50 + 3 * torch.randn(90, task.outputs, generator=g)
    values = y + 2 * torch.randn(90, task.outputs, generator=g)
    shown, truth = (x[:, 0] if task.outputs == 1 else x for x in (values, y))
    found = {name: value_of(task, name, shown, truth) for name in ("mae", "rmse", "r2", "pearson")}
    a, b = y.double().numpy(), values.double().numpy()
    wanted = {
        "mae": sk.mean_absolute_error(a, b),
        "rmse": np.sqrt(((a - b) ** 2).mean()),
        "r2": sk.r2_score(a, b),
        "pearson": np.mean([pearsonr(a[:, k], b[:, k]).statistic for k in range(task.outputs)]),
    }
    assert found == pytest.approx(wanted, rel=1e-4)


def test_every_metric_is_checked_above() -> None:
    assert set(metric_names(TWO)) == set(BINARY)
    assert set(metric_names(FOUR)) == set(SEVERAL)
    assert set(metric_names(LABELS)) == set(OF_LABELS)
    assert set(metric_names(ONE)) == {"mae", "rmse", "r2", "pearson"}
    assert set(METRICS) == set(BINARY) | set(OF_LABELS) | {"mae", "rmse", "r2", "pearson"}
    assert all(METRICS[name].about for name in METRICS)


def test_classes_in_an_order_have_their_own_metrics_and_those_of_classes() -> None:
    names = metric_names(Ordinal(["low", "middle", "high"]))
    assert names[:3] == ["class_mae", "quadratic_kappa", "accuracy"]
    assert set(names) == {"class_mae", "quadratic_kappa", *BINARY}


@pytest.mark.parametrize("task", [TWO, FOUR, LABELS, ONE], ids=["two", "four", "labels", "numbers"])
def test_every_metric_says_which_way_is_better(task: Any) -> None:
    lower = {"log_loss", "mae", "rmse"}
    assert {name for name in metric_names(task) if not named_metric(task, name).higher_is_better} == lower & set(
        metric_names(task)
    )


def test_a_class_that_no_row_has_is_left_out_and_one_class_alone_says_nothing() -> None:
    values, target = answered(4, 5)
    target = target.clamp(max=2)  # the last class is answered, but never right
    found = {name: value_of(FOUR, name, values, target) for name in ("auroc", "average_precision", "balanced_accuracy")}
    y, p = target.numpy(), values.numpy()
    one_hot = np.eye(4)[y][:, :3]
    assert found["auroc"] == pytest.approx(sk.roc_auc_score(one_hot, p[:, :3], average="macro"), abs=1e-5)
    assert found["average_precision"] == pytest.approx(sk.average_precision_score(one_hot, p[:, :3]), abs=1e-5)
    said = p.argmax(1)
    assert found["balanced_accuracy"] == pytest.approx(np.mean([(said[y == k] == k).mean() for k in range(3)]))
    alone = torch.zeros(len(target), dtype=torch.long)
    for name in ("auroc", "average_precision", "mcc"):
        assert np.isnan(value_of(TWO, name, values[:, :2].softmax(1), alone)), name


def test_a_constant_answer_has_no_correlation_and_ranks_like_chance() -> None:
    target = torch.tensor([3.7, 3.9, 4.4, 3.1])
    assert np.isnan(value_of(ONE, "pearson", torch.full((4,), 3.775), target))
    same = torch.tensor([[0.8, 0.2]]).expand(6, 2)
    classes = torch.tensor([0, 0, 0, 0, 1, 1])
    assert value_of(TWO, "auroc", same, classes) == pytest.approx(0.5)
    assert value_of(TWO, "average_precision", same, classes) == pytest.approx(2 / 6)
    assert value_of(TWO, "mcc", same, classes) == 0


@pytest.mark.parametrize(
    ("wrong", "nearest"), [("auroq", "auroc"), ("balanced_acuracy", "balanced_accuracy"), ("F1", "f1")]
)
def test_an_unknown_metric_is_an_error_with_the_nearest(wrong: str, nearest: str) -> None:
    with pytest.raises(UnknownName, match=f"metric of classification '{wrong}'; did you mean '{nearest}'"):
        named_metric(TWO, wrong)


@pytest.mark.parametrize(
    ("task", "name", "right"),
    [(ONE, "auroc", "mae, rmse, r2, pearson"), (TWO, "r2", "accuracy, "), (LABELS, "accuracy", "exact_match")],
)
def test_a_metric_of_another_task_is_an_error_that_names_those_that_fit(task: Any, name: str, right: str) -> None:
    with pytest.raises(ConfigError, match=right):
        named_metrics(task, [name])


@pytest.mark.parametrize("name", ["balanced_accuracy", "sensitivity", "specificity", "f1", "mcc"])
@pytest.mark.parametrize("task", [TWO, FOUR, LABELS], ids=["two", "four", "labels"])
def test_intervals_of_counted_metrics_are_those_of_the_rows_drawn(task: Any, name: str) -> None:
    values, target = labelled(1, 60) if task is LABELS else answered(task.outputs, 1, 60)
    formula = formula_of(named_metric(task, name), values, target)
    assert formula is not None
    counts = next(Bootstrap(60, 3).counts())
    for drawn, found in zip(counts, formula.finish(counts.double() @ formula.rows.double()), strict=True):
        rows = torch.arange(60).repeat_interleave(drawn.long())
        assert float(found) == pytest.approx(value_of(task, name, values[rows], target[rows]))
    measured = measure({name: named_metric(task, name)}, values, target, Bootstrap(60, 200))[name]
    assert len(measured.replicates) == 200
    assert measured.interval.low < measured.interval.value < measured.interval.high


def test_intervals_of_ranked_metrics_hold_the_value() -> None:
    values, target = answered(2, 3, 60)
    low, high = measure({"auroc": named_metric(TWO, "auroc")}, values, target, Bootstrap(60, 200))["auroc"].interval[1:]
    assert low < BINARY["auroc"](target.numpy(), values.numpy()) < high
