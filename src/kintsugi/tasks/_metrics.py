"""Metrics that torchmetrics lacks. Import this module only where torchmetrics is wanted: it takes two seconds."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class LogLoss(Metric):
    """Mean negative log-likelihood of the true class, in nats; probabilities are clipped at 1e-7."""

    higher_is_better = False
    is_differentiable = False
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, target: Tensor) -> None:
        """probabilities ``[B, C]``, target int64 ``[B]``."""
        chosen = probabilities.gather(1, target[:, None]).clamp(min=1e-7)
        self.total = self.total - chosen.log().sum()
        self.count = self.count + len(target)

    def compute(self) -> Tensor:
        """The mean over everything seen."""
        mean: Tensor = self.total / self.count
        return mean


class ClassDistance(Metric):
    """Mean number of places between the most probable and the true one of classes that stand in an order."""

    higher_is_better = False
    is_differentiable = False
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, target: Tensor) -> None:
        """probabilities ``[B, C]``, target int64 ``[B]``."""
        self.total = self.total + (probabilities.argmax(1) - target).abs().sum()
        self.count = self.count + len(target)

    def compute(self) -> Tensor:
        """The mean over everything seen."""
        mean: Tensor = self.total / self.count
        return mean
