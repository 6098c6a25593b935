"""The small data that promises are tried on, and pipelines that were trained on it, each training run once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import combinations
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kintsugi.core.batch import Batch
from kintsugi.core.card import Card
from kintsugi.core.component import Component
from kintsugi.core.data import Splits
from kintsugi.core.methods import build_ablation, build_pipeline
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.prediction import Prediction
from kintsugi.core.schema import Schema
from kintsugi.data.dataset import Dataset, TensorSource
from kintsugi.testing.fixture import Fixture
from kintsugi.testing.shelf import SHELF
from kintsugi.testing.toys import LARGEST, MIXED, ROWS, mixed
from kintsugi.training.stage_run import Losses
from kintsugi.training.trainer import Trainer

__all__ = [
    "ROWS", "Run", "ask", "build", "data_for", "everything", "experienced", "fitted", "mixed", "run_of", "same", "subsets",
    "tasks_of", "train",
]  # fmt: skip

HIDDEN = 0.1  # share of slots, of steps and of labels that with_missing hides
FEWER = 72  # training rows of a second fit, of 96

# What a run is trained on: the table as it is; the same again; the same with other things in absent slots and unseen steps
# ("poison"), under what with_missing hides ("hidden"), or both; fewer rows of it.
Variant = Literal["plain", "again", "poison", "hidden", "both", "fewer"]


# data -------------------------------------------------------------------------------------------------------------------
def tasks_of(cls: type[Component]) -> tuple[str, ...]:
    """Keys of the tasks that a method says it solves."""
    card: Card = cls.card
    return card.tasks


def data_for(cls: type[Component], task: str | None = None, **options: Any) -> Dataset:
    """Mixed data for one of the card's tasks (default: the first), with as many modalities as the card allows.

    For the first task these are image, text, table and series, for others table, series and vector.
    """
    card: Card = cls.card
    least, most = card.modalities
    task = task or card.tasks[0]
    if task == card.tasks[0]:
        return mixed(task, modalities=max(least, min(4, most or 4)), **options)
    count = max(least, min(3, most or 3))
    return mixed(task, kinds=tuple(sorted(MIXED[-count:], key=MIXED.index)), **options)


def _hidden(data: Dataset) -> Dataset:
    """Less to see: a tenth of the slots, of the steps of what is read step by step, and of the labels."""
    from kintsugi.imperfect.missing import labels, mcar, steps

    stepped = tuple(everything(data).mask)
    data = data.with_missing(mcar(HIDDEN), seed=0)
    data = data.with_missing(steps(HIDDEN, of=stepped), seed=1) if stepped else data
    return data.with_missing(labels(HIDDEN), seed=2)


def table_of(cls: type[Component], task: str, poisoned: bool = False, other: bool = False) -> Dataset:
    """Mixed data with holes of its own, of which with_missing hides some more.

    Args:
        cls: a method. task: key.
        poisoned: NaN, or ids out of range, stand in absent slots and unseen cells.
        other: other values, and other labels, stand under what is hidden.
    """
    data = data_for(cls, task, absent=0.15, poison=poisoned)
    shown = _hidden(data)
    return _hidden(_with_other_values(data, everything(shown))) if other else shown


def _with_other_values(data: Dataset, shown: Batch) -> Dataset:
    """The same data, but for what ``shown`` does not show: values and labels of other rows, moved away."""
    whole = everything(data)
    inputs = {}
    for column, name in enumerate(whole.names):
        x = whole.inputs[name]
        hidden = whole.present[:, column] & ~shown.present[:, column]
        gone = hidden.view(-1, *[1] * (x.ndim - 1)).expand_as(x)
        if name in whole.mask:
            steps = whole.mask[name] & ~shown.mask[name]
            gone = gone | steps.view(*steps.shape, *[1] * (x.ndim - 2)).expand_as(x)
        elsewhere = x.roll(1, 0)
        moved = elsewhere * 0.5 + 7.0 if x.is_floating_point() else elsewhere.clamp(max=LARGEST) % 200 + 1
        usable = torch.where(torch.isfinite(moved), moved, 7.0) if x.is_floating_point() else moved
        inputs[name] = torch.where(gone, usable, x)
    target, labelled = whole.target, shown.target_present
    if target is not None and labelled is not None:
        target = torch.where(labelled.view(-1, *[1] * (target.ndim - 1)), target, target.roll(1, 0))
    source = TensorSource(data.schema, replace(whole, inputs=inputs, target=target), data.name)
    source._fingerprint = data.source.fingerprint  # what is hidden is not to be seen by anything
    source.split = data.source.split
    return Dataset(source)


def everything(data: Dataset) -> Batch:
    """All rows in one batch."""
    return data.batch(torch.arange(len(data)))


def subsets(names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Every non-empty subset."""
    for size in range(1, len(names) + 1):
        yield from combinations(names, size)


# training ---------------------------------------------------------------------------------------------------------------
def train(pipeline: Pipeline, data: Dataset, epochs: int = 1, **options: Any) -> Trainer:
    """A short fit; the trainer with its history is returned."""
    trainer = Trainer(epochs=epochs, batch_size=48, progress=False, **options)
    train_rows, val, test = data.split()
    trainer.fit(pipeline, Splits(train_rows, val, test))
    return trainer


