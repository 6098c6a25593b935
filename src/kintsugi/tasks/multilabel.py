"""Any number of labels a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kintsugi.core.batch import Batch
from kintsugi.core.data import Data
from kintsugi.core.errors import ConfigError
from kintsugi.core.task import TASKS, Face, Link
from kintsugi.tasks.common import NamedOutputs, weighted_mean
from kintsugi.tasks.metrics import made


@TASKS.register("multilabel")
class Multilabel(NamedOutputs):
    """Any number of labels: output ``[B, C]`` logits, target float ``[B, C]`` of zeros and ones."""

    key = "multilabel"
    link: ClassVar[Link] = "sigmoid"
    face: ClassVar[Face | None] = "classifier"

    def __init__(self, labels: Sequence[str]) -> None:
        self.names = tuple(str(label) for label in labels)
        if not self.names:
            raise ConfigError("multilabel needs at least one label")

    def loss(self, output: Tensor, batch: Batch, rows: Tensor | None = None) -> Tensor:
        target = self.target(batch).to(output.dtype)
        each = F.binary_cross_entropy_with_logits(output, target, reduction="none").mean(-1)
        return self.mean(each, batch, rows)

    def classes(self, batch: Batch) -> Tensor:
        """The most frequent reading of "the" class: the first label that is set, or C where none is."""
        assert batch.target is not None
        return torch.where(batch.target.any(1), batch.target.float().argmax(1), self.outputs)

    def metrics(self) -> dict[str, Any]:
        """macro F1 at 0.5 (higher is better), macro average precision (higher), mean accuracy of a label (higher)."""
        return made("labels", self, "macro_f1", "average_precision", "label_accuracy")

    def prior(self, train: Data) -> Tensor:
        """Logits of label frequencies, one row with and one without the label added (Laplace)."""
        assert train.target is not None
        target = train.target[train.target_present].float()
        return ((target.sum(0) + 1) / (len(target) + 2)).logit()

    def match(self, probabilities: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return probabilities, target.long()

    def score(self, probabilities: Tensor, target: Tensor, weight: Tensor | None = None) -> tuple[str, float, float]:
        """The accuracy of a label at 0.5, averaged over labels; guessing throws a coin."""
        right = ((probabilities > 0.5) == (target > 0.5)).double()
        return "accuracy", float(right.mean() if weight is None else weighted_mean(right, weight).mean()), 0.5

    def decide(self, probabilities: Tensor) -> np.ndarray:
        """Zeros and ones ``[N, C]``, at probability 0.5."""
        chosen: np.ndarray = (probabilities.detach().cpu() > 0.5).long().numpy()
        return chosen

    def decode(self, probabilities: Tensor) -> dict[str, Any]:
        """The probability of each label."""
        return {f"probability_{name}": values for name, values in super().decode(probabilities).items()}

    def describe(self, probabilities: Tensor) -> tuple[str, float | None]:
        return self.describe_target(probabilities), None

    def describe_target(self, target: Tensor) -> str:
        return (
            ", ".join(name for name, holds in zip(self.names, (target > 0.5).tolist(), strict=True) if holds) or "none"
        )

    def is_correct(self, probabilities: Tensor, target: Tensor) -> bool | None:
        return bool(((probabilities > 0.5) == (target > 0.5)).all())

    def to_json(self) -> dict[str, Any]:
        return {"labels": list(self.names)}

    @classmethod
    def toy(cls, label: Tensor, classes: int) -> tuple[Multilabel, Tensor]:
        """Two labels that hold for about half of the rows each: of an even number of classes whether the class is a low and
        whether it is an odd one, of an odd number whether it is above the first and whether it is above the middle one.
        """
        if classes % 2 == 0:
            return cls(("low", "odd")), torch.stack([label < classes // 2, label % 2 == 1], 1).float()
        return cls(("above_first", "above_middle")), torch.stack([label > 0, label > classes // 2], 1).float()
