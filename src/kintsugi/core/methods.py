"""The registry of methods: register a class with its card, and it is trained, tested, documented and compared."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import nn

from kintsugi.core.card import Card
from kintsugi.core.errors import ConfigError, UnknownName
from kintsugi.core.model import Model
from kintsugi.core.part import Part
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.registry import Registry
from kintsugi.core.schema import Schema

METHODS: Registry[type[Any]] = Registry("method", "kintsugi.methods")
P = TypeVar("P", bound=type[Part])


def register(card: Card) -> Callable[[P], P]:
    """Class decorator: this class is the method of that card."""

    def add(cls: P) -> P:
        cls.card = card
        METHODS.register(card.key)(cls)
        return cls

    return add


def variant(card: Card, of: type[Part], **defaults: Any) -> type[Part]:
    """A near-twin: the same class under its own card, with other defaults."""
    cls = type(
        of.__name__ + "_" + card.key, (of,), {"__doc__": of.__doc__, "__module__": of.__module__, "preset": defaults}
    )
    return register(card)(cls)


def create(
    key: str,
    schema: Schema,
    *,
    host: Model | None = None,
    encoders: Mapping[str, nn.Module] | None = None,
    **hyper: Any,
) -> Pipeline:
    """A pipeline of the registered method for this schema.

    Raises:
        UnknownName: no such method, or no such argument of it.
        ConfigError: the schema has too few or too many modalities for it, or a task it does not solve; a host for a method
            that is a model itself.
    """
    cls = METHODS[key]
    card: Card = cls.card
    least, most = card.modalities
    if len(schema) < least or (most is not None and len(schema) > most):
        raise ConfigError(
            f"{key} takes {least} to {most or 'any number of'} modalities; this schema has {len(schema)}: "
            f"{', '.join(schema.names)}"
        )
    if schema.task.key not in card.tasks:
        raise ConfigError(f"{key} does not solve {schema.task.key}; it solves {', '.join(sorted(card.tasks))}")
    if host is not None and issubclass(cls, Model):
        raise ConfigError(f"{key} is a model of its own, so it takes no host")
    hyper = {**getattr(cls, "preset", {}), **hyper}
    known = arguments(cls)
    for name in hyper:
        if name not in known:
            raise UnknownName(f"argument of {key}", name, known)
    if encoders:
        if "encoders" in inspect.signature(cls.__init__).parameters:
            hyper["encoders"] = encoders
        elif issubclass(cls, Model):
            raise ConfigError(f"{key} reads its inputs without encoders, so it takes none of your own")
        else:
            host = host or METHODS["mean_fusion"](schema, encoders=encoders)
    pipeline: Pipeline = cls.pipeline(schema, host=host, **hyper)
    return pipeline


def arguments(cls: type[Part]) -> dict[str, Any]:
    """What a method takes, with defaults: of its constructor and of its recipe, without schema, host and encoders."""
    found: dict[str, Any] = {}
    for function in (cls.__init__, cls.pipeline):
        for name, parameter in inspect.signature(function).parameters.items():
            if name not in ("self", "schema", "host", "encoders") and parameter.kind is not parameter.VAR_KEYWORD:
                found[name] = parameter.default
    return found


def card(key: str) -> Card:
    """The card of a method."""
    found: Card = METHODS[key].card
    return found


def list_methods(pattern: str = "*", task: str | None = None) -> list[str]:
    """Keys whose key or leaf (``missing/*``) matches the glob, and that solve the task."""
    from fnmatch import fnmatchcase

    cards = [card(key) for key in METHODS]
    return [
        c.key
        for c in cards
        if (fnmatchcase(c.key, pattern) or fnmatchcase(c.leaf, pattern) or fnmatchcase(f"{c.leaf}/{c.key}", pattern))
        and (task is None or task in c.tasks)
    ]


def switched_off(cls: type[Part], schema: Schema, **hyper: Any) -> Pipeline:
    """The method with its mechanism off, as its ``off`` says."""
    off = cls.off
    if isinstance(off, dict):
        pipeline: Pipeline = cls.pipeline(schema, **{**hyper, **off})
        return pipeline
    return off.pipeline(schema, **hyper)


def address(part: Part) -> str:
    """How a saved folder names a part: the key of its method, or ``key.ClassName`` for a helper class in the same file."""
    cls = type(part)
    if "card" in vars(cls):
        return cls.card.key
    owner = next((METHODS[k] for k in METHODS if METHODS[k].__module__ == cls.__module__), None)
    if owner is None:
        raise ConfigError(
            f"{cls.__qualname__} belongs to no registered method, so a model that holds it cannot be saved"
        )
    if getattr(sys.modules.get(cls.__module__), cls.__qualname__, None) is not cls:
        raise ConfigError(f"{cls.__qualname__} is not at the top of its file, so a model that holds it cannot be saved")
    return f"{owner.card.key}.{cls.__qualname__}"


def part_class(address: str) -> type[Part]:
    """The class at an address; nothing but parts in the files of registered methods can be reached."""
    key, _, name = address.partition(".")
    cls: type[Part] = METHODS[key]
    if not name:
        return cls
    here = vars(sys.modules[cls.__module__])
    own = {
        n: t for n, t in here.items() if isinstance(t, type) and issubclass(t, Part) and t.__module__ == cls.__module__
    }
    if name not in own:
        raise UnknownName(f"part of {key}", name, own)
    return own[name]
