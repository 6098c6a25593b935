"""Any number of labels a row."""

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


@TASKS.register("multilabel")
class Multilabel(NamedOutputs):
    """Any number of labels: output ``[B, C]`` logits, target float ``[B, C]`` of zeros and ones."""

    key = "multilabel"

    def __init__(self, labels: Sequence[str]) -> None:
        self.names = tuple(str(label) for label in labels)
        if not self.names:
            raise ConfigError("multilabel needs at least one label")

    def loss(self, output: Tensor, batch: Batch, rows: Tensor | None = None) -> Tensor:
        assert batch.target is not None
        target = batch.target.to(output.dtype).nan_to_num()
        each = F.binary_cross_entropy_with_logits(output, target, reduction="none").mean(-1)
        return masked_mean(each, labelled(batch, rows), batch.weight, output)

    def probabilities(self, output: Tensor) -> Tensor:
        return output.sigmoid()

    def classes(self, batch: Batch) -> Tensor:
        """The most frequent reading of "the" class: the first label that is set, or C where none is."""
        assert batch.target is not None
        return torch.where(batch.target.any(1), batch.target.float().argmax(1), self.outputs)

    def metrics(self) -> dict[str, Any]:
        """macro F1 at 0.5 (higher is better), macro average precision (higher), mean accuracy of a label (higher)."""
        from torchmetrics.classification import MultilabelAccuracy, MultilabelAveragePrecision, MultilabelF1Score

        return {
            "macro_f1": MultilabelF1Score(self.outputs, average="macro"),
            "average_precision": MultilabelAveragePrecision(self.outputs, average="macro"),
            "label_accuracy": MultilabelAccuracy(self.outputs, average="micro"),
        }

    def prior(self, train: Data) -> Tensor:
        """Logits of label frequencies, one row with and one without the label added (Laplace)."""
        assert train.target is not None
        target = train.target[train.target_present].float()
        return ((target.sum(0) + 1) / (len(target) + 2)).logit()

    def to_json(self) -> dict[str, Any]:
        return {"labels": list(self.names)}
