"""Folds of a table: every row is tested once, groups are whole, shares alike, and nothing hidden or held out leaks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

import kintsugi as kg
from kintsugi.core.errors import ConfigError, DataError


def table(count: int = 60, **options: Any) -> kg.Table:
    frame = pd.DataFrame(
        {
            "x": np.arange(count) * 1.0,
            "y": np.where(np.arange(count) % 3 == 0, "rare", "common"),
            "patient": np.arange(count) // 4,
            "part": np.where(np.arange(count) % 5 == 0, "test", np.where(np.arange(count) % 5 == 1, "val", "train")),
        }
    )
    return kg.Table.from_pandas(frame, modalities={"v": kg.tabular(["x"])}, **{"target": "y", **options})


@pytest.mark.parametrize("stratify", [True, False])
@pytest.mark.parametrize("group", [None, "patient"])
def test_folds_are_those_of_scikit_learn(group: str | None, stratify: bool) -> None:
    data = table(group=group)
    kinds: Any = {
        (True, True): StratifiedGroupKFold, (True, False): StratifiedKFold, (False, True): GroupKFold, (False, False): KFold,
    }  # fmt: skip
    splitter = kinds[stratify, group is not None](4, shuffle=True, random_state=7)
    groups = None if group is None else np.arange(60) // 4
    expected = list(splitter.split(np.zeros((60, 1)), data.target, groups))
    found = list(data.folds(4, seed=7, stratify=stratify))
    assert len(found) == 4
    for (train, test), (a, b) in zip(found, expected, strict=True):
        assert train.index.tolist() == a.tolist()
        assert test.index.tolist() == b.tolist()
        assert train.reference.index.tolist() == test.reference.index.tolist() == a.tolist()
    assert sorted(torch.cat([test.index for _, test in found]).tolist()) == list(range(60))


def test_a_group_is_never_on_both_sides_and_shares_are_alike() -> None:
    data = table(group="patient")
    for train, test in data.folds(3, seed=1):
        assert not set(train.groups.tolist()) & set(test.groups.tolist())
        assert float((test.target == 1).float().mean()) == pytest.approx(1 / 3, abs=0.1)
    loose = [set(train.groups.tolist()) & set(test.groups.tolist()) for train, test in data.folds(3, by_group=False)]
    assert all(loose)


def test_folds_depend_on_the_seed_alone() -> None:
    first, again, other = ([t.index.tolist() for _, t in table().folds(3, seed=s)] for s in (1, 1, 2))
    assert first == again
    assert first != other


def test_hidden_labels_are_no_stratum_and_hidden_modalities_stay_hidden() -> None:
    data = table().with_missing(kg.missing.mcar(0.5, keep_one=False), seed=1)
    for train, test in data.folds(3):
        assert torch.equal(train.present, data.present[train.index])
        assert torch.equal(test.present, data.present[test.index])


def test_rows_fixed_for_testing_are_not_trained_on() -> None:
    data = table(split="part")
    with pytest.raises(ConfigError, match=r"fixes which rows are for testing.*data.split\(\)\[0\].folds\(\)"):
        data.folds(3)
    train_rows = data.split()[0]
    for train, test in train_rows.folds(3):
        assert {int(i) % 5 for i in torch.cat([train.index, test.index])} <= {2, 3, 4}
        assert train.reference.index.tolist() == train.index.tolist()


@pytest.mark.parametrize(
    ("n", "options", "error", "words"),
    [
        (1, {}, ConfigError, "2 or more, not 1"),
        (2.0, {}, ConfigError, "2 or more, not 2.0"),
        (True, {}, ConfigError, "2 or more, not True"),
        (61, {}, DataError, "60 rows cannot be split into 61 folds"),
        (16, {"group": "patient"}, DataError, "15 groups cannot be split into 16 folds"),
        (41, {}, DataError, "no class has as many rows as there are folds, 41"),
    ],
)
def test_folds_that_cannot_be(n: Any, options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        table(**options).folds(n)


def test_a_class_with_fewer_rows_than_folds_is_named() -> None:
    with pytest.warns(UserWarning, match=r"some folds hold no row of a class.*25: 'rare' \(20\)"):
        assert len(list(table().folds(25))) == 25


def test_shares_of_a_table_that_fixes_its_parts_are_refused() -> None:
    data = table(split="part")
    assert [len(part) for part in data.split(seed=3)] == [36, 12, 12]
    for shares in ({"val": 0.2}, {"test": 0.2}, {"val": 0.1, "test": 0.1}):
        with pytest.raises(ConfigError, match=r"call split\(\) without val and test, or make the table without split="):
            data.split(**shares)
    assert sum(len(part) for part in data.split()[0].split(val=0.2, test=0.2)) == 36
    assert [len(part) for part in table().split()] == [len(part) for part in table().split(0.15, 0.15)]


def test_rows_are_chosen_by_slices_positions_and_bools() -> None:
    data = table()
    every = np.arange(60)
    for chosen in (slice(10, 20), slice(None, None, 7), slice(-5, None), slice(20, 10, -3)):
        assert data.subset(chosen).index.tolist() == every[chosen].tolist()
    for rows in ([3, 1], range(4), np.array([5, 6]), pd.Series([7, 2], index=[9, 9]), torch.tensor([8]), [-1]):
        assert data.subset(rows).index.tolist() == every[np.asarray(rows)].tolist()
    assert data.subset(every % 2 == 0).index.tolist() == every[::2].tolist()
    assert data.subset([]).index.tolist() == []
    wrong = (
        ([60], "there is no row 60 among 60"),
        ([-61], "there is no row -61"),
        ([True, False], "2 bools choose among 60 rows"),
        ([0.5], "whole numbers in one axis, not torch.float64"),
        ([[1, 2]], "whole numbers in one axis"),
        ("ten", "positions, a slice or a bool"),
    )
    for rows, words in wrong:
        with pytest.raises(DataError, match=words):
            data.subset(rows)
