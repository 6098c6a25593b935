"""Threads and forks of one process: fits take turns, loads disturb nothing, draws beside a fit are said, no child hangs.

And what a training leaves that a loss ended which was not finite, or that diverges.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import kintsugi as kg
from kintsugi.core.batch import Batch
from kintsugi.core.data import Splits
from kintsugi.core.errors import ConfigError, NonFiniteLoss
from kintsugi.core.locks import ThreadLock
from kintsugi.core.methods import METHODS, create
from kintsugi.core.model import Model
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.prediction import Step
from kintsugi.core.randomness import DrawWatch, fork_rng_in_turn, private_draws
from kintsugi.data.table_source import TableSource
from kintsugi.io import saved_models
from kintsugi.testing.fixture import toy
from kintsugi.training.stage_run import GROWN, LEAST_LOSS
from kintsugi.training.trainer import Trainer

SECONDS = 20.0  # within which what must not hang has ended


def frame(rows: int = 48) -> pd.DataFrame:
    random = np.random.default_rng(3)
    return pd.DataFrame({
        "dose": random.normal(size=rows), "clinic": random.choice(["north", "south"], rows),
        "note": random.choice(["went home", "stays in bed", ""], rows), "y": np.resize(["a", "b"], rows),
    })  # fmt: skip


def table(rows: int = 48, **options: Any) -> kg.Table:
    readers = {"chart": kg.tabular(["dose", "clinic"], categories=["clinic"]), "note": kg.text("note")}
    return kg.Table.from_pandas(frame(rows), modalities=readers, target="y", **options)


def weights_of(model: kg.Classifier) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in model.pipeline_.state_dict().items()}


def are_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(t, other[name]) for name, t in one.items())


def classifier(method: str = "mmin", **options: Any) -> kg.Classifier:
    return kg.Classifier(method, **{"epochs": 2, "batch_size": 8, "progress": False, **options})


@contextmanager
def beside(work: Callable[[], object]) -> Iterator[None]:
    """The work again and again in another thread."""
    stop = threading.Event()

    def loop() -> None:
        while not stop.is_set():
            work()

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


# turns --------------------------------------------------------------------------------------------------------------
def test_fits_at_once_give_the_weights_of_fits_one_by_one() -> None:
    data = table()
    seeds = [0, 1, 0]
    alone = {seed: weights_of(classifier(seed=seed).fit(data, data)) for seed in set(seeds)}
    with ThreadPoolExecutor(3) as pool:
        at_once = list(pool.map(lambda seed: weights_of(classifier(seed=seed).fit(data, data)), seeds))
    assert [are_equal(found, alone[seed]) for seed, found in zip(seeds, at_once, strict=True)] == [True] * 3
    assert not are_equal(alone[0], alone[1])


def test_costs_and_loads_beside_a_fit_leave_it_as_it_is_and_nothing_is_said_of_them(tmp_path: Path) -> None:
    data = table()
    first = classifier().fit(data, data)
    first.save(tmp_path / "model")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with beside(lambda: kg.load(tmp_path / "model")):
            second = classifier().fit(data, data)
    assert are_equal(weights_of(second), weights_of(first))


def test_a_fit_waits_for_another_thread_that_has_its_turn_and_a_thread_does_not_wait_for_itself() -> None:
    order: list[str] = []

    def other() -> None:
        with fork_rng_in_turn():
            order.append("other")

    with fork_rng_in_turn():
        thread = threading.Thread(target=other)
        thread.start()
        with fork_rng_in_turn():
            order.append("inner")
        time.sleep(0.1)
        order.append("outer")
    thread.join(SECONDS)
    assert order == ["inner", "outer", "other"]


def _count(key: str) -> int:
    """Three modalities, or as many as the method takes."""
    return min(3, METHODS.card(key).modalities[1] or 3)


# loading ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("key", sorted(METHODS))
def test_loading_a_method_neither_draws_from_the_global_generator_nor_sets_it(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fork_rng_in_turn():
        torch.manual_seed(5)
        pipeline = create(key, toy(next(iter(METHODS.card(key).tasks)), modalities=_count(key)).schema)
    saved_models.save(pipeline, tmp_path / "model")

    def touched(*_: Any, **__: Any) -> None:
        raise AssertionError("the global generator was touched")

    before = torch.get_rng_state()
    for name in ("set_rng_state", "seed", "manual_seed"):
        monkeypatch.setattr(torch.random, name, touched)
    loaded, _ = saved_models.load(tmp_path / "model")
    assert torch.equal(torch.get_rng_state(), before)
    state = pipeline.state_dict()
    assert all(torch.equal(t, state[name]) for name, t in loaded.state_dict().items())


@pytest.mark.parametrize(
    "draw",
    [
        lambda: torch.rand(3), lambda: torch.randn(2, 2), lambda: torch.randn_like(torch.zeros(3)), lambda: torch.randperm(5),
        lambda: torch.randint(9, (4,)), lambda: torch.randint(3, 9, (4,)), lambda: torch.empty(3).uniform_(-1, 1),
        lambda: torch.empty(3).normal_(), lambda: torch.nn.Linear(3, 4).weight.detach(),
        lambda: torch.bernoulli(torch.ones(3) / 2),
        lambda: torch.nn.init.orthogonal_(torch.empty(3, 3)), lambda: torch.nn.init.trunc_normal_(torch.empty(8)),
        lambda: torch.multinomial(torch.ones(6), 2), lambda: torch.normal(torch.zeros(3), 1.0),
        lambda: torch.empty(4).exponential_(),
        lambda: torch.nn.LSTM(2, 3).weight_hh_l0.detach(), lambda: torch.nn.Embedding(3, 2).weight.detach(),
        lambda: torch.nn.functional.dropout(torch.ones(16)),
    ],
)  # fmt: skip
def test_private_draws_are_those_of_their_seed_and_leave_the_global_generator(draw: Callable[[], Tensor]) -> None:
    before = torch.get_rng_state()
    with private_draws():
        one = draw()
    assert torch.equal(torch.get_rng_state(), before)
    if draw().numel() != 16:  # dropout takes no generator: it has its turn with the global one
        torch.rand(7)
        with private_draws():
            again = draw()
        with private_draws(1):
            other = draw()
        assert torch.equal(one, again)
        assert one.numel() <= 3 or not torch.equal(one, other)


def test_private_draws_hold_in_their_thread_alone() -> None:
    before = torch.get_rng_state()
    with private_draws(), ThreadPoolExecutor(1) as pool:
        pool.submit(torch.rand, 3).result()
    moved = torch.get_rng_state()
    assert not torch.equal(moved, before)


# draws beside a fit -------------------------------------------------------------------------------------------------
class Drawing(Model):
    """Draws in its own step, as dropout does, and lets somebody else draw in the backward pass."""

    def __init__(self, schema: Any, elsewhere: Callable[[], object] | None = None) -> None:
        super().__init__(schema, 8)
        self.elsewhere = elsewhere

    def step(self, batch: Batch) -> Step:
        total = super().step(batch).total * (1 + 0.5 * torch.rand(()))
        if self.elsewhere is not None:
            total.register_hook(lambda gradient: self._another_thread())
        return Step({"task": total})

    def _another_thread(self) -> None:
        thread = threading.Thread(target=self.elsewhere)
        thread.start()
        thread.join()


def fitted(elsewhere: Callable[[], object] | None = None, **options: Any) -> Pipeline:
    train, val, test = toy(rows=72, dim=5).split()
    with fork_rng_in_turn():
        torch.manual_seed(0)
        pipeline = Pipeline(Drawing(train.schema, elsewhere))
    Trainer(**{"epochs": 2, "batch_size": 8, "progress": False, **options}).fit(pipeline, Splits(train, val, test))
    return pipeline


@pytest.mark.parametrize(
    "elsewhere", [lambda: torch.rand(1), lambda: torch.manual_seed(9), lambda: torch.nn.Linear(2, 2)]
)
@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_draw_of_another_thread_is_said_once_and_undone(elsewhere: Callable[[], object], accumulate: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alone = fitted(accumulate=accumulate).state_dict()
    with pytest.warns(UserWarning, match="drew from torch's global random generator") as told:
        disturbed = fitted(elsewhere, accumulate=accumulate).state_dict()
    assert len(told) == 1
    assert "'train', epoch 1" in str(told[0].message)
    assert are_equal(disturbed, alone)


def test_rows_that_draw_when_they_are_read_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    data = table(cache=0)
    original = TableSource.read

    def read(self: TableSource, rows: Tensor) -> Batch:
        torch.rand(1)
        return original(self, rows)

    monkeypatch.setattr(TableSource, "read", read)
    monkeypatch.setattr(kg.Dataset, "in_memory", lambda self, *_: self)
    with pytest.warns(UserWarning, match="rows that draw when they are read"):
        classifier("mean_fusion", epochs=1).fit(data, data)


@pytest.mark.parametrize("key", sorted(METHODS))
def test_nothing_is_said_of_a_method_of_ones_own(key: str) -> None:
    train, val, test = toy(next(iter(METHODS.card(key).tasks)), 64, _count(key), 5).split()
    with fork_rng_in_turn():
        torch.manual_seed(0)
        pipeline = create(key, train.schema)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        Trainer(epochs=1, batch_size=16, progress=False).fit(pipeline, Splits(train, val, test))
    assert [str(w.message) for w in told if "global random generator" in str(w.message)] == []


def test_a_watch_sees_draws_and_seeds_and_nothing_else() -> None:
    watch = DrawWatch(torch.device("cpu"))
    assert not watch.end(put_back=True)  # it was not begun
    with fork_rng_in_turn():
        for act, drawn in ((lambda: torch.zeros(3), False), (lambda: torch.rand(1), True), (torch.seed, True)):
            watch.begin()
            act()
            assert watch.end(put_back=False) is drawn
            torch.rand(1)
            assert not watch.end(put_back=True)  # what is drawn after the end counts no more
        watch.begin()
        before = torch.get_rng_state()
        torch.rand(1)
        assert watch.end(put_back=True)
        assert torch.equal(torch.get_rng_state(), before)


# forks --------------------------------------------------------------------------------------------------------------
def ends(pid: int) -> bool:
    """Does a child end by itself, without an error?"""
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status == 0
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return False


def child(work: Callable[[], object]) -> int:
    """Number of a forked process that does the work."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return pid


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")


