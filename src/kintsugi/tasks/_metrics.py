"""Metrics that torchmetrics lacks. Import this module only where torchmetrics is wanted: it takes two seconds."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics import Metric, PearsonCorrCoef
from torchmetrics.classification import (
    MulticlassAUROC,
    MulticlassAveragePrecision,
    MulticlassConfusionMatrix,
    MultilabelAUROC,
    MultilabelConfusionMatrix,
)
from torchmetrics.utilities import dim_zero_cat


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


class LabelLogLoss(LogLoss):
    """Mean negative log-likelihood of each label, in nats; probabilities are clipped at 1e-7."""

    def update(self, probabilities: Tensor, target: Tensor) -> None:
        """probabilities ``[B, C]``, target ``[B, C]`` of zeros and ones."""
        chosen = torch.where(target > 0.5, probabilities, 1 - probabilities).clamp(min=1e-7)
        self.total = self.total - chosen.log().sum()
        self.count = self.count + target.numel()


# what is read from the confusion matrix, of the rows and of each resample of them alike ---------------------------------


def _balanced(counts: Tensor) -> Tensor:
    hits, missed, _, _ = _rates(counts)
    return (hits / (hits + missed)).nanmean(-1)


def _sensitivity(counts: Tensor) -> Tensor:
    hits, missed, _, _ = _rates(counts)
    return _positive(hits / (hits + missed))


def _specificity(counts: Tensor) -> Tensor:
    _, _, wrong, rest = _rates(counts)
    return _positive(rest / (rest + wrong))


def _f1(counts: Tensor) -> Tensor:
    hits, missed, wrong, _ = _rates(counts)
    return _positive(2 * hits / (2 * hits + missed + wrong))


def _mcc(counts: Tensor) -> Tensor:
    """Gorodkin, Comparing two K-category assignments by a K-category correlation coefficient, 2004.

    0 where a single class is answered, as in scikit-learn; NaN where a single class occurs.
    """
    total, right = counts.sum((-2, -1)), counts.diagonal(dim1=-2, dim2=-1).sum(-1)
    true, answered = counts.sum(-1), counts.sum(-2)
    spread, answers = total.square() - true.square().sum(-1), total.square() - answered.square().sum(-1)
    shared = right * total - (true * answered).sum(-1)
    return torch.where((answers == 0) & (spread > 0), 0.0, shared / (spread * answers).sqrt())


def _rates(counts: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """From counts ``[..., K, K]`` (true, answered) of each class ``[..., K]``: hits, missed, wrongly answered, the rest."""
    hits = counts.diagonal(dim1=-2, dim2=-1)
    missed, wrong = counts.sum(-1) - hits, counts.sum(-2) - hits
    return hits, missed, wrong, counts.sum((-2, -1))[..., None] - hits - missed - wrong


def _positive(values: Tensor) -> Tensor:
    """Of two classes the last, of more the mean of those that have a value."""
    return values[..., -1] if values.shape[-1] == 2 else values.nanmean(-1)


READINGS = {"balanced": _balanced, "sensitivity": _sensitivity, "specificity": _specificity, "f1": _f1, "mcc": _mcc}


class ClassCounts(MulticlassConfusionMatrix):
    """One of ``READINGS``, from counts of true and answered classes; NaN where it is not defined.

    torchmetrics counts. Its own metrics of these names take a value for what is not defined, such as the recall of a class
    that no row has; and the bootstrap needs the same figure from counts of each resample.
    """

    higher_is_better = True

    def __init__(self, classes: int, reading: str) -> None:
        super().__init__(classes)
        self.reading = reading

    def compute(self) -> Tensor:
        """Over everything seen."""
        return self.read(super().compute().double())

    def read(self, counts: Tensor) -> Tensor:
        """Values ``[...]`` from counts ``[..., C, C]``."""
        return READINGS[self.reading](counts)


class LabelCounts(MultilabelConfusionMatrix):
    """The mean of one of ``READINGS`` over the labels of which it is defined."""

    higher_is_better = True

    def __init__(self, labels: int, reading: str) -> None:
        super().__init__(labels)
        self.reading = reading

    def compute(self) -> Tensor:
        """Over everything seen."""
        return self.read(super().compute().double())

    def read(self, counts: Tensor) -> Tensor:
        """Values ``[...]`` from counts ``[..., C, 2, 2]``."""
        return READINGS[self.reading](counts).nanmean(-1)


# from the order of the rows ----------------------------------------------------------------------------------------------


class ClassAUROC(MulticlassAUROC):
    """Area under the ROC curve: of two classes that of the last, of more the mean over classes that occur, each against the
    rest (Provost and Domingos 2000, not weighted). NaN where a single class occurs.
    """

    def __init__(self, classes: int) -> None:
        super().__init__(classes, average=None)

    def compute(self) -> Tensor:  # type: ignore[override]
        """Over everything seen."""
        return _of_classes(_quiet(super().compute), dim_zero_cat(self.target), self.num_classes)


class ClassAveragePrecision(MulticlassAveragePrecision):
    """Average precision: of two classes that of the last, of more the mean over classes that occur, each against the rest.

    NaN where a single class occurs.
    """

    def __init__(self, classes: int) -> None:
        super().__init__(classes, average=None)

    def compute(self) -> Tensor:  # type: ignore[override]
        """Over everything seen."""
        return _of_classes(_quiet(super().compute), dim_zero_cat(self.target), self.num_classes)


class LabelAUROC(MultilabelAUROC):
    """Area under the ROC curve, the mean over labels that some rows have and some have not."""

    def __init__(self, labels: int) -> None:
        super().__init__(labels, average=None)

    def compute(self) -> Tensor:  # type: ignore[override]
        """Over everything seen."""
        target = dim_zero_cat(self.target).reshape(-1, self.num_labels).float()
        told = (target.mean(0) > 0) & (target.mean(0) < 1)
        return _quiet(super().compute).reshape(-1).masked_fill(~told, torch.nan).nanmean()


def _of_classes(areas: Tensor, target: Tensor, classes: int) -> Tensor:
    counts = torch.bincount(target, minlength=classes)
    occurring = counts > 0
    if int(occurring.sum()) < 2:
        return areas.new_tensor(torch.nan)
    return areas[-1] if classes == 2 else areas[occurring].mean()


def _quiet(compute: Callable[[], Tensor]) -> Tensor:
    """Without what torchmetrics says of classes that do not occur: they are left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return compute()


class Correlation(PearsonCorrCoef):
    """Pearson's correlation, the mean over targets; NaN where answers or targets never vary."""

    higher_is_better = True

    def __init__(self, targets: int) -> None:
        super().__init__(targets)

    def compute(self) -> Tensor:
        """Over everything seen."""
        still = self._still(self.var_x, self.mean_x) | self._still(self.var_y, self.mean_y)
        return _quiet(super().compute).reshape(-1).masked_fill(still.reshape(-1), torch.nan).mean()

    def _still(self, squares: Tensor, mean: Tensor) -> Tensor:
        """Is the spread no more than what rounding in float32 leaves?"""
        return squares <= self.n_total * (1e-6 * mean).square()
