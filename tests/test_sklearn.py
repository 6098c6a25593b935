"""scikit-learn's contract on tables with holes: its tools take an estimator as their own, and labels keep their type."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.inspection import permutation_importance
from sklearn.metrics import accuracy_score, cohen_kappa_score, log_loss, r2_score, roc_auc_score
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    TunedThresholdClassifierCV,
    cross_val_predict,
    cross_val_score,
    learning_curve,
)
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

import kintsugi as kg
from kintsugi.core.errors import ConfigError, DataError, UnknownName

pytestmark = [
    pytest.mark.filterwarnings("ignore:no validation rows were given"),
    pytest.mark.filterwarnings("ignore:.*training rows hold nothing at all"),
]
READERS = {"vitals": kg.tabular(["age", "pulse"]), "note": kg.text("note", 12)}


def rows(count: int = 60, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Visits with holes, four of a patient, and the 0/1 outcome that each modality tells."""
    noise = np.random.default_rng(seed)
    y = np.arange(count) % 2
    frame = pd.DataFrame(
        {
            "age": 40 + 9.0 * y + noise.normal(size=count),
            "pulse": 70 + 5.0 * y + noise.normal(size=count),
            "note": np.array([("slept well", "short of breath")[i] for i in y], dtype=object),
            "patient": [f"p{i // 4}" for i in range(count)],
        },
        index=np.arange(count) + 1000,
    )
    frame.loc[frame.index[3::7], "age"] = np.nan
    frame.loc[frame.index[2::5], "note"] = None
    frame.loc[frame.index[4::11], ["age", "pulse"]] = np.nan
    return frame, y


def classifier(**options: Any) -> kg.Classifier:
    usual: dict[str, Any] = {"dim": 8, "modalities": READERS, "epochs": 5, "lr": 0.03, "batch_size": 16}
    return kg.Classifier(**{**usual, "progress": False, **options})


def regressor(**options: Any) -> kg.Regressor:
    return kg.Regressor(**{**classifier().get_params(), **options})


TYPES: dict[str, Callable[[np.ndarray], Any]] = {
    "int": lambda y: y,
    "bool": lambda y: y.astype(bool),
    "text": lambda y: np.array(["home", "ward"])[y],
    "other ints": lambda y: pd.Series(y * 5 - 2),
}


# tools that ask with (X, y) -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("scoring", ["roc_auc", "accuracy", "neg_log_loss"])
@pytest.mark.parametrize("kind", TYPES)
def test_scores_of_grouped_folds_are_those_that_the_metric_gives(kind: str, scoring: str) -> None:
    frame, y = rows()
    labels, folds = TYPES[kind](y), GroupKFold(2)
    scores = cross_val_score(
        classifier(epochs=2), frame, labels, groups=frame["patient"], cv=folds, scoring=scoring, error_score="raise"
    )
    values = np.asarray(labels)
    for score, (train, test) in zip(scores, folds.split(frame, groups=frame["patient"]), strict=True):
        model = classifier(epochs=2).fit(frame.iloc[train], values[train])
        truth, p = values[test], model.predict_proba(frame.iloc[test])
        second = truth == model.classes_[1]
        expected = {
            "roc_auc": roc_auc_score(second, p[:, 1]),
            "accuracy": (model.classes_[p.argmax(1)] == truth).mean(),
            "neg_log_loss": -log_loss(second, p),
        }[scoring]
        assert score == pytest.approx(expected, abs=1e-6)


def test_predictions_of_folds_are_in_the_type_of_the_labels() -> None:
    frame, y = rows()
    found = cross_val_predict(classifier(), frame, pd.Series(y, index=frame.index, name="ill"), cv=3)
    assert found.dtype.kind == "i"
    assert accuracy_score(y, found) > 0.8


def test_folds_number_the_classes_of_a_column_that_the_rows_hold_too() -> None:
    frame, y = rows()
    frame["outcome"] = np.array(["home", "ward"])[y]
    p = cross_val_predict(classifier(target="outcome"), frame, frame["outcome"], cv=2, method="predict_proba")
    assert p.shape == (60, 2)
    assert ((p[:, 1] > 0.5) == y).mean() > 0.8


