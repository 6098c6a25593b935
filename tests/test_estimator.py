"""The scikit-learn face: its manners, what may be fitted and asked, and that nothing is answered from rows read otherwise."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

import kintsugi as kg
from kintsugi.core.errors import ConfigError, DataError, ModelFileError, UnknownName
from kintsugi.core.methods import create
from kintsugi.io.files import digest
from kintsugi.testing.fixture import toy

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*training rows hold nothing at all"),
    pytest.mark.filterwarnings("ignore:.*categories that training did not have"),
]

READERS = {"note": kg.text("note", 16), "vitals": kg.tabular(["age", "ward"]), "lab": kg.vector("lab")}
CLASSES = ["low", "mid", "top"]


def rows(count: int = 60, seed: int = 0, holes: bool = True) -> pd.DataFrame:
    """A target that each modality tells; row 1 holds nothing where there are holes."""
    noise = np.random.default_rng(seed)
    y = np.arange(count) % 3
    frame = pd.DataFrame(
        {
            "note": pd.Series([("red apple", "blue sky", "green leaf")[i] for i in y], dtype=object),
            "age": y * 10.0 + noise.normal(size=count),
            "ward": pd.Series([("a", "b", "c")[i] for i in y], dtype=object),
            "lab": pd.Series([[float(v) for v in noise.normal(size=3) + 2 * i] for i in y], dtype=object),
            "outcome": [CLASSES[i] for i in y],
            "days": y * 4.0 + 1,
            "fever": (y > 0).astype(int),
            "cough": (y > 1).astype(int),
        }
    )
    if holes:
        frame.loc[4::7, "note"] = None
        frame.loc[3::5, "age"] = np.nan
        frame.loc[5::6, ["age", "ward"]] = None
        frame.loc[1, ["note", "age", "ward", "lab"]] = None
    return frame


def classifier(**options: Any) -> kg.Classifier:
    usual = {"dim": 8, "modalities": READERS, "target": "outcome", "epochs": 8, "lr": 0.02, "batch_size": 16}
    return kg.Classifier(**{**usual, "progress": False, **options})


@cache
def fitted() -> kg.Classifier:
    """Fitted once; no test may fit it again or change it."""
    return classifier().fit(rows(), rows(24, seed=1))


@cache
def fitted_pipeline() -> kg.Pipeline:
    return fitted().pipeline_


# scikit-learn's manners ---------------------------------------------------------------------------------------------
def test_parameters_are_those_of_the_constructor_and_of_the_method() -> None:
    model = kg.Classifier("mmin", epochs=3, blocks=2, params={"dim": 4})
    said = model.get_params()
    assert (said["method"], said["epochs"], said["blocks"], said["params"]) == ("mmin", 3, 2, {"dim": 4})
    assert kg.Classifier(**said).get_params() == said
    assert model.set_params(epochs=5, blocks=4, w_forward=1.0) is model
    assert (model.epochs, model.hyper) == (5, {"blocks": 4, "w_forward": 1.0})
    assert repr(model) == "Classifier('mmin', params={'dim': 4}, epochs=5, blocks=4, w_forward=1.0)"
    assert repr(kg.Regressor()) == "Regressor('mean_fusion')"


def test_a_clone_is_an_unfitted_twin() -> None:
    twin = clone(fitted())
    assert twin.get_params() == fitted().get_params()
    assert not hasattr(twin, "pipeline_")
    check_is_fitted(fitted())
    with pytest.raises(NotFittedError):
        check_is_fitted(twin)
    assert is_classifier(twin)
    assert is_regressor(kg.Regressor())


@pytest.mark.filterwarnings("ignore:no validation rows")
def test_scikit_learn_can_validate_and_search() -> None:
    model = classifier(epochs=2)
    scores = cross_val_score(model, rows(), cv=2)
    assert scores.shape == (2,)
    assert ((scores >= 0) & (scores <= 1)).all()
    search = GridSearchCV(model, {"dim": [4, 6], "method": ["late_fusion"]}, cv=2).fit(rows())
    assert search.best_params_["method"] == "late_fusion"
    assert search.best_estimator_.predict(rows(6)).shape == (6,)


def test_score_is_the_accuracy_on_labelled_rows() -> None:
    frame = rows(30, seed=2)
    expected = (fitted().predict(frame) == frame["outcome"].to_numpy())[1:].mean()
    frame.loc[0, "outcome"] = CLASSES[(CLASSES.index(fitted().predict(frame)[0]) + 1) % 3]
    whole = (fitted().predict(frame) == frame["outcome"].to_numpy()).mean()
    assert fitted().score(frame) == pytest.approx(whole)
    frame.loc[0, "outcome"] = None
    assert fitted().score(frame) == pytest.approx(expected)
    assert expected > 0.8
    with pytest.raises(DataError, match="no labels to score against"):
        fitted().score(frame.assign(outcome=None))
    with pytest.raises(DataError, match="no column 'outcome'"):
        fitted().score(frame.drop(columns="outcome"))


# arguments ----------------------------------------------------------------------------------------------------------
def test_arguments_of_the_method_come_by_keyword_or_in_params() -> None:
    for model in (classifier(dim=6, epochs=1), classifier(epochs=1).set_params(dim=6)):
        assert model.fit(rows(), rows(12)).pipeline_.model.hyper["dim"] == 6
    model = kg.Classifier(params={"dim": 6}, modalities=READERS, target="outcome", epochs=1, progress=False)
    assert model.fit(rows(), rows(12)).pipeline_.model.hyper["dim"] == 6
    with pytest.raises(ConfigError, match="dim: given in params and as a keyword"):
        classifier(params={"dim": 6}).fit(rows(), rows(12))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"method": "mean_fuson"}, UnknownName, "unknown method 'mean_fuson'; did you mean 'mean_fusion'"),
        ({"dimm": 3}, UnknownName, "unknown argument of mean_fusion 'dimm'; did you mean 'dim'"),
        ({"params": {"dmi": 3}}, UnknownName, "unknown argument of mean_fusion 'dmi'; did you mean 'dim'"),
        ({"trainer": {"clipp": 1.0}}, UnknownName, "unknown argument of the trainer 'clipp'; did you mean 'clip'"),
        ({"trainer": {"epochs": 1}}, ConfigError, "epochs is an argument of Classifier itself"),
        ({"encoders": {"notes": nn.Identity()}}, UnknownName, "unknown modality 'notes'; did you mean 'note'"),
        ({"target": "outcom"}, UnknownName, "unknown column 'outcom'; did you mean 'outcome'"),
        ({"task": "clasification"}, UnknownName, "unknown task 'clasification'; did you mean 'classification'"),
        ({"modalities": {"note": kg.text("nota")}}, UnknownName, "unknown column 'nota'; did you mean 'note'"),
        ({"task": "regression", "target": "days"}, ConfigError, "Classifier solves classification or multilabel"),
        ({"modalities": None}, ConfigError, "say how to read them"),
        ({"target": None}, ConfigError, "say how to read them"),
        ({"epochs": 0}, ConfigError, "epochs must be at least 1"),
        ({"lr": 0.0}, ConfigError, "lr must be above 0"),
    ],
)
def test_arguments_that_make_no_sense(options: dict[str, Any], error: type[Exception], words: str) -> None:
    model = classifier(**options)
    with pytest.raises(error, match=words):
        model.fit(rows(), rows(12))
    assert not hasattr(model, "pipeline_")


def test_arguments_of_the_trainer_arrive() -> None:
    model = classifier(epochs=2, trainer={"optimizer": "sgd", "clip": 0.5}).fit(rows(), rows(12))
    assert (model.trainer_.optimizer, model.trainer_.clip, model.trainer_.epochs) == ("sgd", 0.5, 2)
    assert [record["epoch"] for record in model.trainer_.history] == [0, 1]


# what may be fitted and asked ---------------------------------------------------------------------------------------
def records() -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if v is not None} for row in rows().to_dict("records")]


def written(folder: Path, kind: str) -> Path:
    frame = rows()
    path = folder / f"rows.{kind}"
    if kind == "parquet":
        frame.to_parquet(path)
    else:
        frame["lab"] = [None if v is None else json.dumps(v) for v in frame["lab"]]
        frame.to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")
    return path


@pytest.mark.parametrize("kind", ["table", "records", "parquet", "csv", "tsv", "path as text"])
def test_rows_of_every_kind_are_fitted_and_asked_alike(kind: str, tmp_path: Path) -> None:
    given: Any
    if kind == "table":
        given = kg.Table.from_pandas(rows(), modalities=READERS, target="outcome")
    elif kind == "records":
        given = records()
    elif kind == "path as text":
        given = str(written(tmp_path, "parquet"))
    else:
        given = written(tmp_path, kind)
    model = classifier(epochs=2).fit(given, given)
    frame = classifier(epochs=2).fit(rows(), rows())
    expected = frame.predict_proba(rows())
    assert np.array_equal(model.predict_proba(rows()), expected)
    assert np.array_equal(model.predict_proba(given), expected)
    assert model.predict(given).tolist() == [CLASSES[i] for i in expected.argmax(1)]
    assert model.classes_.tolist() == CLASSES


def test_the_target_is_not_needed_to_predict_and_not_read() -> None:
    frame = rows(12)
    bare = frame[["note", "age", "ward", "lab"]]
    assert np.array_equal(fitted().predict_proba(bare), fitted().predict_proba(frame))
    assert np.array_equal(fitted().predict_proba(frame.assign(outcome=CLASSES[0])), fitted().predict_proba(frame))
    assert np.array_equal(fitted().predict_proba(frame.assign(outcome="unheard of")), fitted().predict_proba(frame))
    alone = fitted().predict_proba(bare.iloc[3:4])
    assert np.allclose(alone, fitted().predict_proba(bare)[3:4], atol=1e-6)


def test_a_row_with_nothing_gets_the_prior_and_says_so() -> None:
    frame = rows(6)
    train = rows()[lambda f: (f["outcome"] != "top") | (f.index < 12)]  # 20, 20 and 4 of a class
    model = classifier(epochs=1).fit(train, train)
    assert model.predict_proba(frame)[1] == pytest.approx([21 / 47, 21 / 47, 5 / 47], abs=1e-5)
    assert model.predict_proba([{"ward": None}])[0] == pytest.approx([21 / 47, 21 / 47, 5 / 47], abs=1e-5)
    told = fitted().predict_frame(frame)
    assert list(told.columns) == ["row", "prediction", "probability", "used", "uncertainty"]
    assert told["row"].tolist() == list(range(6))
    assert told["used"].tolist()[:5] == [
        "note+vitals+lab", "nothing (prior)", "note+vitals+lab", "note+vitals+lab", "vitals+lab",
    ]  # fmt: skip
    assert told["prediction"].tolist() == fitted().predict(frame).tolist()
    assert told["probability"].to_numpy() == pytest.approx(fitted().predict_proba(frame).max(1), abs=1e-4)


def test_missing_files_are_holes_and_broken_ones_are_not_what_an_answer_rests_on(tmp_path: Path) -> None:
    frame = rows()
    for i in range(60):
        np.save(tmp_path / f"{i}.npy", np.asarray(frame["lab"][i] or [0.0, 0.0, 0.0]))
    frame["file"] = [f"{i}.npy" for i in range(60)]
    frame.to_parquet(tmp_path / "rows.parquet")
    readers = {"note": READERS["note"], "lab": kg.vector("file")}
    table = kg.Table.from_parquet(tmp_path / "rows.parquet", modalities=readers, target="outcome", on_error="missing")
    model = kg.Classifier(epochs=1, dim=4, progress=False).fit(table, table)
    (tmp_path / "2.npy").unlink()
    (tmp_path / "3.npy").write_bytes((tmp_path / "3.npy").read_bytes()[:100])
    told = model.explain(tmp_path / "rows.parquet")
    assert list(told.columns) == ["note_present", "lab_present", "note_used", "lab_used"]
    assert told["lab_present"].tolist()[:6] == [True, True, False, False, True, True]
    assert told["lab_used"].tolist() == told["lab_present"].tolist()
    assert told["note_used"].tolist() == rows()["note"].notna().tolist()


def test_without_validation_rows_a_tenth_is_held_out_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="a tenth of the training rows is held out"):
        model = classifier(epochs=1).fit(rows())
    assert model.trained_on_["rows"] == 54
    assert "val/accuracy" in model.trainer_.history[-1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frame = rows(holes=False)
        assert classifier(epochs=1).fit(frame, frame).trained_on_["rows"] == 60


def test_what_it_was_trained_on_is_said() -> None:
    table = kg.Table.from_pandas(rows(holes=False), modalities=READERS, target="outcome", name="cases")
    whole = classifier(epochs=1).fit(table, table)
    assert (whole.training_condition_, whole.trained_on_["data"]) == ("complete", "cases")
    assert whole.trained_on_["fingerprint"] == table.fingerprint
    damaged = table.with_missing(kg.missing.mcar(0.3), seed=0)
    assert classifier(epochs=1).fit(damaged, table).training_condition_ == "mcar(0.3)"
    assert fitted().training_condition_ == "as given"


def test_no_rows_are_no_answers() -> None:
    table = kg.Table.from_pandas(rows(), modalities=READERS, target="outcome")
    none = table.subset(torch.zeros(60, dtype=torch.bool))
    assert fitted().predict_proba(none).shape == (0, 3)
    assert fitted().predict(none).shape == (0,)
    assert fitted().explain(none).shape == (0, 6)
    assert fitted().predict_frame(none)["used"].tolist() == []


ASK: list[Callable[[kg.Classifier], Any]] = [
    lambda m: m.predict(rows()),
    lambda m: m.predict_proba(rows()),
    lambda m: m.predict_frame(rows()),
    lambda m: m.explain(rows()),
    lambda m: m.score(rows()),
    lambda m: m.save("nowhere"),
]


@pytest.mark.parametrize("ask", ASK)
def test_nothing_can_be_asked_before_fit(ask: Callable[[kg.Classifier], Any]) -> None:
    with pytest.raises(ConfigError, match="this Classifier is not fitted yet; call fit first"):
        ask(classifier())
    assert not Path("nowhere").exists()


# tasks --------------------------------------------------------------------------------------------------------------
def test_several_labels() -> None:
    frame = rows()
    model = classifier(target=["fever", "cough"], epochs=8).fit(frame, rows(24, seed=1))
    assert model.pipeline_.schema.task.key == "multilabel"
    values, labels = model.predict_proba(frame), frame[["fever", "cough"]].to_numpy()
    assert values.shape == (60, 2)
    assert np.array_equal(model.predict(frame), (values > 0.5).astype(int))
    assert model.score(frame) == pytest.approx(((values > 0.5) == (labels > 0.5)).mean())
    assert model.score(frame) > 0.8
    assert values[1] == pytest.approx(labels.mean(0), abs=0.02)
    told = model.predict_frame(frame)
    assert list(told.columns) == ["row", "probability_fever", "probability_cough", "used", "uncertainty"]
    assert np.array_equal(told[["probability_fever", "probability_cough"]].to_numpy(), values)


def test_numbers_and_their_r2_by_hand() -> None:
    frame = rows()
    options: dict[str, Any] = {"modalities": READERS, "epochs": 8, "lr": 0.02, "dim": 8, "progress": False}
    model = kg.Regressor(target="days", **options).fit(frame, rows(24, seed=1))
    values, target = model.predict(frame), frame["days"].to_numpy()
    assert values.shape == (60,)
    assert values[1] == pytest.approx(target.mean(), abs=0.01)
    r2 = 1 - ((values - target) ** 2).sum() / ((target - target.mean()) ** 2).sum()
    assert model.score(frame) == pytest.approx(r2, abs=1e-5)
    assert r2 > 0.5
    frame.loc[[0, 4], "days"] = np.nan
    keep = frame["days"].notna().to_numpy()
    rest, there = values[keep], target[keep]
    r2 = 1 - ((rest - there) ** 2).sum() / ((there - there.mean()) ** 2).sum()
    assert model.score(frame) == pytest.approx(r2, abs=1e-5)
    assert list(model.predict_frame(frame).columns) == ["row", "days", "used"]
    assert not hasattr(model, "predict_proba")


def test_several_numbers() -> None:
    frame = rows().assign(weeks=lambda f: f["days"] / 7 + f.index)
    model = kg.Regressor(target=["days", "weeks"], modalities=READERS, epochs=1, dim=4, progress=False)
    model.fit(frame, frame)
    values, target = model.predict(frame), frame[["days", "weeks"]].to_numpy()
    assert values.shape == (60, 2)
    r2 = 1 - ((values - target) ** 2).sum(0) / ((target - target.mean(0)) ** 2).sum(0)
    assert model.score(frame) == pytest.approx(r2.mean(), abs=1e-4)
    assert list(model.predict_frame(frame).columns) == ["row", "days", "weeks", "used"]


def test_class_weights_of_the_table_reach_the_loss() -> None:
    frame = rows(holes=False).iloc[[*range(30), 30, 33, 36, 39]].reset_index(drop=True)
    made = {
        weights: kg.Table.from_pandas(frame, modalities=READERS, target="outcome", class_weights=weights)
        for weights in (None, "balanced")
    }
    plain, balanced = (classifier(epochs=2).fit(table, table) for table in made.values())
    assert balanced.pipeline_.schema.task.weights == pytest.approx((34 / 42, 34 / 30, 34 / 30))
    assert not np.array_equal(plain.predict_proba(frame), balanced.predict_proba(frame))
    assert balanced.score(frame) == pytest.approx((balanced.predict(frame) == frame["outcome"]).mean())


# rows that were read otherwise --------------------------------------------------------------------------------------
def read(frame: pd.DataFrame, **readers: Any) -> kg.Table:
    return kg.Table.from_pandas(frame, modalities={**READERS, **readers}, target="outcome")


def test_tables_that_were_read_otherwise_are_read_as_the_model_was_trained() -> None:
    trained = classifier(epochs=1).fit(read(rows()), read(rows()))
    other = rows(30, seed=3)
    expected = trained.predict(other).tolist()
    assert trained.predict(read(other)).tolist() == expected
    assert trained.predict(read(other, note=kg.text("note", 8))).tolist() == expected
    assert trained.predict(kg.Table.from_reading(other, trained.reading_)).tolist() == expected
    fewer = rows().replace({"ward": {"c": "b"}})  # whose own reader knows two wards
    assert trained.predict(read(fewer)).tolist() == trained.predict(fewer).tolist()
    assert trained.score(read(other)) == trained.score(other)
    assert kg.evaluate(trained, read(other), "clean").table["value"].iloc[0] == pytest.approx(trained.score(other))
    again = classifier(epochs=1).fit(read(rows()), read(other))
    assert again.reading_ == trained.reading_


def test_tables_of_other_columns_and_tensors_that_were_read_otherwise_are_refused() -> None:
    trained = classifier(epochs=1).fit(read(rows()), read(rows()))
    with pytest.raises(DataError, match="'vitals' has other settings, scales or categories"):
        trained.predict(read(rows(30, seed=3)).in_memory())
    with pytest.raises(DataError, match="it has the modalities note, the model was trained on note, vitals, lab"):
        trained.predict(kg.Table.from_pandas(rows(), modalities={"note": READERS["note"]}, target="outcome"))
    renamed = rows().rename(columns={"age": "years", "note": "text"})
    assert trained.predict(read(renamed, note=kg.text("text", 16), vitals=kg.tabular(["years", "ward"]))).size == 60


def test_classes_in_another_order_are_scored_by_name_and_unknown_ones_are_refused() -> None:
    plain = {"note": READERS["note"], "lab": READERS["lab"]}
    table = kg.Table.from_pandas(rows(), modalities=plain, target="outcome")
    some = rows()[rows()["outcome"] != "low"]
    fewer = kg.Table.from_pandas(some, modalities=plain, target="outcome")
    others = kg.Table.from_pandas(rows().replace({"outcome": {"low": "zero"}}), modalities=plain, target="outcome")
    model = classifier(epochs=1).fit(table, table)
    assert model.predict(fewer).shape == (40,)
    assert model.score(fewer) == model.score(some)
    assert model.predict(others).tolist() == model.predict(table).tolist()
    with pytest.raises(DataError, match="label 'zero' in column 'outcome'"):
        model.score(others)
    with pytest.raises(DataError, match="label 'zero' in column 'outcome'"):
        classifier(epochs=1).fit(table, others)
    tensors = kg.Table.from_pandas(some, modalities=plain, target="outcome").in_memory()
    with pytest.raises(DataError, match="classification with 2 outputs, the model for classification with 3"):
        model.score(tensors)


def test_a_model_of_tensors_reads_no_files() -> None:
    train, val, test = toy(rows=96, dim=5).split()
    model = kg.Classifier(epochs=1, dim=4, progress=False, modalities=READERS, target="outcome").fit(train, val)
    assert model.predict(test).shape == (16,)
    assert 0 <= model.score(test) <= 1
    for call in (model.predict, model.score):
        with pytest.raises(ConfigError, match="the training rows were tensors"):
            call(rows())
    with pytest.raises(ConfigError, match="the training rows were tensors"):
        kg.Classifier(epochs=1, modalities=READERS, target="outcome").fit(train, rows())


# saving -------------------------------------------------------------------------------------------------------------
def strange() -> pd.DataFrame:
    """New rows with every pattern of holes, an unseen category and a number far out."""
    frame = rows(32, seed=5, holes=False)
    for i in range(8):
        gone = [c for bit, c in enumerate((["note"], ["age", "ward"], ["lab"])) if i >> bit & 1]
        for columns in gone:
            frame.loc[i, columns] = None
    frame.loc[[8, 9], "ward"] = "never seen"
    frame.loc[9, "age"] = None
    frame.loc[10, "age"] = 1e4
    return frame


@pytest.mark.parametrize("method", ["mean_fusion", "mmin", "ccm"])
def test_a_loaded_model_answers_bit_for_bit(method: str, tmp_path: Path) -> None:
    model = classifier(method=method, epochs=1, seed=3).fit(rows(), rows(24, seed=1))
    assert model.save(tmp_path / "model") == tmp_path / "model"
    again = kg.load(tmp_path / "model")
    assert isinstance(again, kg.Classifier)
    assert np.array_equal(again.predict_proba(strange()), model.predict_proba(strange()))
    pd.testing.assert_frame_equal(again.predict_frame(strange()), model.predict_frame(strange()))
    pd.testing.assert_frame_equal(again.explain(strange()), model.explain(strange()))
    assert again.score(rows(24, seed=1)) == model.score(rows(24, seed=1))
    assert (again.method, again.seed, again.training_condition_) == (method, 3, "as given")
    assert again.trained_on_ == model.trained_on_
    assert again.predict(read(rows())).tolist() == model.predict(rows()).tolist()
    assert again.predict(read(rows(30, seed=3))).tolist() == model.predict(rows(30, seed=3)).tolist()


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Writes what ``model.json`` says, with its digest, as someone would who knows the format."""
    config["digest"] = digest({name: value for name, value in config.items() if name != "digest"})
    (folder / "model.json").write_text(json.dumps(config))


