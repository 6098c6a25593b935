"""Training: which rows, views and parameters a stage gets, when it ends, what is refused, and going on after a stop."""

from __future__ import annotations

import copy
import errno
import itertools
import json
import math
import os
import random
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given as forall
from hypothesis import settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kintsugi.core.batch import Batch
from kintsugi.core.card import Card
from kintsugi.core.data import Splits
from kintsugi.core.encoder import own_encoders
from kintsugi.core.errors import ConfigError, DataError, ModelFileError, NonFiniteLoss, UnknownName
from kintsugi.core.features import Features, Fused
from kintsugi.core.methods import METHODS, create
from kintsugi.core.model import Model
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.prediction import Prediction, Step
from kintsugi.core.schema import Modality, Schema
from kintsugi.core.stage import Stage
from kintsugi.core.wrappers import Inner, Restorer, Runner, Strategy
from kintsugi.data.dataset import Dataset, TensorSource
from kintsugi.data.loaders import batches as feed
from kintsugi.data.loaders import count, order
from kintsugi.imperfect import mcar, parse_mechanism
from kintsugi.tasks import Classification
from kintsugi.testing.fixture import toy
from kintsugi.training import checkpoint as saved
from kintsugi.training import fast_weights, stage_run
from kintsugi.training.devices import Devices
from kintsugi.training.sampling import endless, generator
from kintsugi.training.stage_run import validate
from kintsugi.training.trainer import Trainer
from kintsugi.training.views import VIEWS, get_view

DIM = 8
fabric = pytest.mark.skipif(find_spec("lightning_fabric") is None, reason="lightning_fabric is not installed")


def splits(rate: float = 0.0, rows: int = 96, task: str = "classification", seed: int = 1) -> Splits:
    """64 training rows of 96, with holes at this rate."""
    train, val, test = toy(task, rows=rows, dim=5).split()
    return Splits(train.with_missing(mcar(rate), seed=seed) if rate else train, val, test)


