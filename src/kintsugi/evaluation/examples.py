"""A few rows to look at: what went in, and what came out with everything and with each modality left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kintsugi.core.batch import Batch
from kintsugi.core.schema import KINDS, Modality, Task
from kintsugi.evaluation.evaluator import predict_conditions
from kintsugi.evaluation.naming import named_pipelines
from kintsugi.evaluation.protocols import CLEAN, Condition

if TYPE_CHECKING:
    from kintsugi.data.dataset import Dataset


BYTES = 257  # the vocabulary of text that is read as bytes plus one, 0 for padding


@dataclass(frozen=True)
class Shown:
    """One input of a row: a tensor of the modality's shape, its text, or None where it is absent."""

    modality: Modality
    value: Tensor | str | None


@dataclass(frozen=True)
class Answer:
    """What a method said of a row. without: the modality left out, None with everything; confidence in [0, 1]."""

    method: str
    without: str | None
    said: str
    confidence: float | None
    correct: bool | None


@dataclass(frozen=True)
class Example:
    """One row with its true label and the answers. index: its position in the source."""

    dataset: str
    index: int
    label: str | None
    inputs: tuple[Shown, ...]
    answers: tuple[Answer, ...]


def examples(model: Any, data: Dataset, rows: int | Sequence[int] = 4, *, seed: int = 0) -> list[Example]:
    """Answers of models on some rows, with everything and without each modality that the row has.

    Args:
        model: as :func:`~kintsugi.evaluation.evaluate` takes it, one or several.
        data: test rows.
        rows: how many labelled rows to draw at random, or their positions.
        seed: of the draw.
    """
    positions = _draw(data, rows, seed) if isinstance(rows, int) else list(rows)
    few = data.subset(torch.tensor(positions, dtype=torch.int64))
    batch = few.batch(torch.arange(len(few)))
    answers: list[list[Answer]] = [[] for _ in positions]
    for name, _, pipeline in named_pipelines(model):
        names = pipeline.schema.names
        left_out = [n for n in names if len(names) > 1]
        conditions = [CLEAN] + [
            Condition(f"without {n}", "subset", keep=tuple(m for m in data.schema.names if m != n)) for n in left_out
        ]
        outcomes = predict_conditions(pipeline, few, conditions)
        for without, outcome in zip([None, *left_out], outcomes, strict=True):
            for i in range(len(positions)):
                if without is None or bool(batch.present[i, data.schema.column(without)]):
                    answers[i].append(_answer(pipeline.schema.task, name, without, outcome.probabilities[i], batch, i))
    return [
        Example(
            data.name,
            int(batch.index[i]),
            _label(data.schema.task, batch, i),
            tuple(_shown(data, m, batch, i) for m in data.schema.modalities),
            tuple(answers[i]),
        )
        for i in range(len(positions))
    ]


def _draw(data: Dataset, count: int, seed: int) -> list[int]:
    labelled = data.target_present.nonzero().flatten() if data.target is not None else torch.arange(len(data))
    order = torch.randperm(len(labelled), generator=torch.Generator().manual_seed(seed))
    chosen: list[int] = labelled[order[:count]].tolist()
    return chosen


def _answer(task: Task, method: str, without: str | None, probabilities: Tensor, batch: Batch, row: int) -> Answer:
    words, confidence = task.describe(probabilities)
    target = _target(batch, row)
    return Answer(
        method, without, words, confidence, None if target is None else task.is_correct(probabilities, target)
    )


def _target(batch: Batch, row: int) -> Tensor | None:
    if batch.target is None or (batch.target_present is not None and not bool(batch.target_present[row])):
        return None
    return batch.target[row]


def _label(task: Task, batch: Batch, row: int) -> str | None:
    target = _target(batch, row)
    return None if target is None else task.describe_target(target)


def _shown(data: Dataset, modality: Modality, batch: Batch, row: int) -> Shown:
    if not bool(batch.present[row, data.schema.column(modality.name)]):
        return Shown(modality, None)
    x, mask = batch.inputs[modality.name][row], batch.mask.get(modality.name)
    steps = None if mask is None else mask[row]
    if KINDS[modality.kind].vocabulary:
        return Shown(modality, _words(modality, x if steps is None else x[steps]))
    if steps is not None and modality.kind in ("audio", "series") and len(steps) == len(x):
        x = x[steps]
    return Shown(modality, x.detach().cpu())


def _words(modality: Modality, tokens: Tensor) -> str:
    """The text again, where ids are bytes plus one, as tables read it; else the ids."""
    if modality.vocab == BYTES:
        return bytes(int(t) - 1 for t in tokens if t > 0).decode("utf-8", errors="replace")
    return "token ids " + " ".join(str(int(t)) for t in tokens[:40]) + (" …" if len(tokens) > 40 else "")