def test_a_loaded_regressor_is_one(tmp_path: Path) -> None:
    model = kg.Regressor(target="days", modalities=READERS, epochs=1, dim=4, progress=False).fit(rows(), rows(12))
    again = kg.load(model.save(tmp_path / "model"))
    assert isinstance(again, kg.Regressor)
    assert np.array_equal(again.predict(strange()), model.predict(strange()))
    kg.load(again.save(tmp_path / "copy"))
    config = json.loads((tmp_path / "model" / "model.json").read_text())
    assert json.loads((tmp_path / "copy" / "model.json").read_text()) == config
    config["extra"]["estimator"] = "Classifier"
    write_config(tmp_path / "model", config)
    with pytest.raises(ModelFileError, match="a Classifier of task regression"):
        kg.load(tmp_path / "model")
    config["extra"] = []
    write_config(tmp_path / "model", config)
    with pytest.raises(ModelFileError, match="not a saved estimator"):
        kg.load(tmp_path / "model")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"method": None}, "a method is named by its key"),
        ({"method": 5}, "a method is named by its key"),
        ({"method": ["mmin"]}, "a method is named by its key"),
        ({"schema": 5}, "unknown argument of mean_fusion 'schema'"),
        ({"key": "mmin"}, "unknown argument of mean_fusion 'key'"),
        ({"host": 5}, "mean_fusion is a model of its own, so it takes no host"),
        ({"params": ["dim"]}, r"params is a mapping from argument to value, not \['dim'\]"),
        ({"params": {"encoders": {}}}, "encoders: an argument of Classifier itself; give it as a keyword"),
        ({"trainer": 5}, "trainer is a mapping from argument to value, not 5"),
        (
            {"encoders": {"lab": torch.sin}},
            "modality 'lab' is a builtin_function_or_method, and an nn.Module is wanted",
        ),
        ({"encoders": [nn.Identity()]}, "encoders is a mapping from modality to module"),
    ],
)
def test_arguments_of_another_kind_are_refused_in_words(how: dict[str, Any], said: str) -> None:
    with pytest.raises((ConfigError, UnknownName), match=said):
        classifier(**how).fit(rows(), rows(12))


