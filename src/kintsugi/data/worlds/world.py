"""What a world is: how its rows are made, the two rules that show its premise, and the data set with its optimum."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch

from kintsugi.core.batch import Batch
from kintsugi.core.schema import Modality, Schema
from kintsugi.data.dataset import Dataset, TensorSource
from kintsugi.data.factors import LABEL_NOISE
from kintsugi.data.worlds.law import CHANNELS, STEPS, Kind, Law
from kintsugi.tasks import Classification, Regression

TaskName = Literal["classification", "regression"]
PARTS = ("train", "val", "test")
FEWEST = 2  # rows of a part that can be scored: R² needs a variance


@dataclass(frozen=True)
class Ask:
    """What was asked of a world, checked and with its defaults filled in.

    rows: of training, validation and test. own: options that this world has and others do not.
    """

    strength: float
    seed: int
    task: TaskName
    kind: Kind
    modalities: int
    classes: int
    rows: tuple[int, int, int]
    own: Mapping[str, Any] = field(default_factory=dict)

    def rng(self, of: int) -> np.random.Generator:
        """Random numbers of one purpose: 0 of the law, 1 of rows, 2 of numbers to predict, 3 of the auxiliary table, 4 of a
        rule's own."""
        return np.random.default_rng([self.seed, of])

    def part(self, name: str) -> slice:
        """Where the rows of a part stand among all."""
        ends = np.cumsum((0, *self.rows))
        place = PARTS.index(name)
        return slice(int(ends[place]), int(ends[place + 1]))

    @property
    def levels(self) -> np.ndarray:
        """The numbers of mean 0 and variance 1 that classes stand for in regression, ``[C]``."""
        c = self.classes
        numbers: np.ndarray = (np.arange(c) - (c - 1) / 2) / np.sqrt((c**2 - 1) / 12)
        return numbers


@dataclass(frozen=True)
class Made:
    """The rows of a world: training, validation and test, one after the other.

    x: modalities as they are seen, ``[M, N, P]``; what stands in an absent slot is never handed on.
    clean: the same were nothing corrupted; y: right classes ``[N]``; given: the label that the table says, ``[N]``.
    present: bool ``[N, M]``; labelled: bool ``[N]``; trusted: bool ``[N]`` or None.
    law: of the test rows as they are; whole: of the same rows were nothing missing or corrupted.
    parts: name -> bool over test rows. auxiliary: ``[M, A, P]``, complete and without labels.
    """

    ask: Ask
    x: np.ndarray
    clean: np.ndarray
    y: np.ndarray
    given: np.ndarray
    present: np.ndarray
    labelled: np.ndarray
    law: Law
    whole: Law
    parts: Mapping[str, np.ndarray] = field(default_factory=dict)
    trusted: np.ndarray | None = None
    auxiliary: np.ndarray | None = None

    @cached_property
    def target(self) -> np.ndarray:
        """What the table says: classes, or numbers with noise of 0.2, ``[N]``."""
        if self.ask.task == "classification":
            return self.given
        noise: np.ndarray = LABEL_NOISE * self.ask.rng(2).normal(size=len(self.given))
        return self.ask.levels[self.given] + noise

    def wide(self, rows: np.ndarray | slice) -> np.ndarray:
        """The target of some rows as least squares learn it: a column a class ``[R, C]``, or the number ``[R, 1]``."""
        target = self.target[rows]
        return np.eye(self.ask.classes)[target] if self.ask.task == "classification" else target[:, None]

    def score(self, answer: np.ndarray, rows: np.ndarray | None = None) -> float:
        """Accuracy of scores ``[n, C]``, or R² of numbers ``[n, 1]``, on the test rows or some of them (bool ``[n]``).

        Where the target is a number, ``[n, C]`` are probabilities, and their mean is the answer.
        """
        target = self.target[self.ask.part("test")]
        if rows is not None:
            answer, target = answer[rows], target[rows]
        if self.ask.task == "classification":
            return float((answer.argmax(1) == target).mean())
        number = answer @ self.ask.levels if answer.shape[1] > 1 else answer[:, 0]
        return float(1 - ((number - target) ** 2).mean() / target.var())

    def best(self, law: Law, x: np.ndarray | None = None, present: np.ndarray | None = None) -> np.ndarray:
        """P(class | test row) by this law, ``[n, C]``; on the rows as they are unless others are given."""
        test = self.ask.part("test")
        x = self.x[:, test] if x is None else x
        present = self.present[test] if present is None else present
        return law.posterior(x, present)


