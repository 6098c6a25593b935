"""Tasks: the head, the loss and the metrics that all methods share, and everything else in which two tasks differ.

Nothing outside a task's own file asks which task it is: what differs is a method or an attribute here.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kintsugi.core.errors import ConfigError, DataError
from kintsugi.core.registry import Registry

if TYPE_CHECKING:
    from kintsugi.core.batch import Batch
    from kintsugi.core.data import Data

Link = Literal["softmax", "sigmoid", "identity"]
Face = Literal["classifier", "regressor"]
Order = Callable[[Tensor, int, torch.Generator], list[Tensor]]


@dataclass(frozen=True)
class StreamSpec:
    """What a head gets: width of a token, the grid if the tokens are a map, and finer maps as ``(width, grid)``."""

    dim: int
    grid: tuple[int, ...] | None = None
    finer: tuple[tuple[int, tuple[int, ...]], ...] = ()


class Task(ABC):
    """One head, one loss and one set of metrics, the same for every method.

    key: under which it is registered. names: of the outputs: classes, labels or targets.
    link: how an output is read: ``softmax`` over axis 1 (classes exclude each other), ``sigmoid`` of each number (labels),
    ``identity`` (numbers).
    face: the estimator that serves it, ``classifier`` or ``regressor``; None: it is trained by a ``Trainer`` alone.
    exclusive: a row has one class out of ``names``, its target is int64 ``[B]``.
    """

    key: ClassVar[str]
    link: ClassVar[Link] = "identity"
    face: ClassVar[Face | None] = None
    needs_target: ClassVar[bool] = True  # False: what is to be predicted stands in the rows themselves
    exclusive: ClassVar[bool] = False
    metric_versions: ClassVar[Mapping[str, int]] = MappingProxyType({})  # of metrics whose numbers changed; others: 1
    names: tuple[str, ...] = ()

    # what every task says of itself -----------------------------------------------------------------------------------
    @property
    @abstractmethod
    def outputs(self) -> int:
        """Width of the output of one row."""

    @abstractmethod
    def head(self, spec: StreamSpec) -> nn.Module:
        """A module from :class:`~kintsugi.core.features.Stream` to the output ``[B, ...]``."""

    @abstractmethod
    def loss(self, output: Tensor, batch: Batch, rows: Tensor | None = None) -> Tensor:
        """Mean loss over ``rows`` (bool ``[B]``; default: all) whose label is there; 0, with a gradient, where none is left."""

    @abstractmethod
    def classes(self, batch: Batch) -> Tensor:
        """Int ``[B]``: labels, or quantile bins of a regression."""

    @abstractmethod
    def metrics(self) -> dict[str, Any]:
        """Name -> ``torchmetrics.Metric`` of what :meth:`match` returns, with its direction; the first chooses epochs."""

    @abstractmethod
    def prior(self, train: Data) -> Tensor:
        """The output, of :attr:`prior_shape`, when nothing is present."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Constructor values; :func:`task_from_json` is the way back."""

    def meaning(self) -> dict[str, Any]:
        """:meth:`to_json` without what says only how answers are spelt: of equal tasks, and in fingerprints."""
        return self.to_json()

    @property
    def labels(self) -> tuple[Any, ...]:
        """``names`` as the user wrote them, in their type; an estimator's ``classes_``."""
        return self.names

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Task) and (self.key, self.meaning()) == (other.key, other.meaning())

    def __hash__(self) -> int:
        return hash((self.key, repr(self.meaning())))

    # shapes -----------------------------------------------------------------------------------------------------------
    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the output of one row."""
        return (self.outputs,)

    @property
    def prior_shape(self) -> tuple[int, ...]:
        """Shape of the prior, which spreads over the output of a row: ``(C, 1, 1)`` of a map whose size is open."""
        return self.output_shape

    # training ---------------------------------------------------------------------------------------------------------
    def target(self, batch: Batch) -> Tensor:
        """The target ``[B, ...]`` as the output wants it, free of NaN: int64 class ids of ``softmax``, else floats.

        What is absent reads 0, in rows without a label and where a label has NaN.
        """
        if self.link == "softmax":
            return self.given_target(batch).to(torch.int64)
        return self.given_target(batch).float().nan_to_num()

    def given_target(self, batch: Batch) -> Tensor:
        """The target ``[B, ...]`` as the data has it, 0 in rows without a label."""
        return _without_absent(_target_of(batch), batch)

    def row_weights(self, batch: Batch) -> Tensor | None:
        """Weight of each row in a loss, float ``[B]``; None: all alike."""
        return batch.weight

    def mean(self, losses: Tensor, batch: Batch, rows: Tensor | None = None) -> Tensor:
        """Mean of the losses of rows ``[B]``, by :meth:`row_weights`, over ``rows`` (bool ``[B]``; default: all) with a label.

        0, with a gradient, where no row is left.
        """
        weight = self.row_weights(batch)
        w = losses.new_ones(len(losses)) if weight is None else weight.to(losses.dtype)
        keep = _labelled(batch, rows)
        if keep is not None:
            w = w * keep
            losses = losses.masked_fill(~keep, 0)  # what is left out may be NaN
        total = w.sum()
        if float(total.detach()) == 0:
            return 0 * losses.sum()
        return (losses * w).sum() / total

    def check_training(self, target: Tensor, data: str = "the data") -> None:
        """Raise where nothing can be learned from the targets of the labelled training rows ``[N, ...]``.

        Args:
            target: as the data has them, without those of rows that have no label.
            data: name of the data, for the message.

        Raises:
            DataError: no label at all, or such as a single class.
        """
        if not len(target):
            raise DataError(f"{data}: every label of the training rows is missing")

    def sampler(self, data: Data) -> Order | None:
        """Own order of the rows of an epoch, or None for plain shuffling.

        A function of positions int64 ``[N]``, batch size and generator -> batches of positions, as many in each epoch. Rows
        may come several times or not at all. Answers and scores are asked for in the order of the rows, not in this one.
        """
        return None

    # answers ----------------------------------------------------------------------------------------------------------
    def probabilities(self, output: Tensor) -> Tensor:
        """The output ``[B, ...]`` as a user reads it: probabilities of classes and labels, values of numbers.

        A single row, such as the prior, may lack the axis of rows.
        """
        if self.link == "softmax":
            return output.softmax(output.ndim - len(self.prior_shape))
        return output.sigmoid() if self.link == "sigmoid" else output

    def standardised(self, values: Tensor) -> Tensor:
        """Numbers ``[B, K]`` in the user's units in the units of the output; of other links nothing changes."""
        return values

    def spread(self, variance: Tensor) -> Tensor:
        """A variance ``[B, K]`` in units of the output, in the user's units."""
        return variance

    def uncertainty(self, output: Tensor) -> Tensor | None:
        """How undecided each answer is, float ``[B]`` in [0, 1]; None for numbers, whose output does not say it.

        ``softmax``: the entropy over axis 1 divided by log C, averaged over what is left of the row; ``sigmoid``: the binary
        entropy of each label divided by log 2, averaged (Shannon, A Mathematical Theory of Communication, 1948).
        """
        if self.link == "identity":
            return None
        if self.link == "softmax":
            log_p = F.log_softmax(output, 1)
            entropy = -(log_p.exp() * log_p).sum(1) / math.log(output.shape[1])
        else:
            entropy = (F.softplus(output) - output * output.sigmoid()) / math.log(2)
        return by_row(entropy).mean(1).clamp(0, 1)

    def match(self, probabilities: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Answers of :meth:`probabilities` and targets as the data has them, both as the metrics want them: ``[N, ...]``.

        Rows stay rows, since intervals draw rows; what a row lacks is marked in the target, for metrics that ignore it.
        """
        return probabilities, target

    def score(self, probabilities: Tensor, target: Tensor, weight: Tensor | None = None) -> tuple[str, float, float]:
        """Name, value (higher is better) and value of guessing of one plain measure of rows that have a label.

        Args:
            probabilities: of :meth:`probabilities`, ``[N, ...]``.
            target: as the data has it, ``[N, ...]``.
            weight: of each row, float ``[N]``; None: all alike, and then it is not handed in.

        Raises:
            ConfigError: the task names none.
        """
        raise ConfigError(f"task {self.key!r} has no plain score; write score() of {type(self).__name__}")

    def decide(self, probabilities: Tensor) -> Any:
        """What ``predict`` returns for these rows: names ``[N]``, zeros and ones ``[N, C]``, or the values themselves."""
        return probabilities.detach().cpu().numpy()

    def decode(self, probabilities: Tensor) -> dict[str, Any]:
        """What ``predict_frame`` shows of these rows: column -> ``[N]``; default: each number by its name."""
        values = by_row(probabilities.detach().cpu()).numpy()
        names = self.names if len(self.names) == values.shape[1] else [f"output_{i}" for i in range(values.shape[1])]
        return {name: values[:, i] for i, name in enumerate(names)}

    def describe(self, probabilities: Tensor) -> tuple[str, float | None]:
        """One row's answer in words, and the probability of the class that it names (None: it names none)."""
        return ", ".join(f"{float(v):.4g}" for v in probabilities.reshape(-1)), None

    def describe_target(self, target: Tensor) -> str:
        """One row's target in words."""
        return ", ".join(f"{float(v):.4g}" for v in target.reshape(-1))

    def is_correct(self, probabilities: Tensor, target: Tensor) -> bool | None:
        """Is one row's answer right? None where answers are not right or wrong."""
        return None

    # tables and data --------------------------------------------------------------------------------------------------
    def same_meaning(self, other: Task) -> str | None:
        """Why a label in rows of task ``other`` would mean another thing than in this one, of a model; None: it does not.

        The end of a sentence that begins with the name of the rows.
        """
        if (self.key, self.output_shape) != (other.key, other.output_shape):
            return f"is for {other.key} with {other.outputs} outputs, the model for {self.key} with {self.outputs}"
        if self.link != "identity" and self.names != other.names:
            return (
                f"has the classes {', '.join(other.names)}, the model {', '.join(self.names)}: they differ in name or order, "
                "so that a label would mean another class"
            )
        return None

    @classmethod
    def toy(cls, label: Tensor, classes: int) -> tuple[Task, Tensor]:
        """A task of this kind with its target ``[N, ...]`` for toy rows, each of which carries one of ``classes`` classes.

        Args:
            label: int64 ``[N]``, from 0.
            classes: how many there are.

        Raises:
            ConfigError: the task has no toy.
        """
        raise ConfigError(
            f"task {cls.key!r} has no toy data; write the classmethod toy(label, classes) of {cls.__name__}"
        )


TASKS: Registry[type[Task]] = Registry("task", "kintsugi.tasks")


def task_from_json(saved: Mapping[str, Any]) -> Task:
    """The task that ``to_json`` wrote, by its registered key."""
    values = dict(saved)
    return TASKS[values.pop("key")](**values)


def link_of(task: Task | str) -> Link:
    """The link of a task, or this link.

    Raises:
        ConfigError: a word that is no link.
    """
    link = task.link if isinstance(task, Task) else task
    if link not in get_args(Link):
        raise ConfigError(f"unknown link {link!r}; known: {', '.join(get_args(Link))}. Or give the task itself")
    return link  # type: ignore[return-value]


def by_row(values: Tensor) -> Tensor:
    """``[B, ...]`` -> ``[B, K]``, also where B is 0."""
    return values[:, None] if values.ndim == 1 else values.flatten(1)


def _target_of(batch: Batch) -> Tensor:
    if batch.target is None:
        raise DataError("these rows carry no target, so there is no loss of them; name a target column")
    return batch.target


def _labelled(batch: Batch, rows: Tensor | None) -> Tensor | None:
    """Bool ``[B]``: the rows that count in a loss; None: all."""
    if batch.target_present is None:
        return rows
    return batch.target_present if rows is None else batch.target_present & rows


def _without_absent(target: Tensor, batch: Batch) -> Tensor:
    if batch.target_present is None:
        return target
    return target.masked_fill(~batch.target_present.view(-1, *[1] * (target.ndim - 1)), 0)
