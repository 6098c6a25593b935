"""What a simulator hid is gone everywhere: from batches, other rows' damage, statistics and later mechanisms."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kintsugi.core.batch import Batch
from kintsugi.core.data import Data
from kintsugi.core.errors import DataError
from kintsugi.core.schema import Modality, Schema
from kintsugi.data.dataset import Dataset, TensorSource, concatenate
from kintsugi.imperfect.combine import After, Compose
from kintsugi.imperfect.corruption import corrupt
from kintsugi.imperfect.mask import Gaps, Mask
from kintsugi.imperfect.missing import MECHANISMS, given, mcar, parse_mechanism
from kintsugi.imperfect.operator import OPERATORS
from kintsugi.imperfect.scales import scale
from kintsugi.tasks.classification import Classification
from kintsugi.testing.golden_operators import OTHER_OPTIONS, TRIED, modalities
from kintsugi.testing.inputs import every_kind, noise_file

ROWS = 36
PARTS = {"train": torch.arange(0, 24), "val": torch.arange(24, 28), "test": torch.arange(28, ROWS)}
HIDING = ("mcar(0.25)", "steps(0.2)", "labels(0.3)")
OPTIONS: Mapping[str, Any] = {
    "cells_missing": ({"rows": "other"}, {"rows": "self"}),
    "mismatched_pairs": OTHER_OPTIONS["mismatched_pairs"],
}

# Of these, other rows' and other modalities' steps come along, so they have to be tried where there are steps.
STEPPED: Mapping[str, tuple[str, ...]] = {
    "mismatched_pairs": ("sensor",), "conflicting_pairs": ("note",), "modality_swap": ("sensor", "gait"),
}  # fmt: skip


def make(batch: Batch, split: bool) -> Dataset:
    source = TensorSource(every_kind(2).schema, batch)
    source.split = PARTS if split else None
    return Dataset(source)


@cache
def original() -> Batch:
    return every_kind(ROWS, absent=False).batch(torch.arange(ROWS))


def garbage(name: str, like: Tensor) -> Tensor:
    """Other legal values of a modality, far from what it holds."""
    modality, rng = every_kind(2).schema[name], torch.Generator().manual_seed(99)
    if modality.kind == "image":
        return torch.rand(like.shape, generator=rng)
    if modality.kind == "text":
        return torch.randint(1, 257, like.shape, generator=rng)
    values = 50 + 20 * torch.randn(like.shape, generator=rng)
    for column, count in enumerate(modality.categories):
        if count:
            values[:, column] = torch.randint(1, count + 1, values[:, column].shape, generator=rng).float()
    return values


def disturbed(batch: Batch, masks: list[Mask], rows: Tensor, others: Tensor) -> Batch:
    """Garbage in what the masks hide of ``rows``, and in all inputs of ``others``."""
    inputs, target = dict(batch.inputs), batch.target
    assert target is not None
    for column, name in enumerate(batch.names):
        x = inputs[name]
        hit = torch.zeros(x.shape[:2] if x.ndim > 1 else x.shape, dtype=torch.bool)
        hit[others] = True
        for mask in masks:
            hit[rows[~mask.keep[:, column]]] = True
            if name in mask.steps:
                hit[rows] |= ~mask.steps[name]
        if name in batch.mask:
            hit &= batch.mask[name]
        inputs[name] = torch.where(hit.view(*hit.shape, *[1] * (x.ndim - 2)), garbage(name, x), x)
    for mask in masks:
        if mask.labels is not None:
            gone = rows[~mask.labels]
            target = target.index_copy(0, gone, (target[gone] + 1) % 4)
    return replace(batch, inputs=inputs, target=target)


def hide(data: Dataset, masks: list[Mask], keep: Any = "nothing") -> Dataset:
    for mask in masks:
        data = data.with_missing(given(mask), keep=keep)
    return data


def planned(data: Dataset) -> list[Mask]:
    """Slots, steps and labels that go missing."""
    masks = []
    for seed, spec in enumerate(HIDING):
        data = data.with_missing(parse_mechanism(spec), seed=seed)
        assert data.mask is not None
        masks.append(data.mask)
    return masks


@cache
def training_twins(fixed: bool, keep: Any = "nothing") -> tuple[Dataset, Dataset]:
    """Training rows with holes, of two tables that differ in what is hidden in them and in the inputs of all other rows."""
    train = make(original(), fixed).split()[0]
    masks = planned(train)
    rest = torch.ones(ROWS, dtype=torch.bool)
    rest[train.index] = False
    other = make(disturbed(original(), masks, train.index, rest.nonzero().flatten()), fixed)
    again = other.split()[0] if fixed else other.pieces(train.index)[0]  # a split is drawn by labels, which differ here
    return hide(train, masks, keep), hide(again, masks, keep)


@cache
def whole_twins() -> tuple[tuple[Dataset, ...], tuple[Dataset, ...]]:
    """The three pieces of two tables that differ in what was hidden before they were divided."""
    data = make(original(), split=False)
    masks = planned(data)
    other = make(disturbed(original(), masks, data.index, data.index[:0]), split=False)
    return hide(data, masks).split(), hide(other, masks).split()


def same(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.shape == b.shape and np.array_equal(a.numpy(), b.numpy(), equal_nan=a.is_floating_point())


def assert_same(a: Batch, b: Batch) -> None:
    for name in a.names:
        assert same(a.inputs[name], b.inputs[name]), name
        assert same(a.mask.get(name), b.mask.get(name)), name
    assert same(a.present, b.present)
    assert same(a.target, b.target)
    assert same(a.target_present, b.target_present)


def everything(data: Data) -> Batch:
    return data.batch(torch.arange(len(data)))


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> str:
    return noise_file(tmp_path_factory.mktemp("noise") / "noise.wav")


def damages(key: str, noise: str) -> list[Any]:
    """An operator at two severities, and with options that make it read more."""
    needed = {name: noise for name, usual in OPERATORS[key].options.items() if usual is None}
    made = [corrupt(key, modalities(key), severity, **needed) for severity in (2, 5)]
    made += [corrupt(key, STEPPED[key], 5)] if key in STEPPED else []
    return made + [corrupt(key, modalities(key), 5, **other) for other in OPTIONS.get(key, ())]


# operators ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("key", OPERATORS)
def test_no_operator_reads_what_is_hidden_nor_what_is_no_training_row(key: str, noise: str) -> None:
    for damage in damages(key, noise):
        for fixed in (True, False):
            one, two = (data.with_corruption(damage, seed=1) for data in training_twins(fixed))
            assert one.damage == two.damage, f"{damage}: the plans differ"
            assert_same(everything(one), everything(two))


@pytest.mark.parametrize("key", OPERATORS)
def test_truth_is_for_losses_and_changes_nothing_else(key: str, noise: str) -> None:
    damage = damages(key, noise)[0]
    one, two = (data.with_corruption(damage, seed=1) for data in training_twins(True, "truth"))
    batch = everything(one)
    assert_same(batch, everything(two))
    assert_same(batch, everything(training_twins(True)[0].with_corruption(damage, seed=1)))
    assert batch.truth is not None
    assert batch.truth.truth is batch.truth.severity is batch.severity is None


@pytest.mark.parametrize("key", OPERATORS)
def test_damage_of_test_rows_does_not_read_what_was_hidden_before_the_split(key: str, noise: str) -> None:
    damage = damages(key, noise)[0]
    for one, two in zip(*whole_twins(), strict=True):
        if key in ("mismatched_pairs", "conflicting_pairs", "modality_swap") and len(one) < 6:
            continue  # too few rows to exchange something
        one, two = one.with_corruption(damage, seed=1), two.with_corruption(damage, seed=1)
        assert one.damage == two.damage
        assert_same(everything(one), everything(two))


def test_the_twins_differ_where_nothing_is_hidden() -> None:
    masks = planned(make(original(), True).split()[0])
    train = torch.arange(24)
    other = disturbed(original(), masks, train, torch.arange(24, ROWS))
    for name in ("photo", "speech", "table", "sensor", "code", "thermal", "gait", "note"):
        assert not same(other.inputs[name][train], original().inputs[name][train]), name
        assert not same(other.inputs[name][24:], original().inputs[name][24:]), name
    assert not same(other.target, original().target)
    open_rows = (make(original(), True), make(other, True))
    assert not torch.allclose(scale(open_rows[0], "code").sd, scale(open_rows[1], "code").sd)


def test_steps_that_were_hidden_before_a_shift_do_not_come_to_light_by_it() -> None:
    schema = Schema((Modality("s", "series", (4, 1)), Modality("v", "vector", (1,))), Classification(["a", "b"]))
    x = torch.tensor([[[1.0], [2.0], [3.0], [4.0]]])
    batch = Batch(schema.names, {"s": x, "v": torch.zeros(1, 1)}, torch.ones(1, 2, dtype=torch.bool), torch.arange(1))
    data = Dataset(TensorSource(schema, replace(batch, target=torch.tensor([0]))))
    left = Mask.of_steps(
        {"s": torch.tensor([[True, False, True, True]])},
        {"s": torch.ones(1, 4, dtype=torch.bool)},
        data,
        asked=None,
        seed=0,
        mechanism="the second step",
    )
    late = corrupt("desynchronisation", "s", 1, "steps", direction="late", shift=1)
    first = data.with_missing(given(left)).with_corruption(late)
    assert everything(first).inputs["s"].flatten().nan_to_num(-1).tolist() == [-1, 1, -1, 3]
    assert everything(first).mask["s"].tolist() == [[False, True, False, True]]
    later = data.with_corruption(late).with_missing(given(left))
    assert everything(later).inputs["s"].flatten().nan_to_num(-1).tolist() == [-1, -1, 2, 3]
    assert first.damage == later.damage
    assert first.fingerprint != later.fingerprint, "one order hides what the other shows"


# batches ------------------------------------------------------------------------------------------------------------
def test_hidden_slots_hold_nothing() -> None:
    batch = everything(training_twins(True)[0])
    for column, name in enumerate(batch.names):
        gone = batch.inputs[name][~batch.present[:, column]]
        assert len(gone) > 0
        assert bool((gone.nan_to_num(0) == 0).all()), name


def test_truth_holds_what_was_hidden() -> None:
    data = make(original(), True).split()[0].with_missing(mcar(0.4), keep="truth")
    batch, clean = everything(data), original().rows(torch.arange(24))
    assert batch.truth is not None
    for name in batch.names:
        assert same(batch.truth.inputs[name], clean.inputs[name]), name
    assert bool(batch.truth.present.all())


# statistics ---------------------------------------------------------------------------------------------------------
def numbers(values: list[float], split: Mapping[str, Tensor] | None = None) -> Dataset:
    """One vector of one number, and another modality, so that rows stay."""
    schema = Schema((Modality("v", "vector", (1,)), Modality("w", "vector", (1,))), Classification(["a", "b"]))
    rows = len(values)
    inputs = {"v": torch.tensor(values)[:, None], "w": torch.zeros(rows, 1)}
    target = torch.arange(rows) % 2
    source = TensorSource(
        schema, Batch(schema.names, inputs, torch.ones(rows, 2, dtype=torch.bool), torch.arange(rows), target)
    )
    source.split = split
    return Dataset(source)


def without(data: Dataset, *numbers: int) -> Dataset:
    """``v`` is hidden in these rows of the table."""
    keep = torch.ones(len(data), 2, dtype=torch.bool)
    keep[torch.isin(data.index, torch.tensor(numbers)), 0] = False
    return data.with_missing(given(keep))


def mean(data: Data) -> float:
    return float(scale(data, "v").mean)


SPLIT = {"train": torch.tensor([0, 1, 2, 3]), "val": torch.tensor([4, 5]), "test": torch.tensor([6, 7])}
VALUES = [1.0, 2.0, 3.0, 6.0, 100.0, 200.0, 1000.0, 2000.0]


def test_statistics_are_those_of_the_training_rows_that_are_seen() -> None:
    data = numbers(VALUES, SPLIT)
    train, val, test = data.split()
    assert mean(data) == mean(train) == mean(val) == mean(test) == 3  # (1 + 2 + 3 + 6) / 4
    assert mean(without(train, 3)) == 2  # (1 + 2 + 3) / 3
    assert mean(without(train, 3).subset([0, 1])) == 2
    assert mean(without(train.subset([0, 3]), 3)) == 2
    assert mean(without(data, 3, 7)) == 2
    assert [mean(part) for part in without(data, 3, 7).split()] == [2, 2, 2]
    assert mean(without(test, 6)) == 3
    assert without(test, 6).reference is test.reference, "what was measured is remembered"
    assert mean(train) == 3, "a hole does not reach back"


def test_drawn_pieces_refer_to_the_training_piece() -> None:
    data = numbers(VALUES)
    assert mean(data) == sum(VALUES) / 8
    train, val, test = data.split(0.25, 0.25, seed=3)
    expected = sum(VALUES[i] for i in train.index) / 4
    assert len(train) == 4
    assert mean(train) == mean(val) == mean(test) == expected
    assert train.reference is test.reference
    first, *rest = data.pieces([0, 1], [2, 3], torch.arange(8) > 5)
    assert mean(first) == 1.5
    assert [len(piece) for piece in rest] == [2, 2]
    assert [mean(piece) for piece in rest] == [1.5, 1.5]
    inner, held = first.pieces([0], [1])
    assert mean(inner) == mean(held) == 1
    again, more = rest[1].pieces([0], [1])
    assert mean(again) == mean(more) == 1.5, "test rows do not become training rows by being divided"


def test_holes_made_before_a_split_are_holes_of_what_its_pieces_refer_to() -> None:
    data = without(numbers(VALUES), 1, 2, 7)
    parts = data.split(0.25, 0.25, seed=3)
    seen = [VALUES[i] for i in parts[0].index if int(i) not in (1, 2, 7)]
    assert [mean(part) for part in parts] == [pytest.approx(sum(seen) / len(seen))] * 3


def test_truth_is_no_part_of_statistics_and_corruption_neither() -> None:
    train = numbers(VALUES, SPLIT).split()[0]
    keep = torch.tensor([[True, True]] * 3 + [[False, True]])
    kept = train.with_missing(given(keep), keep="truth")
    assert mean(kept) == 2
    assert everything(kept.reference).truth is None
    noisy = kept.with_corruption(corrupt("feature_noise", "v", 5))
    assert noisy.reference is kept.reference
    assert mean(noisy.with_corruption(corrupt("feature_noise", "v", 5))) == 2
    assert mean(train.with_corruption(corrupt("feature_noise", "v", 5)).with_missing(given(keep))) == 2


def test_a_table_in_memory_refers_to_itself() -> None:
    from kintsugi.data import datasets

    data = datasets.load("factors")
    read = data.in_memory()
    assert read.reference.source is read.source
    assert torch.equal(read.reference.index, data.reference.index)


def test_gaps_go_to_other_rows_by_their_number() -> None:
    keep = torch.tensor([[True, False], [True, True], [False, True], [True, True]])
    steps = {"v": torch.tensor([[True, False], [True, True], [True, True], [False, True]])}
    gaps = Gaps(keep, steps, torch.tensor([True, False, True, True]))
    moved = gaps.moved(torch.tensor([7, 3, 5, 7]), torch.tensor([3, 4, 7, 5, 7]))
    assert moved.keep.tolist() == [[True, True], [True, True], [True, False], [False, True], [True, False]]
    assert moved.steps["v"].tolist() == [[True, True], [True, True], [False, False], [True, True], [False, False]]
    assert moved.labels is not None
    assert moved.labels.tolist() == [False, True, True, True, True]
    assert gaps.moved(torch.tensor([7, 3, 5, 8]), torch.tensor([7, 3, 5, 8])) is gaps
    assert bool(gaps.moved(torch.tensor([7, 3, 5, 8]), torch.tensor([1, 2])).keep.all())
    assert len(gaps.moved(torch.tensor([7, 3, 5, 8]), torch.zeros(0, dtype=torch.int64)).keep) == 0


# mechanisms ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("key", [key for key in MECHANISMS if key != "given"])
def test_no_mechanism_reads_what_another_one_hid(key: str) -> None:
    one, two = training_twins(True)
    for spec in TRIED.get(key, (f"{key}(0.3)",)):
        assert parse_mechanism(spec).plan(one, 5) == parse_mechanism(spec).plan(two, 5), spec


def test_natural_patterns_are_those_of_training_rows_as_they_are_seen() -> None:
    data = numbers(VALUES, SPLIT)
    train, val, _ = data.split()
    test_holes = without(data, 6, 7)
    with pytest.raises(Exception, match="no incomplete row"):
        parse_mechanism("natural(0.5)").plan(test_holes.split()[1], 0)
    holed = without(train, 0, 1)
    assert holed.reference.present.tolist() == [[False, True], [False, True], [True, True], [True, True]]
    assert parse_mechanism("natural(0.5)").plan(holed, 0).keep.sum() == 7  # one of two complete rows lost v
    assert bool(val.reference.present.all())


# identity -----------------------------------------------------------------------------------------------------------
def test_a_row_has_one_identity_in_every_subset_order_and_condition() -> None:
    data = numbers(VALUES).identified()
    every = everything(data).identity
    assert every is not None
    assert every.dtype == torch.int64
    assert len(every.unique()) == 8
    assert same(everything(data.subset([5, 2, 2])).identity, every[[5, 2, 2]])
    assert same(numbers(VALUES).subset([7]).identified().batch([0]).identity, every[[7]])
    train, _, test = data.split(0.25, 0.25)
    assert same(everything(train).identity, every[train.index])
    assert same(everything(test).identity, every[test.index])
    damaged = data.with_missing(mcar(0.3), keep="truth").with_corruption(corrupt("feature_noise", "v", 3))
    batch = everything(damaged)
    assert same(batch.identity, every)
    assert batch.truth is not None
    assert same(batch.truth.identity, every)
    noise = Compose((corrupt("feature_noise", "v", 3),))
    after = After(numbers(VALUES), noise, noise.plan(data, 0))
    assert everything(after).identity is None
    assert same(everything(after.identified()).identity, every)


def test_two_tables_share_no_identity_and_nobody_has_one_unasked() -> None:
    first, second = numbers(VALUES), numbers([*VALUES[:-1], 3.0])
    assert everything(first).identity is None
    one, two = (everything(data.identified()).identity for data in (first, second))
    assert one is not None
    assert two is not None
    assert not bool(torch.isin(one, two).any())
    assert first.identified().fingerprint == first.fingerprint


# batches, one after the other ---------------------------------------------------------------------------------------
def full() -> Batch:
    """Every field of a batch of two rows is set."""
    names = ("v",)
    some: dict[str, Any] = {
        "names": names, "inputs": {"v": torch.ones(2, 3)}, "present": torch.ones(2, 1, dtype=torch.bool),
        "mask": {"v": torch.ones(2, 3, dtype=torch.bool)}, "context": {"site": torch.ones(2), "who": ["a", "b"], "of": "all"},
    }  # fmt: skip
    some["truth"] = some["auxiliary"] = Batch(index=torch.arange(2), **some)
    for each in fields(Batch):
        some.setdefault(each.name, torch.arange(2))
    return Batch(**some)


def test_batches_are_joined_with_every_field() -> None:
    joined = concatenate([full(), full()])
    for each in fields(Batch):
        value, before = getattr(joined, each.name), getattr(full(), each.name)
        assert value is not None, each.name
        if isinstance(before, Tensor):
            assert same(value, torch.cat([before, before])), each.name
        if isinstance(before, Batch):
            assert len(value) == 4, each.name
    assert joined.context["who"] == ["a", "b", "a", "b"]
    assert joined.context["of"] == "all"
    assert joined.inputs["v"].shape == (4, 3)


def test_batches_that_do_not_fit_are_not_joined() -> None:
    with pytest.raises(DataError, match="only some have target_present"):
        concatenate([full(), replace(full(), target_present=None)])
    masked = concatenate([replace(full(), mask={}), full()]).mask["v"]
    assert masked.tolist() == [[True] * 3] * 4


def test_an_empty_list_of_rows_is_an_empty_subset(tmp_path: Path) -> None:
    assert len(numbers(VALUES).subset([])) == 0


# fingerprints -------------------------------------------------------------------------------------------------------
def test_fingerprints_tell_apart_what_differs_and_only_that() -> None:
    data = make(original(), split=True)
    train = data.split()[0]
    slots, steps, noise = (
        parse_mechanism("mcar(0.2)"),
        parse_mechanism("steps(0.2)"),
        corrupt("feature_noise", "code", 3),
    )
    whole = numbers(VALUES)
    different = [
        data, train, train.with_missing(slots), train.with_missing(slots, keep="truth"), train.with_missing(steps),
        train.with_missing(slots).with_missing(steps, keep="truth"),
        train.with_missing(slots, keep="truth").with_missing(steps),
        train.with_missing(steps).with_corruption(noise), train.with_corruption(noise).with_missing(steps),
        whole.subset([0, 1]), whole.pieces([0, 1])[0], whole.pieces([0, 1, 2])[0].subset([0, 1]),
    ]  # fmt: skip
    assert len({one.fingerprint for one in different}) == len(different)
    assert data.subset(train.index).fingerprint == train.fingerprint, "a fixed split refers to the same rows"


def test_data_with_holes_goes_to_other_processes() -> None:
    train = make(original(), split=True).split()[0].with_missing(mcar(0.3), seed=2)
    again = pickle.loads(pickle.dumps(train))
    assert_same(everything(again), everything(train))
    assert torch.equal(again.reference.present, train.present)