@dataclass(frozen=True)
class World:
    """One premise as data: where it holds, a mechanism that rests on it has something to gain.

    premise: the name, of ``kintsugi.core.card.WORLDS``; title: in a few words; what: what makes it a world of this premise.
    made: how its rows are made; control: beside what a gain has to be seen; rules: what the two oracles do.
    draw: makes the rows. judge: scores of the oracle without and with the premise.
    modalities, classes, rows: what it has unless asked otherwise; fewest: modalities that it can be asked for.
    own: its own options and their defaults.
    tasks: that it can be asked for. margin: with the premise the oracle is ahead at strength 1; a control has none.
    relies: the oracle with the premise takes it for granted, and so falls behind where it does not hold.
    """

    premise: str
    title: str
    what: str
    made: str
    control: str
    rules: str
    draw: Callable[[Ask], Made]
    judge: Callable[[Made], tuple[float, float]]
    modalities: int = 3
    fewest: int = 2
    classes: int = 4
    rows: tuple[int, int, int] = (600, 500, 2000)
    own: Mapping[str, Any] = field(default_factory=dict)
    tasks: tuple[TaskName, ...] = ("classification", "regression")
    margin: bool = True
    relies: bool = True


def dataset(world: World, made: Made) -> Dataset:
    """The rows as a data set, with what can be reached in its ``note``."""
    ask, total = made.ask, len(made.y)
    rows = {name: torch.arange(total)[ask.part(name)] for name in PARTS}
    data = Dataset(_source(made, made.x, made.present, made.target, made.labelled, rows))
    seen = made.best(made.law)
    parts = {name: rows for name, rows in made.parts.items() if rows.sum() >= FEWEST}
    everything = made.best(made.whole, made.clean[:, ask.part("test")], np.ones_like(made.present[ask.part("test")]))
    data.note.update(
        metric="accuracy" if ask.task == "classification" else "r2",
        chance=1 / ask.classes if ask.task == "classification" else 0.0,
        optimum=made.score(seen),
        optimum_full=made.score(everything),
        parts={name: torch.from_numpy(np.flatnonzero(here)) for name, here in parts.items()},
        optimum_parts={name: made.score(seen, here) for name, here in parts.items()},
        premise=world.premise,
        strength=ask.strength,
    )
    if made.auxiliary is not None:
        count = made.auxiliary.shape[1]
        nothing = np.zeros(count, dtype=made.target.dtype)
        unlabelled, full = np.zeros(count, dtype=bool), np.ones((count, ask.modalities), dtype=bool)
        data.note["auxiliary"] = Dataset(
            _source(made, made.auxiliary, full, nothing, unlabelled, None, data.schema, "worlds auxiliary")
        )
    return data


def _source(
    made: Made,
    x: np.ndarray,
    present: np.ndarray,
    target: np.ndarray,
    labelled: np.ndarray,
    split: dict[str, torch.Tensor] | None,
    schema: Schema | None = None,
    name: str = "worlds",
) -> TensorSource:
    ask = made.ask
    shape = (x.shape[2],) if ask.kind == "vector" else (STEPS, CHANNELS)
    names = tuple(f"m{m + 1}" for m in range(len(x)))
    values = torch.from_numpy(target) if ask.task == "classification" else torch.from_numpy(target).float()
    there = torch.from_numpy(labelled)
    if schema is None:
        assert split is not None
        known = values[split["train"]][there[split["train"]]]
        task = (
            Classification([str(c) for c in range(ask.classes)])
            if ask.task == "classification"
            else Regression.fitted(known)
        )
        schema = Schema(tuple(Modality(each, ask.kind, shape) for each in names), task)
    shown = np.where(present.T[:, :, None], x, 0.0)  # nothing of an absent slot is left
    inputs = {each: torch.from_numpy(shown[m]).float().reshape(-1, *shape) for m, each in enumerate(names)}
    batch = Batch(
        names,
        inputs,
        torch.from_numpy(present),
        torch.arange(len(present)),
        torch.where(there, values, torch.zeros_like(values)),
        there,
    )
    source = TensorSource(schema, batch, name)
    if split is not None:
        source.split = split
        source.trusted = None if made.trusted is None else torch.from_numpy(made.trusted)
    return source
