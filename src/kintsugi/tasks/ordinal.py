"""One of several classes that stand in an order, such as grades."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kintsugi.core.batch import Batch
from kintsugi.core.features import Stream
from kintsugi.core.task import TASKS, StreamSpec
from kintsugi.tasks.common import OneClass
from kintsugi.tasks.metrics import made

CLOSEST = 1e-4  # between two thresholds: the logarithm of a class between equal ones would not be finite


class OrdinalHead(nn.Module):
    """Proportional odds: one score s a row and C - 1 thresholds, ``P(class <= k) = sigmoid(threshold_k - s)``.

    McCullagh, Regression Models for Ordinal Data, Journal of the Royal Statistical Society B 42, 1980. The first threshold is
    free, the steps between the others are softplus of free numbers, so that they stay in order. They start where all classes
    are equally probable at score 0.
    """

    def __init__(self, spec: StreamSpec, classes: int) -> None:
        super().__init__()
        self.score = nn.Linear(spec.dim, 1, bias=False)  # a constant of the score would only shift all thresholds
        even = torch.arange(1, classes, dtype=torch.float64).div(classes).logit()
        self.first = nn.Parameter(even[:1].float())
        self.steps = nn.Parameter((even.diff() - CLOSEST).expm1().log().float())

    def forward(self, stream: Stream) -> Tensor:
        """Log-probabilities ``[B, C]``."""
        return log_probabilities(self.score(stream.pooled())[:, 0], self.first, F.softplus(self.steps) + CLOSEST)


def log_probabilities(score: Tensor, first: Tensor, steps: Tensor) -> Tensor:
    """Scores ``[B]``, lowest threshold ``[1]`` and positive steps to the next ones ``[C - 2]`` -> ``[B, C]``.

    The class between thresholds a < b has ``sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b))``, whose
    logarithm is finite however far the score is from both.
    """
    above = torch.cat([first, first + steps.cumsum(0)]) - score[:, None]
    low, high = F.logsigmoid(above), F.logsigmoid(-above)
    between = low[:, 1:] + high[:, :-1] + torch.log(-torch.expm1(-steps))
    return torch.cat([low[:, :1], between, high[:, -1:]], 1)


@TASKS.register("ordinal")
class Ordinal(OneClass):
    """One of several classes in an order: output ``[B, C]`` log-probabilities, target int64 ``[B]``, the class's place.

    Args:
        classes: names, from the lowest to the highest; numbers are answered as such.
        values: what answers call each class, where it is not the name.
    """

    key = "ordinal"

    def head(self, spec: StreamSpec) -> nn.Module:
        return OrdinalHead(spec, self.outputs)

    def loss(self, output: Tensor, batch: Batch, rows: Tensor | None = None) -> Tensor:
        """Negative log-likelihood in nats; the output may miss a constant, as products of probabilities do."""
        return self.mean(F.cross_entropy(output, self.target(batch), reduction="none"), batch, rows)

    def metrics(self) -> dict[str, Any]:
        """Mean distance of the most probable from the true class, in places (lower is better), kappa with quadratic weights
        (higher; Cohen, Weighted Kappa, Psychological Bulletin 70, 1968), accuracy (higher).
        """
        from torchmetrics.classification import MulticlassCohenKappa

        from kintsugi.tasks._metrics import ClassDistance

        return {
            "class_mae": ClassDistance(),
            "quadratic_kappa": MulticlassCohenKappa(self.outputs, weights="quadratic"),
            **made("classes", self, "accuracy"),
        }

    def score(self, probabilities: Tensor, target: Tensor, weight: Tensor | None = None) -> tuple[str, float, float]:
        """Kappa with quadratic weights of the most probable class, NaN where all rows are of one class and told to be; guessing
        has 0.
        """
        guess, truth = probabilities.argmax(1).double(), target.double()
        w = torch.ones_like(truth) if weight is None else weight.to(truth)
        total = w.sum()
        squares = (w * guess.square()).sum() + (w * truth.square()).sum()
        apart = total * squares - 2 * (w * guess).sum() * (w * truth).sum()  # over all pairs
        return "quadratic kappa", float(1 - total * (w * (guess - truth).square()).sum() / apart), 0.0

    def to_json(self) -> dict[str, Any]:
        return {"classes": list(self.names), **self._spelling()}
