"""The promises that every method keeps, as checks that anyone can run on a method of their own.

``check_method("my_method")`` runs them all; each is a function of the method class that raises ``AssertionError``.
They choose what to do by the card, never by the name.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kintsugi.core.batch import Batch
from kintsugi.core.card import Card
from kintsugi.core.data import Splits
from kintsugi.core.errors import KintsugiError
from kintsugi.core.methods import METHODS, arguments, switched_off
from kintsugi.core.part import Part
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.prediction import Prediction
from kintsugi.core.schema import Modality, Schema
from kintsugi.core.stage import Stage
from kintsugi.data.dataset import Dataset, TensorSource
from kintsugi.tasks import Classification, Multilabel, Regression
from kintsugi.training.lab import Lab, toy
from kintsugi.training.sampling import generator
from kintsugi.training.trainer import Trainer

ROWS = 144


@cache
def mixed(task: str, absent: float = 0.0, poison: bool = False, modalities: int = 3) -> Dataset:
    """Image, text with padding, table with unseen cells, vector: the first ``modalities`` of them, some slots absent.

    ``poison``: NaN (or ids out of range) wherever nothing may be read: absent slots and unseen cells.
    """
    noise = generator("mixed")
    label = torch.arange(ROWS) % 3
    image = 0.5 * torch.rand(ROWS, 1, 8, 8, generator=noise)
    image[torch.arange(ROWS), 0, label] += 0.5
    text = torch.randint(1, 200, (ROWS, 16), generator=noise)
    text[:, 0] = 30 + label
    length = torch.randint(4, 17, (ROWS,), generator=noise)
    cells = torch.randn(ROWS, 4, generator=noise) + label[:, None]
    cells[:, 3] = label + 1.0
    seen = torch.rand(ROWS, 4, generator=noise) > 0.2
    seen[:, 0] = True
    inputs = {
        "image": image,
        "text": text,
        "table": cells,
        "vector": torch.randn(ROWS, 5, generator=noise) + label[:, None],
    }
    mask = {"text": torch.arange(16) < length[:, None], "table": seen}
    kinds = (
        Modality("image", "image", (1, 8, 8)),
        Modality("text", "text", (16,), vocab=257),
        Modality("table", "tabular", (4,), categories=(0, 0, 0, 3)),
        Modality("vector", "vector", (5,)),
    )[:modalities]
    tasks = {
        "classification": (Classification(("a", "b", "c")), label),
        "multilabel": (Multilabel(("x", "y")), torch.stack([label > 0, label > 1], 1).float()),
        "regression": (Regression(("v",), (1.0,), (0.8,), (0.5, 1.5)), label.float()),
    }
    chosen, target = tasks[task]
    names = tuple(m.name for m in kinds)
    present = torch.rand(ROWS, 4, generator=noise)[:, : len(names)] >= absent
    present[:, 0] |= ~present.any(1)
    present[:12] = True
    inputs = {name: inputs[name].clone() for name in names}
    mask = {name: m.clone() for name, m in mask.items() if name in names}
    for column, name in enumerate(names):
        x, gone = inputs[name], ~present[:, column]
        x[gone] = (10**6 if name == "text" else torch.nan) if poison else 0
        if name in mask:
            unseen = ~mask[name] & present[:, column, None]
            x[unseen] = (10**6 if name == "text" else torch.nan) if poison and name == "table" else 0
            mask[name] &= present[:, column, None]
    source = TensorSource(
        Schema(kinds, chosen), Batch(names, inputs, present, torch.arange(ROWS), target, mask=mask), "mixed"
    )
    source._fingerprint = f"mixed-{task}-{absent}"  # the poison is not to be seen by anything
    parts = torch.arange(ROWS).split([ROWS * 2 // 3, ROWS // 6, ROWS // 6])
    source.split = dict(zip(("train", "val", "test"), parts, strict=True))
    return Dataset(source)


def data_for(cls: type[Part], **options: Any) -> Dataset:
    """The mixed data in the task and number of modalities that the card allows."""
    card: Card = cls.card
    task = next(t for t in ("classification", "multilabel", "regression") if t in card.tasks)
    return mixed(task, modalities=min(3, card.modalities[1] or 3), **options)


def train(pipeline: Pipeline, data: Dataset, epochs: int = 1, **options: Any) -> Trainer:
    """A short fit; the trainer with its history is returned."""
    trainer = Trainer(epochs=epochs, batch_size=48, progress=False, **options)
    train_rows, val, test = data.split()
    trainer.fit(pipeline, Splits(train_rows, val, test))
    return trainer


def build(cls: type[Part], schema: Schema, off: bool = False, **hyper: Any) -> Pipeline:
    """An untrained pipeline, always from the same random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return switched_off(cls, schema, **hyper) if off else cls.pipeline(schema, **hyper)


