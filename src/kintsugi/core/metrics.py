"""Metrics by name: what a task brings itself, and what fits every task of its kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from kintsugi.core.errors import ConfigError, UnknownName
from kintsugi.core.registry import Registry

if TYPE_CHECKING:
    from kintsugi.core.task import Task

Kind = Literal["classes", "labels", "numbers"]
KINDS: Mapping[Kind, str] = {
    "classes": "one class a row", "labels": "several labels a row", "numbers": "numbers",
}  # fmt: skip


@dataclass(frozen=True)
class NamedMetric:
    """A metric under its name.

    about: what it says, and of which class; makers: kind of task -> what makes a ``torchmetrics.Metric`` for such a task.
    """

    about: str
    makers: Mapping[Kind, Callable[[Task], Any]]


METRICS: Registry[NamedMetric] = Registry("metric", "kintsugi.tasks")


def metric_names(task: Task) -> list[str]:
    """Names of all metrics of a task: its own in their order, then those that fit its kind."""
    own, kind = list(task.metrics().keys()), _kind(task)
    return [*own, *(name for name in METRICS if name not in own and kind in METRICS[name].makers)]


def named_metric(task: Task, name: str) -> Any:
    """A new ``torchmetrics.Metric`` of what the task's ``match`` returns.

    Args:
        task: whose answers it scores; its own metrics come first.
        name: such as ``auroc``; :func:`metric_names` has them all.

    Raises:
        UnknownName: no metric is called so; the message suggests the nearest.
        ConfigError: there is one, but not for this task.
    """
    own, kind = task.metrics(), _kind(task)
    if name in own:
        return own[name]
    known = metric_names(task)
    if name not in METRICS:
        raise UnknownName(f"metric of {task.key}", name, known)
    if kind is None or kind not in METRICS[name].makers:
        meant = " and ".join(KINDS[k] for k in METRICS[name].makers)
        raise ConfigError(
            f"metric {name!r} is for tasks with {meant}, and this one is {task.key}; use one of {', '.join(known)}"
        )
    return METRICS[name].makers[kind](task)


def named_metrics(task: Task, names: Iterable[str]) -> dict[str, Any]:
    """Name -> :func:`named_metric`, in this order."""
    return {name: named_metric(task, name) for name in names}


def _kind(task: Task) -> Kind | None:
    """What a row's answer is. None: a task of another shape, which brings its own metrics."""
    if task.face is None or len(task.output_shape) != 1:
        return None
    if task.exclusive:
        return "classes"
    return "labels" if task.link == "sigmoid" else "numbers"
