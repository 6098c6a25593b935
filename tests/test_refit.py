"""A model learns how to read a table from what its training rows show: neither hidden values nor other rows move anything."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import kintsugi as kg
from kintsugi.core.errors import ConfigError
from kintsugi.core.model import Model
from kintsugi.core.pipeline import Pipeline
from kintsugi.data.dataset import Dataset
from kintsugi.data.refit import learned_from
from kintsugi.data.table_source import TableSource
from kintsugi.evaluation import Condition, predict_conditions
from kintsugi.imperfect import mcar, parse_mechanism
from kintsugi.imperfect.corruption import corrupt

MODALITIES = {"v": kg.vector("v", standardise=True), "t": kg.tabular(["a", "b", "ward"])}
SPLIT = ["train"] * 80 + ["val"] * 20 + ["test"] * 20
HIDING = {"slots": "mcar(0.3)", "labels": "labels(0.3)", "cells": "steps(0.3)"}


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 4))
    return pd.DataFrame({
        "v": list(x), "a": 3 * x[:, 0] + rng.normal(size=120), "b": rng.normal(size=120) + 5,
        "ward": rng.choice(["north", "south", "west"], size=120), "y": x.sum(1) + rng.normal(size=120) / 10,
        "sick": np.where(x.sum(1) > 1, "yes", "no"), "split": SPLIT,
    })  # fmt: skip


def table(rows: pd.DataFrame, target: str = "y", **options: Any) -> kg.Table:
    return kg.Table.from_pandas(rows, modalities=MODALITIES, target=target, **options)


def fitted(pieces: tuple[Dataset, ...], face: Any = kg.Regressor) -> Any:
    return face("mean_fusion", epochs=2, progress=False).fit(*pieces[:2])


def state(model: Any) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.pipeline_.state_dict().items()}


def same(one: Any, other: Any) -> bool:
    a, b = state(one), state(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def spoil_slots(rows: pd.DataFrame, train: Dataset) -> None:
    for row in train.index[~train.present[:, 0]].tolist():
        rows.at[row, "v"] = rows.at[row, "v"] * 50 + 9
    for row in train.index[~train.present[:, 1]].tolist():
        rows.loc[row, ["a", "b", "ward"]] = [1e4, -1e4, "nowhere"]


def spoil_labels(rows: pd.DataFrame, train: Dataset) -> None:
    hidden = train.index[~train.target_present].numpy()
    rows.loc[hidden, "y"] = rows.loc[hidden, "y"] * 10 + 100
    rows.loc[hidden, "sick"] = "no"


def spoil_cells(rows: pd.DataFrame, train: Dataset) -> None:
    batch = train.batch(torch.arange(len(train)))
    for row, seen in zip(batch.index.tolist(), batch.mask["t"].tolist(), strict=True):
        for column, there, value in zip(("a", "b", "ward"), seen, (1e4, -1e4, "nowhere"), strict=True):
            if not there:
                rows.loc[row, column] = value


SPOIL: dict[str, Callable[[pd.DataFrame, Dataset], None]] = {
    "slots": spoil_slots, "labels": spoil_labels, "cells": spoil_cells,
}  # fmt: skip


@pytest.mark.parametrize("hidden", HIDING)
@pytest.mark.parametrize(("target", "face"), [("y", kg.Regressor), ("sick", kg.Classifier)])
def test_what_was_hidden_moves_neither_weights_nor_scales_nor_answers(hidden: str, target: str, face: Any) -> None:
    options: dict[str, Any] = {"split": "split"} | ({"class_weights": "balanced"} if target == "sick" else {})
    plain, other = frame(), frame()
    mechanism = parse_mechanism(HIDING[hidden])
    train, val, test = table(plain, target, **options).split()
    train = train.with_missing(mechanism, seed=0)
    SPOIL[hidden](other, train)
    assert not other.equals(plain)
    train2, val2, test2 = table(other, target, **options).split()
    train2 = train2.with_missing(mechanism, seed=0)
    assert torch.equal(train.present, train2.present)
    one, two = fitted((train, val), face), fitted((train2, val2), face)
    assert same(one, two)
    assert one.reading_["modalities"] == two.reading_["modalities"]
    assert np.array_equal(one.predict(test), two.predict(test2))


def test_test_rows_move_nothing_either() -> None:
    plain, other = frame().drop(columns="split"), frame().drop(columns="split")
    pieces = table(plain).split()
    for row in pieces[2].index.tolist():
        other.loc[row, ["a", "ward"]] = [1e5, "nowhere"]
        other.at[row, "v"] = other.at[row, "v"] * 30
    others = table(other).split()
    assert all(torch.equal(a.index, b.index) for a, b in zip(pieces, others, strict=True))
    one, two = fitted(pieces), fitted(others)
    assert same(one, two)
    assert np.array_equal(one.predict(pieces[1]), two.predict(others[1]))


def test_scales_are_those_of_the_slots_that_training_shows() -> None:
    rows = frame()
    train, val, _ = table(rows).split()
    train = train.with_missing(mcar(0.4), seed=3)
    fresh, again = learned_from(train, val)
    shown = rows.iloc[train.index[train.present[:, 0]].numpy()]["v"]
    expected = np.stack(shown.to_list())
    units = fresh.units("v")
    assert units is not None
    np.testing.assert_allclose(units[0], expected.mean(0), atol=1e-12)
    np.testing.assert_allclose(units[1], expected.std(0), atol=1e-12)
    cells = rows.iloc[train.index[train.present[:, 1]].numpy()]["a"]
    assert fresh.reading is not None
    assert fresh.reading["modalities"]["t"]["mean"][0] == pytest.approx(cells.mean())
    labels = rows["y"].iloc[train.index.numpy()]
    assert fresh.schema.task.to_json()["centre"] == pytest.approx([labels.mean()], abs=1e-6)
    assert again.source is fresh.source


def test_what_already_comes_from_the_training_rows_stays_as_it_is() -> None:
    pieces = table(frame(), split="split").split()
    assert all(a is b for a, b in zip(learned_from(*pieces), pieces, strict=True))
    read = kg.Table.from_reading(frame(), table(frame(), split="split").reading or {})
    assert learned_from(read)[0] is read
    assert isinstance(read.source, TableSource)
    with pytest.raises(ConfigError, match="read as a model was trained"):
        read.source.refitted(read.present, read.target_present, {})


def test_damage_is_planned_anew_in_the_units_of_today_and_rows_keep_their_condition() -> None:
    train, val, _ = table(frame()).split()
    noisy = train.with_missing(mcar(0.3), seed=1).with_corruption(corrupt("feature_noise", "v", severity=3), seed=2)
    fresh, _ = learned_from(noisy, val)
    assert fresh.condition == noisy.condition
    assert torch.equal(fresh.present, noisy.present)
    whole = fresh.batch(torch.arange(len(fresh)))
    clean = learned_from(train.with_missing(mcar(0.3), seed=1), val)[0].batch(torch.arange(len(fresh)))
    added = (whole.inputs["v"] - clean.inputs["v"])[whole.present[:, 0]]
    assert bool((added != 0).any())
    assert torch.equal(whole.inputs["t"], clean.inputs["t"])


def test_rows_of_a_table_that_was_read_otherwise_are_read_as_the_model_was_trained() -> None:
    rows = frame()
    train, val, test = table(rows).split()
    model = fitted((train.with_missing(mcar(0.4), seed=3), val))
    own = model.predict(rows.iloc[test.index.numpy()])
    np.testing.assert_array_equal(model.predict(test), own)
    results = kg.evaluate(model, test, "clean", metrics=["mae"]).table
    assert float(results["value"].iloc[0]) == pytest.approx(
        np.abs(own - rows["y"].iloc[test.index.numpy()]).mean(), abs=1e-6
    )


def test_folds_learn_from_their_own_training_rows() -> None:
    data = table(frame())
    means = set()
    for train, _ in data.folds(3):
        fresh = learned_from(train)[0]
        assert fresh.reading is not None
        means.add(fresh.reading["modalities"]["t"]["mean"][0])
    assert len(means) == 3


def test_a_table_can_be_pickled_and_copied_and_learns_anew_then_too() -> None:
    train = table(frame()).split()[0]
    hidden = train.with_missing(mcar(0.4), seed=3)
    for twin in (pickle.loads(pickle.dumps(hidden)), copy.deepcopy(hidden)):
        assert learned_from(twin)[0].reading == learned_from(hidden)[0].reading


def test_rows_are_the_same_with_and_without_labels() -> None:
    rows = frame()
    reading = table(rows).reading or {}
    whole = kg.Table.from_reading(rows, reading).identified()
    bare = kg.Table.from_reading(rows.drop(columns=["y", "split"]), {**reading, "target": []}).identified()
    a, b = (data.batch(torch.arange(8)).identity for data in (whole, bare))
    assert a is not None
    assert b is not None
    assert torch.equal(a, b)
    other = rows.assign(a=rows["a"] + 1)
    c = kg.Table.from_reading(other, reading).identified().batch(torch.arange(8)).identity
    assert c is not None
    assert not torch.equal(a, c)


def test_a_pipeline_of_one_s_own_keeps_its_task_and_one_of_other_sizes_is_told_how_to_be_made() -> None:
    data = table(frame())
    train, val, test = data.split()
    own = kg.Regressor(Pipeline(Model(data.schema, 8)), epochs=1, progress=False).fit(train, val)
    assert own.pipeline_.schema.task == data.schema.task
    assert own.predict(test).shape == (len(test),)
    rare = frame().assign(ward=["rare" if row in test.index.tolist() else "north" for row in range(120)])
    other = table(rare)
    pieces = (other.subset(train.index), other.subset(val.index))
    with pytest.raises(ConfigError, match=r"learned_from\(train\)\[0\].schema"):
        kg.Regressor(Pipeline(Model(other.schema, 8)), epochs=1, progress=False).fit(*pieces)


def test_a_bare_pipeline_is_asked_by_the_scales_that_it_was_trained_on() -> None:
    train, val, test = table(frame()).split()
    model = fitted((train.with_missing(mcar(0.4), seed=3), val))
    values = [
        kg.evaluate(each, test, "clean", metrics=["mae"]).table["value"].iloc[0] for each in (model, model.pipeline_)
    ]
    assert values[0] == values[1]
    outcome = predict_conditions(model.pipeline_, test, [Condition("clean", "clean")])[0]
    np.testing.assert_allclose(outcome.probabilities.numpy().ravel(), model.predict(test), rtol=1e-5)
