"""The small data that promises are tried on, and pipelines that were trained on it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import combinations
from typing import Any

import torch

from kintsugi.core.batch import Batch
from kintsugi.core.card import Card
from kintsugi.core.component import Component
from kintsugi.core.data import Splits
from kintsugi.core.methods import build_ablation, build_pipeline
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.prediction import Prediction
from kintsugi.core.schema import Modality, Schema
from kintsugi.data.dataset import Dataset, TensorSource
from kintsugi.tasks import Classification, Multilabel, Regression
from kintsugi.testing.fixture import Fixture
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


def data_for(cls: type[Component], **options: Any) -> Dataset:
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


def build(cls: type[Component], schema: Schema, ablated: bool = False, **hyper: Any) -> Pipeline:
    """An untrained pipeline, always from the same random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_ablation(cls, schema, **hyper) if ablated else build_pipeline(cls, schema, **hyper)


def fitted(cls: type[Component], ablated: bool = False) -> Pipeline:
    """Trained for one epoch on mixed data with holes; the same one for every promise."""
    hashable: Any = cls  # which a type checker doubts of modules
    return _fitted(hashable, ablated)


@cache
def _fitted(cls: Any, ablated: bool) -> Pipeline:
    data = data_for(cls, absent=0.3)
    pipeline = build(cls, data.schema, ablated)
    train(pipeline, data)
    return pipeline


@torch.no_grad()
def ask(pipeline: Pipeline, batch: Batch) -> Prediction:
    """An answer in evaluation mode."""
    return pipeline.eval()(batch)


def everything(data: Dataset) -> Batch:
    """All rows in one batch."""
    return data.batch(torch.arange(len(data)))


def subsets(names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Every non-empty subset."""
    for size in range(1, len(names) + 1):
        yield from combinations(names, size)


def experienced(cls: type[Component], ablated: bool = False) -> Pipeline:
    """Trained on the toy of :class:`~kintsugi.testing.fixture.Fixture`, long enough to have learned it."""
    hashable: Any = cls
    return _experienced(hashable, ablated)


@cache
def _experienced(cls: Any, ablated: bool) -> Pipeline:
    return Fixture(cls, ablated).trained()
