"""What is evaluated, and what it is called in a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kintsugi.core.errors import ConfigError
from kintsugi.core.pipeline import Pipeline


def pipeline_of(model: Any) -> Pipeline:
    """The pipeline itself, or the one that a fitted estimator holds as ``pipeline_``.

    Raises:
        ConfigError: neither.
    """
    found = model if isinstance(model, Pipeline) else getattr(model, "pipeline_", None)
    if not isinstance(found, Pipeline):
        raise ConfigError(
            f"a {type(model).__name__} cannot be evaluated: give a Pipeline, or an estimator after fit(), "
            "or a list or a dict of these"
        )
    return found


def named_pipelines(model: Any, name: str | None = None) -> list[tuple[str, Any, Pipeline]]:
    """Name, model as given, pipeline; a list or a dict of models gives several."""
    if isinstance(model, Mapping):
        pairs: list[tuple[str | None, Any]] = [(str(key), one) for key, one in model.items()]
    elif isinstance(model, Sequence) and not isinstance(model, str):
        pairs = [(None, one) for one in model]
    else:
        pairs = [(name, model)]
    if name is not None and pairs[0][0] != name:
        raise ConfigError("name= is for a single model; name several by a dict of name -> model")
    if not pairs:
        raise ConfigError("no model to evaluate")
    return [(label or name_of(one), one, pipeline_of(one)) for label, one in pairs]


def name_of(model: Any) -> str:
    """The keys of the methods that stand around the model, else the key of the model's own, else its class."""
    method = getattr(model, "method", None)
    if isinstance(method, str):
        return method
    pipeline = pipeline_of(model)
    parts = [part for path, part in pipeline.named_components() if path != "model" and "card" in vars(type(part))]
    keys = [str(type(part).card.key) for part in parts]
    if not keys and "card" in vars(type(pipeline.model)):
        keys = [pipeline.model.card.key]
    return " + ".join(dict.fromkeys(keys)) or type(pipeline.model).__name__


def seed_of(model: Any) -> int:
    """The estimator's ``seed``; 0 where it has none."""
    seed = getattr(model, "seed", None)
    return seed if isinstance(seed, int) else 0


def training_of(model: Any) -> str:
    """What the estimator says in ``training_condition_`` of the rows that it was fitted on."""
    said = getattr(model, "training_condition_", None)
    return said if isinstance(said, str) else "unstated"
