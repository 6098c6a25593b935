"""Splits, missing patterns and loaders."""

from __future__ import annotations

import threading

import numpy as np
import pandas as pd
import pytest
import torch

from kintsugi.core.errors import ConfigError, DataError
from kintsugi.data import Loader, Table, holes, patterns, split_rows, text, vector
from kintsugi.data.loaders import order
from kintsugi.data.splits import strata


def table(y, group=None, x=None, **options):
    frame = pd.DataFrame({"x": x if x is not None else ["word"] * len(y), "y": y, "g": y if group is None else group})
    extra = {} if group is None else {"group": "g"}
    return Table.from_pandas(frame, modalities={"m": text("x")}, target="y", **extra, **options)


def test_rows_are_split_once_stratified_and_seeded():
    data = table([0] * 500 + [1] * 300 + [2] * 200)
    train, val, test = data.split(0.15, 0.15, seed=3)
    assert [len(p) for p in (train, val, test)] == [700, 150, 150]
    assert torch.cat([p.index for p in (train, val, test)]).unique().numel() == 1000
    for part, size in ((train, 700), (val, 150), (test, 150)):
        share = torch.bincount(part.target, minlength=3) / size
        assert torch.allclose(share, torch.tensor([0.5, 0.3, 0.2]), atol=0.01)
    assert torch.equal(data.split(seed=3)[0].index, train.index)
    assert not torch.equal(data.split(seed=4)[0].index, train.index)


def test_rows_without_a_label_are_a_stratum_and_rare_classes_stay_in_training():
    data = table([0] * 50 + [1] * 49 + [None] * 100 + [2])
    assert strata(data).unique().tolist() == [-1, 0, 1, 2]
    train, val, test = split_rows(data, 0.1, 0.1, seed=0)
    assert (strata(data)[val] == -1).sum() in (9, 10, 11)
    assert (strata(data)[test] == -1).sum() in (9, 10, 11)
    assert (strata(data)[train] == 2).any()


def test_regression_is_stratified_by_bins():
    data = table(np.arange(1000) ** 2.0)
    for part in data.split(0.2, 0.2, seed=0):
        assert torch.bincount(strata(part), minlength=10).float().std() <= 1.5


def test_groups_stay_whole():
    rng = np.random.default_rng(0)
    group = rng.integers(0, 100, 1000)
    data = table(group % 4 % 3, group)  # a class belongs to its groups
    parts = data.split(0.2, 0.2, seed=0)
    seen = [set(p.groups.tolist()) for p in parts]
    assert sum(map(len, seen)) == len(set.union(*seen))
    assert [len(p) for p in parts] == pytest.approx([600, 200, 200], abs=30)
    for part in parts:
        assert torch.bincount(part.target) / len(part) == pytest.approx(torch.bincount(data.target) / 1000, abs=0.06)
    loose = data.split(0.2, 0.2, seed=0, by_group=False)
    assert set(loose[0].groups.tolist()) & set(loose[1].groups.tolist())


def test_a_row_without_a_group_is_alone():
    data = table([0, 1] * 20, ["a"] * 20 + [None] * 20)
    assert data.groups.unique().numel() == 21


def test_groups_of_unequal_size_leave_no_part_empty():
    data = table([0, 1] * 50, [0] * 98 + [1, 2])
    assert sorted(len(p) for p in data.split(0.3, 0.3)) == [1, 1, 98]


@pytest.mark.parametrize(("val", "test"), [(0.5, 0.5), (-0.1, 0.1), (1.0, 0.0), (float("nan"), 0.1)])
def test_shares_that_make_no_sense(val, test):
    with pytest.raises(ConfigError, match="shares"):
        table([0, 1] * 20).split(val, test)


def test_too_few_rows_or_groups():
    with pytest.raises(DataError, match="2 rows cannot be split into 3 parts"):
        table([0, 1]).split()
    with pytest.raises(DataError, match=r"2 groups cannot be split into 3 parts.*by_group=False"):
        table([0, 1] * 10, ["a", "b"] * 10).split()
    assert [len(p) for p in table([0, 1, 0]).split()] == [1, 1, 1]
    assert [len(p) for p in table([0, 1]).split(0.5, 0.0)] == [1, 1, 0]


def test_a_fixed_split_is_kept():
    frame = pd.DataFrame({"x": ["w"] * 6, "y": [0, 1] * 3, "s": ["train", "Validation", "test", None, "train", "dev"]})
    data = Table.from_pandas(frame, modalities={"m": text("x")}, target="y", split="s")
    assert [p.index.tolist() for p in data.split()] == [[0, 4], [1, 5], [2]]


# what is missing -----------------------------------------------------------------------------------------------
def test_patterns_and_holes():
    frame = pd.DataFrame(
        {"a": ["x", "x", None, "x", None], "b": [[1.0], None, [1.0], [2.0], None], "y": [0, 1, 0, 1, 0]}
    )
    data = Table.from_pandas(frame, modalities={"note": text("a"), "v": vector("b")}, target="y")
    found = patterns(data)
    assert found.columns.tolist() == ["note", "v", "rows", "share"]
    assert found.to_numpy().tolist() == [
        [True, True, 2, 0.4], [True, False, 1, 0.2], [False, True, 1, 0.2], [False, False, 1, 0.2],
    ]  # fmt: skip
    assert found.attrs["holes"] == holes(data) == {"note": 2, "v": 2}
    assert found["note"].dtype == bool
    assert holes(data.subset([0])) == {"note": 0, "v": 0}


def test_a_modality_that_is_nowhere_is_shown():
    data = table([0, 1], x=[None, ""])
    assert holes(data) == {"m": 2}
    assert data.describe()["share"].tolist() == [1.0]


# loaders -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("rows", "sizes"), [(10, [4, 4, 2]), (9, [4, 5]), (8, [4, 4]), (1, [1]), (0, []), (5, [5])])
def test_no_batch_of_one(rows, sizes):
    assert [len(c) for c in order(torch.arange(rows), 4)] == sizes
    assert [len(c) for c in order(torch.arange(3), 1)] == [1, 1, 1]


@pytest.mark.parametrize("resident", [True, False])
def test_loader_yields_every_row_once_in_a_seeded_order(resident):
    data = table([0, 1] * 15, x=[f"word {i}" for i in range(30)])
    data = data.in_memory() if resident else data
    loader = Loader(data, 8, generator=torch.Generator().manual_seed(1))
    assert loader.ahead == (0 if resident else 2)
    assert len(loader) == 4
    first = torch.cat([b.index for b in loader])
    second = torch.cat([b.index for b in loader])
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(30))
    assert not torch.equal(first, second)
    again = Loader(data, 8, generator=torch.Generator().manual_seed(1), ahead=0)
    assert torch.equal(torch.cat([b.index for b in again]), first)
    plain = Loader(data, 8, positions=[3, 1, 2])
    assert torch.cat([b.index for b in plain]).tolist() == [3, 1, 2]
    assert sum(len(b) for b in plain) == 3


def test_loader_raises_where_the_row_is_and_leaves_no_thread():
    data = table([0, 1] * 10, x=["w"] * 10 + [b"\xff"] + ["w"] * 9)
    seen = []
    with pytest.raises(DataError, match="row 10"):
        seen.extend(Loader(data, 4))
    assert len(seen) == 2
    for _ in Loader(data, 4):
        break
    assert not [t for t in threading.enumerate() if t.name.startswith("kintsugi-loader")]
    with pytest.raises(ConfigError, match="batch_size"):
        Loader(data, 0)
