"""Which registered things a pipeline is made of, with the versions under which they are registered here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kintsugi.core import versions
from kintsugi.core.component import Component
from kintsugi.core.encoder import ENCODERS
from kintsugi.core.errors import UnknownName
from kintsugi.core.inventory import names_held
from kintsugi.core.methods import COMPONENTS, METHODS
from kintsugi.core.metrics import METRICS
from kintsugi.core.model import Model
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.registry import Registry
from kintsugi.core.schema import TASKS, Task
from kintsugi.imperfect import MECHANISMS, OPERATORS
from kintsugi.imperfect.components import components_of
from kintsugi.imperfect.published import SETTINGS

REGISTRIES: Mapping[str, Registry[Any]] = {
    "component": COMPONENTS, "encoder": ENCODERS, "operator": OPERATORS, "mechanism": MECHANISMS, "task": TASKS,
}  # fmt: skip
WHOLE = ("training", "reading", "evaluation")  # what is registered nowhere; see kintsugi.core.versions
SOMETIMES = ("refit",)  # likewise, of those that do it


def names_in(pipeline: Pipeline) -> list[str]:
    """What a pipeline is made of, sorted: ``method mmin``, ``encoder vector``, ``operator fog`` …

    What it holds (:func:`~kintsugi.core.inventory.names_held`), with operators and mechanisms in attributes of its modules,
    alone or in lists and mappings; and, unless
    every model reads inputs without encoders, the encoders of all its modalities, since a strategy may make models in training.
    """
    names = names_held(pipeline)
    parts = [module for module in pipeline.modules() if isinstance(module, Component)]
    names.update(name for module in pipeline.modules() for name in components_of(vars(module)))
    if any(isinstance(part, Model) and part.encoding == "separate" for part in parts):
        names.update(f"encoder {m.kind}" for m in pipeline.schema.modalities if m.kind in ENCODERS)
    return sorted(names)


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
    if name in WHOLE or name in SOMETIMES:
        return int(getattr(versions, name.upper()))
    if kind == "method":
        return int(METHODS.card(key).version)
    if kind == "metric":
        return int(task.metric_versions.get(key, METRICS.version(key) if key in METRICS else 1))
    if kind == "setting":
        if key not in SETTINGS:
            raise UnknownName("published missingness", key, SETTINGS)
        return SETTINGS[key].version
    if kind not in REGISTRIES:
        raise UnknownName(
            "kind of thing with a version", name, [*REGISTRIES, "method", "metric", "setting", *WHOLE, *SOMETIMES]
        )
    return REGISTRIES[kind].version(key)