def fitted(cls: type[Part], off: bool = False) -> Pipeline:
    """Trained for one epoch on mixed data with holes."""
    return _fitted(cls.card.key, off)


@cache
def _fitted(key: str, off: bool) -> Pipeline:
    cls = METHODS[key]
    data = data_for(cls, absent=0.3)
    pipeline = build(cls, data.schema, off)
    train(pipeline, data)
    return pipeline


@torch.no_grad()
def ask(pipeline: Pipeline, batch: Batch) -> Prediction:
    """An answer in evaluation mode."""
    return pipeline.eval().answer(batch)


def everything(data: Dataset) -> Batch:
    """All rows in one batch."""
    return data.batch(torch.arange(len(data)))


def subsets(names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Every non-empty subset."""
    for size in range(1, len(names) + 1):
        yield from combinations(names, size)


# the promises ------------------------------------------------------------------------------------------------------
def no_leak(cls: type[Part]) -> None:
    """1. What stands in absent slots and unseen cells changes nothing: weights, losses and answers, bit for bit."""
    results = []
    for poison in (False, True):
        data = data_for(cls, absent=0.3, poison=poison)
        pipeline = build(cls, data.schema)
        trainer = train(pipeline, data)
        results.append((pipeline.state_dict(), trainer.history, ask(pipeline, everything(data)).output))
    for name, tensor in results[0][0].items():
        assert torch.equal(tensor, results[1][0][name]), f"{name} was trained on what is absent"
    assert results[0][1] == results[1][1], "a loss reads what is absent"
    assert torch.equal(results[0][2], results[1][2]), "an answer reads what is absent"


def every_subset(cls: type[Part], off: bool = False) -> None:
    """2. Finite, task-shaped answers for every subset; the prior, and nothing used, for a row with nothing."""
    data = data_for(cls)
    pipeline = fitted(cls, off)
    batch = everything(data)
    task = data.schema.task
    for kept in subsets(data.schema.names):
        answer = ask(pipeline, batch.only(*kept))
        assert answer.output.shape == (len(batch), task.outputs), f"with {kept}: shape {list(answer.output.shape)}"
        assert bool(torch.isfinite(answer.output).all()), f"with {kept}: not finite"
        assert not bool((answer.used & ~batch.only(*kept).present).any()), f"with {kept}: used what is absent"
    empty = ask(pipeline, batch.only())
    assert not bool(empty.used.any())
    prior = task.prior(data.split()[0])
    assert torch.allclose(empty.output, prior.expand_as(empty.output), atol=1e-5), (
        "a row with nothing does not get the prior"
    )


def alone_or_together(cls: type[Part]) -> None:
    """3. A row's answer depends neither on its batch nor on the order of rows or of dictionaries."""
    pipeline = fitted(cls)
    batch = everything(data_for(cls, absent=0.3))
    together = ask(pipeline, batch).output
    turned = ask(pipeline, batch.rows(torch.arange(len(batch)).flip(0))).output.flip(0)
    shuffled = replace(batch, inputs=dict(reversed(batch.inputs.items())), mask=dict(reversed(batch.mask.items())))
    single = torch.cat([ask(pipeline, batch.rows(torch.tensor([i]))).output for i in range(24)])
    for name, other, reference in (
        ("the order of rows", turned, together),
        ("the order of dictionaries", ask(pipeline, shuffled).output, together),
        ("the batch", single, together[:24]),
    ):
        assert torch.allclose(other, reference, rtol=1e-4, atol=1e-5), f"an answer depends on {name}"


class _Watch(Trainer):
    """Notes which losses reach parameters, and which parameters are reached."""

    def watch(self) -> _Watch:
        self.reached: dict[tuple[str, str], bool] = {}
        self.touched: set[int] = set()
        return self

    def _update(self, losses: dict[str, Tensor], batch: Batch, stage: Stage, *rest: Any) -> None:
        moving = rest[5]
        for name, loss in losses.items():
            grads = (
                torch.autograd.grad(loss, moving, retain_graph=True, allow_unused=True) if loss.requires_grad else []
            )
            hit = {id(p) for p, g in zip(moving, grads, strict=False) if g is not None and bool(g.any())}
            self.reached[stage.name, name] = self.reached.get((stage.name, name), False) or bool(hit)
            self.touched |= hit
        super()._update(losses, batch, stage, *rest)


def every_loss_trains(cls: type[Part], off: bool = False) -> None:
    """4. Over all stages each named loss reaches a parameter, and no trainable parameter is left without gradient."""
    if not cls.card.gradient:
        return
    data = data_for(cls, absent=0.3)
    pipeline = build(cls, data.schema, off)
    names = {id(p): n for n, p in pipeline.named_parameters() if p.requires_grad}
    watch = _Watch(epochs=2, batch_size=48, progress=False).watch()
    watch.fit(pipeline, Splits(*data.split()))
    idle = [f"{stage}: {name}" for (stage, name), hit in watch.reached.items() if not hit]
    assert not idle, f"losses that reach no parameter: {idle}"
    still = [name for key, name in names.items() if key not in watch.touched]
    assert not still, f"trainable parameters without gradient: {still}"


def seeded(cls: type[Part]) -> None:
    """5. The same seed gives the same weights, bit for bit."""
    data = data_for(cls, absent=0.3)
    again = build(cls, data.schema)
    train(again, data)
    for name, tensor in fitted(cls).state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), f"{name} differs between two runs of one seed"