@forks
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("cache", [0, 4096, 1 << 20])
def test_a_forked_child_reads_a_table_that_another_thread_reads_and_gets_the_same_rows(cache: int) -> None:
    torch.set_num_threads(1)  # OpenMP itself does not outlive a fork
    cells = np.empty(64, dtype=object)
    for row in range(64):
        cells[row] = [float(row)] * 500
    data = kg.Table.from_pandas(
        pd.DataFrame({"c": cells, "y": np.arange(64.0)}), modalities={"m": kg.vector("c")}, target="y", cache=cache
    )
    rows = torch.arange(0, 64, 3)

    def look() -> None:
        for _ in range(3):
            read = data.batch(rows).inputs["m"][:, 0]
            if not torch.equal(read, rows.float()):
                raise AssertionError

    random = np.random.default_rng(0)
    with beside(lambda: data.batch(torch.from_numpy(random.permutation(64)))):
        found = []
        for wait in random.uniform(0, 0.01, 12):
            time.sleep(wait)
            found.append(ends(child(look)))
    assert found == [True] * 12


@forks
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_that_is_forked_beside_a_fit_can_have_a_turn() -> None:
    held, done = threading.Event(), threading.Event()

    def other() -> None:
        with fork_rng_in_turn():
            held.set()
            done.wait(SECONDS)

    thread = threading.Thread(target=other)
    thread.start()
    assert held.wait(SECONDS)

    def turn() -> None:
        with fork_rng_in_turn():
            pass

    try:
        assert ends(child(turn))
    finally:
        done.set()
        thread.join()