def build(cls: type[Component], schema: Schema, ablated: bool | str = False, **hyper: Any) -> Pipeline:
    """An untrained pipeline, always from the same random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if ablated:
            return build_ablation(cls, schema, ablated if isinstance(ablated, str) else "", **hyper)
        return build_pipeline(cls, schema, **hyper)


class Reach:
    """Notes which losses reach parameters, and which parameters of a pipeline are reached.

    pipeline: untrained; its parameters are held on to, since a training may let go of some.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.reached: dict[tuple[str, str], bool] = {}
        self.touched: set[int] = set()
        self.trainable = {name: p for name, p in pipeline.named_parameters() if p.requires_grad}
        self.rare: list[str] = []
        self.idle_patterns: list[str] = []
        for path, component in pipeline.named_components():
            for pattern in component.rare:
                matched = [f"{path}.{n}" for n, _ in component.named_parameters() if fnmatchcase(n, pattern)]
                self.rare += matched
                self.idle_patterns += [f"{pattern!r} of {type(component).__name__}"] * (not matched)

    def __call__(self, seen: Losses) -> None:
        for name, loss in seen.losses.items():
            hit = _reached(loss, seen.moving)
            key = (seen.stage.name, name)
            self.reached[key] = self.reached.get(key, False) or bool(hit)
            self.touched |= hit

    @property
    def idle(self) -> list[str]:
        """Losses that reach no parameter."""
        return [f"{name} of stage {stage}" for (stage, name), hit in self.reached.items() if not hit]

    @property
    def still(self) -> list[str]:
        """Trainable parameters that no loss reaches, but for those that few rows reach."""
        return [name for name, p in self.trainable.items() if id(p) not in self.touched and name not in self.rare]


def _reached(loss: Tensor, moving: list[nn.Parameter]) -> set[int]:
    if not loss.requires_grad:
        return set()
    grads = torch.autograd.grad(loss, moving, retain_graph=True, allow_unused=True)
    return {id(p) for p, g in zip(moving, grads, strict=True) if g is not None and bool(g.any())}


@dataclass
class Run:
    """A short training on mixed data with holes, and what can be said of it.

    pipeline: trained, without what answers do not need; data: what it was trained on; history: of the trainer.
    first: of the first task of the card. reach: which losses reached which parameters; only of the plain table.
    """

    pipeline: Pipeline
    data: Dataset
    history: list[dict[str, Any]]
    first: bool
    reach: Reach | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    def note(self, name: str, make: Callable[[], Any]) -> Any:
        """Something that several promises ask of this run, worked out once."""
        if name not in self.notes:
            self.notes[name] = make()
        return self.notes[name]


def run_of(
    cls: type[Component], task: str | None = None, ablated: bool | str = False, variant: Variant = "plain"
) -> Run:
    """The run of a method, or of its ablation, on a variant of its data; each is run once."""
    task = task or tasks_of(cls)[0]
    hashable: Any = cls  # which a type checker doubts of modules
    return SHELF.get(hashable, ("mixed", task, ablated, variant), lambda: _run(cls, task, ablated, variant))


def _run(cls: type[Component], task: str, ablated: bool | str, variant: Variant) -> Run:
    data = table_of(cls, task, variant in ("poison", "both"), variant in ("hidden", "both"))
    pipeline = build(cls, data.schema, ablated)
    trainer = Trainer(epochs=1, batch_size=48, progress=False)
    reach = Reach(pipeline) if variant == "plain" and cls.card.gradient else None
    if reach is not None:
        trainer.observers.append(reach)
    train_rows, val, test = data.split()
    if variant == "fewer":
        train_rows = train_rows.subset(torch.arange(FEWER))
    trainer.fit(pipeline, Splits(train_rows, val, test))
    return Run(pipeline, data, trainer.history, task == tasks_of(cls)[0], reach)


def fitted(cls: type[Component], ablated: bool | str = False, task: str | None = None) -> Pipeline:
    """Trained for one epoch on mixed data with holes; the same one for every promise."""
    return run_of(cls, task, ablated).pipeline


def experienced(
    cls: type[Component], ablated: bool | str = False, task: str | None = None, epochs: int = 12
) -> Pipeline:
    """Trained on the toy of :class:`~kintsugi.testing.fixture.Fixture`, with 12 epochs long enough to have learned it."""
    return Fixture(cls, ablated, epochs, task=task).trained()


# answers ----------------------------------------------------------------------------------------------------------------
@torch.no_grad()
def ask(pipeline: Pipeline, batch: Batch) -> Prediction:
    """An answer in evaluation mode; of a pipeline that adapts, from its calibrated state, to which it is led back."""
    pipeline.eval()
    if not pipeline.adapts:
        answer: Prediction = pipeline(batch)
        return answer
    pipeline.reset()
    answer = pipeline(batch)
    pipeline.reset()
    return answer


def same(one: Tensor, other: Tensor) -> bool:
    """Equal bit for bit; NaN equals NaN."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if not one.is_floating_point():
        return torch.equal(one, other)
    return bool(((one == other) | (torch.isnan(one) & torch.isnan(other))).all())