def round_trip(cls: type[Part], folder: Path) -> Tensor:
    """6, first half: saved, with the answers on rows with holes that the loaded model must give in another process."""
    from kintsugi.core.store import save

    pipeline = fitted(cls)
    save(pipeline, folder)
    return ask(pipeline, everything(data_for(cls, absent=0.3))).output


def learns(cls: type[Part], off: bool = False) -> None:
    """7. On a small task it beats the prior's guess by a margin, within seconds."""
    lab = Lab(cls, off)
    pipeline = _trained(cls.card.key, off)
    batch = everything(lab.splits.test)  # type: ignore[arg-type]
    task = lab.schema.task
    answer = task.probabilities(ask(pipeline, batch).output)
    assert batch.target is not None
    if task.key == "classification":
        score, guess, margin = float((answer.argmax(1) == batch.target).float().mean()), 0.25, 0.3
    elif task.key == "multilabel":
        score, guess, margin = float(((answer > 0.5) == batch.target.bool()).float().mean()), 0.5, 0.2
    else:
        score, guess, margin = 1 - float((answer - batch.target).var() / batch.target.var()), 0.0, 0.3
    assert score > guess + margin, f"{score:.3f} against {guess} by guessing"


@cache
def _trained(key: str, off: bool) -> Pipeline:
    return Lab(METHODS[key], off).trained()


def has_its_mechanism(cls: type[Part]) -> None:
    """8. Its own test of its defining property passes, and fails with the mechanism switched off."""
    mechanism = cls.mechanism  # type: ignore[attr-defined]
    mechanism(Lab(cls))
    try:
        mechanism(Lab(cls, off=True))
    except AssertionError:
        return
    raise AssertionError("the mechanism test passes on `off` too, so it tests nothing")


def off_is_sound(cls: type[Part]) -> None:
    """8, second half: what is left without the mechanism is still a model: promises 2, 4 and 7."""
    every_subset(cls, off=True)
    every_loss_trains(cls, off=True)
    learns(cls, off=True)


class _FirstSteps(Trainer):
    """One batch of each stage, without a step."""

    def start(self) -> _FirstSteps:
        self.seen: list[tuple[str, str, float]] = []
        return self

    def _update(self, losses: dict[str, Tensor], batch: Batch, stage: Stage, *rest: Any) -> None:
        self.seen += [(stage.name, name, float(loss.detach())) for name, loss in losses.items()]


