"""A small world for a method to show its mechanism in: seconds of training, nothing to download."""

from __future__ import annotations

import copy
from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from kintsugi.core.batch import Batch
from kintsugi.core.card import Card
from kintsugi.core.component import Component
from kintsugi.core.data import Splits
from kintsugi.core.methods import build_ablation, build_pipeline
from kintsugi.core.pipeline import Pipeline
from kintsugi.testing.shelf import SHELF
from kintsugi.testing.toys import toy
from kintsugi.training.trainer import Trainer

__all__ = ["Fixture", "blind", "toy"]
TOLD = ("data", "splits", "schema", "epochs", "seed", "task", "pipeline", "trained", "train", "batch", "world")


@dataclass
class Fixture:
    """What the claims of a method get: its class, with its mechanism on or ablated, and data to try it on.

    Args:
        method: the class. ablated: without its mechanism; a name: without that one of several, as ``ablations`` has it.
        epochs: of training. hyper: arguments of the method. seed: of its weights and of training.
        task: key; default: the first of the card.
        kind, holes, correlated, rows: of the data, as in :func:`~kintsugi.testing.toys.toy`; 480 complete rows of vectors.
        modalities: how many; default: three, or as near to that as the card allows.
    """

    method: type[Component]
    ablated: bool | str = False
    epochs: int = 12
    hyper: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    task: str | None = None
    kind: str = "vector"
    holes: float = 0.0
    correlated: bool = False
    modalities: int | None = None
    rows: int = 480

    def __post_init__(self) -> None:
        card: Card = self.method.card
        least, most = card.modalities
        if self.task is None:
            self.task = card.tasks[0]
        if self.modalities is None:
            self.modalities = min(3, most or 3) if least <= 3 else least
        self.data = toy(
            self.task, self.rows, self.modalities, kind=self.kind, holes=self.holes, correlated=self.correlated
        )
        self.splits = self._own_splits = Splits(*self.data.split())
        self.schema = self.data.schema

    def world(
        self, *, kind: str = "vector", holes: float = 0.0, correlated: bool = False, task: str | None = None,
        modalities: int | None = None, rows: int = 480,
    ) -> Fixture:  # fmt: skip
        """The same method with other data: a fixture of its own, with its own schema, splits and trainings.

        Args:
            kind, holes, correlated, rows: as in :func:`~kintsugi.testing.toys.toy`.
            task, modalities: default: those of this fixture.
        """
        return replace(
            self, kind=kind, holes=holes, correlated=correlated, rows=rows, task=task or self.task,
            modalities=modalities or self.modalities,
        )  # fmt: skip

    def pipeline(self, **hyper: Any) -> Pipeline:
        """Untrained."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            chosen = {**self.hyper, **hyper}
            if self.ablated:
                part = self.ablated if isinstance(self.ablated, str) else ""
                return build_ablation(self.method, self.schema, part, **chosen)
            return build_pipeline(self.method, self.schema, **chosen)

    def trained(self, **hyper: Any) -> Pipeline:
        """Trained on the toy's training rows. A copy of one's own: each training is run once."""
        if self.splits is not self._own_splits:  # rows that nobody else has
            return self.train(self.pipeline(**hyper))
        cls: Any = self.method
        kept = SHELF.get(cls, self._training(hyper), lambda: self.train(self.pipeline(**hyper)))
        return copy.deepcopy(kept)

    def is_trained(self) -> bool:
        """Was this very training run already?"""
        cls: Any = self.method
        return self.splits is self._own_splits and SHELF.holds(cls, self._training({}))

    def _training(self, hyper: dict[str, Any]) -> Hashable:
        world = (self.task, self.kind, self.holes, self.correlated, self.modalities, self.rows)
        return "toy", self.ablated, self.epochs, self.seed, repr({**self.hyper, **hyper}), *world

    def train(self, pipeline: Pipeline) -> Pipeline:
        """This pipeline, trained on the training rows as they now are; what only training needs is still there."""
        trainer = Trainer(epochs=self.epochs, lr=3e-3, batch_size=64, seed=self.seed, progress=False)
        return trainer.fit(pipeline, self.splits, strip=False)

    def batch(self, rows: int = 32, part: str = "test") -> Batch:
        """The first rows of a part; complete ones where the world has no holes."""
        data = getattr(self.splits, part)
        batch: Batch = data.batch(torch.arange(rows))
        return batch


def blind(fixture: Fixture) -> _Blind:
    """The same fixture for those who state claims: it does not tell whether the mechanism is there, which is to be measured."""
    return _Blind(fixture)


class _Blind:
    """Gives and takes what :class:`kintsugi.core.fixture.Fixture` names, and nothing else."""

    def __init__(self, fixture: Fixture) -> None:
        object.__setattr__(self, "_fixture", fixture)

    def world(self, **world: Any) -> _Blind:
        return _Blind(self._fixture.world(**world))

    def __getattr__(self, name: str) -> Any:
        if name not in TOLD:
            raise AttributeError(
                f"a fixture does not tell {name!r} to those who state claims; it has {', '.join(TOLD)}"
            )
        return getattr(self._fixture, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in TOLD:
            raise AttributeError(f"a fixture has no {name!r} to set; it has {', '.join(TOLD)}")
        setattr(self._fixture, name, value)
