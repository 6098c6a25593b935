"""One tidy table of everything that was measured, and the calls that fill it."""

from __future__ import annotations

import math
import os
import platform
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from kintsugi.core.errors import ConfigError, DataError, UnknownName
from kintsugi.core.metrics import metric_names, named_metrics
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.schema import Task
from kintsugi.evaluation.evaluator import Outcome, predict_conditions
from kintsugi.evaluation.examples import Example, examples
from kintsugi.evaluation.intervals import Bootstrap, Interval, Measured, measure
from kintsugi.evaluation.naming import named_pipelines, seed_of, training_of
from kintsugi.evaluation.protocols import Protocol, get_protocol
from kintsugi.evaluation.summary import curves, leaderboard, summarise
from kintsugi.io.files import replacing

if TYPE_CHECKING:
    from kintsugi.data.dataset import Dataset

__all__ = ["COLUMNS", "Results", "Run", "evaluate", "examples"]

KEY = ("dataset", "method", "seed", "training")
COLUMNS = (
    *KEY, "condition", "group", "x", "metric", "value", "low", "high", "n", "higher_is_better", "seconds", "mask_hash",
)  # fmt: skip
GUESS = "guess"


@dataclass(frozen=True)
class Run:
    """How some rows of a table came about: one model under one protocol.

    fingerprint: of the test rows and of all that was done to them; rows: that were scored; unlabelled: that were left
    out; means: metric -> kind of condition (``subset``, ``rate``, ``corruption``) -> mean over those conditions with
    its interval, from resamples that all conditions share; guess: metric -> what a guess gets on the same rows;
    positive: of two classes the one that sensitivity, specificity, F1 and the areas are about, else "".
    """

    dataset: str
    method: str
    seed: int
    training: str
    fingerprint: str
    data_condition: str
    rows: int
    unlabelled: int
    protocol: Protocol
    resamples: int
    seconds: float
    versions: Mapping[str, str]
    means: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    guess: Mapping[str, float] = field(default_factory=dict)
    positive: str = ""


