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
from kintsugi.tasks.common import NamedOutputs, weighted_mean
from kintsugi.tasks.metrics import made

# A mean of so many standard deviations leaves float32, which holds 7 digits, fewer than 4 for what varies. Targets as far from
# zero, such as times in seconds since 1970, are held and centred in float64.
OFFSET = 1000.0


@TASKS.register("regression")
class Regression(NamedOutputs):
    """Numbers: output ``[B, K]`` in units of ``scale`` around ``centre``, target float ``[B]`` or ``[B, K]`` in the user's units.

    Args:
        targets: names of the K numbers.
        centre, scale: mean and standard deviation of the training targets, so that losses of all data sets are alike.
        bins: inner edges of the quantile bins that :meth:`classes` uses, for the first target.

    Where ``centre`` is more than a thousand times ``scale``, targets and answers are float64, and metrics see both less the
    centre, which changes no error and no R².
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

    @property
    def needs_float64(self) -> bool:
        """Is the mean so far from zero that float32 cannot tell targets apart?"""
        return any(_far(c, s) for c, s in zip(self.centre, self.scale, strict=True))

    def target(self, batch: Batch) -> Tensor:
        """The targets ``[B, K]`` in units of ``scale`` around ``centre``; an absent one reads the user's 0."""
        values = self.given_target(batch) if self.needs_float64 else super().target(batch)
        return self.standardised(values.nan_to_num().reshape(len(batch), self.outputs))

    def standardised(self, values: Tensor) -> Tensor:
        less = self._less_centre(values)
        return less / less.new_tensor(self.scale)

    def _less_centre(self, values: Tensor) -> Tensor:
        """Values ``[B, K]`` less the centre; of targets far from zero subtracted in float64, then float32."""
        if self.needs_float64:
            values = values.double()
            return (values - values.new_tensor(self.centre)).float()
        return values - values.new_tensor(self.centre)

    def spread(self, variance: Tensor) -> Tensor:
        return variance * variance.new_tensor(self.scale) ** 2

    def loss(self, output: Tensor, batch: Batch, rows: Tensor | None = None) -> Tensor:
        target = self.target(batch).to(output.dtype)
        return self.mean(F.mse_loss(output, target, reduction="none").mean(-1), batch, rows)

    def probabilities(self, output: Tensor) -> Tensor:
        """Values in the user's units: ``[B]`` for one target, else ``[B, K]``."""
        output = output.double() if self.needs_float64 else output
        values = output * output.new_tensor(self.scale) + output.new_tensor(self.centre)
        return values[:, 0] if self.outputs == 1 else values

    def classes(self, batch: Batch) -> Tensor:
        assert batch.target is not None
        first = batch.target.reshape(len(batch), -1)[:, 0].contiguous()
        first = first.double() if self.needs_float64 else first.float()
        return torch.bucketize(first, first.new_tensor(self.bins))

    def metrics(self) -> dict[str, Any]:
        """mean absolute error and root mean squared error in the target's units (lower is better), R² (higher)."""
        return made("numbers", self, "mae", "rmse", "r2")

    def prior(self, train: Data) -> Tensor:
        """The training mean, in units of the output."""
        assert train.target is not None
        target = train.target[train.target_present].reshape(-1, self.outputs)
        if self.needs_float64:
            return self.standardised(target.double()).mean(0)
        target = target.float()
        return (target.mean(0) - torch.tensor(self.centre)) / torch.tensor(self.scale)

    def match(self, probabilities: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        if not self.needs_float64:
            return probabilities, target.float().reshape(probabilities.shape)
        shape = probabilities.shape
        less = [self._less_centre(x.reshape(-1, self.outputs)).reshape(shape) for x in (probabilities, target)]
        return less[0], less[1]

    def score(self, probabilities: Tensor, target: Tensor, weight: Tensor | None = None) -> tuple[str, float, float]:
        """R², averaged over targets (NaN where one of them never varies); guessing says the mean."""
        values, truth = by_row(probabilities.double()), by_row(target.double())
        w = truth.new_ones(len(truth), 1) if weight is None else weight.to(truth)[:, None]
        rest = (w * (values - truth).square()).sum(0)
        total = (w * (truth - weighted_mean(truth, weight)).square()).sum(0)
        return "R²", float((1 - rest / total.masked_fill(total == 0, math.nan)).mean()), 0.0

    @classmethod
    def fitted(cls, target: Tensor, names: tuple[str, ...] = ("target",)) -> Regression:
        """With centre, scale and ten quantile bins of these training targets ``[N]`` or ``[N, K]``."""
        values = target.double().reshape(len(target), len(names))
        values = values[torch.isfinite(values).all(1)]
        far = len(values) > 1 and any(map(_far, values.mean(0).tolist(), values.std(0).tolist()))
        values = values if far else values.float()
        if len(values) < 2:
            raise ConfigError(
                f"a regression needs two rows with a target to learn its scale from; there are {len(values)}"
            )
        edges = torch.quantile(values[:, 0], torch.linspace(0.1, 0.9, 9).to(values))
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


def _far(centre: float, scale: float) -> bool:
    return scale > 0 and abs(centre) > OFFSET * scale