@pytest.mark.parametrize("with_column", [False, True])
def test_a_search_by_area_under_the_curve(with_column: bool) -> None:
    frame, y = rows()
    labels = np.array(["home", "ward"])[y]
    given = frame.assign(outcome=labels) if with_column else frame
    model = classifier(epochs=2, target="outcome" if with_column else None)
    search = GridSearchCV(model, {"dim": [4, 8], "seed": [1]}, cv=2, scoring="roc_auc", error_score="raise")
    search.fit(given, labels)
    assert search.best_estimator_.seed == 1
    assert set(search.predict(frame)) <= {"home", "ward"}
    assert search.score(given, labels) == pytest.approx(
        roc_auc_score(labels == "ward", search.predict_proba(frame)[:, 1])
    )


def test_a_pipeline_hands_on_labels_and_weights() -> None:
    frame, y = rows()
    double = FunctionTransformer(lambda f: f.assign(age=f["age"] * 2))
    pipeline = Pipeline([("double", double), ("model", classifier())]).fit(frame, y)
    twice = frame.assign(age=frame["age"] * 2)
    alone = classifier().fit(twice, y)
    assert np.array_equal(pipeline.predict_proba(frame), alone.predict_proba(twice))
    assert pipeline.score(frame, y) == alone.score(twice, y)
    assert pipeline.classes_.tolist() == [0, 1]
    weight = np.linspace(0.1, 2, 60)
    weighted = clone(pipeline).fit(frame, y, model__sample_weight=weight)
    assert not np.array_equal(weighted.predict_proba(frame), pipeline.predict_proba(frame))


@pytest.mark.parametrize("ensemble", [True, False])
@pytest.mark.parametrize("kind", ["int", "text"])
def test_calibrated_classifiers_are_fitted(kind: str, ensemble: bool) -> None:
    frame, y = rows()
    labels = TYPES[kind](y)
    model = CalibratedClassifierCV(classifier(), cv=2, ensemble=ensemble).fit(frame, labels, sample_weight=np.ones(60))
    assert model.classes_.tolist() == sorted(set(np.asarray(labels).tolist()))
    assert (model.predict(frame) == labels).mean() > 0.8
    assert np.allclose(model.predict_proba(frame).sum(1), 1)


@pytest.mark.parametrize("kind", ["int", "bool"])
def test_a_threshold_is_tuned(kind: str) -> None:
    frame, y = rows()
    labels = TYPES[kind](y)
    model = TunedThresholdClassifierCV(classifier(), cv=2, scoring="balanced_accuracy").fit(frame, labels)
    assert model.predict(frame).dtype == labels.dtype
    assert (model.predict(frame) == labels).mean() > 0.8


@pytest.mark.parametrize("scoring", [None, "roc_auc"])
def test_a_column_that_tells_nothing_has_no_importance(scoring: str | None) -> None:
    frame, y = rows()
    model = classifier().fit(frame, y)
    found = permutation_importance(model, frame, y, n_repeats=3, random_state=0, scoring=scoring).importances_mean
    assert found[list(frame).index("patient")] == 0
    assert found[list(frame).index("note")] > 0.02


def test_a_learning_curve_and_records() -> None:
    frame, y = rows()
    sizes, train, test = learning_curve(
        classifier(epochs=2), frame, y, cv=2, train_sizes=[0.5, 1.0], scoring="accuracy", error_score="raise"
    )
    assert sizes.tolist() == [15, 30]
    assert np.isfinite(train).all()
    assert np.isfinite(test).all()
    records = frame.to_dict("records")
    scores = cross_val_score(classifier(epochs=2), records, y.tolist(), cv=2, error_score="raise")
    assert scores == pytest.approx(cross_val_score(classifier(epochs=2), frame, y, cv=2, error_score="raise"))


def test_what_the_modalities_read_are_the_features(tmp_path: Path) -> None:
    frame, y = rows()
    model = classifier(epochs=1)
    assert not hasattr(model, "n_features_in_")
    model.fit(frame, y)
    assert model.feature_names_in_.tolist() == ["age", "pulse", "note"]
    assert kg.load(model.save(tmp_path / "model")).n_features_in_ == 3


