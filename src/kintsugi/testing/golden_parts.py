"""Golden numbers of encoders, tasks and metrics, on drawn inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from kintsugi.core.batch import Batch
from kintsugi.core.encoder import ENCODERS
from kintsugi.core.errors import ConfigError
from kintsugi.core.features import Stream
from kintsugi.core.schema import TASKS, Modality, StreamSpec, Task
from kintsugi.tasks import Classification, Regression
from kintsugi.testing import ROWS, mixed
from kintsugi.testing.golden_numbers import Numbers, projections, seeded
from kintsugi.training.sampling import generator

DIM, FEW = 32, 6
TOYS = ("classification", "multilabel", "regression", "ordinal")
SHAPES: Mapping[str, tuple[Modality, ...]] = MappingProxyType(
    {
        "image": (Modality("small", "image", (1, 8, 8)), Modality("colour", "image", (3, 33, 40))),
        "video": (Modality("video", "video", (4, 3, 16, 16)),),
        "audio": (
            Modality("short", "audio", (800,), rate=8000),
            Modality("long", "audio", (16000,), rate=16000),
            Modality("two seconds, then silence", "audio", (16000,), rate=8000),  # as long as one event may be
            Modality("three seconds, then silence", "audio", (24000,), rate=8000),
        ),
        "text": (Modality("bytes", "text", (64,), vocab=257), Modality("tokens", "text", (20,), vocab=1000)),
        "tabular": (
            Modality("cells", "tabular", (4,), categories=(0, 3, 0, 5)),
            Modality("numbers", "tabular", (6,)),
            Modality("wide", "tabular", (20,), categories=(0, 3, 0, 5) * 5),
        ),
        "series": (Modality("series", "series", (50, 4)), Modality("short", "series", (3, 1))),
        "points": (Modality("points", "points", (64, 3)),),
        "volume": (Modality("volume", "volume", (1, 8, 8, 8)),),
        "vector": (Modality("vector", "vector", (76,)), Modality("one number", "vector", (1,))),
    }
)
STEPPED = ("text", "tabular", "series")


# encoders -------------------------------------------------------------------------------------------------------------
def encoder_numbers(key: str) -> Numbers:
    """Shape of the input -> size and projections of the tokens, how many are seen, norm of a gradient of all weights.

    Raises:
        ConfigError: the encoder is not called by a kind of modality.
    """
    if key not in SHAPES:
        raise ConfigError(f"golden numbers: encoder {key!r} has the name of no kind of modality; known: {list(SHAPES)}")
    return {modality.name: _encoded(key, modality) for modality in SHAPES[key]}


def _encoded(key: str, modality: Modality) -> Numbers:
    with seeded(0):
        encoder = ENCODERS[key](modality, DIM)
    x, mask = inputs(modality)
    with torch.no_grad():
        stream = encoder.eval()(x, mask)
    with seeded(1):
        trained = encoder.train()(x, mask).tokens
    weights = torch.randn(trained.shape, generator=generator("golden", key, "gradient"))
    (trained * weights).sum().backward()
    moved = [p.grad.double().square().sum() for p in encoder.parameters() if p.grad is not None]
    return {
        "size": float(stream.tokens.double().square().mean().sqrt()),
        "projections": projections(stream.tokens, key, modality.name),
        "seen": int(stream.mask.sum()),
        "gradient": float(torch.stack(moved).sum().sqrt()) if moved else 0.0,
    }


def inputs(m: Modality, rows: int = FEW) -> tuple[Tensor, Tensor | None]:
    """Rows of this shape, with a mask for kinds that have steps or cells; the last row is whole."""
    noise = generator("golden", m.kind, m.shape)
    shape = [rows, *(n or 1 for n in m.shape)]
    if m.kind == "text":
        x = torch.randint(1, m.vocab or 257, shape, generator=noise)
    elif m.kind == "tabular":
        most = torch.tensor(m.categories or (0,) * shape[1])
        codes = (torch.rand(shape, generator=noise) * (most + 1)).floor()
        x = torch.where(most > 0, codes, torch.randn(shape, generator=noise))
    elif m.kind in ("image", "video", "volume"):
        x = torch.rand(shape, generator=noise)
    else:
        x = torch.randn(shape, generator=noise) * 0.3
    if m.name.endswith("silence"):
        x[:, shape[1] * 3 // 5 :] *= 0.02  # not zero, whose logarithm is at its floor, where gradients are rough
    if m.kind not in STEPPED:
        return x, None
    mask = torch.rand(shape[:2], generator=noise) > 0.4
    if m.kind != "tabular":
        mask = torch.arange(shape[1]) < torch.randint(1, shape[1] + 1, (rows, 1), generator=noise)
    mask[-1] = True
    if m.kind == "series":
        x = x.masked_fill(~mask[..., None], torch.nan)  # what was not seen may be anything
    return x, mask


# tasks and metrics ----------------------------------------------------------------------------------------------------
def toy_tasks() -> list[str]:
    """Keys of the tasks that there is a toy for."""
    return [key for key in TASKS if key in TOYS]


def task_of(key: str) -> Task:
    """The task of the toy."""
    return mixed(key).schema.task


@cache
def _asked(key: str) -> tuple[Task, Batch]:
    """A task of this key, with rows whose labels are there but for some, and which weigh differently."""
    data = mixed(key)
    batch: Batch = data.batch(torch.arange(ROWS))
    noise = generator("golden", "task", key)
    batch.target_present = torch.rand(ROWS, generator=noise) > 0.2
    batch.weight = 0.5 + torch.rand(ROWS, generator=noise)
    return data.schema.task, batch


def _output(task: Task, batch: Batch) -> Tensor:
    return torch.randn(len(batch), task.outputs, generator=generator("golden", "output", task.key))


def task_numbers(key: str) -> Numbers:
    """The head, the loss with its gradient, what a user reads, classes and the prior; some of it for other arguments."""
    task, batch = _asked(key)
    found: dict[str, Numbers] = {**_loss_numbers(task, batch), **_head_numbers(task, batch)}
    for name, other, target in _other_tasks(key, batch):
        found[name] = _loss_numbers(other, replace(batch, target=target))
    return found


def _other_tasks(key: str, batch: Batch) -> list[tuple[str, Task, Tensor]]:
    """Name, task and target ``[N, ...]`` of tasks with arguments that the toys have not."""
    assert batch.target is not None
    if key == "classification":
        return [("weights", Classification(("a", "b", "c"), (2.0, 1.0, 0.5)), batch.target)]
    if key == "regression":
        two = Regression(("v", "w"), (1.0, -2.0), (0.8, 3.0), (0.5, 1.5))
        return [("two targets", two, torch.stack([batch.target, 1 - 3 * batch.target], 1))]
    return []


def _loss_numbers(task: Task, batch: Batch) -> dict[str, Numbers]:
    output = _output(task, batch).requires_grad_()
    loss = task.loss(output, batch)
    loss.backward()
    assert output.grad is not None
    rows = torch.arange(ROWS) % 2 == 0
    return {
        "loss of all rows": float(loss.detach()),
        "loss of every other row": float(task.loss(output.detach(), batch, rows)),
        "gradient": float(output.grad.double().norm()),
        "probabilities": projections(task.probabilities(output.detach()), task.key, "probabilities"),
        "classes": torch.bincount(task.classes(batch)).tolist(),
    }


def _head_numbers(task: Task, batch: Batch) -> dict[str, Numbers]:
    tokens = torch.randn(FEW, 5, DIM, generator=generator("golden", "tokens"))
    seen = torch.arange(5) < torch.arange(FEW)[:, None]
    with seeded(0), torch.no_grad():
        head = task.head(StreamSpec(DIM))(Stream(torch.where(seen[..., None], tokens, 0), seen))
    return {
        "head": projections(head, task.key, "head"),
        "prior": task.prior(mixed(task.key).split()[0]).reshape(-1).tolist(),
    }


def metric_numbers(key: str, name: str) -> Numbers:
    """The value of a metric on drawn answers that are better than chance, and on answers that are sure and often wrong.

    Of a regression, the latter are for two targets.
    """
    task, batch = _asked(key)
    metric: Any = task.metrics()[name]
    assert batch.target is not None
    target = batch.target
    output = _output(task, batch)
    if task.exclusive:
        output = output + torch.nn.functional.one_hot(target, task.outputs)
    else:
        output = output + target.reshape(output.shape)
    values = task.probabilities(output)
    half = ROWS // 2
    for rows in (slice(0, half), slice(half, ROWS)):  # what is put together from two batches
        metric.update(*task.match(values[rows], target[rows]))
    return {
        "value": float(metric.compute()),
        "higher is better": str(bool(metric.higher_is_better)),
        "value of sure answers": _of_sure_answers(key, name),
    }


def _of_sure_answers(key: str, name: str) -> float:
    task, batch = _asked(key)
    for _, other, target in _other_tasks(key, batch) if key == "regression" else ():
        task, batch = other, replace(batch, target=target)
    assert batch.target is not None
    metric: Any = task.metrics()[name]
    values = task.probabilities(_output(task, batch) * (1 if key == "regression" else 40))
    metric.update(*task.match(values, batch.target))
    return float(metric.compute())
