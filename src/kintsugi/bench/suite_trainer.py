"""Arguments of the trainer, as a suite gives them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from pydantic import TypeAdapter, ValidationError

from kintsugi.bench.suite_file import message
from kintsugi.bench.suite_places import Places
from kintsugi.core.errors import ConfigError, UnknownName

OWN = ("seed", "checkpoint", "progress")  # fields of the trainer that the bench gives itself


def trainer_fields() -> dict[str, Any]:
    """Arguments of the trainer that a suite may give, with their types."""
    from kintsugi.training.trainer import Trainer

    return {f.name: f.type for f in fields(Trainer) if f.name not in OWN}


def read_trainer(values: Mapping[str, Any], places: Places, *location: Any) -> dict[str, Any]:
    """As the trainer takes them: ``3e-3``, which is text to YAML, as a number."""
    known = trainer_fields()
    for name in values:
        with places.at(*location, name):
            if name in OWN:
                raise ConfigError(f"the bench sets {name} of the trainer itself; leave it out")
            if name not in known:
                raise UnknownName("argument of the trainer", name, known)
    return {name: _field(name, value, places, *location, name) for name, value in values.items()}


def _field(name: str, value: Any, places: Places, *location: Any) -> Any:
    """One value by itself, so that an error names it."""
    from kintsugi.training.trainer import Trainer

    try:
        return getattr(TypeAdapter(Trainer).validate_python({name: value}), name)
    except ValidationError as error:
        raise places.wrong(message(error.errors()[0]), *location) from error