# labels beside the rows ---------------------------------------------------------------------------------------------
def test_labels_beside_the_rows_train_as_a_column_does() -> None:
    frame, y = rows()
    whole = frame.assign(ill=y)
    column = classifier(target="ill").fit(whole, whole)
    assert np.array_equal(
        classifier(target="ill").fit(frame, y, val=whole).predict_proba(frame), column.predict_proba(frame)
    )
    named = pd.Series(y, index=frame.index, name="ill")
    for given in (y, y.tolist(), named, pd.array(y), whole["ill"].astype("category")):
        model = classifier().fit(frame, given, val=(frame, given))
        assert np.array_equal(model.predict_proba(frame), column.predict_proba(frame))
        assert model.predict(frame).tolist() == column.predict(frame).tolist()
        assert model.score(frame, given) == column.score(whole) == accuracy_score(y, model.predict(frame))
    assert classifier().fit(frame, named, val=(frame, named)).score(whole) == column.score(whole)


def test_a_table_or_frame_as_second_argument_is_for_validation() -> None:
    frame, y = rows()
    whole = frame.assign(ill=y)
    positional = classifier(target="ill", epochs=1).fit(whole, whole)
    named = classifier(target="ill", epochs=1).fit(whole, val=whole)
    assert np.array_equal(positional.predict_proba(frame), named.predict_proba(frame))
    with pytest.raises(ConfigError, match="given twice"):
        classifier(target="ill").fit(whole, whole, val=whole)
    with pytest.raises(ConfigError, match=r"taken for validation rows.*give y\.to_numpy"):
        classifier().fit(frame, whole[["ill"]])


def test_labels_that_cannot_be_joined_are_refused_with_a_remedy(tmp_path: Path) -> None:
    frame, y = rows()
    whole = frame.assign(ill=y)
    table = kg.Table.from_pandas(whole, modalities=READERS, target="ill")
    cases: list[tuple[Any, Any, dict[str, Any], str]] = [
        (table, y, {}, "is a data set, which y cannot be joined to: name the target column"),
        (str(tmp_path / "rows.csv"), y, {}, "y cannot be joined to a file: read it into a data frame first"),
        (frame[["age"]].to_numpy(), y, {}, r"array of shape \[60, 1\], whose columns have no names.*pd.DataFrame"),
        (frame, y[:-1], {}, "y has 59 labels for 60 rows"),
        (frame, np.stack([y, y], 1), {}, "y has 2 columns of labels, the target 0: name them"),
        (frame, y, {"target": ["a", "b"]}, "y has 1 columns of labels, the target 2: a, b"),
        (whole, y[::-1], {"target": "ill", "epochs": 1, "dim": 4, "seed": 5}, ""),
        (whole, np.roll(y, 2) * (np.arange(60) > 9), {"target": "ill"}, "y is not what column 'ill' of X holds.*row 1"),
        (frame, None, {}, "say how to read them.*or labels as the second argument"),
    ]  # fmt: skip
    for given, labels, options, words in cases:
        if words:
            with pytest.raises((ConfigError, DataError), match=words):
                classifier(**options).fit(given, labels)
        else:  # the same classes by each other's names
            assert classifier(**options).fit(given, labels).classes_.tolist() == [0, 1]
    model = classifier(epochs=1).fit(frame, y)
    with pytest.raises(ConfigError, match="leave y out"):
        model.score(table, y)
    with pytest.raises(DataError, match="no column 'y'"):
        model.score(frame)
    with pytest.raises(DataError, match="array of shape"):
        model.predict(frame[["age"]].to_numpy())


def test_numbers_must_agree_with_the_column_and_may_not_be_named_otherwise() -> None:
    frame, y = rows()
    whole = frame.assign(days=y * 3.5 + np.arange(60) / 100)
    model = regressor(target="days", epochs=1).fit(whole, whole["days"])
    assert model.score(whole, whole["days"]) == pytest.approx(r2_score(whole["days"], model.predict(frame)), abs=1e-5)
    with pytest.raises(DataError, match="drop this column from X"):
        regressor(target="days").fit(whole, np.log1p(whole["days"]))


