"""Metrics by name: against scikit-learn and SciPy, for every task, to choose the epoch, and what a guess gets."""

from __future__ import annotations

import math
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import metrics as sk
from torch import Tensor

import kintsugi as kg
from kintsugi.core.errors import ConfigError, UnknownName
from kintsugi.core.metrics import METRICS, metric_names, named_metric, named_metrics
from kintsugi.evaluation.intervals import Bootstrap, formula_of, measure
from kintsugi.evaluation.results import Results
from kintsugi.tasks import Classification, Multilabel, Ordinal, Regression
from kintsugi.training.choosing import doubt

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


# in evaluation ------------------------------------------------------------------------------------------------------
READERS = {"one": kg.tabular(["a"]), "other": kg.tabular(["b"])}


def cases(n: int = 200, ill: int = 30, seed: int = 0) -> pd.DataFrame:
    """The first ``ill`` rows are; ``a`` tells it better than ``b``. ``days`` is a number that ``a`` tells."""
    noise = np.random.default_rng(seed)
    y = np.arange(n) < ill
    frame = pd.DataFrame({"a": y + 0.7 * noise.normal(size=n), "b": y + 2.0 * noise.normal(size=n)})
    return frame.assign(state=np.where(y, "ill", "well"), days=5 + 2 * frame["a"] + 0.1 * noise.normal(size=n))


def classifier(**more: Any) -> kg.Classifier:
    task = Classification(["well", "ill"])
    usual = {
        "modalities": READERS,
        "target": "state",
        "task": task,
        "dim": 8,
        "epochs": 4,
        "lr": 0.01,
        "progress": False,
    }
    return kg.Classifier("mean_fusion", **{**usual, **more})


@pytest.fixture(scope="module")
def model() -> kg.Classifier:
    return classifier(select="auroc").fit(cases(), val=cases(60, 12, 1))


@pytest.fixture(scope="module")
def regressor() -> kg.Regressor:
    made = kg.Regressor("mean_fusion", modalities=READERS, target="days", dim=8, epochs=4, lr=0.01, progress=False)
    return made.fit(cases(), val=cases(60, 12, 1))


@pytest.mark.parametrize("form", ["frame", "records", "csv", "parquet"])
def test_evaluate_takes_rows_in_every_form(model: kg.Classifier, form: str, tmp_path: Path) -> None:
    test = cases(90, 20, 2)
    path = tmp_path / f"test.{form}"
    if form in ("csv", "parquet"):
        test.to_csv(path, index=False) if form == "csv" else test.to_parquet(path)
    given: Any = {"frame": test, "records": test.to_dict("records")}.get(form, path)
    results = kg.evaluate(model, given, "clean", metrics=["auroc", "sensitivity", "specificity"], resamples=20)
    p = model.predict_proba(test)[:, 1]
    ill = test["state"] == "ill"
    wanted = {
        "auroc": sk.roc_auc_score(ill, p),
        "sensitivity": ((p > 0.5) & ill).sum() / ill.sum(),
        "specificity": ((p <= 0.5) & ~ill).sum() / (~ill).sum(),
    }
    assert dict(zip(results.table["metric"], results.table["value"], strict=True)) == pytest.approx(wanted, abs=1e-5)


def test_the_positive_class_is_shown(model: kg.Classifier, regressor: kg.Regressor, tmp_path: Path) -> None:
    results = kg.evaluate(model, cases(50, 20, 3), "clean", metrics=["f1"], resamples=5)
    assert results.runs[0].positive == "ill"
    assert "Positive class</th><td>ill, which" in results.to_html(tmp_path / "r.html").read_text()
    assert kg.evaluate(regressor, cases(50, 20, 3), "clean", resamples=5).runs[0].positive == ""


def test_metrics_of_evaluate_are_checked_before_anything_is_asked(model: kg.Classifier) -> None:
    with pytest.raises(UnknownName, match="did you mean 'auroc'"):
        kg.evaluate(model, cases(50, 20, 3), metrics=["aurco"])
    with pytest.raises(ConfigError, match="for tasks with numbers"):
        kg.evaluate(model, cases(50, 20, 3), metrics="pearson")
    with pytest.raises(ConfigError, match="as a mapping"):
        kg.evaluate(model, cases(50, 20, 3), metrics=[named_metric(TWO, "auroc")])
    own = kg.evaluate(model, cases(50, 20, 3), "clean", metrics={"mine": named_metric(TWO, "auroc")}, resamples=5)
    assert own.metrics == ["mine"]


