"""By which metric the epoch is chosen, and whether that metric says anything on the validation rows."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from kintsugi.core.data import Data
from kintsugi.core.metrics import metric_names, named_metric
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.task import Task

FEWEST_ROWS = 10  # one row of fewer moves an accuracy by more than ten hundredths
FEWEST_EPOCHS = 3  # of fewer, equal scores are no news
SAME = 1e-6  # scores of which the difference is rounding


def scored_rows(pipeline: Pipeline, data: Data) -> Tensor:
    """Positions of the rows that validation scores: with a label, and with a modality that the model reads."""
    columns = [data.schema.column(m) for m in pipeline.model.schema.names]
    return (data.present[:, columns].any(1) & data.target_present).nonzero().flatten()


def metric_name(pipeline: Pipeline, val: Data, select: bool | str, quiet: bool = False) -> str:
    """Name of the metric that chooses the epoch: the one asked for, or the task's first one where that says nothing here.

    Args:
        pipeline: that is trained.
        val: validation rows.
        select: a name, or True: the task's first metric.
        quiet: do not warn where the metric asked for is not defined on these rows, whatever the model answers.
    """
    task = pipeline.model.task
    first = str(next(iter(task.metrics().keys())))
    if not isinstance(select, str) or select == first or _is_defined(task, select, pipeline, val):
        return first if select is True else str(select)
    if not quiet:
        rows, only = scored_rows(pipeline, val), ""
        if task.exclusive and val.target is not None:
            only = f", which are all of class {task.names[int(val.target[rows][0])]!r}" if len(rows) else ""
        warnings.warn(
            f"select={select!r} is not defined on the {len(rows)} validation rows with a label{only}: the epoch is chosen by "
            f"{first} instead. Give validation rows of every class, or with targets that vary",
            stacklevel=2,
        )
    return first


def _is_defined(task: Task, name: str, pipeline: Pipeline, val: Data) -> bool:
    """Has the metric a value of drawn answers to these rows? Then it has one of a model's, unless these never vary."""
    rows = scored_rows(pipeline, val)
    if val.target is None or not len(rows):
        return True  # nothing is validated, whatever the metric
    if task.prior_shape != task.output_shape:
        return True  # outputs of a size that only the rows know
    drawn = torch.randn(len(rows), *task.output_shape, generator=torch.Generator().manual_seed(0))
    return math.isfinite(_score(task, name, drawn, val.target[rows]))


def guess(pipeline: Pipeline, val: Data, name: str) -> float:
    """What the prior, answered to every row, gets by this metric; NaN where that cannot be said."""
    task, rows = pipeline.model.task, scored_rows(pipeline, val)
    if val.target is None or not len(rows) or task.prior_shape != task.output_shape:
        return math.nan
    prior = pipeline.model.prior.detach().cpu().float()
    return _score(task, name, prior.expand(len(rows), *prior.shape), val.target[rows])


def _score(task: Task, name: str, output: Tensor, target: Tensor) -> float:
    metric = named_metric(task, name)
    with warnings.catch_warnings():  # what torchmetrics says of constant answers, or of a class without rows
        warnings.simplefilter("ignore", UserWarning)
        metric.update(*(x.contiguous() for x in task.match(task.probabilities(output), target.cpu())))
        return float(metric.compute())


def doubt(pipeline: Pipeline, val: Data, name: str, scores: Sequence[float]) -> str | None:
    """Why a choice of the epoch says little, with numbers and remedy; None: nothing speaks against it.

    Args:
        pipeline: that was trained.
        val: the rows that chose.
        name: of the metric.
        scores: of each epoch.
    """
    rows, task = scored_rows(pipeline, val), pipeline.model.task
    if len(scores) < 2 or val.target is None or not len(rows):
        return None
    if task.exclusive and len(val.target[rows].unique()) == 1:
        return (
            f"the epoch was chosen by {name} on {len(rows)} validation rows that are all of class "
            f"{task.names[int(val.target[rows][0])]!r}: the best is then whatever says so most often. Give validation rows of "
            "every class"
        )
    if len(rows) < FEWEST_ROWS:
        return (
            f"the epoch was chosen by {name} on {len(rows)} validation rows with a label, which is mostly chance: give "
            f"{FEWEST_ROWS} or more, or take the last epoch with select=False"
        )
    if len(scores) < FEWEST_EPOCHS or name not in metric_names(task):
        return None
    guessed = guess(pipeline, val, name)
    best = max(scores) if named_metric(task, name).higher_is_better else min(scores)
    alike = sum(abs(score - guessed) <= SAME for score in scores)
    if not abs(best - guessed) <= SAME or alike < FEWEST_EPOCHS:
        return None
    remedy = "Give more rows, or train for longer"
    if task.exclusive:
        remedy = (
            'Choose it by another metric, such as select="auroc", train with class_weight="balanced", or give more rows'
        )
    return (
        f"the validation {name} was {guessed:.4g} in {alike} of the {len(scores)} epochs, on {len(rows)} rows, and never better: "
        f"that is what a guess gets that always answers what the training rows have most, and cannot tell which epoch is best. "
        f"{remedy}"
    )