def test_labels_in_another_order_than_the_rows_are_told_of() -> None:
    frame, y = rows()
    named = pd.Series(y, index=frame.index)
    with pytest.warns(UserWarning, match="y has the index of X in another order, and is taken by position"):
        classifier(epochs=1).fit(frame, named[::-1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "no validation rows|.*hold nothing at all")
        classifier(epochs=1).fit(frame, named.reset_index(drop=True))


def test_rows_without_a_label_are_left_out() -> None:
    frame, y = rows()
    holes = pd.Series(y, index=frame.index).astype("Float64").mask(np.arange(60) % 9 == 0)
    model = classifier().fit(frame, holes, val=(frame, holes))
    assert model.predict(frame).dtype.kind == "i", "integers with holes are integers"
    there = holes.notna().to_numpy()
    assert model.score(frame, holes) == pytest.approx((model.predict(frame) == y)[there].mean())


def test_several_labels_beside_the_rows() -> None:
    frame, y = rows()
    labels = np.stack([y, 1 - y], 1)
    model = classifier(target=["ill", "well"]).fit(frame, labels)
    assert model.predict(frame).shape == (60, 2)
    assert model.score(frame, labels) == pytest.approx((model.predict(frame) == labels).mean())


# weights ------------------------------------------------------------------------------------------------------------
def test_sample_weights_are_the_weights_of_a_table() -> None:
    frame, y = rows()
    weight = np.linspace(0, 2, 60)
    beside = classifier(target="ill").fit(frame, y, val=frame.assign(ill=y), sample_weight=weight)
    table = kg.Table.from_pandas(frame.assign(ill=y, w=weight), modalities=READERS, target="ill", weight="w")
    assert np.array_equal(beside.predict_proba(frame), classifier().fit(table, table).predict_proba(frame))
    for wrong, words in ((weight[:-1], "59 weights for 60 rows"), (-weight, "weights are numbers from 0 up")):
        with pytest.raises(DataError, match=words):
            classifier().fit(frame, y, sample_weight=wrong)
    with pytest.raises(ConfigError, match="name the column of weights when the table is made"):
        classifier().fit(table, table, sample_weight=weight)


def test_scores_are_weighted_as_scikit_learn_weights_them() -> None:
    frame, y = rows()
    weight = np.random.default_rng(3).uniform(size=60)
    model = classifier(epochs=1).fit(frame, y)
    assert model.score(frame, y, weight) == pytest.approx(accuracy_score(y, model.predict(frame), sample_weight=weight))
    numbers = y * 3 + np.random.default_rng(1).normal(size=60)
    trained = regressor(epochs=3).fit(frame, numbers)
    expected = r2_score(numbers, trained.predict(frame), sample_weight=weight)
    assert trained.score(frame, numbers, sample_weight=weight) == pytest.approx(expected, abs=1e-5)
    grade = np.arange(60) % 3
    graded = classifier(task="ordinal", epochs=3).fit(frame, grade)
    expected = cohen_kappa_score(grade, graded.predict(frame), weights="quadratic", sample_weight=weight)
    assert graded.score(frame, grade, weight) == pytest.approx(expected)
    with pytest.raises(DataError, match=r"sample_weight has shape \[59\] for 60 rows"):
        model.score(frame, y, weight[:-1])


def test_weights_of_classes_by_label_by_place_and_balanced() -> None:
    frame, y = rows()
    y = np.where(np.arange(60) < 45, 0, y)  # 52 zeros and 8 ones
    zeros, ones = 60 / (2 * 52), 60 / (2 * 8)
    for weights, expected in (
        ("balanced", (zeros, ones)),
        ({0: 1.5, 1: 4}, (1.5, 4)),
        ({1: 4}, (1, 4)),
        ([2, 3], (2, 3)),
    ):
        model = classifier(class_weight=weights, epochs=1).fit(frame, y, val=(frame, y))
        assert model.pipeline_.schema.task.weights == pytest.approx(expected)
        assert clone(model).class_weight == weights
    named = classifier(class_weight={True: 3.0}, epochs=1).fit(frame, y.astype(bool))
    assert named.pipeline_.schema.task.weights == (1, 3)
    with pytest.raises(UnknownName, match="2"):
        classifier(class_weight={2: 1.0}).fit(frame, y)
    with pytest.raises(ConfigError, match="3 class weights for 2 classes"):
        classifier(class_weight=[1, 2, 3]).fit(frame, y)
    with pytest.raises(ConfigError, match="class weights are for classification; this is regression"):
        regressor(class_weight="balanced").fit(frame, y * 1.5)
    table = kg.Table.from_pandas(frame.assign(ill=y), modalities=READERS, target="ill")
    with pytest.raises(ConfigError, match="give class_weights= to the table"):
        classifier(class_weight="balanced").fit(table, table)


# answers in the type of the labels ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("values", "classes"),
    [
        ([0, 1], [0, 1]),
        ([3, 10], [3, 10]),
        ([-1, 1], [-1, 1]),
        ([True, False], [False, True]),
        (["no", "yes"], ["no", "yes"]),
        (["0", "1"], ["0", "1"]),
        (["01", "02"], ["01", "02"]),
        ([0.0, 1.0], [0.0, 1.0]),
        ([0.5, 1.5], [0.5, 1.5]),
        ([2**40, 2**41], [2**40, 2**41]),
        ([np.int8(4), np.int8(5)], [4, 5]),
        (["TRUE", "FALSE"], ["FALSE", "TRUE"]),
        (["yes ", "no "], ["no ", "yes "]),
    ],
)
def test_answers_are_what_the_labels_are(values: list[Any], classes: list[Any], tmp_path: Path) -> None:
    frame, y = rows()
    frame["outcome"] = [values[i] for i in y]
    model = classifier(target="outcome").fit(frame, frame)
    assert model.classes_.tolist() == classes
    assert [type(v) for v in model.classes_.tolist()] == [type(v) for v in classes]
    assert (model.predict(frame) == frame["outcome"]).mean() == model.score(frame) > 0.9
    if classes != [0.5, 1.5]:  # which scikit-learn takes for a regression
        assert accuracy_score(frame["outcome"], model.predict(frame)) == model.score(frame)
    again = kg.load(model.save(tmp_path / "model"))
    assert again.predict(frame).dtype == model.predict(frame).dtype
    assert again.predict(frame).tolist() == model.predict(frame).tolist()
    named = model.predict_frame(frame)["prediction"]
    assert all(isinstance(v, str) for v in named)
    assert again.score(frame) == model.score(frame)


