"""Which methods, shared components and encoders a pipeline holds, and the versions under which they are registered here."""

from __future__ import annotations

from typing import Any

from kintsugi.core.component import Component
from kintsugi.core.encoder import ENCODERS
from kintsugi.core.errors import ConfigError
from kintsugi.core.methods import COMPONENTS, METHODS, address, shared_name
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.schema import TASKS


def names_held(pipeline: Pipeline) -> set[str]:
    """``method mmin``, ``component unimodal_teacher``, ``encoder image`` …: of everything in its module tree, and of what
    training needs besides.

    Methods are those of its components and of the classes that these are made from; a helper component counts for the
    method in whose file it stands. Encoders of the user's own have no name.
    """
    kinds: dict[Any, str] = {ENCODERS[kind]: kind for kind in ENCODERS}
    names = {f"encoder {kinds[type(module)]}" for module in pipeline.modules() if type(module) in kinds}
    classes = {type(module) for module in pipeline.modules() if isinstance(module, Component)}
    classes |= {recipe.kind for recipe in pipeline.recipes.values()}
    return names | {name for cls in classes for name in _names_of(cls)}


def _names_of(cls: type[Component]) -> set[str]:
    shared = shared_name(cls)
    if shared is not None:
        return {f"component {shared}"}
    keys = {f"method {vars(base)['card'].key}" for base in cls.__mro__ if "card" in vars(base)}
    if not keys:
        try:
            keys.add(f"method {address(cls).partition('.')[0]}")
        except ConfigError:  # a class of the user's own, in no file of a method
            return set()
    return keys


def versions_held(pipeline: Pipeline) -> dict[str, int]:
    """The version of each of :func:`names_held`, and of the task; a saved model carries them."""
    versions = {f"task {pipeline.schema.task.key}": TASKS.version(pipeline.schema.task.key)}
    for name in names_held(pipeline):
        kind, _, key = name.partition(" ")
        versions[name] = METHODS.card(key).version if kind == "method" else _REGISTRIES[kind].version(key)
    return dict(sorted(versions.items()))


_REGISTRIES: dict[str, Any] = {"encoder": ENCODERS, "component": COMPONENTS}