def build(key: str, schema: Schema, **hyper: Any) -> Pipeline:
    """Untrained, always from the same random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return create(key, schema, **({"hidden": DIM} if key == "early_fusion" else {"dim": DIM}), **hyper)


def fit(pipeline: Pipeline, data: Splits, cls: type[Trainer] = Trainer, **options: Any) -> Trainer:
    trainer = cls(**{"epochs": 1, "batch_size": 16, "progress": False, **options})
    trainer.fit(pipeline, data)
    return trainer


def seeing(sees_hidden: bool) -> Card:
    """The card of a method that may see what a simulator hid, or may not."""
    return Card(
        key="spy", name="Spy", leaf="general", faithful=("all",), claims=("none",), imperfection=("missing at test",),
        premise="none", confidence="high", sees_hidden=sees_hidden,
    )  # fmt: skip


def weights(pipeline: Pipeline) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in pipeline.state_dict().items()}


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


class Spy(Model):
    """Notes every batch that it is trained on."""

    def __init__(self, schema: Schema, *stages: Stage) -> None:
        super().__init__(schema, DIM)
        self.phases, self.log = stages or (Stage("train"),), []

    phases: tuple[Stage, ...]
    log: list[tuple[str, Batch]]

    def stages(self) -> list[Stage]:
        return list(self.phases)

    def step(self, batch: Batch) -> Step:
        self.log.append((self.clock.stage, batch))
        return super().step(batch)

    def rows(self, stage: str) -> list[int]:
        """Row ids of a stage in the order in which they came."""
        return [int(i) for name, batch in self.log if name == stage for i in batch.index]


def ids(data: Any, rows: str) -> list[int]:
    return sorted(data.index[data.positions(rows)].tolist())


# stages -------------------------------------------------------------------------------------------------------------
def test_stages_come_in_order_with_their_fraction_of_the_epochs_and_their_rows() -> None:
    data = splits(0.4)
    names = ("all", "complete", "incomplete", "has:m1", "val")
    model = Spy(data.train.schema, *(Stage(rows, 2.0 if rows == "all" else 1.0, rows=rows) for rows in names))
    trainer = fit(Pipeline(model), data, epochs=6)
    assert list(dict.fromkeys(name for name, _ in model.log)) == list(names)
    assert [r["stage"] for r in trainer.history] == ["all", "all", "complete", "incomplete", "has:m1", "val"]
    assert sorted(model.rows("all")) == sorted(2 * ids(data.train, "all"))
    assert model.rows("all")[:64] != model.rows("all")[64:], "each epoch has an order of its own"
    for rows in names[1:4]:
        assert sorted(model.rows(rows)) == ids(data.train, rows), rows
    assert sorted(model.rows("val")) == ids(data.val, "all")


def test_every_stage_gets_an_epoch_however_small_its_fraction() -> None:
    model = Spy(toy(rows=96, dim=5).schema, Stage("long", 100), Stage("short", 0.01))
    fit(Pipeline(model), splits(), epochs=2)
    assert {name for name, _ in model.log} == {"long", "short"}


def test_an_auxiliary_batch_is_as_large_as_the_batch_and_of_the_rows_asked_for() -> None:
    data = splits(0.4)
    schema = data.train.schema
    for rows in ("complete", "incomplete", "val"):
        model = Spy(schema, Stage("train", auxiliary=rows))
        fit(Pipeline(model), data, batch_size=15)
        auxiliary = [batch.auxiliary for _, batch in model.log if batch.auxiliary is not None]
        assert [len(batch) for batch in auxiliary] == [len(batch) for _, batch in model.log]
        seen = [int(i) for batch in auxiliary for i in batch.index]
        pool = ids(data.val, "all") if rows == "val" else ids(data.train, rows)
        assert set(seen) <= set(pool)
        assert max(map(seen.count, pool)) - min(map(seen.count, pool)) <= 1, "rows are used up before any comes twice"
    without = Spy(schema)
    fit(Pipeline(without), data)
    assert all(batch.auxiliary is None for _, batch in without.log)


def test_a_view_drops_from_what_is_observed_and_keeps_it_in_truth() -> None:
    data = splits(0.3)
    model = Spy(data.train.schema, Stage("natural"), Stage("proper", view="proper"), Stage("own", view=_first_only))
    fit(Pipeline(model), data, epochs=3)
    for stage, batch in model.log:
        given = data.train.present[torch.tensor([data.train.index.tolist().index(int(i)) for i in batch.index])]
        if stage == "natural":
            assert batch.truth is None
            assert torch.equal(batch.present, given)
            continue
        assert batch.truth is not None
        assert torch.equal(batch.truth.present, given)
        if stage == "own":
            assert torch.equal(batch.present, given & torch.tensor([True, False, False]))
        else:
            assert bool(((given.sum(1) < 2) | (batch.present.sum(1) < given.sum(1))).all())


def _first_only(batch: Batch, source: torch.Generator) -> Tensor:
    return torch.tensor([True, False, False]).expand(batch.present.shape)


@pytest.mark.parametrize(
    ("bad", "error", "words"),
    [
        (Stage("late", trainable=("no_such.*",)), ConfigError, r"'late' of Spy: 'no_such\.\*' matches none.*encoders"),
        (Stage("late", trainable=("*", "task_heat.*")), ConfigError, "'task_heat"),
        (Stage("late", view="subset"), UnknownName, "view 'subset'; did you mean 'subsets'"),
        (
            Stage("late", rows="unlabelled"),
            DataError,
            r"'late' needs 'unlabelled' rows.*64 rows, 64 complete, 64 labelled",
        ),
        (Stage("late", auxiliary="incomplete"), DataError, "'late' needs 'incomplete' rows"),
        (Stage("late", rows="has:m7"), UnknownName, "modality 'm7'"),
    ],
)
def test_what_a_late_stage_would_stumble_over_is_said_before_the_first_step(
    bad: Stage, error: type[Exception], words: str
) -> None:
    data = splits()
    model = Spy(data.train.schema, Stage("early"), bad)
    pipeline = Pipeline(model)
    before = weights(pipeline)
    with pytest.raises(error, match=words):
        fit(pipeline, data)
    assert model.log == []
    assert differing(before, weights(pipeline)) == []


@pytest.mark.parametrize("key", ["mmin", "kd_mm", "smil"])
def test_a_method_that_needs_complete_rows_says_so_before_it_trains_anything(key: str) -> None:
    data = splits()
    train = data.train.with_missing(parse_mechanism("mcar(0.4)"), seed=1)  # type: ignore[attr-defined]
    train = train.subset(train.positions("incomplete"))
    pipeline = build(key, train.schema)
    before = weights(pipeline)
    counts = rf"{len(train)} rows, 0 complete, {len(train)} labelled"
    with pytest.raises(DataError, match=rf"{key}: stage '\w+' needs 'complete' rows.*{counts}"):
        fit(pipeline, Splits(train, data.val))
    assert set(differing(before, weights(pipeline))) <= {"model.prior"}


def test_only_the_named_parameters_move_and_flags_are_as_before() -> None:
    data = splits()
    model = Spy(
        data.train.schema, Stage("head", trainable=("task_head.*",)), Stage("first", trainable=("encoders.m0.*",))
    )
    model.encoders["m1"].requires_grad_(False)
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    at_stage: dict[str, dict[str, Tensor]] = {}
    model.prepare = lambda _, stage: at_stage.update({stage.name: weights(pipeline)})  # type: ignore[method-assign]
    pipeline = Pipeline(model)
    fit(pipeline, data, epochs=2)
    moved = differing(at_stage["head"], at_stage["first"])
    assert moved
    assert all(name.startswith("model.task_head.") for name in moved)
    moved = differing(at_stage["first"], weights(pipeline))
    assert moved
    assert all(name.startswith("model.encoders.m0.") for name in moved)
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags
    assert all(p.grad is None for p in model.parameters())


def test_what_was_frozen_before_stays_frozen_though_a_stage_names_it() -> None:
    data = splits()
    model = Spy(data.train.schema)
    model.encoders.requires_grad_(False)
    before = weights(Pipeline(model))
    fit(Pipeline(model), data)
    assert all(n.startswith(("model.task_head", "model.prior")) for n in differing(before, weights(Pipeline(model))))
    model.requires_grad_(False)
    with pytest.raises(ConfigError, match="'train' of Spy: all parameters that it names are frozen"):
        fit(Pipeline(model), data)


def test_a_loss_that_reaches_nothing_that_moves_is_refused() -> None:
    data = splits()
    model = Spy(data.train.schema, Stage("head", trainable=("encoders.*",)))
    model.step = lambda batch: Step({"task": model.task_head.linear.bias.sum()})  # type: ignore
    with pytest.raises(ConfigError, match="'head': its losses reach none"):
        fit(Pipeline(model), data)
    model.step = lambda batch: Step({})  # type: ignore
    with pytest.raises(ConfigError, match="'head': its step brings no loss"):
        fit(Pipeline(model), data)


def test_a_frozen_normaliser_keeps_its_statistics() -> None:
    own = nn.Sequential(nn.Linear(5, DIM), nn.BatchNorm1d(DIM), nn.Dropout(0.5))
    data = splits()
    with own_encoders({"m0": own}):
        model = Spy(data.train.schema, Stage("head", trainable=("task_head.*",)), Stage("all"))
    seen: dict[str, tuple[bool, Tensor]] = {}
    norm = model.encoders["m0"].module[1]  # type: ignore[union-attr,index]

    def watch(stage: str) -> None:
        seen[stage] = (norm.training, norm.running_mean.clone())

    original = model.step
    model.step = lambda batch: (original(batch), watch(model.clock.stage))[0]  # type: ignore[method-assign]
    model.on_epoch = lambda data: model.encode_rows(data.train)  # type: ignore[method-assign,assignment]
    fit(Pipeline(model), data, epochs=2)
    assert seen["head"][0] is False
    assert not bool(seen["head"][1].any())
    assert seen["all"][0] is True
    assert bool(seen["all"][1].any())


class Shift(Restorer):
    """Adds a learned number to the first modality; wants it to be 3."""

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.zeros(1))

    def stages(self) -> list[Stage]:
        return [Stage("mend")]

    def restore(self, batch: Batch) -> Batch:
        return replace(batch, inputs={**batch.inputs, "m0": batch.inputs["m0"] + self.by})

    def step(self, batch: Batch) -> Step:
        return Step({"mend": (self.by - 3).square().sum()})


def test_a_restorer_is_trained_before_the_model_and_alone() -> None:
    data = splits()
    model = Spy(data.train.schema)
    pipeline = Pipeline(model, restore=Shift(data.train.schema))
    trainer = fit(pipeline, data, epochs=3, lr=0.1)
    assert [r["stage"] for r in trainer.history] == ["mend"] * 3 + ["train"] * 3
    by = float(pipeline.restore.by.detach())  # type: ignore[union-attr,arg-type]
    assert by > 0.2
    stage, batch = model.log[0]
    place = data.train.index.tolist().index(int(batch.index[0]))
    given = data.train.batch(torch.tensor([place])).inputs["m0"][0]
    assert stage == "train"
    assert torch.allclose(batch.inputs["m0"][0], given + by)
    assert not any("val/" in key for r in trainer.history[:3] for key in r), "epochs are chosen in the last stage only"


class Closed(Model):
    """A head in closed form: the mean of each class."""

    def __init__(self, schema: Schema, rows: str = "all") -> None:
        super().__init__(schema, DIM)
        self.where, self.solved = rows, []

    solved: list[list[int]]

    def stages(self) -> list[Stage]:
        return [Stage("first"), Stage("closed", rows=self.where, solve=True), Stage("last")]

    def solve(self, features: Features, batch: Batch) -> None:
        assert not self.training
        assert len(features.present) == len(batch)
        self.solved.append(sorted(batch.index.tolist()))


@pytest.mark.parametrize("rows", ["all", "complete", "val"])
def test_a_closed_form_gets_all_rows_of_its_stage_at_once(rows: str) -> None:
    data = splits(0.3)
    model = Closed(data.train.schema, rows)
    trainer = fit(Pipeline(model), data, epochs=3)
    assert model.solved == [ids(data.val, "all") if rows == "val" else ids(data.train, rows)]
    assert [r["stage"] for r in trainer.history] == ["first", "last"]


def test_the_clock_runs_from_zero_to_one_in_each_stage() -> None:
    data = splits()
    model = Spy(data.train.schema, Stage("a"), Stage("b"))
    ticks: dict[str, list[float]] = {"a": [], "b": []}
    epochs: list[int] = []
    original = model.step

    def step(batch: Batch) -> Step:
        ticks[model.clock.stage].append(model.clock.progress)
        epochs.append(model.clock.epoch)
        return original(batch)

    model.step = step  # type: ignore[method-assign]
    fit(Pipeline(model), data, epochs=4)
    for seen in ticks.values():
        assert seen == [i / 8 for i in range(8)]
    assert epochs == [0] * 4 + [1] * 4 + [0] * 4 + [1] * 4
    assert (model.clock.stage, model.clock.epoch, model.clock.progress) == ("b", 1, 1.0)
    assert not model.training


# views --------------------------------------------------------------------------------------------------------------
def crowd(present: list[list[bool]], copies: int) -> Batch:
    here = torch.tensor(present).repeat(copies, 1)
    return Batch(tuple(f"m{i}" for i in range(here.shape[1])), {}, here, torch.arange(len(here)))


def counts(kept: Tensor) -> dict[tuple[bool, ...], int]:
    found: dict[tuple[bool, ...], int] = {}
    for row in kept.tolist():
        found[tuple(row)] = found.get(tuple(row), 0) + 1
    return found


@pytest.mark.parametrize(("view", "allowed"), [("subsets", (1, 2, 3)), ("proper", (1, 2)), ("one", (1,))])
def test_every_allowed_subset_is_equally_likely(view: str, allowed: tuple[int, ...]) -> None:
    n = 8400
    kept = VIEWS[view](crowd([[True] * 3], n), generator("test", view))
    expected = [s for s in itertools.product([False, True], repeat=3) if sum(s) in allowed]
    found = counts(kept)
    assert set(found) == set(expected)
    share = n / len(expected)
    surprise = sum((found[s] - share) ** 2 / share for s in expected)  # chi-squared, at most 6 degrees of freedom
    assert surprise < 22.5, found


def test_subsets_are_those_of_what_a_row_has() -> None:
    rows = [[True, False, True], [False, True, False], [False, False, False]]
    kept = VIEWS["subsets"](crowd(rows, 3000), generator("test")).unflatten(0, (-1, 3))
    found = counts(kept[:, 0])
    assert set(found) == {(True, False, True), (True, False, False), (False, False, True)}
    assert all(abs(n - 1000) < 120 for n in found.values())
    assert counts(kept[:, 1]) == {(False, True, False): 3000}
    assert counts(kept[:, 2]) == {(False, False, False): 3000}
    proper = counts(VIEWS["proper"](crowd(rows, 3000), generator("test")).unflatten(0, (-1, 3))[:, 0])
    assert set(proper) == {(True, False, False), (False, False, True)}


patterns = st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=20)


@pytest.mark.parametrize("view", list(VIEWS))
@settings(max_examples=25, deadline=None)
@forall(rows=patterns, seed=st.integers(0, 10**6))
def test_a_view_never_adds_and_never_drops_everything(view: str, rows: list[list[bool]], seed: int) -> None:
    batch = crowd(rows, 1)
    before = batch.present.clone()
    kept = VIEWS[view](batch, generator(seed))
    assert torch.equal(batch.present, before)
    assert not bool((kept & ~before).any())
    assert torch.equal(kept.any(1), before.any(1))
    assert torch.equal(kept, VIEWS[view](batch, generator(seed))), "a view follows from its generator alone"


def test_a_view_of_one_s_own_is_taken_as_it_is() -> None:
    assert get_view(_first_only) is _first_only
    assert get_view("natural")(batch := crowd([[True, False]], 1), generator(0)) is batch.present


# sampling -----------------------------------------------------------------------------------------------------------
@settings(max_examples=60, deadline=None)
@forall(rows=st.integers(1, 70), size=st.integers(1, 20))
def test_an_epoch_has_each_row_once_and_no_batch_of_a_lonely_row(rows: int, size: int) -> None:
    positions = torch.arange(rows) * 3
    batches = order(positions, size, generator(rows))
    assert torch.cat(batches).sort().values.tolist() == positions.tolist()
    assert len(batches) == count(rows, size)
    if rows > 1 and size > 1:
        assert min(map(len, batches)) > 1
    assert max(map(len, batches)) <= size + 1


@settings(max_examples=40, deadline=None)
@forall(rows=st.integers(1, 9), sizes=st.lists(st.integers(1, 12), min_size=1, max_size=8))
def test_auxiliary_batches_use_up_all_rows_before_any_comes_twice(rows: int, sizes: list[int]) -> None:
    batches = list(endless(torch.arange(rows), sizes, generator(0)))
    assert [len(b) for b in batches] == sizes
    seen = torch.cat(batches).bincount(minlength=rows)
    assert int(seen.max() - seen.min()) <= 1


def test_a_generator_follows_from_its_key() -> None:
    def draw(*key: object) -> int:
        return int(torch.randint(2**40, (1,), generator=generator(*key)))

    assert draw(1, "view") == draw(1, "view")
    assert len({draw(1, "view"), draw(2, "view"), draw(1, "rows"), draw(1, "view", 0)}) == 4
    assert generator(0, 1, "rows").initial_seed() == 62632664698248317, "a run of last year must be repeatable"


def test_reading_ahead_changes_nothing_and_passes_errors_on() -> None:
    data = toy(rows=24, dim=5)
    order = list(torch.arange(24).flip(0).split(5))
    plain = [b.index.tolist() for b in feed(data, order)]

    class Slow(TensorSource):
        def read(self, rows: Tensor) -> Batch:
            if self.broken and 3 in rows:
                raise DataError("row 3 is broken")
            return super().read(rows)

        broken = False

    source = data.source
    assert isinstance(source, TensorSource)
    lazy = Slow(data.schema, source._all)
    other = Dataset(lazy)
    assert [b.index.tolist() for b in feed(other, order, ahead=2)] == plain == [o.tolist() for o in order]
    lazy.broken = True
    with pytest.raises(DataError, match="row 3"):
        list(feed(other, order, ahead=2))


def test_fast_weights_are_one_step_of_descent_that_can_be_differentiated() -> None:
    layer = nn.Linear(2, 1, bias=False)
    loss = layer.weight.square().sum()
    fast = fast_weights(layer, loss, 0.25)
    assert torch.allclose(fast["weight"], layer.weight * 0.5)
    (slope,) = torch.autograd.grad(fast["weight"].sum(), layer.weight)
    assert torch.allclose(slope, torch.full_like(slope, 0.5))
    with pytest.raises(ConfigError, match="over bias moves no parameter of Linear"):
        fast_weights(layer, layer.weight.sum(), 1.0, only=("bias",))


# descent ------------------------------------------------------------------------------------------------------------
def descended(train: Splits, **options: Any) -> dict[str, Tensor]:
    pipeline = build("mean_fusion", train.train.schema)
    fit(pipeline, train, **{"optimizer": "sgd", "schedule": "constant", "clip": 0, "lr": 0.1, **options})
    return weights(pipeline)


def keep_last_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation has nothing to say, so that the last epoch is kept."""
    monkeypatch.setattr(stage_run, "validate", lambda pipeline, data, device: (math.nan, 1, "none"))