@forks
def test_a_lock_stays_with_the_thread_that_forks_and_its_guard_is_called_for_others_alone() -> None:
    torn: list[int] = []
    lock = ThreadLock(torn=lambda: torn.append(1))

    def inside() -> None:
        with lock:
            pass
        if torn:
            raise AssertionError

    with lock:
        assert ends(child(inside))
    assert ends(child(inside))
    assert not torn


# losses that are not finite, or grow --------------------------------------------------------------------------------
class Fails(Model):
    """Its loss is not finite from the first batch of an epoch on, counted from 0."""

    def __init__(self, schema: Any, epoch: int) -> None:
        super().__init__(schema, 8)
        self.fails = epoch

    def step(self, batch: Batch) -> Step:
        total = super().step(batch).total
        return Step({"task": total * (math.nan if self.clock.epoch >= self.fails else 1.0)})


def stopped(epoch: int, **options: Any) -> tuple[Trainer, Pipeline, Splits, NonFiniteLoss | None]:
    train, val, test = toy(rows=96, dim=5).split()
    data = Splits(train, val, test)
    with fork_rng_in_turn():
        torch.manual_seed(0)
        pipeline = Pipeline(Fails(train.schema, epoch))
    trainer = Trainer(**{"epochs": 6, "batch_size": 16, "lr": 0.02, "progress": False, **options})
    try:
        trainer.fit(pipeline, data)
    except NonFiniteLoss as error:
        return trainer, pipeline, data, error
    return trainer, pipeline, data, None


def answers(pipeline: Pipeline, data: Splits) -> Tensor:
    with torch.no_grad():
        return pipeline.eval()(data.test.batch(torch.arange(len(data.test)))).output


