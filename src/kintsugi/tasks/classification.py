"""One of several classes a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kintsugi.core.batch import Batch
from kintsugi.core.errors import ConfigError
from kintsugi.core.task import TASKS
from kintsugi.tasks.common import OneClass
from kintsugi.tasks.label_values import Value
from kintsugi.tasks.metrics import made


@TASKS.register("classification")
class Classification(OneClass):
    """One of several classes: output ``[B, C]`` logits, target int64 ``[B]``.

    Args:
        classes: names, in the order of the label ids; numbers and booleans are answered as such.
        weights: weight of each class in the loss, for unbalanced data.
        values: what answers call each class, where it is not the name: numbers, booleans, or text spelt otherwise.
    """

    key = "classification"

    def __init__(
        self,
        classes: Sequence[Value],
        weights: Sequence[float] | None = None,
        values: Sequence[Value] | None = None,
    ) -> None:
        super().__init__(classes, values)
        if weights is not None and len(weights) != len(self.names):
            raise ConfigError(f"{len(weights)} class weights for {len(self.names)} classes")
        self.weights = None if weights is None else tuple(float(w) for w in weights)

    def row_weights(self, batch: Batch) -> Tensor | None:
        """The weight of the row times that of its class."""
        if self.weights is None:
            return batch.weight
        target = self.target(batch)
        by_class = torch.tensor(self.weights, device=target.device)[target]
        return by_class if batch.weight is None else batch.weight * by_class

    def loss(self, output: Tensor, batch: Batch, rows: Tensor | None = None) -> Tensor:
        return self.mean(F.cross_entropy(output, self.target(batch), reduction="none"), batch, rows)

    def metrics(self) -> dict[str, Any]:
        """accuracy (higher is better), macro F1 (higher), negative log-likelihood in nats (lower)."""
        return made("classes", self, "accuracy", "macro_f1", "log_loss")

    def to_json(self) -> dict[str, Any]:
        weights = None if self.weights is None else list(self.weights)
        return {"classes": list(self.names), "weights": weights, **self._spelling()}