def _look(cls: type[Part], schema: Schema, data: Dataset, hyper: dict[str, Any]) -> tuple[Any, ...]:
    """What an argument can change: shapes, stages, losses of first steps, limits that monitors calibrate."""
    pipeline = build(cls, schema, **hyper)
    shapes = tuple((n, tuple(t.shape)) for n, t in pipeline.state_dict().items())
    stages = tuple(map(repr, pipeline.plan()))
    steps = _FirstSteps(epochs=1, batch_size=ROWS, progress=False).start()
    steps.fit(pipeline, Splits(*data.split()))
    limits = tuple(float(b.double().nan_to_num().sum()) for m in pipeline.monitors for b in m.buffers())
    answers = float(ask(pipeline, everything(data)).output.double().abs().sum())
    return shapes, stages, tuple(steps.seen), limits, answers


def no_argument_ignored(cls: type[Part]) -> None:
    """9. Every constructor argument changes shapes, stages, first losses or calibration, or is refused."""
    data = data_for(cls, absent=0.3)
    usual = _look(cls, data.schema, data, {})
    for name, default in arguments(cls).items():
        assert default is not inspect.Parameter.empty, f"argument {name} has no default"
        changed, refused = False, 0
        for value in _others(default, len(data.schema)):
            try:
                changed = _look(cls, data.schema, data, {name: value}) != usual
            except KintsugiError:
                refused += 1
            if changed or (refused and isinstance(default, str)):
                break
        assert changed or (refused and isinstance(default, str)), f"argument {name} is ignored"


def _others(default: Any, modalities: int) -> list[Any]:
    if isinstance(default, bool):
        return [not default]
    if isinstance(default, int):
        return [default + 1, default * 2, max(1, default - 1), max(1, default // 2)]
    if isinstance(default, float):
        return [default * 0.5, default * 3 + 0.1]
    if isinstance(default, str):
        return ["no such thing"]
    return [[1.0] + [0.5] * (modalities - 1), 2, 0.5]


def cached_is_naive(cls: type[Part]) -> None:
    """10. The evaluator with its cache of features answers as the plain sweep does."""
    from kintsugi.evaluation import get_protocol, predict_conditions

    pipeline = fitted(cls)
    data = data_for(cls, absent=0.3).split()[2]
    conditions = get_protocol("standard(3)", data.schema).conditions
    for fast, plain in zip(
        predict_conditions(pipeline, data, conditions, cache=True, chunk=13),
        predict_conditions(pipeline, data, conditions, cache=False, chunk=24),
        strict=True,
    ):
        gap = float((fast.probabilities - plain.probabilities).abs().max())
        assert gap < 1e-5, f"condition {fast.condition.name}: the cache is off by {gap:.2g}"
        assert torch.equal(fast.used, plain.used), f"condition {fast.condition.name}: other modalities are used"


def says_what_it_is(cls: type[Part]) -> None:
    """11. The card is complete and true where that can be seen."""
    card: Card = cls.card
    assert METHODS[card.key] is cls
    assert Path(inspect.getfile(cls)).stem in (
        card.key,
        Path(inspect.getfile(cls)).stem if "preset" in vars(cls) else card.key,
    )
    assert cls.__doc__, "the class has no docstring"
    assert "Args" in cls.__doc__ or set(arguments(cls)) <= {"dim"}, "its arguments are not explained"
    for name in arguments(cls):
        if name not in ("dim",):
            assert name in cls.__doc__, f"argument {name} is not explained"
    assert hasattr(cls, "off"), "no off"
    assert card.check
    assert math.isfinite(len(card.simplified))


CHECKS: dict[str, Callable[[type[Part]], None]] = {
    f.__name__: f
    for f in (
        no_leak, every_subset, alone_or_together, every_loss_trains, seeded, learns, has_its_mechanism, off_is_sound,
        no_argument_ignored, cached_is_naive, says_what_it_is,
    )
}  # fmt: skip


def check_method(key: str) -> None:
    """Run every promise on one registered method; the first that is broken raises.

    The round trip through a fresh process is the one promise that needs a folder: see :func:`round_trip`.
    """
    for check in CHECKS.values():
        check(METHODS[key])


__all__ = ["CHECKS", "check_method", "data_for", "everything", "round_trip", "toy"]