def test_integers_with_holes_and_classes_in_an_order_are_integers() -> None:
    frame, y = rows()
    frame["grade"] = pd.Series(np.arange(60) % 3, index=frame.index).where(np.arange(60) % 10 != 0)
    assert frame["grade"].dtype == float
    for task in ("classification", "ordinal"):
        model = classifier(target="grade", task=task, epochs=1).fit(frame, frame)
        assert model.classes_.dtype.kind == "i"
        assert model.predict(frame).dtype.kind == "i"
    frame["size"] = pd.Categorical(np.array(["S", "L"])[y], ["S", "L", "XL"], ordered=True)
    assert classifier(target="size", task="ordinal", epochs=1).fit(frame, frame).classes_.tolist() == ["S", "L", "XL"]


@pytest.mark.parametrize(
    ("mixture", "words"),
    [
        ([1, "a"], "1 in row 0 is a number and 'a' in row 1 is text"),
        ([True, 2], "True in row 0 is a boolean and 2 in row 1 is a number"),
        (["yes", False], "'yes' in row 0 is text and False in row 1 is a boolean"),
    ],
)
def test_labels_of_several_types_are_refused(mixture: list[Any], words: str) -> None:
    frame, y = rows()
    frame["outcome"] = pd.Series([mixture[i] for i in y], index=frame.index, dtype=object)
    with pytest.raises(DataError, match=f"target 'outcome' mixes types: {words}"):
        classifier(target="outcome").fit(frame, frame)


