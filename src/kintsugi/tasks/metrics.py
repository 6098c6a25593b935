"""The metrics that every task of a kind has under the same names. torchmetrics is imported by those who make one.

Of two classes, those that have a positive one (``sensitivity``, ``specificity``, ``f1``, ``average_precision``) take the
last class in the task's order for it; of three and more they are the mean over classes, each against the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from kintsugi.core.metrics import METRICS, Kind, NamedMetric

if TYPE_CHECKING:
    from kintsugi.core.task import Task

POSITIVE = "; of two classes that of the last one, of more the mean over classes, each against the rest"


def _declare(name: str, about: str, **makers: Callable[[Task], Any]) -> None:
    METRICS.register(name)(NamedMetric(about, makers))  # type: ignore[arg-type]


def made(kind: Kind, task: Task, *names: str) -> dict[str, Any]:
    """New metrics of tasks of this kind, by name; what a task's own ``metrics`` is made of."""
    return {name: METRICS[name].makers[kind](task) for name in names}


def _own(module: str, name: str, *more: Any, **options: Any) -> Callable[[Task], Any]:
    """A metric of this class, which is first told how many outputs there are; imported when it is made."""
    return lambda task: getattr(import_module(module), name)(task.outputs, *more, **options)


def _torch(name: str, **options: Any) -> Callable[[Task], Any]:
    return _own("torchmetrics.classification", name, **options)


def _counted(reading: str) -> dict[str, Callable[[Task], Any]]:
    return {kind: _own("kintsugi.tasks._metrics", name, reading) for kind, name in _COUNTS.items()}


_COUNTS = {"classes": "ClassCounts", "labels": "LabelCounts"}


def _number(name: str, **options: Any) -> Callable[[Task], Any]:
    def make(task: Task) -> Any:
        import torchmetrics

        return getattr(torchmetrics, name)(**options)

    return make


def _unsized(name: str) -> Callable[[Task], Any]:
    def make(task: Task) -> Any:
        from kintsugi.tasks import _metrics

        return getattr(_metrics, name)()

    return make


_declare(
    "accuracy",
    "share of rows whose most probable class is right",
    classes=_torch("MulticlassAccuracy", average="micro"),
)
_declare(
    "label_accuracy", "share of labels that are right at 0.5", labels=_torch("MultilabelAccuracy", average="micro")
)
_declare("exact_match", "share of rows whose labels are all right at 0.5", labels=_torch("MultilabelExactMatch"))
_declare(
    "macro_f1", "F1, the mean over classes or labels",
    classes=_torch("MulticlassF1Score", average="macro"), labels=_torch("MultilabelF1Score", average="macro"),
)  # fmt: skip
_declare(
    "log_loss", "mean negative log-likelihood in nats; of labels the mean over labels",
    classes=_unsized("LogLoss"), labels=_unsized("LabelLogLoss"),
)  # fmt: skip
_declare(
    "auroc", "area under the ROC curve" + POSITIVE, classes=_own("kintsugi.tasks._metrics", "ClassAUROC"),
    labels=_own("kintsugi.tasks._metrics", "LabelAUROC"),
)  # fmt: skip
_declare(
    "average_precision", "average precision" + POSITIVE, classes=_own("kintsugi.tasks._metrics", "ClassAveragePrecision"),
    labels=_torch("MultilabelAveragePrecision", average="macro"),
)  # fmt: skip
_declare(
    "balanced_accuracy",
    "recall, the mean over classes that occur; of labels the mean over labels",
    **_counted("balanced"),
)
_declare("sensitivity", "recall" + POSITIVE, **_counted("sensitivity"))
_declare("specificity", "recall of all other classes" + POSITIVE, **_counted("specificity"))
_declare("f1", "F1" + POSITIVE, **_counted("f1"))
_declare("mcc", "correlation of Matthews; of more than two classes that of Gorodkin 2004", **_counted("mcc"))
_declare("mae", "mean absolute error in the target's units", numbers=_number("MeanAbsoluteError"))
_declare("rmse", "root mean squared error in the target's units", numbers=_number("MeanSquaredError", squared=False))
_declare("r2", "R², the mean over targets", numbers=_number("R2Score"))
_declare(
    "pearson", "correlation of Pearson, the mean over targets", numbers=_own("kintsugi.tasks._metrics", "Correlation")
)