@pytest.mark.parametrize("rows", [64, 56], ids=["full groups", "a last group of three"])
def test_accumulated_batches_are_one_large_batch(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_last_epoch(monkeypatch)
    data = splits()
    data = Splits(data.train.subset(torch.arange(rows)), data.val)
    large = descended(data, batch_size=32, epochs=2)
    small = descended(data, batch_size=8, accumulate=4, epochs=2)
    for name, tensor in large.items():
        assert torch.allclose(tensor, small[name], rtol=0, atol=1e-6), name
    alone = descended(data, batch_size=8, epochs=2)
    assert max(float((alone[n] - t).abs().max()) for n, t in large.items()) > 1e-3, "eight rows a step are not the same"


class Counting(Trainer):
    """Notes the rate of each step of the optimiser."""

    def rate(self, progress: float) -> float:
        rate = super().rate(progress)
        self.rates = [*getattr(self, "rates", []), rate]
        return rate


def test_no_gradient_is_left_over_where_batches_do_not_fill_a_group() -> None:
    data = splits()
    data = Splits(data.train.subset(torch.arange(49)), data.val)  # batches of 16, 16 and 17
    model = Spy(data.train.schema)
    updates: list[int] = []
    model.on_update = lambda: updates.append(len(model.log))  # type: ignore[method-assign]
    trainer = fit(Pipeline(model), data, Counting, accumulate=2, epochs=2)
    assert [len(batch) for _, batch in model.log] == [16, 16, 17] * 2
    assert len(trainer.rates) == 4
    assert updates == [2, 3, 5, 6], "on_update follows steps of the optimiser"


def test_the_mean_loss_of_an_epoch_is_in_the_history(monkeypatch: pytest.MonkeyPatch) -> None:
    data = splits()
    data = Splits(data.train.subset(torch.arange(49)), data.val)
    model = Spy(data.train.schema)
    values = iter([1.0, 2.0, 6.0])
    model.step = lambda batch: Step({"mine": next(values) + 0 * model(batch).output.sum()})  # type: ignore
    trainer = fit(Pipeline(model), data)
    assert trainer.history[0]["loss/mine"] == pytest.approx(3.0)


def test_the_rate_falls_along_a_cosine_in_each_stage_or_not_at_all() -> None:
    data = splits()
    schema = data.train.schema
    trainer = fit(Pipeline(Spy(schema, Stage("a"), Stage("b"))), data, Counting, epochs=4, lr=0.01)
    half = [0.01 * 0.5 * (1 + math.cos(math.pi * i / 8)) for i in range(8)]
    assert trainer.rates == pytest.approx(half * 2)
    trainer = fit(Pipeline(Spy(schema)), data, Counting, epochs=2, lr=0.01, schedule="constant")
    assert trainer.rates == [0.01] * 8


@pytest.mark.parametrize("clip", [0.05, 0.0])
def test_the_gradient_is_clipped_to_its_norm(clip: float, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_last_epoch(monkeypatch)
    data = splits()
    data = Splits(data.train.subset(torch.arange(16)), data.val)
    pipeline = build("mean_fusion", data.train.schema)
    before = {n: p.detach().clone() for n, p in pipeline.named_parameters()}
    options: dict[str, Any] = {"optimizer": "sgd", "schedule": "constant", "weight_decay": 0.0, "lr": 0.1}
    fit(pipeline, data, clip=clip, **options)
    moved = torch.cat([((before[n] - p.detach()) / 0.1).flatten() for n, p in pipeline.named_parameters()]).norm()
    assert (float(moved) == pytest.approx(clip, rel=1e-3)) if clip else (float(moved) > 0.2)


def test_biases_and_gains_do_not_decay(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_last_epoch(monkeypatch)
    data = splits()
    model = Spy(data.train.schema)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    model.step = lambda batch: Step({"none": 0 * sum(p.sum() for p in model.parameters())})  # type: ignore
    fit(Pipeline(model), data, lr=0.1, weight_decay=0.5)
    for name, p in model.named_parameters():
        if p.ndim > 1:
            assert float(p.detach().norm()) < 0.95 * float(before[name].norm()), name
        else:
            assert torch.equal(p, before[name]), name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0), ("batch_size", 0), ("accumulate", 0), ("devices", 0), ("lr", 0.0), ("lr", math.nan), ("patience", 0),
        ("optimizer", "adagrad"), ("schedule", "linear"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name):
        Trainer(**{name: value})


# choosing the epoch -------------------------------------------------------------------------------------------------
class Scripted(Trainer):
    """Validation gives these scores, whatever the model does."""

    def script(self, scores: list[float], sign: int = 1) -> Scripted:
        self.scores, self.sign, self.seen = iter(scores), sign, []
        return self

    def fit(self, pipeline: Pipeline, data: Splits, *, strip: bool = True) -> Pipeline:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stage_run, "validate", self._score)
            return super().fit(pipeline, data, strip=strip)

    def _score(self, pipeline: Pipeline, data: Any, device: Any) -> tuple[float, int, str]:
        self.seen.append(weights(pipeline))
        return next(self.scores), self.sign, "score"


def scripted(scores: list[float], sign: int = 1, **options: Any) -> tuple[Scripted, Pipeline]:
    data = splits()
    pipeline = Pipeline(Spy(data.train.schema, Stage("first"), Stage("last")))
    trainer = Scripted(epochs=2 * len(scores), batch_size=32, progress=False, **options).script(scores, sign)
    trainer.fit(pipeline, data)
    return trainer, pipeline


@pytest.mark.parametrize(
    ("scores", "sign", "best"),
    [
        ([0.1, 0.9, 0.5, 0.2], 1, 1),
        ([0.1, 0.9, 0.5, 0.2], -1, 0),
        ([0.5, 0.7, 0.7, 0.1], 1, 2),
        ([math.nan, 0.3, math.nan, 0.2], 1, 1),
        ([-5.0, -4.0, -9.0, -9.0], 1, 1),
        ([math.nan, math.nan, math.nan, math.nan], 1, 3),
        ([math.inf, 0.5, 0.6, math.inf], 1, 2),
    ],
    ids=["highest", "lowest", "the later of equal ones", "not a number", "negative", "none: the last", "infinite"],
)
def test_the_best_epoch_is_restored(scores: list[float], sign: int, best: int) -> None:
    trainer, pipeline = scripted(scores, sign)
    assert len(trainer.seen) == 4
    assert differing(trainer.seen[best], weights(pipeline)) == []
    assert differing(trainer.seen[best], trainer.seen[best - 1]), "epochs differ, so the choice can be seen"
    assert [r["val/score"] for r in trainer.history[-4:]] == pytest.approx(scores, nan_ok=True)


@pytest.mark.parametrize(
    ("scores", "patience", "epochs"),
    [
        ([0.1, 0.9, 0.5, 0.2, 1.0, 1.0], 2, 4),
        ([0.1, 0.9, 0.5, 1.0, 0.2, 0.2], 2, 6),
        ([0.5, 0.4, 0.6, 0.7], 1, 2),
        ([0.5, 0.5, 0.5, 0.5, 0.5], 2, 3),
        ([math.nan, math.nan, math.nan, math.nan], 3, 3),
        ([0.1, 0.9, 0.5, 0.2], None, 4),
    ],
)
def test_the_last_stage_ends_after_so_many_epochs_without_a_better_score(
    scores: list[float], patience: int | None, epochs: int
) -> None:
    trainer, _ = scripted(scores, patience=patience)
    assert len(trainer.seen) == epochs


def test_validation_reads_labelled_rows_in_natural_view_and_leaves_no_trace() -> None:
    val = splits().val.with_missing(mcar(0.5), seed=3)  # type: ignore[attr-defined]
    shaky = {"m0": nn.Sequential(nn.Linear(5, DIM), nn.Dropout(0.9))}
    pipeline = build("mean_fusion", val.schema, encoders=shaky).train()
    pipeline.model.encoders["m1"].eval()
    score, sign, name = validate(pipeline, val)
    assert (sign, name) == (1, "accuracy")
    assert pipeline.model.training
    assert not pipeline.model.encoders["m1"].training
    batch = val.batch(val.positions("all"))
    with torch.no_grad():
        by_hand = (pipeline.eval().model(batch).output.argmax(1) == batch.target).float().mean()
    assert score == pytest.approx(float(by_hand))
    regression = splits(task="regression")
    _, sign, name = validate(build("mean_fusion", regression.val.schema), regression.val)
    assert (sign, name) == (-1, "mae")


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_validation_counts_every_row_of_a_long_table(task: str) -> None:
    small = splits(task=task)
    pipeline = build("mean_fusion", small.val.schema)
    fit(pipeline, small)
    long = toy(task, rows=600, dim=5)
    score, _, name = validate(pipeline, long)
    kind = pipeline.schema.task
    with torch.no_grad():
        answers = kind.probabilities(pipeline.eval().model(long.batch(torch.arange(600))).output)
    assert long.target is not None
    target = long.target.long() if task == "multilabel" else long.target
    metric = kind.metrics()[name]
    assert score == pytest.approx(float(metric(answers, target)), rel=1e-4)
    assert score != pytest.approx(float(kind.metrics()[name](answers[512:], target[512:])), rel=1e-4)


# errors -------------------------------------------------------------------------------------------------------------
def test_a_loss_that_is_not_finite_names_the_rows_of_its_batch() -> None:
    data = splits()
    model = Spy(data.train.schema)
    bad = int(data.train.index[37])
    original = model.step

    def step(batch: Batch) -> Step:
        factor = math.nan if bad in batch.index else 1.0
        return Step({"task": original(batch).total * factor, "other": original(batch).total})

    model.step = step  # type: ignore[method-assign]
    with pytest.raises(NonFiniteLoss, match=r"'train', epoch 1 \(task=nan, other=\d") as caught:
        fit(Pipeline(model), data)
    batch = model.log[-1][1]
    assert caught.value.rows == batch.index.tolist()
    assert bad in caught.value.rows
    assert len(caught.value.rows) == 16
    assert all(p.requires_grad for p in model.parameters())
    assert all(p.grad is None for p in model.parameters())


def changed(change: Callable[[Dataset], Any], rows: int = 96) -> Splits:
    data = toy(rows=rows, dim=5)
    change(data)
    return Splits(*data.split())


def test_rows_with_nothing_are_left_out_with_a_warning() -> None:
    data = changed(lambda d: d.source.present[5:8].fill_(False))
    model = Spy(data.train.schema)
    with pytest.warns(UserWarning, match="3 training rows hold nothing at all and are left out"):
        fit(Pipeline(model), data)
    assert sorted(model.rows("train")) == [i for i in range(64) if i not in (5, 6, 7)]


def test_unlabelled_rows_are_no_obstacle_and_change_no_weight() -> None:
    def strip(data: Dataset) -> None:
        data.source.target_present = torch.arange(96) % 4 > 0
        source = data.source
        assert isinstance(source, TensorSource)
        source._all.target_present = data.source.target_present

    data = changed(strip)
    model = Spy(data.train.schema, Stage("all"), Stage("labelled", rows="labelled"), Stage("rest", rows="unlabelled"))
    pipeline = Pipeline(model)
    at_stage: dict[str, dict[str, Tensor]] = {}
    model.prepare = lambda _, stage: at_stage.update({stage.name: weights(pipeline)})  # type: ignore[method-assign]
    trainer = fit(pipeline, data, epochs=3, weight_decay=0.0)
    assert sorted(model.rows("labelled")) == [i for i in range(64) if i % 4]
    assert sorted(model.rows("rest")) == [i for i in range(64) if not i % 4]
    assert trainer.history[2]["loss/task"] == 0
    assert differing(at_stage["rest"], weights(pipeline)) == []
    assert differing(at_stage["labelled"], at_stage["rest"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.source.target.fill_(2), "a single class"),
        (lambda d: d.source.target_present.fill_(False), "every label of the training rows is missing"),
        (lambda d: setattr(d.source, "target", None), "no target column"),
        (lambda d: d.source.present[:64, 1].fill_(False), "modality 'm1' is absent in all 64 training rows"),
    ],
)
def test_data_that_nothing_can_be_learned_from_is_refused(change: Callable[[Dataset], Any], words: str) -> None:
    data = changed(change)
    model = Spy(data.train.schema)
    with pytest.raises(DataError, match=words):
        fit(Pipeline(model), data)
    assert model.log == []