class Results:
    """Measurements in one tidy table.

    table: a pandas frame with the columns dataset, method, seed (of training), training (what was done to the training
    rows), condition, group, x (rate or severity), metric, value, low, high (95 % bootstrap interval over test rows), n
    (rows scored), higher_is_better, seconds (of the condition, all metrics together), mask_hash, and guess: what the same
    rows give to the answer that the model gives to a row with nothing, which is the class frequencies or the mean of the
    training rows; NaN in tables that do not know it.
    runs: how they came about.
    """

    def __init__(self, table: pd.DataFrame, runs: Iterable[Run] = ()) -> None:
        absent = [column for column in COLUMNS if column not in table.columns]
        if absent:
            raise DataError(f"a table of results lacks {', '.join(absent)}")
        table = table if GUESS in table.columns else table.assign(**{GUESS: math.nan})
        self.table = table.reset_index(drop=True)
        self.runs = tuple(runs)

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        t = self.table
        return (
            f"<Results: {t['method'].nunique()} methods, {t['condition'].nunique()} conditions, "
            f"{t['dataset'].nunique()} data sets; {', '.join(t['metric'].unique())}>"
        )

    def __add__(self, other: Results) -> Results:
        return Results.concat([self, other])

    @classmethod
    def concat(cls, parts: Iterable[Results]) -> Results:
        """All of them in one table; what two of them hold alike is kept once.

        Raises:
            ConfigError: two of them hold different values under the same names.
        """
        given = list(parts)
        if not given:
            raise ConfigError("no results to put together")
        # A frame without rows says nothing of types, and pandas would let it spoil those of the others.
        filled = [p.table[[*COLUMNS, GUESS]] for p in given if len(p)] or [given[0].table]
        table = pd.concat(filled, ignore_index=True)
        unit = [*KEY, "condition", "metric"]
        for names, same in table[table.duplicated(unit, keep=False)].groupby(unit, sort=False):
            if same["value"].isna().nunique() > 1 or same["value"].max() - same["value"].min() > 1e-5:
                said = ", ".join(f"{column} {value!r}" for column, value in zip(unit, names, strict=True))
                raise ConfigError(f"two different results for {said}; give the models different names or seeds")
        return cls(table.drop_duplicates(unit), [run for part in given for run in part.runs])

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics, the leading one first."""
        return [str(name) for name in self.table["metric"].unique()]

    def higher_is_better(self, metric: str) -> bool:
        """Direction of a metric."""
        return bool(self.table.loc[self.table["metric"] == self._known(metric), "higher_is_better"].iloc[0])

    def _known(self, metric: str | None) -> str:
        if metric is None:
            return self.metrics[0]
        if metric not in self.metrics:
            raise UnknownName("metric", metric, self.metrics)
        return metric

    def guess(self, metric: str | None = None) -> pd.Series[float]:
        """What a guess gets in each data set (the index), averaged over models; NaN where the table does not know it.

        A guess gives to every row the answer that the model gives to a row with nothing: the class frequencies, or the mean,
        of the training rows. By accuracy that is the share of the class that most training rows have, by AUROC 0.5.
        """
        chosen = self.table[self.table["metric"] == self._known(metric)]
        found: pd.Series[float] = chosen.groupby("dataset", sort=False)[GUESS].mean().astype(float)
        return found

    def summary(self, metric: str | None = None) -> pd.DataFrame:
        """One row a data set, method and training condition: clean, means, worst, areas.

        The columns are described at :func:`~kintsugi.evaluation.summary.summarise`.
        """
        return summarise(self.table, self._known(metric), self.runs)

    def leaderboard(self, metric: str | None = None) -> pd.DataFrame:
        """:meth:`summary`, best mean over the degraded conditions first, with a rank in each data set."""
        return leaderboard(self.summary(metric))

    def curves(self, metric: str | None = None) -> pd.DataFrame:
        """Degradation curves: dataset, method, training, group, x, value, low, high, the mean over seeds."""
        return curves(self.table, self._known(metric))

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """The table as a file; :meth:`from_csv` reads it."""
        with replacing(path) as fresh:
            self.table.to_csv(fresh, index=False)
        return Path(path)

    @classmethod
    def from_csv(cls, path: str | os.PathLike[str]) -> Results:
        """The table that :meth:`to_csv` wrote; how it came about is not in it."""
        table = pd.read_csv(path, dtype=dict.fromkeys(("training", "mask_hash"), "string"))
        text = ["dataset", "method", "training", "condition", "group", "metric", "mask_hash"]
        return cls(table.assign(**{name: table[name].astype(object).fillna("").astype(str) for name in text}))

    def to_html(
        self,
        path: str | os.PathLike[str],
        *,
        metric: str | None = None,
        examples: Sequence[Example] = (),
        title: str | None = None,
        command: str | None = None,
    ) -> Path:
        """A report in one file that opens without a network; see :func:`~kintsugi.evaluation.report.write_report`."""
        from kintsugi.evaluation.report import write_report

        return write_report(self, path, metric=metric, examples=examples, title=title, command=command)


def evaluate(
    model: Any,
    data: Dataset | Any,
    protocol: str | Protocol = "subsets",
    *,
    name: str | None = None,
    seed: int | None = None,
    training: str | None = None,
    metrics: Mapping[str, Any] | Sequence[str] | None = None,
    chunk: int = 1024,
    cache: bool = True,
    resamples: int = 1000,
    progress: bool | None = False,
    each: Callable[[Sequence[Outcome], Dataset], None] | None = None,
) -> Results:
    """Score models under every condition of a protocol, with 95 % intervals.

    Args:
        model: a pipeline, an estimator that holds one, or several: a list, or a dict of name -> model.
        data: test rows: a data set, or a frame, records or a file, read as the training rows of the model were; rows without
            label are left out and counted.
        protocol: its name, with arguments if it takes some, or a :class:`~kintsugi.evaluation.Protocol`.
        name: of a single model in the table; default: the key of its method.
        seed: with which it was trained; default: the estimator's own, else 0.
        training: what was done to its training rows, such as ``mcar(0.5)``; default: what the estimator says of
            itself, else ``unstated``.
        metrics: names, such as ``["auroc", "f1"]`` (:func:`kintsugi.core.metrics.metric_names` lists those of a task), or a
            mapping of name -> torchmetrics metric; default: the task's own.
        chunk: rows held in memory at a time.
        cache: False asks each model anew for each condition.
        resamples: of the bootstrap.
        progress: a bar on the error stream; None: where it is a terminal.
        each: called for each model with its answers under every condition and with the rows that are scored.

    Warns:
        UserWarning: an estimator was trained on most of these rows, or they are unlike its training rows (see
            :class:`~kintsugi.data.profile.Profile`); conditions of the protocol are not looked at.

    Raises:
        DataError: fewer than two rows have a label, or the data lacks a modality of the model or has another task.
        UnknownName: no metric is called so.
        ConfigError: a metric that does not fit the task, or does not say whether higher is better.
    """
    from kintsugi.data.reading import rows_for

    pipelines = named_pipelines(model, name)
    data = rows_for(model, data)
    rows = _labelled(data)
    found = get_protocol(protocol, rows)
    bootstrap = Bootstrap(len(rows), resamples)
    parts = []
    said: set[str] = set()
    for label, given, pipeline in pipelines:
        own = _read_by(pipeline, data)
        _check(given, pipeline, own)
        _tell_profile(given, pipeline, own, said)
        run = _Scoring(
            label, seed_of(given) if seed is None else seed, training_of(given) if training is None else training
        )
        parts.append(run.score(pipeline, _labelled(own), own, found, metrics, bootstrap, chunk, cache, progress, each))
    return Results.concat(parts)


def _read_by(pipeline: Pipeline, data: Dataset) -> Dataset:
    """The rows as the training rows of this model were read, whose scales are its own."""
    from kintsugi.data.refit import read_as

    return data if pipeline.reading is None else read_as(data, pipeline.reading)


def _tell_profile(given: Any, pipeline: Pipeline, data: Dataset, said: set[str]) -> None:
    """Warn where the rows as given, before any condition, are unlike the training rows, or are these."""
    from kintsugi.data.profile import tell
    from kintsugi.training.checks import absent_in_use

    profile = getattr(given, "profile_", None)
    tell(profile, data, scored=True, optional=absent_in_use(pipeline), said=said, stacklevel=3)


def _labelled(data: Dataset) -> Dataset:
    keep = data.target_present.nonzero().flatten() if data.target is not None else torch.zeros(0)
    if len(keep) < 2:
        raise DataError(f"{data.name}: {len(keep)} rows have a label; two or more are needed to score a model")
    return data if len(keep) == len(data) else data.subset(keep)


def _check(given: Any, pipeline: Pipeline, data: Dataset) -> None:
    from kintsugi.data.reading import check_reading

    for modality in pipeline.schema.names:
        if modality not in data.schema.names:
            raise DataError(
                f"the model reads modality {modality!r}, which {data.name} lacks; it has {', '.join(data.schema.names)}"
            )
    check_reading(data, getattr(given, "reading_", None))
    reason = pipeline.schema.task.same_meaning(data.schema.task)
    if reason is not None:
        raise DataError(f"{data.name} {reason}")


@dataclass
class _Scoring:
    """One model in the making of a table."""

    method: str
    seed: int
    training: str

    def score(
        self,
        pipeline: Pipeline,
        rows: Dataset,
        data: Dataset,
        protocol: Protocol,
        metrics: Mapping[str, Any] | Sequence[str] | None,
        bootstrap: Bootstrap,
        chunk: int,
        cache: bool,
        progress: bool | None,
        each: Callable[[Sequence[Outcome], Dataset], None] | None,
    ) -> Results:
        from kintsugi.training.progress import Progress

        task = pipeline.schema.task
        chosen = _metrics(task, metrics)
        with Progress(progress, self.method) as bar:
            bar.expect(len(protocol) * math.ceil(len(rows) / chunk), protocol.name)
            outcomes = predict_conditions(
                pipeline, rows, protocol.conditions, chunk=chunk, cache=cache, progress=lambda *_: bar.advance()
            )
        if each is not None:
            each(outcomes, rows)
        assert rows.target is not None
        measured = [_scores(task, chosen, outcome, rows.target, bootstrap) for outcome in outcomes]
        guessed = _guess(pipeline, chosen, outcomes[0].output.shape, rows.target) if outcomes else {}
        lines = [
            self._line(data, outcome, name, one, bool(chosen[name].higher_is_better), len(rows))
            | {GUESS: guessed[name]}
            for outcome, scores in zip(outcomes, measured, strict=True)
            for name, one in scores.items()
        ]
        run = Run(
            data.name,
            self.method,
            self.seed,
            self.training,
            rows.fingerprint,
            data.condition,
            len(rows),
            len(data) - len(rows),
            protocol,
            bootstrap.resamples,
            sum(outcome.seconds for outcome in outcomes),
            _versions(),
            {name: _means(outcomes, [scores[name] for scores in measured], bootstrap) for name in chosen},
            guessed,
            task.names[-1] if task.exclusive and len(task.names) == 2 else "",
        )
        return Results(pd.DataFrame(lines, columns=[*COLUMNS, GUESS]), [run])

    def _line(
        self, data: Dataset, outcome: Outcome, metric: str, one: Measured, higher: bool, n: int
    ) -> dict[str, Any]:
        return {
            "dataset": data.name,
            "method": self.method,
            "seed": self.seed,
            "training": self.training,
            "condition": outcome.condition.name,
            "group": outcome.condition.group,
            "x": math.nan if outcome.condition.x is None else outcome.condition.x,
            "metric": metric,
            "value": one.interval.value,
            "low": one.interval.low,
            "high": one.interval.high,
            "n": n,
            "higher_is_better": higher,
            "seconds": outcome.seconds,
            "mask_hash": outcome.mask_hash,
        }


def _metrics(task: Task, wanted: Mapping[str, Any] | Sequence[str] | None) -> dict[str, Any]:
    if isinstance(wanted, str):
        wanted = [wanted]
    if wanted is None or not hasattr(wanted, "items"):
        wanted = None if wanted is None else list(wanted)
        odd = [name for name in wanted or () if not isinstance(name, str)]
        if odd:
            raise ConfigError(
                f"metrics has {odd[0]!r} in a list, which is for names such as {', '.join(metric_names(task)[:3])}; give metrics "
                "of your own as a mapping, {'name': metric}"
            )
        chosen = named_metrics(task, wanted) if wanted else dict(task.metrics().items())
    else:
        chosen = dict(wanted.items())
    for name, metric in chosen.items():
        if metric.higher_is_better is None:
            raise ConfigError(
                f"metric {name!r} does not say whether higher is better; set higher_is_better on its class"
            )
    return chosen


def _scores(
    task: Task, metrics: Mapping[str, Any], outcome: Outcome, target: Tensor, bootstrap: Bootstrap
) -> dict[str, Measured]:
    return measure(metrics, *task.match(outcome.probabilities, target), bootstrap)


def _guess(pipeline: Pipeline, metrics: Mapping[str, Any], shape: torch.Size, target: Tensor) -> dict[str, float]:
    """What the prior gets on these rows, by each metric; NaN where that is not defined."""
    task = pipeline.schema.task
    prior = pipeline.model.prior.detach().cpu().float()
    answers, truth = task.match(task.probabilities(prior.expand(shape)), target)
    found = {}
    with warnings.catch_warnings():  # of answers that never vary, or of a class without rows
        warnings.simplefilter("ignore", UserWarning)
        for name, metric in metrics.items():
            metric.reset()
            metric.update(answers.contiguous(), truth.contiguous())
            found[name] = float(metric.compute())
            metric.reset()
    return found


def _means(outcomes: Sequence[Outcome], scores: Sequence[Measured], bootstrap: Bootstrap) -> dict[str, Interval]:
    """Means over kinds of conditions; an interval of each, since all conditions share their resamples."""
    kinds = {"subset": ("clean", "subset"), "rate": ("rate",), "corruption": ("corruption",)}
    found = {}
    for kind, groups in kinds.items():
        here = [one for o, one in zip(outcomes, scores, strict=True) if o.condition.group.partition("/")[0] in groups]
        if len(here) > (kind == "subset"):  # the clean condition alone is no mean over subsets
            value = sum(one.interval.value for one in here) / len(here)
            found[kind] = bootstrap.interval(value, torch.stack([one.replicates for one in here]).mean(0))
    return found


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    import kintsugi

    packages = ("torch", "torchmetrics", "numpy", "pandas")
    return {
        "kintsugi": kintsugi.__version__,
        **{name: version(name) for name in packages},
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    }
