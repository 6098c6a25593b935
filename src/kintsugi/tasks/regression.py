"""One or more numbers a row."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kintsugi.core.batch import Batch
from kintsugi.core.data import Data
from kintsugi.core.errors import ConfigError
from kintsugi.core.schema import TASKS
from kintsugi.tasks.common import NamedOutputs, labelled, masked_mean


@TASKS.register("regression")
class Regression(NamedOutputs):
    """Numbers: output ``[B, K]`` in units of ``scale`` around ``centre``, target float ``[B]`` or ``[B, K]`` in the user's units.

    Args:
        targets: names of the K numbers.
        centre, scale: mean and standard deviation of the training targets, so that losses of all data sets are alike.
        bins: inner edges of the quantile bins that :meth:`classes` uses, for the first target.
    """

    key = "regression"

    def __init__(
        self,
        targets: tuple[str, ...] | list[str] = ("target",),
        centre: tuple[float, ...] | list[float] = (0.0,),
        scale: tuple[float, ...] | list[float] = (1.0,),
        bins: tuple[float, ...] | list[float] = (),
    ) -> None:
        self.names = tuple(targets)
        self.centre, self.scale, self.bins = tuple(centre), tuple(scale), tuple(bins)
        if not len(self.names) == len(self.centre) == len(self.scale):
            raise ConfigError("targets, centre and scale must be of one length")
        if any(s <= 0 for s in self.scale):
            raise ConfigError("a target that never varies cannot be regressed: its standard deviation is 0")

    def loss(self, output: Tensor, batch: Batch, rows: Tensor | None = None) -> Tensor:
        assert batch.target is not None
        target = batch.target.to(output.dtype).reshape(len(batch), self.outputs).nan_to_num()
        target = (target - output.new_tensor(self.centre)) / output.new_tensor(self.scale)
        return masked_mean(
            F.mse_loss(output, target, reduction="none").mean(-1), labelled(batch, rows), batch.weight, output
        )

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
