"""Which registered things a pipeline is made of, with the versions under which they are registered here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kintsugi.core import versions
from kintsugi.core.encoder import ENCODERS
from kintsugi.core.errors import ConfigError, UnknownName
from kintsugi.core.methods import METHODS, address
from kintsugi.core.model import Model
from kintsugi.core.part import Part
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.registry import Registry
from kintsugi.core.schema import TASKS, Task
from kintsugi.imperfect import MECHANISMS, OPERATORS
from kintsugi.imperfect.components import components_of
from kintsugi.imperfect.published import SETTINGS

REGISTRIES: Mapping[str, Registry[Any]] = {
    "encoder": ENCODERS, "operator": OPERATORS, "mechanism": MECHANISMS, "task": TASKS,
}  # fmt: skip
WHOLE = ("training", "reading", "evaluation")  # what is registered nowhere; see kintsugi.core.versions


def names_in(pipeline: Pipeline) -> list[str]:
    """What a pipeline is made of, sorted: ``method mmin``, ``encoder vector``, ``operator fog`` …

    Methods are those of its parts and of the classes that these are made from; a helper part counts for the method in whose
    file it stands. Encoders are those of all its modalities, since a strategy may make models during training; where every
    model reads inputs without encoders, those that it holds. Operators and mechanisms are those that a part holds.
    """
    modules = list(pipeline.modules())
    parts = [module for module in modules if isinstance(module, Part)]
    names = {f"method {key}" for part in parts for key in _methods_of(part)}
    names.update(name for part in parts for value in vars(part).values() for name in components_of(value))
    models = [part for part in parts if isinstance(part, Model)]
    if any(model.encoding == "separate" for model in models):
        names.update(f"encoder {m.kind}" for m in pipeline.schema.modalities if m.kind in ENCODERS)
    kinds: dict[Any, str] = {ENCODERS[kind]: kind for kind in ENCODERS}
    names.update(f"encoder {kinds[type(module)]}" for module in modules if type(module) in kinds)
    return sorted(names)


def _methods_of(part: Part) -> set[str]:
    keys = {vars(base)["card"].key for base in type(part).__mro__ if "card" in vars(base)}
    if not keys:
        try:
            keys.add(address(part).partition(".")[0])
        except ConfigError:  # a class of the user's own, in no file of a method
            return set()
    return keys


def versions_of(names: Iterable[str], task: Task | type[Task]) -> dict[str, int]:
    """Name -> version, as registered here.

    Args:
        names: such as ``method mmin``, ``metric accuracy`` or ``training``.
        task: whose metrics are meant.

    Raises:
        UnknownName: there is no such thing here.
    """
    return {name: _version(name, task) for name in sorted(names)}


def _version(name: str, task: Task | type[Task]) -> int:
    kind, _, key = name.partition(" ")
    if name in WHOLE:
        return int(getattr(versions, name.upper()))
    if kind == "method":
        return int(METHODS.card(key).version)
    if kind == "metric":
        return int(task.metric_versions.get(key, 1))
    if kind == "setting":
        if key not in SETTINGS:
            raise UnknownName("published missingness", key, SETTINGS)
        return SETTINGS[key].version
    if kind not in REGISTRIES:
        raise UnknownName("kind of thing with a version", name, [*REGISTRIES, "method", "metric", "setting", *WHOLE])
    return REGISTRIES[kind].version(key)