# a guess ------------------------------------------------------------------------------------------------------------
def test_a_guess_gets_what_the_training_rows_say(model: kg.Classifier) -> None:
    test = cases(90, 20, 2)
    names = ["accuracy", "log_loss", "auroc", "average_precision", "balanced_accuracy", "mcc"]
    results = kg.evaluate(model, test, "subsets", metrics=names, resamples=5)
    share = (30 + 1) / (200 + 2)  # one row of each class is added to the training rows
    wanted = {
        "accuracy": 70 / 90,
        "log_loss": -(20 * math.log(share) + 70 * math.log(1 - share)) / 90,
        "auroc": 0.5,
        "average_precision": 20 / 90,
        "balanced_accuracy": 0.5,
        "mcc": 0.0,
    }
    assert results.runs[0].guess == pytest.approx(wanted, rel=1e-5)
    assert {name: float(results.guess(name).iloc[0]) for name in names} == pytest.approx(wanted, rel=1e-5)
    by_metric = results.table.groupby("metric")["guess"]
    assert by_metric.nunique().eq(1).all(), "what is hidden from the model makes no other guess"
    assert results.summary("auroc")["guess"].tolist() == pytest.approx([0.5])


def test_a_guess_of_numbers_is_the_training_mean(regressor: kg.Regressor) -> None:
    train, test = cases(), cases(90, 20, 2)
    names = ["mae", "rmse", "r2", "pearson"]
    found = kg.evaluate(regressor, test, "clean", metrics=names, resamples=5).runs[0].guess
    off = test["days"] - train["days"].mean()
    assert found["mae"] == pytest.approx(off.abs().mean(), rel=1e-4)
    assert found["rmse"] == pytest.approx(np.sqrt((off**2).mean()), rel=1e-4)
    assert found["r2"] == pytest.approx(
        1 - (off**2).sum() / ((test["days"] - test["days"].mean()) ** 2).sum(), rel=1e-3
    )
    assert math.isnan(found["pearson"])


def test_the_guess_travels_in_files_and_tables_of_before_have_none(model: kg.Classifier, tmp_path: Path) -> None:
    results = kg.evaluate(model, cases(90, 20, 2), "clean", resamples=5)
    again = Results.from_csv(results.to_csv(tmp_path / "r.csv"))
    assert again.guess("accuracy").to_dict() == pytest.approx(results.guess("accuracy").to_dict())
    results.table.drop(columns="guess").to_csv(tmp_path / "old.csv", index=False)
    old = Results.from_csv(tmp_path / "old.csv")
    assert old.guess("accuracy").isna().all()
    assert "guess" not in old.summary("accuracy")
    both = Results.concat([again, Results(old.table.assign(method="older"))])
    assert float(both.guess("accuracy").iloc[0]) == pytest.approx(float(results.guess("accuracy").iloc[0]))
    assert "A guess" not in old.to_html(tmp_path / "old.html").read_text()


# the epoch ----------------------------------------------------------------------------------------------------------
def test_the_epoch_is_chosen_by_the_metric_that_is_named() -> None:
    val = cases(60, 12, 1)
    chosen = classifier(select="auroc", epochs=6).fit(cases(), val=val)
    scores = [record["val/auroc"] for record in chosen.trainer_.history]
    assert len(scores) == 6
    assert sk.roc_auc_score(val["state"] == "ill", chosen.predict_proba(val)[:, 1]) == pytest.approx(
        max(scores), abs=1e-5
    )
    assert not any("val/accuracy" in record for record in chosen.trainer_.history)
    usual = classifier(epochs=2).fit(cases(), val=val)
    assert all("val/accuracy" in record for record in usual.trainer_.history)