def test_data_of_another_shape_is_refused() -> None:
    pipeline = build("mean_fusion", splits().train.schema)
    other = toy("regression", rows=96, dim=5)
    with pytest.raises(ConfigError, match=r"made for m0, m1, m2 \(classification\), the data has .* \(regression\)"):
        fit(pipeline, Splits(*other.split()))
    with pytest.raises(ConfigError, match="the data has m0, m1"):
        fit(pipeline, Splits(*toy(rows=96, modalities=2, dim=5).split()))


@pytest.mark.parametrize("key", ["mean_fusion", "mmin", "kd_mm", "ccm"])
def test_what_a_simulator_hid_is_not_shown_to_methods_that_must_not_see_it(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = splits()
    seen = data.train.with_missing(mcar(0.3), seed=1, keep="truth")  # type: ignore[attr-defined]
    pipeline = build(key, seen.schema)
    with pytest.raises(ConfigError, match="sees_hidden"):
        fit(pipeline, Splits(seen, data.val))
    with pytest.raises(ConfigError, match="sees_hidden"):
        fit(pipeline, Splits(seen.subset(torch.arange(40)), data.val))
    cls = METHODS[key]
    monkeypatch.setattr(cls, "card", replace(cls.card, sees_hidden=True))
    fit(pipeline, Splits(seen, data.val))


def test_hidden_slots_reach_losses_only_where_they_were_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Spy, "card", seeing(sees_hidden=True), raising=False)
    data = splits()
    for keep in ("truth", "nothing"):
        train = data.train.with_missing(mcar(0.3), seed=1, keep=keep)  # type: ignore[attr-defined]
        model = Spy(train.schema)
        fit(Pipeline(model), Splits(train, data.val))
        truths = [batch.truth for _, batch in model.log]
        assert all((t is not None) == (keep == "truth") for t in truths)


