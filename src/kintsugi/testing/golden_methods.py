"""Golden numbers of methods: what they answer untrained, first losses of every stage, and answers after a short training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch

from kintsugi.core.batch import Batch
from kintsugi.core.card import Card
from kintsugi.core.component import Component
from kintsugi.core.data import Splits
from kintsugi.core.errors import ConfigError, KintsugiError
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.schema import Schema, Task
from kintsugi.data.dataset import Dataset, TensorSource
from kintsugi.imperfect.missing import parse_mechanism
from kintsugi.tasks import Classification
from kintsugi.testing import ask, build, mixed
from kintsugi.testing.fixture import toy
from kintsugi.testing.golden_numbers import UNTRAINED, Numbers
from kintsugi.testing.golden_parts import TOYS
from kintsugi.training.sampling import generator
from kintsugi.training.stage_run import Losses
from kintsugi.training.trainer import Trainer

ROWS, ANSWERED, FEW = 144, 20, 8
SHAKEN = 0.05  # standard deviation of what is added to weights that nobody trained, so that none of them stays zero
# Enough updates that a wrong gradient shows in the answers (a live teacher instead of a frozen one moves those of mmin by
# 5e-3), few enough that rounding does not (other instruction sets move them by 1e-5). The last epoch is kept, since the
# choice of an epoch by a metric may fall otherwise after the smallest movement.
SHORT: Mapping[str, Any] = MappingProxyType(
    {"epochs": 4, "batch_size": 24, "lr": 3e-3, "select": False, "progress": False}
)
# Epochs of those whose answers hardly tell rows apart after four: what they learn passes through narrow codes.
LONGER: Mapping[str, int] = MappingProxyType({"mctn": 12})

# Values besides the usual one of arguments that are text or may be None; numbers of every method have one of each.
OTHER_ARGUMENTS: Mapping[str, tuple[Mapping[str, Any], ...]] = MappingProxyType(
    {
        "admn": ({"budget": 5},),
        "centaur": (
            {"damage": "bursts"},
            {"damage": "noise"},
            {"damage": "none"},
            {"output": "fill"},
            {"attention": "sensor"},
        ),
        "corruption_augmentation": (
            {
                "corruption": "correlated(feature_noise(m0, 3), feature_dropout(m1, 3, fill=zero), share=0.5, coupling=0.5)"
            },
        ),
        "discom": ({"robust": 1.0}, {"search": "fast"}),
        "early_fusion": ({"fill": "mean"}, {"fill": "zero"}),
        "emmr": ({"selection": "uniform"},),
        "kd_mm": ({"weights": (0.6, 0.3, 0.1)},),
        "late_fusion": ({"merge": "mean"},),
        "m3care": ({"form": "sum"},),
        "mctn": ({"source": "m1"},),
        "missing_aware_prompts": ({"inject": "attention"},),
        "optimus": ({"adjust": "m2"}, {"candidates": ("chained", "knn2")}),
        "sha_spec": ({"general": "first"}, {"general": "zero"}),
        "tip": ({"table": "m1"},),
        "transmodality": ({"anchor": "m1"}, {"decoder_query": "target"}),
        "vqa_cycle": ({"question": "m0"}, {"gate": "cosine"}, {"gate": "none"}),
    }
)


class FirstLosses:
    """An observer of training: the named losses of the first update of every stage, teachers' stages too."""

    def __init__(self) -> None:
        self.first: dict[str, Mapping[str, Numbers]] = {}
        self._names: Counter[str] = Counter()
        self._noted = -1

    def __call__(self, seen: Losses) -> None:
        if seen.run == self._noted:
            return
        self._noted = seen.run
        self._names[seen.stage.name] += 1
        again = self._names[seen.stage.name]
        name = f"stage {seen.stage.name}" + (f" {again}" if again > 1 else "")
        self.first[name] = {f"loss {term}": float(loss.detach()) for term, loss in seen.losses.items()}


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


