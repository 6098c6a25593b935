"""Golden numbers of methods: first losses of every stage, and answers after a short training on toy data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from kintsugi.contract import ask, build, mixed
from kintsugi.core.batch import Batch
from kintsugi.core.card import Card
from kintsugi.core.data import Splits
from kintsugi.core.errors import ConfigError
from kintsugi.core.part import Part
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.schema import Task
from kintsugi.core.stage import Stage
from kintsugi.data.dataset import Dataset
from kintsugi.testing.golden_numbers import Numbers
from kintsugi.testing.golden_parts import TOYS
from kintsugi.training.lab import toy
from kintsugi.training.trainer import Trainer

ROWS, ANSWERED = 144, 20
# Enough updates that a wrong gradient shows in the answers (a live teacher instead of a frozen one moves those of mmin by
# 5e-3), few enough that rounding does not (other instruction sets move them by 1e-5). The last epoch is kept, since the
# choice of an epoch by a metric may fall otherwise after the smallest movement.
SHORT: Mapping[str, Any] = MappingProxyType(
    {"epochs": 4, "batch_size": 24, "lr": 3e-3, "select": False, "progress": False}
)


class FirstLosses(Trainer):
    """Trains, and notes the named losses of the first update of every stage, teachers' stages too, in ``first``."""

    def start(self) -> FirstLosses:
        self.first: dict[str, Mapping[str, Numbers]] = {}
        self._names: Counter[str] = Counter()
        self._noted = 0
        return self

    def _update(self, losses: dict[str, Tensor], batch: Batch, stage: Stage, *rest: Any) -> None:
        if self._run != self._noted:  # the first update of this stage
            self._noted = self._run
            self._names[stage.name] += 1
            again = self._names[stage.name]
            name = f"stage {stage.name}" + (f" {again}" if again > 1 else "")
            self.first[name] = {f"loss {term}": float(loss.detach()) for term, loss in losses.items()}
        super()._update(losses, batch, stage, *rest)


def toys(card: Card) -> dict[str, Dataset]:
    """Name -> data: for each task of the card vectors, and image + text + table with holes; as many as the card takes.

    Raises:
        ConfigError: there are no toys for the tasks of the card.
    """
    least, most = card.modalities
    count = max(least, min(3, most or 3))
    found: dict[str, Dataset] = {}
    for task in TOYS:
        if task in card.tasks:
            found[f"{task} on vectors"] = toy(task, rows=ROWS, modalities=count)
            if count <= 4:  # there are no more kinds in it
                found[f"{task} on image, text and table"] = mixed(task, absent=0.3, modalities=count)
    if not found:
        raise ConfigError(
            f"golden numbers: there is no toy for {card.key}, which solves {', '.join(sorted(card.tasks))}; "
            f"there are toys for {', '.join(TOYS)}"
        )
    return found


def method_numbers(cls: type[Part]) -> Numbers:
    """Task and toy -> stage -> named loss of the first update, and ``answers`` for twenty rows with holes."""
    return {name: trained(cls, data) for name, data in toys(cls.card).items()}


def trained(cls: type[Part], data: Dataset) -> Mapping[str, Numbers]:
    """The same for one data set. ``answers``: probabilities, or values in deviations of the target, ``[20, ...]``."""
    pipeline = build(cls, data.schema)
    train, val, test = data.split()
    trainer = FirstLosses(**SHORT).start()
    trainer.fit(pipeline, Splits(train, val, test))
    return {**trainer.first, "answers": answers(pipeline, with_holes(test))}


def with_holes(data: Dataset, rows: int = ANSWERED) -> Batch:
    """The first rows: the first keeps nothing, the others every subset of the modalities that is not empty, in turn."""
    batch: Batch = data.batch(torch.arange(rows))
    subset = 1 + (torch.arange(rows) - 1) % (2 ** len(batch.names) - 1)
    subset[0] = 0
    digits = subset[:, None] >> torch.arange(len(batch.names))[None]
    return batch.where(digits % 2 == 1)


def answers(pipeline: Pipeline, batch: Batch) -> list[Numbers]:
    """What a user reads, with values of a regression in deviations of the target: ``[B, ...]`` as a list."""
    task: Task = pipeline.schema.task
    values = task.probabilities(ask(pipeline, batch).output)
    spread = getattr(task, "scale", None)
    if spread is not None:
        values = values.reshape(len(batch), -1) / values.new_tensor(spread)
    listed: list[Numbers] = values.tolist()
    return listed
