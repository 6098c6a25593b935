"""One of several classes a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kintsugi.core.batch import Batch
from kintsugi.core.data import Data
from kintsugi.core.errors import ConfigError
from kintsugi.core.schema import TASKS
from kintsugi.tasks.common import NamedOutputs, labelled, masked_mean


@TASKS.register("classification")
class Classification(NamedOutputs):
    """One of several classes: output ``[B, C]`` logits, target int64 ``[B]``.

    Args:
        classes: names, in the order of the label ids.
        weights: weight of each class in the loss, for unbalanced data.
    """

    key = "classification"

    def __init__(self, classes: Sequence[str], weights: Sequence[float] | None = None) -> None:
        self.names = tuple(str(c) for c in classes)
        if len(self.names) < 2:
            raise ConfigError(
                f"classification needs two classes or more; the target has {len(self.names)}: {self.names}"
            )
        if weights is not None and len(weights) != len(self.names):
            raise ConfigError(f"{len(weights)} class weights for {len(self.names)} classes")
        self.weights = None if weights is None else tuple(float(w) for w in weights)

    def loss(self, output: Tensor, batch: Batch, rows: Tensor | None = None) -> Tensor:
        assert batch.target is not None
        keep = labelled(batch, rows)
        target = batch.target if keep is None else batch.target.masked_fill(~keep, 0)
        weight = batch.weight
        if self.weights is not None:
            by_class = output.new_tensor(self.weights)[target]
            weight = by_class if weight is None else weight * by_class
        return masked_mean(F.cross_entropy(output, target, reduction="none"), keep, weight, output)

    def probabilities(self, output: Tensor) -> Tensor:
        return output.softmax(-1)

    def classes(self, batch: Batch) -> Tensor:
        assert batch.target is not None
        return batch.target

    def metrics(self) -> dict[str, Any]:
        """accuracy (higher is better), macro F1 (higher), negative log-likelihood in nats (lower)."""
        from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

        from kintsugi.tasks._metrics import LogLoss

        return {
            "accuracy": MulticlassAccuracy(self.outputs, average="micro"),
            "macro_f1": MulticlassF1Score(self.outputs, average="macro"),
            "log_loss": LogLoss(),
        }

    def prior(self, train: Data) -> Tensor:
        """Log class frequencies with one row added to each class (Laplace)."""
        assert train.target is not None
        counts = torch.bincount(train.target[train.target_present], minlength=self.outputs).float() + 1
        return (counts / counts.sum()).log()

    def to_json(self) -> dict[str, Any]:
        return {"classes": list(self.names), "weights": None if self.weights is None else list(self.weights)}
