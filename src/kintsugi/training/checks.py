"""What would make training senseless, said before it starts; and which rows and parameters a stage names."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase

from torch import Tensor, nn

from kintsugi.core.card import Card
from kintsugi.core.component import Component
from kintsugi.core.data import Data, Splits
from kintsugi.core.errors import ConfigError, DataError
from kintsugi.core.methods import PLAIN
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.stage import Stage, table_and_rows
from kintsugi.core.task import Task
from kintsugi.data.dataset import Dataset
from kintsugi.training.views import get_view

FEW_SHARE = (
    0.1  # of the training rows: a stage that trains on fewer is said, from so many training rows on. Both constants
)
ENOUGH_ROWS = 100  # are proposed here.


def check(pipeline: Pipeline, data: Splits) -> None:
    """What no method could learn from, or this one must not see.

    Raises:
        ConfigError: the pipeline was made for other data, or must not see what a simulator hid.
        DataError: no target, no label, or a modality that nobody has.
    """
    train = data.train
    task = pipeline.schema.task
    if train.schema.names != pipeline.schema.names or train.schema.task != task:
        raise ConfigError(
            f"the model was made for {', '.join(pipeline.schema.names)} ({task.key}), "
            f"the data has {', '.join(train.schema.names)} ({train.schema.task.key})"
        )
    if task.needs_target:
        if train.target is None:
            raise DataError(f"{train.name}: no target column was named, so there is nothing to learn")
        labelled = train.target[train.target_present]
        if not len(labelled):
            raise DataError(f"{train.name}: every label of the training rows is missing")
        task.check_training(labelled, train.name)
    if not len(data.val):
        raise DataError(f"{data.val.name}: there are no validation rows, by which the epoch is chosen")
    _check_alike("validation table", data.val, train, task)
    if data.auxiliary is not None:
        _check_alike("auxiliary table", data.auxiliary, train, task)
        _check_auxiliary(pipeline, data.auxiliary)
    _check_modalities(pipeline, data)
    _check_strategies(pipeline)
    empty = int((~train.present.any(1)).sum())
    if empty:
        warnings.warn(f"{train.name}: {empty} training rows hold nothing at all and are left out", stacklevel=3)
    for rows in (train, data.val, data.auxiliary):
        _check_hidden(pipeline, rows)
    _tell_few(pipeline, train)


def _tell_few(pipeline: Pipeline, train: Data) -> None:
    """Say once which stages train on few of the training rows."""
    total = len(train.positions("all"))
    if total < ENOUGH_ROWS:
        return
    few: dict[str, str] = {}
    kinds = set()
    for _, stage in pipeline.stages():
        table, kind = table_and_rows(stage.rows)
        count = len(train.positions(kind)) if table == "train" else total
        if 0 < count < FEW_SHARE * total:  # none at all is an error of its own
            few[stage.name] = (
                f"stage {stage.name!r} trains on {count} of {total} rows ({count / total:.0%}, those {kind!r})"
            )
            kinds.add(kind)
    if few:
        remedy = (
            "Most rows lack a modality: choose a method that learns from incomplete rows in every stage, such as mean_fusion "
            "(kintsugi methods lists them), or train on fewer modalities"
            if kinds == {"complete"}
            else "Get more such rows, or choose a method that learns from all of them, such as mean_fusion"
        )
        warnings.warn(f"{train.name}, {title(pipeline)}: {'; '.join(few.values())}. {remedy}", stacklevel=4)


def _check_alike(what: str, rows: Data, train: Data, task: Task) -> None:
    if rows.schema.modalities != train.schema.modalities:
        raise ConfigError(
            f"the {what} ({rows.name}): read otherwise than the training rows; the same modalities are needed, some of them "
            "absent in every row if need be"
        )
    reason = None if rows.target is None else task.same_meaning(rows.schema.task)
    if reason is not None:
        raise ConfigError(f"the {what}: {rows.name} {reason}; read it with the reading of the training rows")


def _check_hidden(pipeline: Pipeline, rows: Data | None) -> None:
    """What a simulator hid and kept as truth is for methods alone whose card says so."""
    if not isinstance(rows, Dataset) or rows.damage.keep != "truth":
        return
    cards = cards_of(pipeline)
    blind = [card.key for card in cards if not card.sees_hidden] or ([] if cards else [type(pipeline.model).__name__])
    if blind:
        raise ConfigError(
            f"{rows.name} keeps what was hidden as truth, but {', '.join(blind)} must not see it: no card says "
            'sees_hidden; use with_missing(..., keep="nothing")'
        )


def _check_strategies(pipeline: Pipeline) -> None:
    """A stage moves the parameters of its own component, so those of a strategy would never move; and what is let go after
    training has to be built again for the next one."""
    served = pipeline.served()
    for path, component in pipeline.named_components():
        parameters = inspect.signature(type(component).__init__).parameters.values()
        if path not in served and any(p.kind is p.VAR_POSITIONAL and component.hyper.get(p.name) for p in parameters):
            raise ConfigError(
                f"{path}: {type(component).__name__} takes a list of arguments without names, by which it cannot be built "
                "again for another training; give each a name"
            )
    for strategy in pipeline.strategies:
        if any(p.requires_grad for p in strategy.parameters()):
            raise ConfigError(
                f"{type(strategy).__name__} has parameters of its own, which no stage moves: make what learns a shared "
                "component, Pipeline(shared={...}), and train it in fit, or a part of the model"
            )


def cards_of(pipeline: Pipeline) -> list[Card]:
    """The cards of its components; one without a card follows the method that it belongs to."""
    return [component.card for _, component in pipeline.named_components() if hasattr(component, "card")]


def absent_in_use(pipeline: Pipeline) -> tuple[str, ...]:
    """Modalities that may be there in training alone, as cards say: all of them, since nothing says which."""
    privileged = any("train" in card.modality_only_in for card in cards_of(pipeline))
    return pipeline.schema.names if privileged else ()


def reads_auxiliary(pipeline: Pipeline) -> bool:
    """Does a stage name the auxiliary table, or a component say that it reads it?"""
    named = (rows for _, stage in pipeline.stages() for rows in (stage.rows, stage.auxiliary) if rows is not None)
    read = any(table_and_rows(rows)[0] == "auxiliary" for rows in named)
    return read or any(component.reads_auxiliary for _, component in pipeline.named_components())


def _check_auxiliary(pipeline: Pipeline, auxiliary: Data) -> None:
    if not reads_auxiliary(pipeline):
        raise ConfigError(
            f"{title(pipeline)} reads no auxiliary table ({auxiliary.name} was given): none of its stages names one, and no "
            "component says reads_auxiliary; leave auxiliary out"
        )


def _check_modalities(pipeline: Pipeline, data: Splits) -> None:
    train, auxiliary = data.train, data.auxiliary
    allowed = {table for card in cards_of(pipeline) for table in card.modality_only_in}
    for column, name in enumerate(train.schema.names):
        if bool(train.present[:, column].any()) or "use" in allowed:
            continue
        if auxiliary is not None and bool(auxiliary.present[:, column].any()):
            if "auxiliary" in allowed:
                continue
            raise DataError(
                f"{train.name}: only the auxiliary table has modality {name!r}, and {title(pipeline)} cannot use that: its "
                "card does not name 'auxiliary' in modality_only_in"
            )
        raise DataError(
            f"{train.name}: modality {name!r} is absent in all {len(train)} training rows; leave it out of the schema"
        )


def check_hooks(pipeline: Pipeline) -> None:
    """After each step under FSDP the weights are in pieces, which no component knows of."""
    for _, component in pipeline.named_components():
        if type(component).on_update is not Component.on_update:
            raise ConfigError(
                f"{type(component).__name__} looks at the weights after every step (on_update), and strategy='fsdp' keeps "
                "them in pieces; use strategy='ddp'"
            )


def check_stages(pipeline: Pipeline, data: Splits) -> None:
    """What any stage would stumble over, said before the first one costs time."""
    components = dict(pipeline.named_components())
    for path, stage in pipeline.stages():
        named_parameters(components[path], stage)
        get_view(stage.view)
        rows_of_stage(data, stage.rows, stage, pipeline)
        if stage.auxiliary is not None:
            rows_of_stage(data, stage.auxiliary, stage, pipeline)


def rows_of_stage(data: Splits, rows: str, stage: Stage, pipeline: Pipeline) -> tuple[Data, Tensor]:
    """The table that a stage names, and the positions in it.

    Raises:
        DataError: there is no such table, or no such row in it.
    """
    table, kind = table_and_rows(rows)
    source: Data | None = getattr(data, table)
    if source is None:
        raise DataError(
            f"{title(pipeline)}: stage {stage.name!r} reads an auxiliary table, and none was given: "
            "fit(train, val, auxiliary=…)"
        )
    positions = source.positions(kind)
    if not len(positions):
        raise DataError(
            f"{title(pipeline)}: stage {stage.name!r} needs {rows!r} rows, and {source.name} has none "
            f"({len(source)} rows, {int(source.present.all(1).sum())} complete, "
            f"{int(source.target_present.sum())} labelled)"
        )
    return source, positions


def named_parameters(component: Component, stage: Stage) -> set[nn.Parameter]:
    """The component's parameters that the stage names.

    Raises:
        ConfigError: a pattern matches none.
    """
    names = dict(component.named_parameters())
    for pattern in stage.trainable:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(
                f"stage {stage.name!r} of {type(component).__name__}: {pattern!r} matches none of its parameters "
                f"({', '.join(sorted({n.partition('.')[0] for n in names}))})"
            )
    return {p for name, p in names.items() if any(fnmatchcase(name, pattern) for pattern in stage.trainable)}


@contextmanager
def moving(component: Component, pipeline: Pipeline, stage: Stage) -> Iterator[list[nn.Parameter]]:
    """In a stage only the parameters that it names move; afterwards the flags are as before.

    Raises:
        ConfigError: all of them are frozen.
    """
    before = {p: p.requires_grad for p in pipeline.parameters()}
    named = named_parameters(component, stage)
    chosen = [p for p in before if p in named and before[p]]
    if not chosen:
        raise ConfigError(
            f"stage {stage.name!r} of {type(component).__name__}: all parameters that it names are frozen"
        )
    try:
        for p in before:
            p.requires_grad_(False)
        for p in chosen:
            p.requires_grad_(True)
        yield chosen
    finally:
        for p, flag in before.items():
            p.requires_grad_(flag)
            p.grad = None


def title(pipeline: Pipeline) -> str:
    """What a person calls it: the key of the method that they chose."""
    keys = [card.key for card in cards_of(pipeline)]
    around = [key for key in keys if key != PLAIN]  # the host is not what a person chose
    return next(iter(around or keys), type(pipeline.model).__name__)
