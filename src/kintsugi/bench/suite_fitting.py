"""What of a suite depends on its data: which methods fit, and whether everything can be used with a data set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kintsugi.bench.job import Source, rows_of, whole
from kintsugi.bench.suite_methods import Chosen
from kintsugi.bench.suite_places import Places
from kintsugi.core.errors import ConfigError, KintsugiError, UnknownName
from kintsugi.core.metrics import named_metric

if TYPE_CHECKING:
    from kintsugi.bench.suite import Suite
    from kintsugi.core.schema import Schema


def schema_of(source: Source, place: int, places: Places) -> Schema:
    """The schema of the data set at a place of the file's list; reads it."""
    with places.at("datasets", place):
        try:
            return whole(source).schema
        except (TypeError, ValueError, OSError) as error:
            if isinstance(error, KintsugiError):
                raise
            raise ConfigError(f"data set {source.name} cannot be read: {error}") from error


def fitting(methods: Sequence[Chosen], source: Source, schema: Schema, places: Places) -> list[Chosen]:
    """The methods for a data set; one that was named has to fit."""
    from kintsugi.core.methods import card

    found = []
    for method in methods:
        why = card(method.key).misfit(schema)
        if why and method.named:
            raise places.wrong(f"on data set {source.name}: {why}", "methods", method.place)
        if not why:
            found.append(method)
    if not found:
        raise places.wrong(
            f"no method of these fits data set {source.name} ({schema.task.key}, {len(schema)} modalities)",
            "methods",
        )
    return found


def check_conditions(suite: Suite, source: Source, places: Places) -> None:
    """Raise unless a data set takes the training, protocols and metrics of a suite."""
    from kintsugi.bench.work import imperfect
    from kintsugi.evaluation.protocols import get_protocol

    train, _, test = rows_of(source)
    for place, training in enumerate(suite.training):
        with places.at("training", place):
            imperfect(train, training, suite.seeds[0])
    names: dict[str, str] = {}
    for place, protocol in enumerate(suite.protocols):
        with places.at("protocol", place):
            name = get_protocol(protocol, test).name
            if name in names:
                raise ConfigError(f"{protocol} is the same as {names[name]}; leave one out")
            names[name] = protocol
    for place, metric in enumerate(suite.metrics):
        try:
            named_metric(train.schema.task, metric)
        except (UnknownName, ConfigError) as error:
            raise places.wrong(f"{error} (data set {source.name})", "metrics", place) from error
    if isinstance(suite.trainer.get("select"), str):
        with places.at("trainer", "select"):
            named_metric(train.schema.task, suite.trainer["select"])


def check_made(method: Chosen, schema: Schema, wanted: Iterable[Mapping[str, Any]], places: Places) -> None:
    """Build a method with each of the arguments wanted, since only that says whether they make sense.

    The defaults do; they are not tried.
    """
    from kintsugi.core.methods import create
    from kintsugi.core.randomness import fork_rng_in_turn

    tried: list[Mapping[str, Any]] = []
    for params in wanted:
        if not params or params in tried:
            continue
        tried.append(params)
        with places.at("methods", method.place), fork_rng_in_turn():
            try:
                create(method.key, schema, **params)
            except KintsugiError:
                raise
            except Exception as error:  # whatever a method makes of a value that it cannot use
                raise ConfigError(f"{method.label} cannot be made with {dict(params)}: {error}") from error