def uneven(card: Card) -> Dataset:
    """Vectors with holes, one number that hardly varies, and classes of different weight where the card has classes."""
    least, most = card.modalities
    names = toys(card)
    data = toy(next(iter(names)).split()[0], rows=ROWS, modalities=max(least, min(3, most or 3)))
    batch: Batch = data.batch(torch.arange(ROWS))
    first = batch.inputs[batch.names[0]].clone()
    first[:, 0] = 0.5 + 0.003 * first[:, 0]
    task = data.schema.task
    if isinstance(task, Classification):
        task = Classification(task.names, (2.0, 1.0, 0.5, 1.5))
    rows = replace(batch, inputs={**batch.inputs, batch.names[0]: first})
    source = TensorSource(Schema(data.schema.modalities, task), rows)
    source.split = data.source.split
    return Dataset(source).with_missing(parse_mechanism("mcar(0.3)"), seed=1)


def arguments(card: Card) -> list[Mapping[str, Any]]:
    """The usual arguments of a method, and others."""
    return [{}, *OTHER_ARGUMENTS.get(card.key, ())]


def method_numbers(cls: type[Component]) -> Numbers:
    """Task and toy -> stage -> named loss of the first update, and ``answers`` for twenty rows with holes.

    ``untrained``: outputs of weights that nobody trained, which change with no version but those that a saved
    model carries. On uneven data with one epoch of training, also with other values of arguments that are text.
    """
    numbers = {name: {**trained(cls, data), UNTRAINED: outputs(cls, data)} for name, data in toys(cls.card).items()}
    data = uneven(cls.card)
    for other in arguments(cls.card):
        name = ", ".join(["uneven", *(f"{argument}={value}" for argument, value in other.items())])
        numbers[name] = {**trained(cls, data, FEW, epochs=1, **other), UNTRAINED: outputs(cls, data, **other)}
    return numbers


def trained(
    cls: type[Component], data: Dataset, rows: int = ANSWERED, epochs: int | None = None, **hyper: Any
) -> Mapping[str, Numbers]:
    """The same for one data set. ``answers``: probabilities, or values in deviations of the target, ``[20, ...]``.

    Of a pipeline with monitors also what these have learned, answers to damage, and how reliable it calls each input.
    """
    pipeline = build(cls, data.schema, **hyper)
    train, val, test = data.split()
    epochs = LONGER.get(cls.card.key, SHORT["epochs"]) if epochs is None else epochs
    trainer, losses = Trainer(**{**SHORT, "epochs": epochs}), FirstLosses()
    trainer.observers.append(losses)
    trainer.fit(pipeline, Splits(train, val, test))
    watched: dict[str, Numbers] = {}
    if len(pipeline.monitors):
        batch = damaged(with_holes(test, rows))
        reliability = ask(pipeline, batch).reliability
        watched = {
            "monitors": {
                f"{place}.{name}": buffer.double().flatten().tolist()
                for place, monitor in enumerate(pipeline.monitors)
                for name, buffer in monitor.named_buffers(recurse=False)
            },
            "answers to damage": answers(pipeline, batch),
            # of an absent modality nobody knows how reliable it is
            "reliability": "none" if reliability is None else reliability.double().nan_to_num(-1.0).tolist(),
        }
    return {**losses.first, "answers": answers(pipeline, with_holes(test, rows)), **watched}


def outputs(cls: type[Component], data: Dataset, **hyper: Any) -> list[Numbers] | str:
    """Outputs ``[8, ...]`` of a pipeline as it is built, whose weights have all been moved a little; or why there are none."""
    pipeline = build(cls, data.schema, **hyper)
    state = pipeline.state_dict()
    with torch.no_grad():
        for name in sorted(state):
            if state[name].is_floating_point():
                noise = torch.randn(state[name].shape, generator=generator("golden", "shaken", name))
                state[name].add_(SHAKEN * noise)
    try:
        output = ask(pipeline, with_holes(data.split()[2], FEW)).output.double()
    except KintsugiError as error:
        return f"none: {type(error).__name__}"
    listed: list[Numbers] = output.tolist()
    return listed if bool(output.isfinite().all()) else "none: not finite"


def damaged(batch: Batch) -> Batch:
    """Numbers of one modality four times as large, of each in turn; in the last rows those of all of them."""
    rows, count = torch.arange(len(batch)), len(batch.names)
    inputs = dict(batch.inputs)
    for column, name in enumerate(batch.names):
        if inputs[name].is_floating_point():
            hit = (rows % count == column) | (rows >= len(batch) * 3 // 4)
            inputs[name] = torch.where(hit.view(-1, *[1] * (inputs[name].ndim - 1)), 4 * inputs[name], inputs[name])
    return replace(batch, inputs=inputs)


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
