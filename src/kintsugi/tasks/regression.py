"""One or more numbers a row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from kintsugi.core.batch import Batch
from kintsugi.core.data import Data
from kintsugi.core.errors import ConfigError
from kintsugi.core.task import TASKS, Face, by_row
from kintsugi.tasks.common import NamedOutputs


@TASKS.register("regression")
class Regression(NamedOutputs):
    """Numbers: output ``[B, K]`` in units of ``scale`` around ``centre``, target float ``[B]`` or ``[B, K]`` in the user's units.

    Args:
        targets: names of the K numbers.
        centre, scale: mean and standard deviation of the training targets, so that losses of all data sets are alike.
        bins: inner edges of the quantile bins that :meth:`classes` uses, for the first target.
    """

    key = "regression"
    face: ClassVar[Face | None] = "regressor"

    def __init__(
        self,
        targets: Sequence[str] = ("target",),
        centre: Sequence[float] = (0.0,),
        scale: Sequence[float] = (1.0,),
        bins: Sequence[float] = (),
    ) -> None:
        self.names = tuple(targets)
        self.centre, self.scale, self.bins = tuple(centre), tuple(scale), tuple(bins)
        if not len(self.names) == len(self.centre) == len(self.scale):
            raise ConfigError("targets, centre and scale must be of one length")
        if any(s <= 0 for s in self.scale):
            raise ConfigError("a target that never varies cannot be regressed: its standard deviation is 0")

    def target(self, batch: Batch) -> Tensor:
        """The targets ``[B, K]`` in units of ``scale`` around ``centre``; an absent one reads the user's 0."""
        return self.standardised(super().target(batch).reshape(len(batch), self.outputs))

    def standardised(self, values: Tensor) -> Tensor:
        return (values - values.new_tensor(self.centre)) / values.new_tensor(self.scale)

    def spread(self, variance: Tensor) -> Tensor:
        return variance * variance.new_tensor(self.scale) ** 2

    def loss(self, output: Tensor, batch: Batch, rows: Tensor | None = None) -> Tensor:
        target = self.target(batch).to(output.dtype)
        return self.mean(F.mse_loss(output, target, reduction="none").mean(-1), batch, rows)

    def probabilities(self, output: Tensor) -> Tensor:
        """Values in the user's units: ``[B]`` for one target, else ``[B, K]``."""
        values = output * output.new_tensor(self.scale) + output.new_tensor(self.centre)
        return values[:, 0] if self.outputs == 1 else values

    def classes(self, batch: Batch) -> Tensor:
        assert batch.target is not None
        first = batch.target.reshape(len(batch), -1)[:, 0].float().contiguous()
        return torch.bucketize(first, first.new_tensor(self.bins))

    def metrics(self) -> dict[str, Any]:
        """mean absolute error and root mean squared error in the target's units (lower is better), R² (higher)."""
        from torchmetrics import MeanAbsoluteError, MeanSquaredError, R2Score

        return {"mae": MeanAbsoluteError(), "rmse": MeanSquaredError(squared=False), "r2": R2Score()}

    def prior(self, train: Data) -> Tensor:
        """The training mean, in units of the output."""
        assert train.target is not None
        target = train.target[train.target_present].float().reshape(-1, self.outputs)
        return (target.mean(0) - torch.tensor(self.centre)) / torch.tensor(self.scale)

    def match(self, probabilities: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return probabilities, target.float().reshape(probabilities.shape)

    def score(self, probabilities: Tensor, target: Tensor) -> tuple[str, float, float]:
        """R², averaged over targets (NaN where one of them never varies); guessing says the mean."""
        values, truth = by_row(probabilities.double()), by_row(target.double())
        rest = (values - truth).square().sum(0)
        total = (truth - truth.mean(0)).square().sum(0)
        return "R²", float((1 - rest / total.masked_fill(total == 0, math.nan)).mean()), 0.0

    @classmethod
    def fitted(cls, target: Tensor, names: tuple[str, ...] = ("target",)) -> Regression:
        """With centre, scale and ten quantile bins of these training targets ``[N]`` or ``[N, K]``."""
        values = target.float().reshape(len(target), len(names))
        values = values[torch.isfinite(values).all(1)]
        if len(values) < 2:
            raise ConfigError(
                f"a regression needs two rows with a target to learn its scale from; there are {len(values)}"
            )
        edges = torch.quantile(values[:, 0], torch.linspace(0.1, 0.9, 9))
        return cls(names, tuple(values.mean(0).tolist()), tuple(values.std(0).tolist()), tuple(edges.tolist()))

    def to_json(self) -> dict[str, Any]:
        return {
            "targets": list(self.names),
            "centre": list(self.centre),
            "scale": list(self.scale),
            "bins": list(self.bins),
        }

    @classmethod
    def toy(cls, label: Tensor, classes: int) -> tuple[Regression, Tensor]:
        """The number of the class, with bins between the classes.

        Centre and, to one digit, scale are those of classes that are equally frequent: (C - 1) / 2 and sqrt((C² - 1) / 12).
        """
        scale = round(math.sqrt((classes**2 - 1) / 12), 1)
        bins = [i + 0.5 for i in range(classes - 1)]
        return cls(("value",), ((classes - 1) / 2,), (scale,), bins), label.float()