@pytest.mark.parametrize("sees", [False, None])
@pytest.mark.parametrize("part", ["train", "val", "auxiliary"])
def test_what_was_hidden_is_kept_from_every_method_whose_card_does_not_say_that_it_may_see_it(
    sees: bool | None, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sees is not None:
        monkeypatch.setattr(Spy, "card", seeing(sees_hidden=sees), raising=False)
    data = replace(splits(), auxiliary=splits().val)
    hidden = getattr(data, part).with_missing(mcar(0.3), seed=1, keep="truth")
    model = Spy(data.train.schema, Stage("train", auxiliary="auxiliary/all"))
    with pytest.raises(ConfigError, match="keeps what was hidden as truth"):
        fit(Pipeline(model), replace(data, **{part: hidden}))
    assert model.log == []


def test_labels_do_not_come_along_to_the_choice_of_the_epoch_and_test_rows_to_no_hook() -> None:
    given: list[Batch] = []
    tables: list[Splits] = []

    class Curious(Spy):
        def forward(self, batch: Batch) -> Prediction:
            if not self.training:
                given.append(batch)
            return super().forward(batch)

        def settle(self, data: Splits) -> None:
            tables.append(data)

    data = splits()
    fit(Pipeline(Curious(data.train.schema)), replace(data, test=data.val))
    assert given
    assert all(batch.target is None and batch.truth is None and batch.weight is None for batch in given)
    assert tables
    assert all(table.test is None for table in tables)


def test_what_a_strategy_freezes_can_learn_in_the_next_training() -> None:
    class Freezing(Strategy):
        def fit(self, trainer: Runner, pipeline: Pipeline, data: Splits) -> None:
            trainer.run_all(pipeline, data)
            pipeline.model.requires_grad_(False)

    data = splits()
    pipeline = Pipeline(Model(data.train.schema, DIM), strategies=[Freezing()])
    fit(pipeline, data, epochs=1)
    assert all(p.requires_grad for p in pipeline.model.parameters())
    before = weights(pipeline)
    fit(pipeline, data, epochs=1)
    assert differing(before, weights(pipeline))


def test_a_model_that_takes_the_place_of_the_trained_one_has_the_prior_of_the_training_rows() -> None:
    class Another(Strategy):
        def finish(self, model: Model) -> Model:
            return Model(model.schema, DIM)

    data = splits()
    pipeline = Pipeline(Model(data.train.schema, DIM), strategies=[Another()])
    fit(pipeline, data)
    assert torch.equal(pipeline.model.prior, data.train.schema.task.prior(data.train))


def test_a_strategy_that_cannot_learn_or_be_built_again_is_refused() -> None:
    class Learning(Strategy):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

    class Listed(Strategy):
        def __init__(self, *shares: float) -> None:
            super().__init__()

    data = splits()
    for strategy, words in (
        (Learning(), "parameters of its own, which no stage moves"),
        (Listed(1.0), "cannot be built again"),
    ):
        with pytest.raises(ConfigError, match=words):
            fit(Pipeline(Model(data.train.schema, DIM), strategies=[strategy]), data)


def test_a_strategy_without_a_schema_of_its_own_is_there_in_a_second_training() -> None:
    class Counting(Strategy):
        def __init__(self, weight: float = 1.0) -> None:
            super().__init__()
            self.weight = weight

        def step(self, batch: Batch, inner: Inner) -> Step:
            seen.append(self.weight)
            return inner(batch)

    seen: list[float] = []
    data = splits()
    pipeline = Pipeline(Model(data.train.schema, DIM), strategies=[Counting(weight=3.0)])
    fit(pipeline, data, epochs=1)
    first = len(seen)
    fit(pipeline, data, epochs=1)
    assert seen == [3.0] * 2 * first


def test_validation_rows_of_another_task_or_shape_or_none_at_all_are_refused() -> None:
    data = splits()
    pipeline = Pipeline(Model(data.train.schema, DIM))
    with pytest.raises(ConfigError, match="validation table"):
        fit(pipeline, replace(data, val=toy("ordinal", rows=30, dim=data.train.schema.modalities[0].shape[0])))
    with pytest.raises(ConfigError, match=r"validation table.*read otherwise"):
        fit(pipeline, replace(data, val=toy(rows=30, dim=9)))
    with pytest.raises(DataError, match="no validation rows"):
        fit(pipeline, replace(data, val=data.val.subset([])))  # type: ignore[attr-defined]


# seeds --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("key", ["mmin", "smil"])
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(key: str) -> None:
    data = splits(0.3)
    found = []
    for seed in (0, 0, 1):
        pipeline = build(key, data.train.schema)
        torch.rand(seed + len(found))  # what was drawn before must not matter
        trainer = fit(pipeline, data, epochs=2, seed=seed)
        found.append((weights(pipeline), trainer.history))
    assert differing(found[0][0], found[1][0]) == []
    assert found[0][1] == found[1][1]
    assert differing(found[0][0], found[2][0])


@pytest.mark.parametrize("key", ["smil", "kd_mm", "ccm"])
def test_fitting_leaves_every_global_generator_as_it_was(key: str) -> None:
    data = splits(0.3)
    pipeline = build(key, data.train.schema)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # type: ignore[index]
    fit(pipeline, data)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # type: ignore[index]
    assert random.getstate() == before[2]


# going on after a stop ----------------------------------------------------------------------------------------------
class Stopped(Trainer):
    """Is interrupted in its n-th batch, and counts them."""

    stop_in: int | None = None
    batches = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.observers.append(self._count)

    def _count(self, losses: stage_run.Losses) -> None:
        self.batches += 1
        if self.batches == self.stop_in:
            raise KeyboardInterrupt


class Keeps(Model):
    """A bank of features whose size depends on the data, and one that it adds to in training."""

    def __init__(self, schema: Schema) -> None:
        super().__init__(schema, DIM)
        self.register_buffer("bank", None)
        self.register_buffer("seen", torch.zeros(0))

    def stages(self) -> list[Stage]:
        return [Stage("first"), Stage("second")]

    def prepare(self, data: Splits, stage: Stage) -> None:
        if stage.name == "second":
            self.bank = self.encode_rows(data.train, "complete").flat()

    def on_epoch(self, data: Splits) -> None:
        self.seen = torch.cat([self.seen, torch.rand(1)])

    def fuse(self, features: Features) -> Fused:
        fused = super().fuse(features).pooled()
        return Fused.vector(fused if self.bank is None else fused + self.bank.mean() + self.seen.mean())


RESUMED = ("mmin", "kd_mm", "smil", "ccm", "Keeps")
EPOCHS = 4


def made(key: str) -> Pipeline:
    schema = splits().train.schema
    if key != "Keeps":
        return build(key, schema)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Pipeline(Keeps(schema))


def stoppable(folder: Path | None, stop_in: int | None = None) -> Stopped:
    trainer = Stopped(epochs=EPOCHS, batch_size=16, progress=False, checkpoint=folder)
    trainer.stop_in = stop_in
    return trainer


@cache
def undisturbed(key: str) -> tuple[dict[str, Tensor], list[dict[str, Any]], int]:
    """Weights, history and number of batches of a run that nothing interrupts and that keeps no checkpoint."""
    pipeline, trainer = made(key), stoppable(None)
    trainer.fit(pipeline, splits(0.3))
    return weights(pipeline), trainer.history, trainer.batches


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*"))


def test_a_checkpoint_takes_its_folder_along_only_where_nothing_else_is_in_it(tmp_path: Path) -> None:
    data = splits()
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "notes.txt").write_text("mine")
    for folder in ("shared", "own"):
        fit(build("mean_fusion", data.train.schema), data, checkpoint=tmp_path / folder)
    assert left(tmp_path) == ["shared"]
    assert left(tmp_path / "shared") == ["notes.txt"]