def test_a_task_saved_without_types_answers_with_text() -> None:
    from kintsugi.core.schema import task_from_json
    from kintsugi.tasks import Classification

    old = task_from_json({"key": "classification", "classes": ["0", "1"], "weights": None})
    new = Classification([0, 1])
    assert old.labels == ("0", "1")
    assert new.labels == (0, 1)
    assert old == new, "how answers are spelt makes no other task"
    assert hash(old) == hash(new)
    assert task_from_json({"key": "classification", **new.to_json()}).labels == (0, 1)
    assert "values" not in Classification(["a", "b"]).to_json()
    with pytest.raises(ConfigError, match="mixes types"):
        Classification([1, "a"])
    with pytest.raises(ConfigError, match="3 values for 2 classes"):
        Classification(["a", "b"], values=[1, 2, 3])


def test_classes_that_do_not_stand_sorted_are_told_of_where_scikit_learn_hands_labels() -> None:
    frame, y = rows()
    with pytest.warns(UserWarning, match="order '9', '10', which is not the sorted one"):
        classifier(epochs=1).fit(frame, np.array(["9", "10"])[y])


# one row that cannot be answered ------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", ["mean_fusion", "ccm", "midl"])
def test_a_row_of_extreme_numbers_gets_the_prior_and_the_others_their_answers(method: str) -> None:
    frame, y = rows()
    options = classifier(method=method, epochs=1).get_params()
    if method == "midl":
        options.pop("dim")
    model = kg.Classifier(**options).fit(frame, y)
    usual = model.predict_proba(frame)
    extreme = frame.copy()
    extreme.iloc[[7, 40], extreme.columns.get_loc("age")] = 3e38
    others = np.delete(np.arange(60), [7, 40])
    with pytest.warns(UserWarning, match=r"the answer to \d+ rows is not finite: row 7, 40 \(counted from 0\)") as told:
        values = model.predict_proba(extreme)
    assert sum("is not finite" in str(each.message) for each in told) == 1  # another says that 3e38 is out of range
    empty = model.predict_proba([{"age": None}])[0]
    assert values[[7, 40]] == pytest.approx(np.stack([empty, empty]))
    if method != "midl":  # which learns from row to row
        assert values[others] == pytest.approx(usual[others], abs=1e-6)
    assert np.isfinite(values).all()
    with pytest.warns(UserWarning, match="is not finite"):
        assert model.predict_frame(extreme)["used"][[7, 40]].tolist() == ["nothing (prior)"] * 2
    with pytest.warns(UserWarning, match="is not finite"):
        used = model.explain(extreme)
    assert not used.filter(like="_used").loc[[7, 40]].any(axis=None)
    with pytest.raises(DataError, match="is not finite: row 7"):
        model.predict(extreme, on_error="raise")


def test_a_model_that_is_not_finite_has_no_answers() -> None:
    frame, y = rows()
    model = classifier(epochs=1).fit(frame, y)
    next(model.pipeline_.model.task_head.parameters()).data.fill_(np.nan)
    with pytest.raises(DataError, match="the weights of this model are not finite"):
        model.predict(frame)


def test_unreadable_cells_are_an_error_or_absent_as_is_said() -> None:
    frame, y = rows()
    model = classifier(epochs=1).fit(frame, y)
    broken = frame.assign(age=frame["age"].astype(object))
    broken.iloc[2, 0] = "forty"
    for ask in (model.predict, model.predict_proba, model.predict_frame, model.explain):
        with pytest.raises(DataError, match="on_error='missing'"):
            ask(broken)
        with pytest.raises(DataError, match="on_error='missing'"):
            ask(broken, on_error="raise")
        with pytest.warns(UserWarning, match="1 cells cannot be used and count as absent; the first is row 2"):
            ask(broken, on_error="missing")
    with pytest.warns(UserWarning, match="count as absent"):
        assert 0 <= model.score(broken, y, on_error="missing") <= 1
    table = model.read(frame.assign(y=y))
    with pytest.raises(ConfigError, match="on_error= is for frames, records and files"):
        model.predict(table, on_error="missing")