@pytest.mark.parametrize(
    ("select", "error", "words"),
    [
        ("auroq", UnknownName, "did you mean 'auroc'"),
        ("r2", ConfigError, "for tasks with numbers"),
        (3, ConfigError, "True, False"),
    ],
)
def test_a_metric_that_cannot_choose_is_said_before_training(select: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        classifier(select=select).fit(cases(), val=cases(60, 12, 1))


def test_where_a_metric_is_not_defined_the_first_of_the_task_chooses_with_a_warning() -> None:
    val = cases(60, 60, 1)
    with pytest.warns(
        UserWarning, match=r"select='auroc' is not defined on the 60 validation rows .* all of class 'ill'.*accuracy"
    ):
        model = classifier(select="auroc").fit(cases(), val=val)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        classifier(select="auroc").fit(cases(), val=val)
    assert len(caught) == 1, "said once"
    assert all("val/accuracy" in record for record in model.trainer_.history)


def test_one_that_is_defined_says_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classifier(select="auroc", epochs=6).fit(cases(), val=cases(60, 12, 1))


def test_a_checkpoint_of_another_choice_is_another_run() -> None:
    """And choosing as before is the run of before."""
    from kintsugi.training.trainer import Trainer

    model = classifier()
    rows = kg.Table.from_rows(cases(), modalities=READERS, target="state", task="classification")
    pipeline, splits = model._build(rows), kg.Splits(rows, rows)
    names = [
        Trainer(**more)._name_run(pipeline, splits)
        for more in ({}, {"select": True}, {"select": "auroc"}, {"select": "f1"})
    ]
    assert names[0] == names[1]
    assert len(set(names)) == 3


def test_a_trial_carries_the_metrics_that_it_uses() -> None:
    from kintsugi.bench.job import Job, Source

    def registered(**more: Any) -> set[str]:
        trial = Job(Source("factors"), "mean_fusion", protocol="clean", **more).trial()
        return {name for name in trial.registered if name.startswith("metric ")}

    assert registered(metrics=("auroc", "f1")) == {"metric auroc", "metric f1", "metric accuracy"}
    assert registered(metrics=("auroc",), trainer={"select": "mcc"}) == {"metric auroc", "metric mcc"}
    assert registered(metrics=("auroc",), trainer={"select": False}) == {"metric auroc"}


def test_select_is_taken_from_the_arguments_of_the_trainer_too() -> None:
    assert classifier(trainer={"select": "f1"})._trainer().select == "f1"
    assert classifier(select="auroc")._trainer().select == "auroc"
    assert classifier()._trainer().select is True
    assert classifier(select="auroc").get_params()["select"] == "auroc"
    with pytest.raises(ConfigError, match="select is an argument of Classifier"):
        classifier(select="auroc", trainer={"select": "f1"})._trainer()


# a choice that says nothing -----------------------------------------------------------------------------------------
def doubted(model: Any, train: pd.DataFrame, val: pd.DataFrame) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(train, val=val)
    return [str(w.message) for w in caught if re.search("epoch was chosen by|^the validation ", str(w.message))]


def rare(n: int, ill: int, seed: int) -> pd.DataFrame:
    """Nothing tells who is ill."""
    frame = cases(n, ill, seed)
    noise = np.random.default_rng(seed + 100)
    return frame.assign(a=noise.normal(size=n), b=noise.normal(size=n))


@pytest.mark.parametrize(("epochs", "warned"), [(2, False), (3, True), (5, True)])
def test_a_score_that_is_always_that_of_a_guess_is_warned_of(epochs: int, warned: bool) -> None:
    said = doubted(classifier(epochs=epochs, batch_size=8), rare(200, 8, 0), rare(100, 4, 1))
    assert len(said) == warned
    if warned:
        assert (
            f"the validation accuracy was 0.96 in {epochs} of the {epochs} epochs, on 100 rows, and never better"
            in said[0]
        )
        assert 'select="auroc"' in said[0]
        assert 'class_weight="balanced"' in said[0]


@pytest.mark.parametrize(
    ("scores", "warned"),
    [
        ([0.3, 0.96, 0.96, 0.96], True), ([0.96, 0.96, 0.96, 0.3], True), ([0.3, 0.96, 0.96], False),
        ([0.96, 0.96, 0.96, 0.97], False), ([0.95, 0.95, 0.95], False),
    ],
)  # fmt: skip
def test_the_best_epoch_has_to_be_better_than_a_guess(scores: list[float], warned: bool) -> None:
    model = classifier(epochs=1).fit(rare(200, 8, 0), val=rare(100, 4, 1))
    said = doubt(model.pipeline_, model.read(rare(100, 4, 1)), "accuracy", scores)
    assert (said is not None) == warned


def test_a_score_that_moves_is_not_warned_of() -> None:
    assert doubted(classifier(epochs=5), cases(200, 100), cases(60, 30, 1)) == []
    assert doubted(classifier(epochs=5, batch_size=8, select="auroc"), rare(200, 8, 0), rare(100, 4, 1)) == []
    assert doubted(classifier(epochs=5, batch_size=8, select=False), rare(200, 8, 0), rare(100, 4, 1)) == []


@pytest.mark.parametrize(("rows", "warned"), [(9, True), (10, False)])
def test_few_validation_rows_are_warned_of(rows: int, warned: bool) -> None:
    said = doubted(classifier(epochs=2), cases(), cases(rows, 4, 1))
    assert len(said) == warned
    assert not warned or "on 9 validation rows with a label" in said[0]


@pytest.mark.parametrize(("ill", "warned"), [(0, True), (1, False)])
def test_validation_rows_of_one_class_are_warned_of(ill: int, warned: bool) -> None:
    said = doubted(classifier(epochs=2), cases(), cases(40, ill, 1))
    assert len(said) == warned
    assert not warned or "on 40 validation rows that are all of class 'well'" in said[0]


def test_one_epoch_is_no_choice() -> None:
    assert doubted(classifier(epochs=1), cases(), cases(5, 0, 1)) == []