def test_the_best_epoch_before_a_loss_that_is_not_finite_can_be_had() -> None:
    trainer, pipeline, data, error = stopped(4)
    assert error is not None
    scores = [record["val/accuracy"] for record in trainer.history]
    assert len(scores) == 4
    assert any("keep_best()" in note and f"{max(scores):.4g}" in note for note in error.__notes__)
    assert trainer.keep_best() is pipeline
    best = max(range(4), key=lambda epoch: (scores[epoch], epoch))  # of equal ones the later
    # the same training, with the epochs after the best one forbidden to change anything
    whole, other, _, none = stopped(99, patience=None)
    assert none is None
    assert [record["val/accuracy"] for record in whole.history][:4] == scores
    kept: list[Tensor] = []
    for epochs in range(1, 5):
        twin, twin_pipeline, _, _ = stopped(epochs)
        twin.keep_best()
        kept.append(answers(twin_pipeline, data))
    assert torch.equal(answers(pipeline, data), kept[3])
    assert torch.equal(kept[best], kept[3])
    assert float((answers(pipeline, data).argmax(1) == data.test.target).float().mean()) > 0.5
    assert other is not pipeline


@pytest.mark.parametrize(
    ("epoch", "options"), [(0, {}), (3, {"select": False})], ids=["in the first epoch", "not validated"]
)
def test_where_no_epoch_was_chosen_there_is_none_to_keep(epoch: int, options: dict[str, Any]) -> None:
    trainer, _, _, error = stopped(epoch, **options)
    assert error is not None
    assert any("No epoch" in note for note in error.__notes__)
    with pytest.raises(ConfigError, match="no best epoch to keep"):
        trainer.keep_best()


def test_a_fit_that_ends_well_leaves_nothing_to_keep() -> None:
    trainer, _, _, error = stopped(99)
    assert error is None
    with pytest.raises(ConfigError, match="no best epoch to keep"):
        trainer.keep_best()


def test_an_estimator_answers_with_the_best_epoch_and_keeps_a_former_fit_until_it_is_asked_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = table()
    model = classifier("mean_fusion", epochs=4, lr=0.01).fit(data, data)
    before = model.predict_proba(data)
    with pytest.raises(ConfigError, match="no best epoch to keep"):
        model.keep_best()
    original = Model.step

    def step(self: Model, batch: Batch) -> Step:
        found = original(self, batch)
        return Step({"task": found.total * math.inf}) if self.clock.epoch == 3 else found

    monkeypatch.setattr(Model, "step", step)
    model.lr = 0.05
    with pytest.raises(NonFiniteLoss) as told:
        model.fit(data, data)
    assert any("keep_best()" in note for note in told.value.__notes__)
    assert np.array_equal(model.predict_proba(data), before)
    after = model.keep_best().predict_proba(data)
    assert not np.array_equal(after, before)
    assert np.isfinite(after).all()
    with pytest.raises(ConfigError, match="no best epoch to keep"):
        model.keep_best()


def test_a_resumed_training_comes_to_the_error_without_the_epochs_before_and_has_their_best(tmp_path: Path) -> None:
    _, first, data, error = stopped(4, checkpoint=tmp_path / "state")
    assert error is not None
    trainer, pipeline, _, again = stopped(4, checkpoint=tmp_path / "state")
    assert again is not None
    assert again.epoch == error.epoch
    trainer.keep_best()
    plain, undisturbed, _, _ = stopped(4)
    plain.keep_best()
    assert torch.equal(answers(pipeline, data), answers(undisturbed, data))
    assert first is not pipeline


class Growing(Model):
    """Its loss in a batch is that of a list."""

    def __init__(self, schema: Any, values: list[float]) -> None:
        super().__init__(schema, 8)
        self.values, self.steps = values, 0

    def step(self, batch: Batch) -> Step:
        total = super().step(batch).total
        value = self.values[min(self.steps, len(self.values) - 1)]
        self.steps += 1
        return Step({"task": total * 0 + value})


@pytest.mark.parametrize(
    ("start", "later", "is_said"),
    [
        (1.0, GROWN * 1.01, True),
        (1.0, GROWN * 0.99, False),
        (4.0, 4.0 * GROWN * 1.01, True),
        (4.0, 4.0 * GROWN * 0.99, False),
        (-1.0, GROWN * 1.01, True),
        (0.0, LEAST_LOSS * GROWN * 1.01, True),
        (0.0, LEAST_LOSS * GROWN * 0.99, False),
        (1.0, -1e9, False),
    ],
)
def test_a_loss_that_grows_a_thousandfold_is_said_once_with_its_numbers(
    start: float, later: float, is_said: bool
) -> None:
    train, val, test = toy(rows=48, dim=5).split()
    batches = len(train) // 16
    pipeline = Pipeline(Growing(train.schema, [start] * batches + [later]))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        Trainer(epochs=4, batch_size=16, progress=False).fit(pipeline, Splits(train, val, test))
    texts = [str(w.message) for w in told if "training diverges" in str(w.message)]
    assert len(texts) == int(is_said)
    for text in texts:
        assert f"was {start:.4g} in its first batch and {later:.4g} in the mean of epoch 2" in text
        assert "learning rate (0.001)" in text