def interrupt_after(epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop as soon as so many checkpoints are written."""
    write, count = saved.write_checkpoint, itertools.count(1)

    def stop(*args: Any) -> None:
        write(*args)
        if next(count) == epochs:
            raise KeyboardInterrupt

    monkeypatch.setattr(saved, "write_checkpoint", stop)


def test_a_run_that_is_not_interrupted_is_the_same_with_checkpoints_and_leaves_none(tmp_path: Path) -> None:
    pipeline, trainer = made("mmin"), stoppable(tmp_path / "run")
    trainer.fit(pipeline, splits(0.3))
    assert differing(weights(pipeline), undisturbed("mmin")[0]) == []
    assert trainer.history == undisturbed("mmin")[1]
    assert left(tmp_path) == []


@pytest.mark.parametrize("share", [0.0, 0.4, 0.7, 1.0])
@pytest.mark.parametrize("key", RESUMED)
def test_a_run_stopped_after_an_epoch_goes_on_bit_for_bit(
    key: str, share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, history, batches = undisturbed(key)
    epochs = max(1, round(share * len(history)))
    with monkeypatch.context() as patch:
        interrupt_after(epochs, patch)
        with pytest.raises(KeyboardInterrupt) as caught:
            stoppable(tmp_path).fit(made(key), splits(0.3))
    (note,) = caught.value.__notes__
    assert str(tmp_path / "checkpoint.safetensors") in note
    assert "The same call goes on from there" in note
    pipeline, trainer = made(key), stoppable(tmp_path)
    trainer.fit(pipeline, splits(0.3))
    assert differing(expected, weights(pipeline)) == []
    assert trainer.history == history
    assert trainer.batches < batches, "it started anew"
    assert left(tmp_path) == []


@pytest.mark.parametrize("key", RESUMED)
def test_a_run_stopped_twice_in_the_middle_of_an_epoch_goes_on_bit_for_bit(key: str, tmp_path: Path) -> None:
    expected, history, batches = undisturbed(key)
    for stop in (batches // 2 + 1, 3):
        with pytest.raises(KeyboardInterrupt):
            stoppable(tmp_path, stop).fit(made(key), splits(0.3))
    pipeline, trainer = made(key), stoppable(tmp_path)
    trainer.fit(pipeline, splits(0.3))
    assert differing(expected, weights(pipeline)) == []
    assert trainer.history == history
    clocks = [part.clock for _, part in pipeline.named_components()]
    assert all(clock.progress == 1.0 for clock in clocks)


def test_a_run_stopped_while_its_monitors_calibrate_trains_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(made("ccm").monitors[0]), "calibrate", stop)
        with pytest.raises(KeyboardInterrupt) as caught:
            stoppable(tmp_path).fit(made("ccm"), splits(0.3))
    assert "goes on from there" in caught.value.__notes__[0]
    pipeline, trainer = made("ccm"), stoppable(tmp_path)
    trainer.fit(pipeline, splits(0.3))
    assert trainer.batches == 0
    assert differing(undisturbed("ccm")[0], weights(pipeline)) == []


def test_a_run_out_of_patience_is_not_given_more_by_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = splits()

    def run(scores: list[float]) -> Scripted:
        trainer = Scripted(epochs=6, batch_size=32, progress=False, patience=2, checkpoint=tmp_path).script(scores)
        trainer.fit(build("mean_fusion", data.train.schema), data)
        return trainer

    with monkeypatch.context() as patch:
        interrupt_after(4, patch)
        with pytest.raises(KeyboardInterrupt):
            run([0.5, 0.9, 0.8, 0.7])
    trainer = run([])
    assert trainer.seen == []
    assert len(trainer.history) == 4


def test_a_stop_says_what_is_kept(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        stoppable(None, 3).fit(made("mmin"), splits(0.3))
    assert caught.value.__notes__ == ["Training was stopped; nothing was kept, since no checkpoint folder was given."]
    with pytest.raises(KeyboardInterrupt) as caught:
        stoppable(tmp_path / "new", 2).fit(made("mmin"), splits(0.3))
    assert "before the first epoch ended" in caught.value.__notes__[0]


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """The folder of a run of mmin that was stopped half way."""
    with pytest.raises(KeyboardInterrupt):
        stoppable(tmp_path, undisturbed("mmin")[2] // 2 + 1).fit(made("mmin"), splits(0.3))
    return tmp_path


@pytest.mark.parametrize(
    "other",
    [
        lambda: (made("ccm"), splits(0.3), {}),
        lambda: (build("mmin", splits().train.schema, blocks=3), splits(0.3), {}),
        lambda: (made("mmin"), splits(0.3, seed=2), {}),
        lambda: (made("mmin"), splits(), {}),
        lambda: (made("mmin"), splits(0.3), {"seed": 1}),
        lambda: (made("mmin"), splits(0.3), {"epochs": 5}),
        lambda: (made("mmin"), splits(0.3), {"lr": 0.5}),
    ],
    ids=["method", "argument", "mask", "data", "seed", "epochs", "rate"],
)
def test_a_checkpoint_of_another_run_is_refused_and_left_alone(stopped: Path, other: Callable[[], Any]) -> None:
    pipeline, data, options = other()
    before, content = weights(pipeline), (stopped / "checkpoint.safetensors").read_bytes()
    settings = {"epochs": EPOCHS, "batch_size": 16, "progress": False, "checkpoint": stopped, **options}
    with pytest.raises(ConfigError, match=r"belongs to a run with other data, method or settings; delete it"):
        Trainer(**settings).fit(pipeline, data)
    assert differing(before, weights(pipeline)) == []
    assert (stopped / "checkpoint.safetensors").read_bytes() == content


def _strip(content: bytes, path: Path) -> None:
    save_file(load_file(path), path)  # the same tensors, and nothing said about them


def _flip(content: bytes, path: Path) -> None:
    path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])


def _renamed(content: bytes, path: Path) -> None:
    path.write_bytes(content.replace(b'\\"epoch\\"', b'\\"epoxy\\"', 1))


@pytest.mark.parametrize(
    "damage",
    [
        lambda content, path: path.write_bytes(b""),
        lambda content, path: path.write_bytes(content[: len(content) // 2]),
        lambda content, path: path.write_bytes(b"garbage" * 100),
        lambda content, path: path.write_bytes(b"\x80\x04" + content[2:]),
        _strip, _flip, _renamed,
    ],
    ids=["empty", "cut", "garbage", "header", "no metadata", "one byte", "position"],
)  # fmt: skip
def test_a_damaged_checkpoint_is_refused(stopped: Path, damage: Callable[[bytes, Path], Any]) -> None:
    path = stopped / "checkpoint.safetensors"
    damage(path.read_bytes(), path)
    pipeline = made("mmin")
    before = weights(pipeline)
    with pytest.raises(ModelFileError, match=r"is damaged.*delete it to train from the start"):
        stoppable(stopped).fit(pipeline, splits(0.3))
    assert differing(before, weights(pipeline)) == []
    path.unlink()
    stoppable(stopped).fit(pipeline, splits(0.3))
    assert differing(undisturbed("mmin")[0], weights(pipeline)) == []


def _facts(path: Path) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """Header of the file, what it says beside the tensors, and the tensors."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    return header, json.loads(header["__metadata__"]["kintsugi"]), content[8 + size :]


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not inside:
        yield path
    for key, each in list(inside):
        yield from _leaves(each, (*path, key))


def _rewritten(path: Path, facts: Any) -> None:
    header, _, tensors = _facts(path)
    header["__metadata__"]["kintsugi"] = json.dumps(facts)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + tensors)


def test_a_change_of_anything_that_a_checkpoint_says_is_noticed(stopped: Path) -> None:
    path = stopped / "checkpoint.safetensors"
    facts = _facts(path)[1]
    ways = list(_leaves(facts))
    assert {way[0] for way in ways} == {"position", "groups", "clocks", "digest"}
    assert ("groups", 0, "betas", 1) in ways
    for *way, last in ways:
        place = changed = copy.deepcopy(facts)
        for key in way:
            place = place[key]
        match place[last]:
            case bool():
                place[last] = not place[last]
            case int() | float():
                place[last] += 1
            case str():
                place[last] += "x"
            case _:
                place[last] = 0
        _rewritten(path, changed)
        with pytest.raises(ModelFileError, match=r"checkpoint\.safetensors is damaged.*its digest differs"):
            saved.find(stopped)
    _rewritten(path, facts)
    assert saved.find(stopped) is not None


def test_a_tensor_of_a_checkpoint_under_another_name_or_of_another_type_is_noticed(stopped: Path) -> None:
    path = stopped / "checkpoint.safetensors"
    content = path.read_bytes()
    old = next(name for name in saved.Checkpoint(path).tensors if name.startswith("pipeline.0."))
    path.write_bytes(content.replace(old.encode(), old[:-1].encode() + b"~"))
    with pytest.raises(ModelFileError, match="digest differs"):
        saved.find(stopped)
    path.write_bytes(content.replace(b'"F32"', b'"I32"', 1))
    with pytest.raises(ModelFileError, match="digest differs"):
        saved.find(stopped)


def test_a_checkpoint_of_version_0_1_0_is_refused_with_the_version_that_can_finish_it(stopped: Path) -> None:
    path = stopped / "checkpoint.safetensors"
    facts = _facts(path)[1]
    del facts["digest"]
    _rewritten(path, {**facts, "sum": 1})
    with pytest.raises(ModelFileError, match=r"written by kintsugi 0\.1\.0.*or delete it to train from the start"):
        stoppable(stopped).fit(made("mmin"), splits(0.3))


