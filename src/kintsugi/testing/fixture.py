"""A small world for a method to show its mechanism in: seconds of training, nothing to download."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kintsugi.core.batch import Batch
from kintsugi.core.card import Card
from kintsugi.core.component import Component
from kintsugi.core.data import Splits
from kintsugi.core.methods import build_ablation, build_pipeline
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.schema import Modality, Schema, Task
from kintsugi.data.dataset import Dataset, TensorSource
from kintsugi.tasks import Classification, Multilabel, Regression
from kintsugi.training.sampling import generator
from kintsugi.training.trainer import Trainer


def toy(task: str = "classification", rows: int = 480, modalities: int = 3, dim: int = 8, seed: int = 0) -> Dataset:
    """Vectors around one random centre a class: each modality tells most of the label, all together nearly all of it.

    The first 2/3 of the rows are for training, then 1/6 each for validation and test, as ``split()`` gives them.
    """
    noise = generator("toy", seed)
    label = torch.arange(rows) % 4
    label = label[torch.randperm(rows, generator=noise)]
    centres = torch.randn(modalities, 4, dim, generator=noise)
    inputs = {
        f"m{i}": centres[i, label] + 1.1 * torch.randn(rows, dim, generator=noise) for i in range(modalities)
    }  # fmt: skip
    kinds: dict[str, tuple[Task, Tensor]] = {
        "classification": (Classification(("a", "b", "c", "d")), label),
        "multilabel": (Multilabel(("low", "odd")), torch.stack([label < 2, label % 2 == 1], 1).float()),
        "regression": (Regression(("value",), (1.5,), (1.1,), (0.5, 1.5, 2.5)), label.float()),
    }
    chosen, target = kinds[task]
    names = tuple(inputs)
    schema = Schema(tuple(Modality(name, "vector", (dim,)) for name in names), chosen)
    present = torch.ones(rows, modalities, dtype=torch.bool)
    source = TensorSource(schema, Batch(names, inputs, present, torch.arange(rows), target), "toy")
    parts = torch.arange(rows).split([rows * 2 // 3, rows // 6, rows - rows * 2 // 3 - rows // 6])
    source.split = dict(zip(("train", "val", "test"), parts, strict=True))
    return Dataset(source)


@dataclass
class Fixture:
    """What a method's ``mechanism`` gets: a method class, with its mechanism on or ablated, and data to try it on."""

    method: type[Component]
    ablated: bool = False
    epochs: int = 12
    hyper: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        card: Card = self.method.card
        task = next(t for t in ("classification", "multilabel", "regression") if t in card.tasks)
        least, most = card.modalities
        self.data = toy(task, modalities=min(3, most or 3) if least <= 3 else least)
        self.splits = Splits(*self.data.split())
        self.schema = self.data.schema

    def pipeline(self, **hyper: Any) -> Pipeline:
        """Untrained."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            chosen = {**self.hyper, **hyper}
            if self.ablated:
                return build_ablation(self.method, self.schema, **chosen)
            return build_pipeline(self.method, self.schema, **chosen)

    def trained(self, **hyper: Any) -> Pipeline:
        """Trained on the toy's training rows."""
        return self.train(self.pipeline(**hyper))

    def train(self, pipeline: Pipeline) -> Pipeline:
        """This pipeline, trained on the training rows as they now are; what only training needs is still there."""
        trainer = Trainer(epochs=self.epochs, lr=3e-3, batch_size=64, seed=self.seed, progress=False)
        return trainer.fit(pipeline, self.splits, strip=False)

    def batch(self, rows: int = 32, part: str = "test") -> Batch:
        """Complete rows."""
        data = getattr(self.splits, part)
        batch: Batch = data.batch(torch.arange(rows))
        return batch
