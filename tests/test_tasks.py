"""Tasks and kinds of modality are objects: each says what is its own, and nobody else asks which one it is."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit, softmax
from scipy.stats import entropy
from sklearn.metrics import cohen_kappa_score, r2_score
from torch import Tensor

import kintsugi as kg
from kintsugi.core.batch import Batch
from kintsugi.core.errors import ConfigError, DataError, UnknownName
from kintsugi.core.features import Stream
from kintsugi.core.kind import KINDS, Kind
from kintsugi.core.schema import Modality, Schema
from kintsugi.core.task import TASKS, StreamSpec, Task, link_of, task_from_json
from kintsugi.data.columns import read_columns
from kintsugi.data.dataset import Dataset, TensorSource
from kintsugi.data.labels import choose_task, encode, order_of
from kintsugi.data.table import Table
from kintsugi.evaluation.intervals import formula_of
from kintsugi.layers.vote import vote
from kintsugi.losses.distil import soft_targets
from kintsugi.tasks import Classification, Multilabel, Ordinal, Regression
from kintsugi.tasks.ordinal import CLOSEST, OrdinalHead, log_probabilities

NAN = math.nan
SRC = Path(kg.__file__).parent
GRADES = ("low", "mid", "high")
EVERY = [
    Classification(GRADES),
    Multilabel(("x", "y")),
    Ordinal(GRADES),
    Regression(("a", "b"), (1.0, -2.0), (0.5, 4.0)),
]


def batch_of(target: Tensor, there: list[bool] | None = None, weight: list[float] | None = None) -> Batch:
    n = len(target)
    present = torch.ones(n, 1, dtype=torch.bool)
    return Batch(
        ("v",), {"v": torch.zeros(n, 1)}, present, torch.arange(n), target,
        None if there is None else torch.tensor(there), None if weight is None else torch.tensor(weight),
    )  # fmt: skip


def rows_of(task: Task, target: Tensor, name: str = "rows") -> Dataset:
    schema = Schema((Modality("v", "vector", (1,)),), task)
    return Dataset(TensorSource(schema, batch_of(target), name))


# nobody asks which task it is --------------------------------------------------------------------------------------
def branches_on_a_key(source: str) -> list[int]:
    """Lines on which an attribute ``key`` is compared with, or matched against, words that are written there."""

    def written(node: ast.expr) -> bool:
        if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
            return any(written(part) for part in node.elts)
        return isinstance(node, ast.Constant) and isinstance(node.value, str)

    def key(node: ast.expr) -> bool:
        return isinstance(node, ast.Attribute) and node.attr == "key"

    def lines() -> Iterator[int]:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Compare):
                sides = [node.left, *node.comparators]
                if any(map(key, sides)) and any(map(written, sides)):
                    yield node.lineno
            elif isinstance(node, ast.Match) and key(node.subject):
                yield node.lineno

    return list(lines())


def test_no_branch_is_on_the_key_of_a_task() -> None:
    files = {file.relative_to(SRC): file for file in SRC.rglob("*.py")}
    branches = {
        str(name): branches_on_a_key(file.read_text()) for name, file in files.items() if "tasks" not in name.parts
    }
    assert len(branches) > 100
    assert {name: lines for name, lines in branches.items() if lines} == {}


@pytest.mark.parametrize(
    "source",
    [
        "if task.key == 'regression': pass",
        "x = 1 if 'multilabel' != schema.task.key else 2",
        "if self.task.key in ('classification', 'ordinal'): pass",
        "match task.key:\n    case 'regression': pass",
    ],
)
def test_a_branch_on_the_key_of_a_task_is_seen(source: str) -> None:
    assert branches_on_a_key(source) == [1]


def test_comparing_the_keys_of_two_tasks_is_no_branch() -> None:
    assert branches_on_a_key("same = one.key == other.key and one.key in card.tasks") == []


# what tasks say of themselves -----------------------------------------------------------------------------------------
def test_tasks_say_how_their_output_is_read_and_who_serves_them() -> None:
    found = {key: (TASKS[key].link, TASKS[key].face, TASKS[key].exclusive) for key in TASKS}
    assert found["classification"] == found["ordinal"] == ("softmax", "classifier", True)
    assert found["multilabel"] == ("sigmoid", "classifier", False)
    assert found["regression"] == ("identity", "regressor", False)


@pytest.mark.parametrize("task", EVERY, ids=lambda t: t.key)
def test_shapes_follow_from_the_outputs(task: Task) -> None:
    assert task.output_shape == task.prior_shape == (len(task.names),) == (task.outputs,)
    assert task_from_json({"key": task.key, **task.to_json()}) == task


@pytest.mark.parametrize("task", EVERY, ids=lambda t: t.key)
def test_outputs_are_read_by_the_link(task: Task) -> None:
    output = np.array([[0.3, -1.0, 2.0], [4.0, 0.0, -0.5]], dtype=np.float32)[:, : task.outputs]
    numbers = output[:, :2] * [0.5, 4.0] + [1, -2]
    wanted = {"softmax": softmax(output, 1), "sigmoid": expit(output), "identity": numbers}[task.link]
    np.testing.assert_allclose(task.probabilities(torch.from_numpy(output)), wanted, rtol=1e-5)
    if task.link != "identity":
        np.testing.assert_allclose(task.probabilities(torch.from_numpy(output[0])), wanted[0], rtol=1e-5)


def test_a_target_is_what_the_output_wants_without_nan() -> None:
    ids = torch.tensor([2, 7, 1])
    for task in (Classification(GRADES), Ordinal(GRADES)):
        target = task.target(batch_of(ids, [True, False, True]))
        assert target.tolist() == [2, 0, 1]
        assert target.dtype == torch.int64
    labels = Multilabel(("x", "y")).target(batch_of(torch.tensor([[1, 0], [NAN, NAN]]), [True, False]))
    assert labels.tolist() == [[1, 0], [0, 0]]
    numbers = Regression(("a", "b"), (1.0, -2.0), (0.5, 4.0))
    assert numbers.target(batch_of(torch.tensor([[2.0, 2.0], [NAN, 5.0]]), [True, False])).tolist() == [
        [2, 1],
        [-2, 0.5],
    ]
    one = Regression(("a",), (1.0,), (0.5,))
    assert one.target(batch_of(torch.tensor([2.0, NAN]), [True, False])).tolist() == [[2], [-2]]
    with pytest.raises(DataError, match="carry no target"):
        one.target(Batch(("v",), {}, torch.ones(1, 1, dtype=torch.bool), torch.arange(1)))


def test_a_mean_over_rows_goes_by_labels_rows_and_weights() -> None:
    losses = torch.tensor([1.0, 2.0, NAN, 8.0], requires_grad=True)
    task = Regression()
    batch = batch_of(torch.zeros(4), [True, True, False, True], [1.0, 3.0, 5.0, 1.0])
    assert float(task.mean(losses, batch)) == pytest.approx((1 + 6 + 8) / 5)
    assert float(task.mean(losses, batch, torch.tensor([False, True, True, True]))) == pytest.approx(14 / 4)
    none = task.mean(losses, batch, torch.zeros(4, dtype=torch.bool))
    assert float(none) == 0
    none.backward()
    assert losses.grad is not None
    assert losses.grad.tolist() == [0, 0, 0, 0]


def test_class_weights_count_in_every_mean() -> None:
    task = Classification(GRADES, (2.0, 1.0, 0.5))
    batch = batch_of(torch.tensor([0, 2, 2]), weight=[1.0, 1.0, 4.0])
    assert float(task.mean(torch.tensor([3.0, 1.0, 5.0]), batch)) == pytest.approx((6 + 0.5 + 10) / 4.5)
    assert float(task.mean(torch.tensor([3.0, 1.0, 5.0]), batch_of(torch.tensor([0, 2, 2])))) == pytest.approx(9 / 3)


def test_answers_and_targets_are_matched_for_the_metrics() -> None:
    values, target = Regression().match(torch.zeros(3), torch.tensor([[1], [2], [3]]))
    assert target.dtype == torch.float32
    assert target.shape == values.shape
    for task in (Classification(GRADES), Multilabel(("x", "y")), Ordinal(GRADES)):
        assert task.match(torch.zeros(2, 3), torch.tensor([1.0, 0.0]))[1].dtype == torch.int64


def test_a_float_target_of_another_task_stays_what_it_is() -> None:
    class Depth(Regression):
        key = "depth"

        def match(self, probabilities: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
            return Task.match(self, probabilities, target)

    assert Depth().match(torch.zeros(2), torch.tensor([0.5, 1.5]))[1].tolist() == [0.5, 1.5]


def test_scores_are_plain_measures_with_the_value_of_guessing() -> None:
    p = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7], [0.5, 0.4, 0.1]])
    assert Classification(GRADES).score(p, torch.tensor([0, 1, 0, 1])) == ("accuracy", 0.5, pytest.approx(1 / 3))
    labels = torch.tensor([[1.0, 0.0, 0.0], [0, 1, 0], [1, 0, 1], [0, 1, 0]])
    assert Multilabel(("x", "y", "z")).score(p, labels) == ("accuracy", pytest.approx(9 / 12), 0.5)
    truth, guess = np.array([[1.0, 2.0], [3.0, 1.0], [5.0, 4.0]]), np.array([[1.5, 2.0], [2.0, 1.5], [5.5, 2.5]])
    two = Regression(("a", "b"), (0.0, 0.0), (1.0, 1.0))
    name, value, plain = two.score(torch.from_numpy(guess), torch.from_numpy(truth))
    assert (name, plain) == ("R²", 0.0)
    assert value == pytest.approx(r2_score(truth, guess))
    assert math.isnan(two.score(torch.zeros(3, 2), torch.ones(3, 2))[1])


def uncertainty(task: Task, output: Tensor) -> Tensor:
    found = task.uncertainty(output)
    assert found is not None
    return found


def test_uncertainty_is_the_normalised_entropy_of_the_answer() -> None:
    output = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0], [90.0, -90.0, 0.0]])
    p = softmax(output.numpy(), 1)
    for task in (Classification(GRADES), Ordinal(GRADES)):
        np.testing.assert_allclose(uncertainty(task, output), entropy(p, axis=1) / np.log(3), atol=1e-6)
    q = expit(output.numpy().astype(np.float64))
    binary = entropy(np.stack([q, 1 - q]), axis=0) / np.log(2)
    np.testing.assert_allclose(uncertainty(Multilabel(GRADES), output), binary.mean(1), atol=1e-6)
    assert Regression().uncertainty(output[:, :1]) is None


def test_a_variance_goes_to_the_users_units_with_the_square_of_the_scale() -> None:
    task = Regression(("a", "b"), (1.0, -2.0), (0.5, 4.0))
    assert task.spread(torch.tensor([[1.0, 2.0]])).tolist() == [[0.25, 32.0]]
    assert Classification(GRADES).spread(torch.tensor([[1.0, 2.0]])).tolist() == [[1, 2]]


def test_values_in_the_users_units_come_back_from_those_of_the_output() -> None:
    task = Regression(("a", "b"), (1.0, -2.0), (0.5, 4.0))
    output = torch.tensor([[0.5, -1.0]])
    torch.testing.assert_close(task.standardised(task.probabilities(output)), output)


def test_answers_in_words_columns_and_decisions() -> None:
    p = torch.tensor([[0.125, 0.675, 0.2]])
    for task in (Classification(GRADES), Ordinal(GRADES)):
        columns = {name: values.tolist() for name, values in task.decode(p).items()}
        assert columns == {"prediction": ["mid"], "probability": [pytest.approx(0.675)]}
        assert task.decide(p).tolist() == ["mid"]
        assert task.describe(p[0]) == ("mid", pytest.approx(0.675))
        assert (task.describe_target(torch.tensor(2)), task.is_correct(p[0], torch.tensor(1))) == ("high", True)
    labels = Multilabel(GRADES)
    assert list(labels.decode(p)) == ["probability_low", "probability_mid", "probability_high"]
    assert labels.decide(p).tolist() == [[0, 1, 0]]
    assert labels.describe(p[0]) == ("mid", None)
    assert labels.describe_target(torch.zeros(3)) == "none"
    assert labels.is_correct(p[0], torch.tensor([1.0, 1.0, 0.0])) is False
    numbers = Regression()
    assert {name: values.tolist() for name, values in numbers.decode(torch.tensor([1.5])).items()} == {"target": [1.5]}
    assert numbers.describe(torch.tensor(1.23456)) == ("1.235", None)
    assert numbers.is_correct(torch.tensor(1.0), torch.tensor(1.0)) is None


@pytest.mark.parametrize("task", EVERY, ids=lambda t: t.key)
def test_no_rows_are_no_answers(task: Task) -> None:
    none = torch.zeros(0, *task.output_shape)
    values = task.probabilities(none)
    assert len(task.decide(values)) == 0
    assert {len(column) for column in task.decode(values).values()} == {0}
    found = task.uncertainty(none)
    assert found is None or found.shape == (0,)
    assert soft_targets(none, none, task).shape == (0,)


def test_labels_of_another_task_or_of_other_classes_mean_another_thing() -> None:
    mine = Classification(GRADES)
    assert mine.same_meaning(Classification(GRADES, (1.0, 2.0, 3.0))) is None
    for other, reason in (
        (Ordinal(GRADES), "is for ordinal with 3 outputs, the model for classification with 3"),
        (Classification(GRADES[:2]), "is for classification with 2 outputs, the model for classification with 3"),
        (
            Classification(("high", "mid", "low")),
            "has the classes high, mid, low, the model low, mid, high: they differ",
        ),
    ):
        assert (mine.same_meaning(other) or "").startswith(reason)
    assert Regression(("a",)).same_meaning(Regression(("b",), (3.0,), (2.0,))) is None


def test_training_rows_of_a_single_class_are_refused() -> None:
    for task in (Classification(GRADES), Ordinal(GRADES)):
        task.check_training(torch.tensor([0, 2]))
        with pytest.raises(DataError, match="rows: the training rows hold a single class"):
            task.check_training(torch.tensor([1, 1]), "rows")
    with pytest.raises(DataError, match="every label of the training rows is missing"):
        Regression().check_training(torch.zeros(0))


def test_toys_of_four_and_of_three_classes() -> None:
    four, three = torch.arange(4), torch.arange(3)
    task, target = TASKS["classification"].toy(four, 4)
    assert (task.names, target.tolist()) == (("a", "b", "c", "d"), [0, 1, 2, 3])
    task, target = TASKS["multilabel"].toy(four, 4)
    assert (task.names, target.tolist()) == (("low", "odd"), [[1, 0], [1, 1], [0, 0], [0, 1]])
    assert TASKS["multilabel"].toy(three, 3)[1].tolist() == [[0, 0], [1, 0], [1, 1]]
    task, target = TASKS["regression"].toy(four, 4)
    assert (task, target.tolist()) == (Regression(("value",), (1.5,), (1.1,), (0.5, 1.5, 2.5)), [0, 1, 2, 3])
    assert TASKS["regression"].toy(three, 3)[0] == Regression(("value",), (1.0,), (0.8,), (0.5, 1.5))
    assert TASKS["ordinal"].toy(three, 3)[0] == Ordinal(("a", "b", "c"))


def test_a_task_without_toy_or_score_says_what_to_write() -> None:
    class Bare(Regression):
        key = "bare"
        toy = Task.toy  # type: ignore[assignment]
        score = Task.score

    with pytest.raises(ConfigError, match=r"has no toy data; write the classmethod toy\(label, classes\)"):
        Task.toy.__func__(Bare, torch.arange(3), 3)  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="'bare' has no plain score"):
        Bare().score(torch.zeros(1), torch.zeros(1))


# votes and teachers go by the link ------------------------------------------------------------------------------------
def test_a_vote_takes_a_task_or_its_link() -> None:
    outputs, present = torch.randn(5, 3, 4), torch.rand(5, 3) > 0.4
    for task in EVERY:
        for merge in ("mean", "product"):
            assert torch.equal(vote(outputs, present, task, merge)[0], vote(outputs, present, task.link, merge)[0])
    with pytest.raises(ConfigError, match="unknown link 'classification'; known: softmax, sigmoid, identity"):
        vote(outputs, present, "classification")  # type: ignore[arg-type]
    assert link_of(Ordinal(GRADES)) == "softmax"


@pytest.mark.parametrize("merge", ["mean", "product"])
@pytest.mark.parametrize("link", ["softmax", "sigmoid", "identity"])
def test_maps_are_merged_place_by_place(link: Any, merge: str) -> None:
    outputs, present = torch.randn(4, 3, 2, 5, 6), torch.tensor([[1, 1, 0], [1, 0, 0], [0, 1, 1], [1, 1, 1]]).bool()
    merged, _ = vote(outputs, present, link, merge)
    flat, _ = vote(outputs[..., 2, 3], present, link, merge)
    assert merged.shape == (4, 2, 5, 6)
    torch.testing.assert_close(merged[..., 2, 3], flat)


def test_a_teachers_map_is_compared_place_by_place() -> None:
    s, t = torch.randn(4, 2, 5), torch.randn(4, 2, 5)
    for link in ("softmax", "sigmoid", "identity"):
        each = torch.stack([soft_targets(s[..., i], t[..., i], link, 2.0) for i in range(5)], 1)
        torch.testing.assert_close(soft_targets(s, t, link, 2.0), each.mean(1))
        assert bool((soft_targets(t, t, link).abs() < 1e-6).all())


# ordered classes ------------------------------------------------------------------------------------------------------
def test_probabilities_of_ordered_classes_are_differences_of_sigmoids() -> None:
    score, first, steps = torch.tensor([0.3, -2.0]), torch.tensor([-1.0]), torch.tensor([0.5, 1.25])
    edges = np.array([-1.0, -0.5, 0.75])
    below = np.hstack([np.zeros((2, 1)), expit(edges - score.numpy()[:, None]), np.ones((2, 1))])
    np.testing.assert_allclose(log_probabilities(score, first, steps).exp(), np.diff(below), rtol=1e-5)


def test_probabilities_are_finite_however_far_the_score_is() -> None:
    score = torch.tensor([-1e4, -50.0, 50.0, 1e4], requires_grad=True)
    log_p = log_probabilities(score, torch.tensor([-1.0]), torch.tensor([CLOSEST, 2.0]))
    assert bool(torch.isfinite(log_p).all())
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(4))
    log_p.sum().backward()
    assert score.grad is not None
    assert bool(torch.isfinite(score.grad).all())


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_an_untrained_head_finds_all_classes_alike_at_score_zero_and_keeps_thresholds_in_order(classes: int) -> None:
    head = OrdinalHead(StreamSpec(4), classes)
    with torch.no_grad():
        log_p = head(Stream.vector(torch.zeros(2, 4)))
        torch.testing.assert_close(log_p.exp(), torch.full((2, classes), 1 / classes), rtol=1e-4, atol=1e-5)
        head.steps.fill_(-40.0)  # the steps could hardly be smaller
        head.score.weight.fill_(1.0)
        mean = (
            head(Stream.vector(torch.tensor([[-1.0] * 4, [0.0] * 4, [1.0] * 4]))).exp() * torch.arange(classes)
        ).sum(1)
    assert mean.tolist() == sorted(mean.tolist())


def test_the_loss_of_ordered_classes_is_the_negative_log_likelihood() -> None:
    log_p = log_probabilities(torch.tensor([0.3, -2.0]), torch.tensor([-1.0]), torch.tensor([1.25]))
    task, batch = Ordinal(GRADES), batch_of(torch.tensor([2, 0]))
    wanted = -(np.log(1 - expit(0.25 - 0.3)) + np.log(expit(-1 + 2))) / 2
    assert float(task.loss(log_p, batch)) == pytest.approx(wanted, rel=1e-5)
    assert float(task.loss(log_p + 3.0, batch)) == pytest.approx(wanted, rel=1e-5)


def test_the_prior_of_ordered_classes_counts_one_row_more_of_each() -> None:
    prior = Ordinal(GRADES).prior(rows_of(Ordinal(GRADES), torch.tensor([0, 0, 2])))
    np.testing.assert_allclose(prior.exp(), [3 / 6, 1 / 6, 2 / 6], rtol=1e-5)


def test_metrics_of_ordered_classes() -> None:
    g = torch.Generator().manual_seed(3)
    p, target = torch.rand(60, 4, generator=g).softmax(1), torch.randint(0, 4, (60,), generator=g)
    metrics = Ordinal(("a", "b", "c", "d")).metrics()
    assert list(metrics) == ["class_mae", "quadratic_kappa", "accuracy"]
    assert [metric.higher_is_better for metric in metrics.values()] == [False, True, True]
    for metric in metrics.values():
        for half in (slice(0, 25), slice(25, 60)):
            metric.update(p[half], target[half])
    chosen = p.argmax(1).numpy()
    assert float(metrics["class_mae"].compute()) == pytest.approx(np.abs(chosen - target.numpy()).mean())
    kappa = cohen_kappa_score(target.numpy(), chosen, weights="quadratic", labels=[0, 1, 2, 3])
    assert Ordinal(("a", "b", "c", "d")).score(p, target) == ("quadratic kappa", pytest.approx(kappa), 0.0)
    assert float(metrics["quadratic_kappa"].compute()) == pytest.approx(kappa, abs=1e-6)


def test_intervals_of_the_metrics_of_ordered_classes_are_those_of_resampled_rows() -> None:
    g = torch.Generator().manual_seed(5)
    p, target = torch.rand(80, 3, generator=g).softmax(1), torch.randint(0, 3, (80,), generator=g)
    for metric in Ordinal(GRADES).metrics().values():
        formula = formula_of(metric, p, target)
        assert formula is not None
        for rows in (torch.arange(80), torch.randint(0, 80, (80,), generator=g)):
            metric.reset()
            metric.update(p[rows], target[rows])
            sums = formula.rows[rows].sum(0, keepdim=True)
            assert float(formula.finish(sums)[0]) == pytest.approx(float(metric.compute()), abs=1e-6)


@pytest.mark.parametrize(
    ("values", "order", "names"),
    [
        ([10, 2, 2, None], None, ["2", "10"]),
        (["10", "2", "0.5"], None, ["0.5", "2", "10"]),
        (["mid", "low", "high"], ("low", "mid", "high"), ["low", "mid", "high"]),
        (["mid", "low"], ("low", "mid", "high"), ["low", "mid", "high"]),
        (pd.Categorical(["mid", "low"], ["low", "mid", "top"], ordered=True), None, ["low", "mid", "top"]),
    ],
)
def test_the_order_of_classes_is_that_of_numbers_of_categories_or_of_the_user(
    values: Any, order: Any, names: list[str]
) -> None:
    assert order_of(pd.Series(values, name="grade"), order) == names


def test_an_order_that_nobody_told_is_asked_for() -> None:
    frame = pd.DataFrame({"grade": ["mid", "low", "high", "low"]})
    everyone = np.ones(4, dtype=bool)
    for values in (frame["grade"], pd.Series(pd.Categorical(frame["grade"]), name="grade")):
        with pytest.raises(ConfigError, match=r"'grade' holds words .*give order= .*ordered categorical.*Ordinal"):
            order_of(values)
    with pytest.raises(ConfigError, match="names a class twice: a, b, a"):
        order_of(frame["grade"], ("a", "b", "a"))
    with pytest.raises(ConfigError, match="this is classification: say task='ordinal'"):
        choose_task(frame, ["grade"], False, None, everyone, None, GRADES)
    with pytest.raises(ConfigError, match="to the task object itself"):
        choose_task(frame, ["grade"], False, Ordinal(GRADES), everyone, None, GRADES)
    with pytest.raises(ConfigError, match="ordinal has one target column, not 2"):
        choose_task(frame.assign(other=1), ["grade", "other"], True, "ordinal", everyone, None, GRADES)
    with pytest.raises(DataError, match="has one class only, 'low'"):
        order_of(frame["grade"][[1, 3]])


def test_a_file_of_columns_may_name_the_order(tmp_path: Path) -> None:
    file = tmp_path / "columns.yaml"
    file.write_text(
        "modalities: {a: {kind: tabular, columns: [a]}}\ntarget: grade\ntask: ordinal\norder: [low, mid, high]\n"
    )
    assert Table.from_pandas(graded(40), **read_columns(file)).schema.task == Ordinal(GRADES)


def test_a_label_beyond_the_order_is_named() -> None:
    frame = pd.DataFrame({"grade": ["mid", "low", "top"]})
    with pytest.raises(DataError, match=r"label 'top' in column 'grade', row 2 .*known classes: low, mid, high"):
        encode(frame, ["grade"], Ordinal(GRADES), "raise", "rows")


def test_a_table_reads_targets_by_what_the_task_says_of_itself() -> None:
    class Counts(Regression):
        key = "counts"

    class Embedding(Regression):
        key = "embedding"
        outputs = 8

    frame = pd.DataFrame({"a": [1.0, 2.0], "b": [0.0, 1.0]})
    assert encode(frame, ["a"], Counts(), "raise", "rows")[0].tolist() == [1, 2]
    assert encode(frame, ["a", "b"], Regression(("a", "b"), (0, 0), (1, 1)), "raise", "rows")[0].shape == (2, 2)
    with pytest.raises(ConfigError, match="cannot read the target of task 'embedding' from columns a"):
        encode(frame, ["a"], Embedding(), "raise", "rows")


def graded(rows: int = 240) -> pd.DataFrame:
    g = np.random.default_rng(0)
    level = g.uniform(-1, 1, rows)
    words = np.array(GRADES)[np.digitize(level, [-0.4, 0.3])]
    frame = pd.DataFrame(
        {"a": level + 0.1 * g.normal(size=rows), "b": 2 * level + 0.2 * g.normal(size=rows), "grade": words}
    )
    frame.loc[::7, "a"] = np.nan
    frame.loc[::9, "b"] = np.nan
    return frame


def readers() -> dict[str, Any]:
    return {"a": kg.tabular(["a"]), "b": kg.tabular(["b"])}


def test_a_classifier_learns_grades_from_a_table_and_is_evaluated_saved_and_loaded(tmp_path: Path) -> None:
    table = Table.from_pandas(graded(), modalities=readers(), target="grade", task="ordinal", order=GRADES)
    assert table.schema.task == Ordinal(GRADES)
    train, val, test = table.split(seed=0)
    model = kg.Classifier("mean_fusion", epochs=30, lr=0.03, progress=False).fit(train, val)
    assert model.classes_.tolist() == list(GRADES)
    assert set(model.predict(test)) <= set(GRADES)
    assert model.score(test) > 0.7
    results = kg.evaluate(model, test, "subsets", resamples=20)
    assert results.metrics == ["class_mae", "quadratic_kappa", "accuracy"]
    clean = results.table[results.table["condition"] == "clean"].set_index("metric")["value"]
    assert clean["class_mae"] < 0.35
    assert clean["quadratic_kappa"] > 0.7
    assert clean["quadratic_kappa"] == pytest.approx(model.score(test))
    right = model.predict(test) == np.array(GRADES)[cast("Tensor", test.target)]
    assert clean["accuracy"] == pytest.approx(right.mean())
    model.save(tmp_path / "model")
    loaded = kg.load(tmp_path / "model")
    assert isinstance(loaded, kg.Classifier)
    np.testing.assert_allclose(loaded.predict_proba(test), model.predict_proba(test), rtol=1e-5, atol=1e-7)
    nothing = pd.DataFrame({"a": [np.nan], "b": [np.nan]})
    assert train.target is not None
    counts = np.bincount(train.target.numpy(), minlength=3) + 1
    np.testing.assert_allclose(loaded.predict_proba(nothing)[0], counts / counts.sum(), rtol=1e-4)
    assert loaded.predict_frame(nothing).columns.tolist() == ["row", "prediction", "probability", "used", "uncertainty"]


def test_a_report_shows_grades_in_words(tmp_path: Path) -> None:
    table = Table.from_pandas(graded(80), modalities=readers(), target="grade", task="ordinal", order=GRADES)
    train, val, test = table.split(seed=0)
    model = kg.Classifier("mean_fusion", epochs=1, progress=False).fit(train, val)
    page = kg.evaluate(model, test, "subsets", resamples=10).to_html(
        tmp_path / "report.html", examples=kg.evaluation.examples(model, test, 2)
    )
    text = page.read_text()
    assert "class mae" in text
    assert any(grade in text for grade in GRADES)


def test_an_estimator_takes_an_order_as_a_task_and_numbers_without_one() -> None:
    frame = graded(80)
    model = kg.Classifier(modalities=readers(), target="grade", task=Ordinal(GRADES), epochs=1, progress=False)
    assert model.fit(frame[:60], frame[60:]).pipeline_.schema.task == Ordinal(GRADES)
    numbers = frame.assign(grade=frame["grade"].map({"low": 1, "mid": 2, "high": 10}))
    model = kg.Classifier(modalities=readers(), target="grade", task="ordinal", epochs=1, progress=False)
    assert model.fit(numbers[:60], numbers[60:]).classes_.tolist() == [1, 2, 10]


def test_an_estimator_of_another_face_is_refused_with_the_one_that_serves_the_task() -> None:
    table = Table.from_pandas(graded(40), modalities=readers(), target="grade", task="ordinal", order=GRADES)
    with pytest.raises(ConfigError, match="Regressor solves regression; the task of table is ordinal: use Classifier"):
        kg.Regressor(epochs=1).fit(table, table)

    class Faceless(Classification):
        face = None

    rows = rows_of(Faceless(("a", "b")), torch.tensor([0, 1] * 8))
    with pytest.raises(
        ConfigError, match=r"Classifier solves .*classification: train a pipeline of it with kg\.Trainer"
    ):
        kg.Classifier(epochs=1).fit(rows, rows)


# kinds of modality -----------------------------------------------------------------------------------------------------
def test_kinds_are_records_in_the_order_in_which_they_were_registered() -> None:
    assert list(KINDS)[:9] == ["image", "video", "audio", "text", "tabular", "series", "points", "volume", "vector"]
    assert [key for key in KINDS if KINDS[key].stepped] == ["text", "tabular", "series"]
    assert [key for key in KINDS if KINDS[key].steps is None] == ["image", "volume"]
    assert {key: KINDS[key].dtype for key in KINDS if KINDS[key].vocabulary} == {"text": torch.int64}
    with pytest.raises(UnknownName, match="kind of modality 'imge'; did you mean 'image'"):
        Modality("x", "imge", (1,))


@pytest.mark.parametrize("key", list(KINDS))
def test_toy_rows_of_a_kind_show_the_signal(key: str) -> None:
    kind, g = KINDS[key], torch.Generator().manual_seed(0)
    signal = torch.linspace(0, 1, 200)
    x, mask = kind.toy_rows(signal, g)
    assert (x.ndim, x.dtype, len(x)) == (kind.axes, kind.dtype, 200)
    assert (mask is not None) == kind.stepped
    if mask is not None:
        assert mask.shape == x.shape[:2]
        assert bool(mask.any(1).all())
    features = x.flatten(1).double()
    if key == "audio":  # the louder half of its spectrum tells the period
        features = torch.fft.rfft(features).abs()
    centred = features - features.mean(0)
    explained = torch.linalg.lstsq(centred[::2], signal[::2, None].double() - 0.5, driver="gelsd").solution
    odd = (centred[1::2] @ explained)[:, 0]
    assert float(torch.corrcoef(torch.stack([odd, signal[1::2].double()]))[0, 1]) > 0.5


def test_a_kind_of_the_users_own_is_one_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KINDS, "_things", dict(KINDS._things))
    KINDS.add(Kind("molecule", 3, "positions of atoms", "atoms", stepped=True))
    modality = Modality("drug", "molecule", (12, 4))
    assert KINDS[modality.kind].steps == "atoms"
    assert list(KINDS)[-1] == "molecule"
    with pytest.raises(ConfigError, match="'molecule' has no toy data"):
        KINDS["molecule"].toy_rows(torch.zeros(2), torch.Generator())
    with pytest.raises(ConfigError, match="registered twice"):
        KINDS.add(Kind("image", 4, "something else"))
    with pytest.raises(ConfigError, match="two axes or more"):
        Kind("flat", 1, "nothing")
    with pytest.raises(ConfigError, match="say in steps= what they are"):
        Kind("masked", 3, "numbers", stepped=True)