# numbers far from zero ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("offset", [1.7e9, -3e8, 20_240_000.0])
def test_a_target_far_from_zero_is_learned_as_the_same_one_around_zero(offset: float) -> None:
    frame, y = rows()
    numbers = np.round(y * 2 + np.random.default_rng(4).normal(size=60) / 4, 3)
    near = regressor().fit(frame, numbers, val=(frame, numbers))
    far = regressor().fit(frame, numbers + offset, val=(frame, numbers + offset))
    assert near.predict(frame).dtype == np.float32
    assert far.predict(frame).dtype == np.float64
    assert far.predict(frame) - offset == pytest.approx(near.predict(frame), abs=1e-3)
    assert far.score(frame, numbers + offset) == pytest.approx(near.score(frame, numbers), abs=1e-3)
    logs = [[record["val/mae"] for record in model.trainer_.history] for model in (near, far)]
    assert logs[1] == pytest.approx(logs[0], abs=1e-3)


def test_the_bound_of_numbers_far_from_zero_and_beyond_float32() -> None:
    from kintsugi.tasks.regression import OFFSET, Regression

    assert not Regression(centre=(OFFSET,), scale=(1.0,)).needs_float64
    assert Regression(centre=(OFFSET + 1,), scale=(1.0,)).needs_float64
    frame, y = rows()
    with pytest.raises(DataError, match="beyond float32"):
        regressor().fit(frame, y * 1e300)


def test_a_frame_is_read_as_the_training_rows_were() -> None:
    from kintsugi.estimator import rows_for

    frame, y = rows()
    whole = frame.assign(ill=y)
    model = classifier(target="ill", epochs=1).fit(whole, whole)
    data = rows_for({"one": model}, whole)
    assert np.array_equal(model.predict(data), model.predict(frame))
    assert rows_for(model.pipeline_, data) is data
    one, other = (kg.evaluate(model, each, "clean").table.drop(columns="seconds") for each in (whole, data))
    assert one.equals(other)
    with pytest.raises(ConfigError, match="nothing says how to read DataFrame"):
        rows_for(model.pipeline_, whole)


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (["0", "1"], [0, 1]),
        (["01", "02"], ["01", "02"]),
        (["FALSE", "TRUE"], [False, True]),
        (["1E5", "2E7"], ["1E5", "2E7"]),
        (["low", "top"], ["low", "top"]),
        (["1", "top"], ["1", "top"]),
        (["-3", "12"], [-3, 12]),
    ],
)
def test_a_file_without_types_has_labels_as_pandas_reads_them_unless_names_would_change(
    values: list[str], classes: list[Any], tmp_path: Path
) -> None:
    frame, y = rows()
    frame["outcome"] = [values[i] for i in y]
    frame.to_csv(tmp_path / "rows.csv", index=False)
    model = classifier(target="outcome").fit(tmp_path / "rows.csv", tmp_path / "rows.csv")
    assert model.classes_.tolist() == classes
    assert [type(v) for v in model.classes_.tolist()] == [type(v) for v in classes]
    assert model.score(tmp_path / "rows.csv") == (model.predict(frame) == np.array(classes)[y]).mean() > 0.9
    if isinstance(classes[0], int):
        read = pd.read_csv(tmp_path / "rows.csv")
        assert (model.predict(read) == read["outcome"]).mean() == model.score(read)


def test_how_answers_are_spelt_is_no_part_of_a_fingerprint() -> None:
    from kintsugi.tasks import Classification

    frame, y = rows()
    options: dict[str, Any] = {"modalities": READERS, "target": "ill"}
    typed = kg.Table.from_pandas(frame.assign(ill=y), **options)
    named = kg.Table.from_pandas(frame.assign(ill=y), **options, task=Classification(["0", "1"]))
    assert typed.schema.task.labels != named.schema.task.labels
    assert typed.fingerprint == named.fingerprint
    assert typed.in_memory().fingerprint == named.in_memory().fingerprint