def test_a_full_disk_leaves_the_checkpoint_before(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = (stopped / "checkpoint.safetensors").read_bytes()

    write = Path.write_bytes

    def full(path: Path, content: bytes) -> None:
        write(path, content[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            stoppable(stopped).fit(made("mmin"), splits(0.3))
    assert [p.name for p in stopped.iterdir()] == ["checkpoint.safetensors"]
    assert (stopped / "checkpoint.safetensors").read_bytes() == content


def test_a_checkpoint_needs_no_registered_method_and_neither_does_training(tmp_path: Path) -> None:
    data = splits()
    pipeline = Pipeline(Spy(data.train.schema))
    fit(pipeline, data)
    fit(pipeline, data, checkpoint=tmp_path)
    assert left(tmp_path) == []


# where it runs ------------------------------------------------------------------------------------------------------
@fabric
def test_mixed_precision_trains_on_a_cpu() -> None:
    data = splits(0.3)
    pipeline = build("mmin", data.train.schema)
    before = weights(pipeline)
    dtypes: set[torch.dtype] = set()
    pipeline.model.forward_imagination.transition[0].register_forward_hook(  # type: ignore[union-attr,index]
        lambda module, args, out: dtypes.add(out.dtype) if module.training else None
    )
    trainer = fit(pipeline, data, precision="bf16-mixed", epochs=2)
    assert all(math.isfinite(v) for r in trainer.history for k, v in r.items() if k.startswith("loss/"))
    assert torch.bfloat16 in dtypes, "nothing was computed in bfloat16"
    assert not torch.equal(before["model.task_head.linear.weight"], pipeline.model.task_head.linear.weight)  # type: ignore
    assert all(t.dtype != torch.bfloat16 for t in weights(pipeline).values())


@fabric
def test_fabric_in_float32_is_plain_torch() -> None:
    data = splits(0.3)
    found = []
    for precision in (None, "32-true"):
        pipeline = build("mmin", data.train.schema)
        fit(pipeline, data, precision=precision, epochs=2)
        found.append(weights(pipeline))
    assert all(torch.allclose(t, found[1][n], atol=1e-6) for n, t in found[0].items())


def python(code: str, folder: Path, seconds: int = 120) -> subprocess.CompletedProcess[str]:
    script = folder / "script.py"
    script.write_text(textwrap.dedent(code))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=seconds, env=environment, cwd=folder
    )


def test_one_device_in_float32_does_not_wait_for_fabric(tmp_path: Path) -> None:
    done = python(
        """
        import sys
        import torch
        from kintsugi.core.data import Splits
        from kintsugi.core.methods import create
        from kintsugi.testing.fixture import toy
        from kintsugi.training.trainer import Trainer

        data = toy(rows=48, dim=5)
        assert "torchmetrics" not in sys.modules, "torchmetrics is loaded before it is asked for"
        Trainer(epochs=1, progress=False).fit(create("mean_fusion", data.schema, dim=8), Splits(*data.split()))
        print(sorted({name.split(".")[0] for name in sys.modules} & {"lightning_fabric", "lightning", "rich"}))
        """,
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


@fabric
@pytest.mark.slow
@pytest.mark.parametrize("key", ["mean_fusion", "mmin"])
def test_two_processes_end_with_equal_weights_though_a_batch_lacks_a_modality(key: str, tmp_path: Path) -> None:
    code = f"""
        import hashlib, json, sys
        import torch
        from kintsugi.core.data import Splits
        from kintsugi.core.methods import create
        from kintsugi.testing.fixture import toy
        from kintsugi.training.trainer import Trainer

        data = toy(rows=96, dim=5)
        if {key!r} == "mean_fusion":
            data.source.present[:, 1] = False
            data.source.present[:2, 1] = True  # in two of eight batches at most
        torch.manual_seed(0)
        pipeline = create({key!r}, data.schema, dim=8)
        lacking = []

        trainer = Trainer(epochs=2, batch_size=8, devices=2, strategy="ddp", progress=False)
        trainer.observers.append(lambda losses: lacking.append(not bool(losses.batch.present[:, 1].any())))
        trainer.fit(pipeline, Splits(*data.split()))
        state = pipeline.state_dict()
        digest = hashlib.sha256(b"".join(state[n].numpy().tobytes() for n in sorted(state))).hexdigest()
        finite = all(bool(torch.isfinite(t).all()) for t in state.values())
        said = dict(digest=digest, finite=finite, batches=len(lacking), lacking=sum(lacking))
        open(f"rank{{torch.distributed.get_rank()}}.json", "w").write(json.dumps(said))
    """
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert one["digest"] == two["digest"]
    assert one["finite"]
    assert one["batches"] == two["batches"] > 0
    if key == "mean_fusion":
        assert one["lacking"] + two["lacking"] >= 12


def shares(world: int, count: int) -> Iterator[list[int]]:
    from kintsugi.training.devices import Devices

    for rank in range(world):
        at = Devices("cpu", 1, None, None)
        at.world, at.rank = world, rank
        yield [int(b[0]) for b in at.share(list(torch.arange(count).split(1)))]


@pytest.mark.parametrize(("world", "count"), [(1, 5), (2, 8), (2, 7), (3, 2), (4, 4)])
def test_every_process_gets_as_many_batches_and_no_batch_is_given_twice_where_there_are_enough(
    world: int, count: int
) -> None:
    found = list(shares(world, count))
    assert len({len(batches) for batches in found}) == 1
    assert len(found[0]) == max(1, count // world)
    if count >= world:
        flat = [b for batches in found for b in batches]
        assert len(set(flat)) == len(flat)


def test_a_tiny_table_of_one_modality_can_be_learned() -> None:
    schema = Schema((Modality("only", "vector", (2,)),), Classification(("a", "b")))
    x = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.1, 0.9]])
    batch = Batch(("only",), {"only": x}, torch.ones(3, 1, dtype=torch.bool), torch.arange(3), torch.tensor([0, 1, 0]))
    data = Dataset(TensorSource(schema, batch))
    pipeline = build("mean_fusion", schema)
    trainer = fit(pipeline, Splits(data, data), epochs=30, lr=0.01, batch_size=64)
    assert trainer.history[-1]["loss/task"] < 0.5 * trainer.history[0]["loss/task"]
    assert trainer.history[-1]["val/accuracy"] == 1.0


# several nodes, and weights in pieces --------------------------------------------------------------------------------
NODES = """
    import hashlib, json, sys
    import torch
    from kintsugi.core.data import Splits
    from kintsugi.core.methods import create
    from kintsugi.testing.fixture import toy
    from kintsugi.training import stage_run
    from kintsugi.training.trainer import Trainer

    devices, nodes, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    data = toy(rows=96, dim=5)
    torch.manual_seed(0)
    pipeline = create("mmin", data.schema, dim=8)
    head = pipeline.model.task_head  # a batch norm: each process counts its own rows
    head.linear = torch.nn.Sequential(torch.nn.BatchNorm1d(head.linear.in_features), head.linear)

    plain = stage_run.validate

    def differing(*arguments):
        score, sign, metric = plain(*arguments)
        return score + torch.distributed.get_rank(), sign, metric  # as if the machines computed otherwise

    stage_run.validate = differing
    trainer = Trainer(epochs=4, batch_size=8, devices=devices, num_nodes=nodes, progress=False)
    trainer.fit(pipeline, Splits(*data.split()))
    state = pipeline.state_dict()
    digest = hashlib.sha256(b"".join(state[n].numpy().tobytes() for n in sorted(state))).hexdigest()
    said = dict(digest=digest, world=torch.distributed.get_world_size(), history=trainer.history)
    open(f"{folder}/{devices}x{nodes}.rank{torch.distributed.get_rank()}.json", "w").write(json.dumps(said))
"""
ELSEWHERE = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "GROUP_RANK", "LOCAL_RANK", "WORLD_SIZE")


def alone() -> dict[str, str]:
    """This process's environment without what a cluster says."""
    return {k: v for k, v in os.environ.items() if k not in ELSEWHERE} | {"OMP_NUM_THREADS": "1"}


def free_port() -> str:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


def start(script: Path, *arguments: object, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(script), *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=alone() | more, cwd=script.parent,
    )  # fmt: skip


@fabric
@pytest.mark.slow
def test_two_nodes_of_one_process_train_as_one_node_of_two(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(NODES))
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    started = [start(script, 1, 2, tmp_path, **where, NODE_RANK=str(i)) for i in range(2)]
    started.append(start(script, 2, 1, tmp_path))
    try:
        for process in started:
            out, _ = process.communicate(timeout=100)
            assert process.returncode == 0, out[-3000:]
    finally:
        for process in started:
            process.kill()
    said = [json.loads((tmp_path / f"{n}.rank{r}.json").read_text()) for n in ("1x2", "2x1") for r in (0, 1)]
    assert [s["world"] for s in said] == [2] * 4
    assert len({s["digest"] for s in said}) == 1
    assert said[:2] == said[2:]
    one, two = said[0]["history"], said[1]["history"]
    assert one[0]["loss/task"] != two[0]["loss/task"], "both have learned from the same rows"
    assert [r.get("val/accuracy") for r in one] == [r.get("val/accuracy") for r in two]


