"""What tasks of one output a row share: the head, and all that tasks of one class out of several have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from kintsugi.core.batch import Batch
from kintsugi.core.data import Data
from kintsugi.core.errors import ConfigError, DataError
from kintsugi.core.features import Stream
from kintsugi.core.task import Face, Link, StreamSpec, Task
from kintsugi.tasks.label_values import Value, label_type, plain


class PooledHead(nn.Module):
    """Stream ``[B, T, D]`` -> ``[B, outputs]``: the mean over tokens, then one linear layer."""

    def __init__(self, spec: StreamSpec, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(spec.dim, outputs)

    def forward(self, stream: Stream) -> Tensor:
        out: Tensor = self.linear(stream.pooled())
        return out


def weighted_mean(values: Tensor, weight: Tensor | None) -> Tensor:
    """Mean over rows of ``[N, ...]``, by weights ``[N]`` where there are some."""
    if weight is None:
        return values.mean(0)
    w = weight.to(values).view(-1, *[1] * (values.ndim - 1))
    return (values * w).sum(0) / w.sum()


def _name(label: Value) -> str:
    """The name of a class, the same for 1 and 1.0."""
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)


class NamedOutputs(Task):
    """A task with one named number a row and output: classes, labels or targets."""

    @property
    def outputs(self) -> int:
        return len(self.names)

    def head(self, spec: StreamSpec) -> nn.Module:
        return PooledHead(spec, self.outputs)


class OneClass(NamedOutputs):
    """One out of several classes: output ``[B, C]`` logits or log-probabilities, target int64 ``[B]``."""

    link: ClassVar[Link] = "softmax"
    face: ClassVar[Face | None] = "classifier"
    exclusive: ClassVar[bool] = True

    def __init__(self, classes: Sequence[Value], values: Sequence[Value] | None = None) -> None:
        given = [plain(c) for c in classes]
        self.names = tuple(_name(c) for c in given)
        if len(self.names) < 2:
            raise ConfigError(f"{self.key} needs two classes or more; the target has {len(self.names)}: {self.names}")
        if values is not None and len(values) != len(self.names):
            raise ConfigError(f"{len(values)} values for {len(self.names)} classes")
        self.values: tuple[Value, ...] = tuple(given if values is None else map(plain, values))
        try:
            label_type(self.values)
        except DataError as error:
            raise ConfigError(f"classes of {self.key}: {error}") from error

    @property
    def labels(self) -> tuple[Value, ...]:
        """The classes as the user wrote them: numbers, booleans or text."""
        return self.values

    def meaning(self) -> dict[str, Any]:
        return {name: value for name, value in self.to_json().items() if name != "values"}

    def _spelling(self) -> dict[str, Any]:
        """What ``to_json`` says beside the names; nothing where answers are the names."""
        return {} if self.values == self.names else {"values": list(self.values)}

    def classes(self, batch: Batch) -> Tensor:
        assert batch.target is not None
        return batch.target

    def prior(self, train: Data) -> Tensor:
        """Log class frequencies with one row added to each class (Laplace)."""
        assert train.target is not None
        counts = torch.bincount(train.target[train.target_present], minlength=self.outputs).float() + 1
        return (counts / counts.sum()).log()

    def check_training(self, target: Tensor, data: str = "the data") -> None:
        super().check_training(target, data)
        if len(target.unique()) < 2:
            raise DataError(f"{data}: the training rows hold a single class; nothing can be told apart")

    def match(self, probabilities: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return probabilities, target.long()

    def score(self, probabilities: Tensor, target: Tensor, weight: Tensor | None = None) -> tuple[str, float, float]:
        """The accuracy; guessing takes all classes alike."""
        return "accuracy", float(weighted_mean((probabilities.argmax(1) == target).double(), weight)), 1 / self.outputs

    def decide(self, probabilities: Tensor) -> np.ndarray:
        """The most probable classes ``[N]``, in the type of the labels."""
        chosen: np.ndarray = np.array(self.values)[self._best(probabilities)]
        return chosen

    def _best(self, probabilities: Tensor) -> np.ndarray:
        best: np.ndarray = probabilities.detach().cpu().numpy().argmax(1)
        return best

    def decode(self, probabilities: Tensor) -> dict[str, Any]:
        """The most probable class and its probability, to four digits."""
        best = probabilities.detach().cpu().numpy().max(1).round(4)
        return {"prediction": np.array(self.names)[self._best(probabilities)], "probability": best}

    def describe(self, probabilities: Tensor) -> tuple[str, float | None]:
        best = int(probabilities.argmax())
        return self.names[best], float(probabilities[best])

    def describe_target(self, target: Tensor) -> str:
        return self.names[int(target)]

    def is_correct(self, probabilities: Tensor, target: Tensor) -> bool | None:
        return int(probabilities.argmax()) == int(target)

    @classmethod
    def toy(cls, label: Tensor, classes: int) -> tuple[Self, Tensor]:
        """The classes themselves, under letters."""
        return cls([chr(ord("a") + i) for i in range(classes)]), label