# encoders and pipelines of one's own --------------------------------------------------------------------------------
class Squares(nn.Module):
    """Three numbers to five."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(torch.cat([x, x**2], 1))
        return out


def test_an_encoder_of_one_s_own_is_trained_as_a_copy_and_needed_to_load(tmp_path: Path) -> None:
    own = Squares()
    before = own.linear.weight.clone()
    model = classifier(encoders={"lab": own}, epochs=2).fit(rows(), rows(12))
    used = next(m for m in model.pipeline_.modules() if isinstance(m, Squares))
    assert torch.equal(own.linear.weight, before)
    assert not torch.equal(used.linear.weight, before)
    assert clone(model).encoders["lab"] is own
    model.save(tmp_path / "model")
    with pytest.raises(ConfigError, match=r"your own encoder for lab: load\(folder, encoders=\{'lab': module"):
        kg.load(tmp_path / "model")
    theirs = {"lab": Squares()}
    again = kg.load(tmp_path / "model", encoders=theirs)
    assert np.array_equal(again.predict_proba(strange()), model.predict_proba(strange()))
    # trained once more, it still has an encoder of one's own
    assert again.get_params()["encoders"] is theirs
    again.set_params(epochs=1, progress=False).fit(read(rows()), read(rows()))
    assert any(isinstance(m, Squares) for m in again.pipeline_.modules())
    with pytest.raises(ConfigError, match="encoders is a mapping from modality to module, not a list"):
        kg.load(tmp_path / "model", encoders=[Squares()])  # type: ignore[arg-type]


def test_a_pipeline_of_one_s_own_is_trained_as_a_copy(tmp_path: Path) -> None:
    table = read(rows())
    pipeline = create("mmin", table.schema, dim=4)
    before = {name: tensor.clone() for name, tensor in pipeline.state_dict().items()}
    model = kg.Classifier(pipeline, epochs=1, progress=False)
    first = model.fit(table, table).predict_proba(table)
    assert all(torch.equal(tensor, before[name]) for name, tensor in pipeline.state_dict().items())
    assert np.array_equal(clone(model).fit(table, table).predict_proba(table), first)
    again = kg.load(model.save(tmp_path / "model"))
    assert np.array_equal(again.predict_proba(strange()), model.predict_proba(strange()))
    with pytest.raises(ConfigError, match="a pipeline of your own is complete"):
        kg.Classifier(pipeline, dim=3).fit(table, table)
    with pytest.raises(ConfigError, match=r"does not fit the pipeline: modality 'note' has shape \[8\]"):
        kg.Classifier(pipeline).fit(*[read(rows(), note=kg.text("note", 8))] * 2)


# seeds --------------------------------------------------------------------------------------------------------------
@pytest.mark.filterwarnings("ignore:no validation rows")
def test_the_same_seed_gives_the_same_model_and_another_seed_another() -> None:
    model = classifier(epochs=2)
    first = model.fit(rows()).predict_proba(rows())
    torch.manual_seed(99)
    assert np.array_equal(model.fit(rows()).predict_proba(rows()), first)
    assert np.array_equal(clone(model).fit(rows()).predict_proba(rows()), first)
    assert not np.array_equal(model.set_params(seed=1).fit(rows()).predict_proba(rows()), first)


def test_a_fit_that_fails_leaves_the_one_before() -> None:
    model = classifier(epochs=1).fit(rows(), rows(12))
    before, reading = model.predict_proba(rows()), model.reading_
    other = rows().assign(note="word", age=1.0)
    with pytest.raises(UnknownName):
        model.set_params(dimm=3).fit(other, other)
    assert model.reading_ is reading
    assert np.array_equal(model.predict_proba(rows()), before)


def test_predicting_changes_nothing() -> None:
    before = {name: tensor.clone() for name, tensor in fitted_pipeline().state_dict().items()}
    state = torch.get_rng_state()
    for ask in ASK[:5]:
        ask(fitted())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in fitted_pipeline().state_dict().items())