PIECES = """
    import json
    from pathlib import Path
    import torch
    from torch.distributed.tensor import DTensor
    from kintsugi.core.data import Splits
    from kintsugi.core.methods import create
    from kintsugi.training import checkpoint as saved
    from kintsugi.testing.fixture import toy
    from kintsugi.training.stage_run import StageRun
    from kintsugi.training.trainer import Trainer

    data = toy(rows=96, dim=5)
    splits = Splits(*data.split())
    settings = dict(epochs=4, batch_size=8, devices=2, progress=False)

    class Watched(Trainer):
        stop_at = net = None

    plain_update, plain_choose = StageRun._update, StageRun._choose

    def update(run, losses, batch, epoch, i):
        plain_update(run, losses, batch, epoch, i)
        if isinstance(run.trainer, Watched):
            run.trainer.sizes = [
                sum(t.to_local().numel() if isinstance(t, DTensor) else t.numel() for t in values)
                for values in (list(run.trainer.net.parameters()), [m["exp_avg"] for m in run.optimizer.state.values()])
            ]

    def choose(run, record):
        assert all(type(p) is torch.nn.Parameter and p.numel() for p in run.pipeline.parameters()), "not whole"
        if len(run.trainer.history) == getattr(run.trainer, "stop_at", None):
            raise KeyboardInterrupt
        plain_choose(run, record)

    StageRun._update, StageRun._choose = update, choose

    def trained(key, pipeline=None, stop_at=None, **more):
        torch.manual_seed(0)
        net = create(key, data.schema, dim=7 if key == "mean_fusion" else 8)  # 7: uneven pieces
        if trainer_rank():  # another start: the first process's counts
            with torch.no_grad():
                for p in net.parameters():
                    p.add_(1.0)
        held = list(net.parameters())
        trainer = Watched(**settings, **more)
        trainer.net, trainer.stop_at = net, stop_at
        try:
            trainer.fit(net, splits)
        except KeyboardInterrupt as stop:
            return trainer, stop.__notes__
        same = all(a is b for a, b in zip(held, net.parameters(), strict=True))
        return trainer, {n: t.clone() for n, t in net.state_dict().items()}, same

    def trainer_rank():
        return torch.distributed.get_rank() if torch.distributed.is_initialized() else RANK

    import os
    RANK = int(os.environ.get("LOCAL_RANK", 0))
    said = {}
    for key in ("mean_fusion", "smil"):
        whole, ddp, _ = trained(key, strategy="ddp")
        cut, fsdp, same = trained(key, strategy="fsdp")
        said[key] = dict(
            apart=max(float((ddp[n].double() - fsdp[n].double()).abs().max()) for n in ddp), same=same,
            whole=whole.sizes, pieces=cut.sizes, epochs=[len(whole.history), len(cut.history)],
            scores=[[r.get("val/accuracy") for r in t.history] for t in (whole, cut)],
            sum=float(sum(t.double().sum() for t in fsdp.values())),
        )
    folder = Path("checkpoint")
    notes = trained("mean_fusion", stop_at=2, strategy="fsdp", checkpoint=folder)[1]
    kept = saved.find(folder)
    resumed = trained("mean_fusion", strategy="fsdp", checkpoint=folder)[1]
    undisturbed = trained("mean_fusion", strategy="fsdp")[1]
    said["resume"] = dict(
        notes=notes, epoch=kept.position.epoch, equal=all(torch.equal(t, undisturbed[n]) for n, t in resumed.items()),
        moments=[list(t.shape) for n, t in kept.tensors.items() if n.endswith("exp_avg")],
    )
    mixed = trained("mean_fusion", strategy="fsdp", precision="bf16-mixed")[1]
    said["bf16"] = dict(kinds=sorted({str(t.dtype) for t in mixed.values()}),
                        finite=all(bool(torch.isfinite(t).all()) for t in mixed.values()))
    Path(f"rank{trainer_rank()}.json").write_text(json.dumps(said))
"""
UNLIKE = """
    from torch import nn
    from kintsugi.core.errors import ConfigError, NonFiniteLoss
    from kintsugi.training.devices import Devices

    def net():
        torch.manual_seed(0)
        return create("mean_fusion", data.schema, dim=8)

    def trainer(**more):
        return Trainer(epochs=2, batch_size=8, devices=2, progress=False, **more)

    # only one process finds a checkpoint
    class Stopped(Trainer):
        stop_at = 1

    try:
        Stopped(epochs=2, batch_size=8, devices=2, progress=False, checkpoint="0").fit(net(), splits)
    except KeyboardInterrupt:
        pass
    rank = torch.distributed.get_rank()
    try:
        again = trainer(checkpoint="0")
        again._name_run = lambda *given: "key"
        found = saved.find(Path("0"))
        found.position.key = "key"
        saved.find = lambda folder: found if rank == 0 else None
        again.fit(net(), splits)
    except ConfigError as error:
        assert "one that all nodes share" in str(error), error
        print("shared is right\\n", end="", flush=True)

    saved.find = lambda folder: None

    # what FSDP cannot cut
    odd = net()
    odd.model.gain = nn.Parameter(torch.tensor(1.0))
    try:
        trainer(strategy="fsdp").fit(odd, splits)
    except ConfigError as error:
        assert "'gain' of MeanFusion, which has no axis" in str(error), error
        print("axis is right\\n", end="", flush=True)

    # a failure in the middle
    StageRun._update = lambda run, losses, *rest: plain_update(
        run, {n: x * float("nan") for n, x in losses.items()}, *rest
    )
    try:
        Trainer(epochs=2, batch_size=8, devices=2, progress=False, strategy="fsdp").fit(net(), splits)
    except NonFiniteLoss as error:
        assert any("in pieces" in note for note in error.__notes__), error.__notes__
        print("pieces is right\\n", end="", flush=True)
    StageRun._update = plain_update

    # a parameter in two places, and layers that keep a list of theirs
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.r = nn.Linear(5, 5), nn.Linear(5, 5), nn.LSTM(5, 5, batch_first=True)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.r(self.b(self.a(x))[:, None])[0].square().mean()

    results = []
    for strategy in ("ddp", "fsdp"):
        at = Devices("cpu", 2, None, strategy)
        torch.manual_seed(0)
        tied = Tied()
        moving = list(tied.parameters())
        module, optimizer, wrapped = at.setup(tied, moving, lambda p: torch.optim.SGD(p, 0.1))
        rows = torch.randn(2, 6, 5)
        for _ in range(3):
            at.spread()
            at.backward(module(rows[at.rank]))
            wrapped.step()
            wrapped.zero_grad()
            at.gather(tied)
        assert tied.a.weight is tied.b.weight
        assert all(a is b for a, b in zip(tied.r._flat_weights, tied.r.parameters(), strict=True))
        results.append(torch.cat([p.detach().flatten() for p in tied.parameters()]))
    assert torch.allclose(*results, atol=1e-6), (results[0] - results[1]).abs().max()
    print("tied is right\\n", end="", flush=True)
"""


@fabric
@pytest.mark.slow
def test_weights_in_pieces_train_as_whole_ones_and_what_cannot_be_cut_is_refused(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(PIECES) + textwrap.dedent(UNLIKE))
    done = start(script)
    out, _ = done.communicate(timeout=150)
    assert done.returncode == 0, out[-3000:]
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    for key in ("mean_fusion", "smil"):
        one, two = ranks[0][key], ranks[1][key]
        assert one["apart"] < 1e-5
        assert one["sum"] == two["sum"]
        assert one["same"], "the parameters are others than before"
        assert one["scores"] == two["scores"]
        assert one["epochs"][0] == one["epochs"][1]
        for i in (0, 1):  # of the weights, of the optimiser's moments
            assert one["pieces"][i] + two["pieces"][i] == one["whole"][i]
            assert 0 < two["pieces"][i] <= one["pieces"][i] < one["whole"][i]
    resumed = ranks[0]["resume"]
    assert resumed["epoch"] == 2
    assert resumed["equal"]
    assert resumed["moments"]
    assert all(size != 0 for shape in resumed["moments"] for size in shape)
    assert "goes on from there" in resumed["notes"][0]
    for word in ("shared", "axis", "pieces", "tied"):  # said by both
        assert out.count(f"{word} is right") == 2, (word, out[-3000:])
    assert ranks[0]["bf16"] == {"kinds": ["torch.float32"], "finite": True}


def test_nodes_that_were_not_told_which_they_are_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    fabric = pytest.importorskip("lightning_fabric").Fabric
    monkeypatch.setattr(fabric, "launch", lambda self: pytest.fail("it would wait for the other node for ever"))
    for name in ELSEWHERE:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match=r"num_nodes=2, and MASTER_ADDR, MASTER_PORT, NODE_RANK are not set: start"):
        Devices("cpu", 1, None, None, 2)
    for name, value in (("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "1"), ("NODE_RANK", "2")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="NODE_RANK is 2; with num_nodes=2 it is 0 to 1"):
        Devices("cpu", 1, None, None, 2)


def test_strategies_that_do_not_work_here_are_refused_before_training() -> None:
    with pytest.raises(UnknownName, match=r"ddp_spawn.*ddp"):
        Trainer(strategy="ddp_spawn")
    with pytest.raises(ConfigError, match="'16-mixed' was not tried with strategy='fsdp'"):
        Trainer(strategy="fsdp", precision="16-mixed")
    data = splits()

    class Averaging(Spy):
        def on_update(self) -> None:
            pass

    with pytest.raises(ConfigError, match="Averaging looks at the weights after every step"):
        fit(Pipeline(Averaging(data.train.schema)), data, strategy="fsdp")


def test_a_checkpoint_belongs_to_an_encoder_of_one_structure_whatever_its_first_weights() -> None:
    data = splits()

    def name(activation: nn.Module) -> str:
        own = {"m0": nn.Sequential(nn.Linear(5, DIM), activation)}  # weights are drawn anew each time
        return Trainer(progress=False)._name_run(build("mean_fusion", data.train.schema, encoders=own), data)

    assert name(nn.ReLU()) == name(nn.ReLU())
    assert len({name(nn.ReLU()), name(nn.Tanh()), name(nn.Dropout(0.1)), name(nn.Dropout(0.2))}) == 4
