"""Which methods and encoders a pipeline holds, and the versions under which they are registered here."""

from __future__ import annotations

from typing import Any

from kintsugi.core.component import Component
from kintsugi.core.encoder import ENCODERS
from kintsugi.core.errors import ConfigError
from kintsugi.core.methods import METHODS, address
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.schema import TASKS


def names_held(pipeline: Pipeline) -> set[str]:
    """``method mmin``, ``encoder image`` …: of every part and encoder in its module tree.

    Methods are those of its parts and of the classes that these are made from; a helper part counts for the method in whose
    file it stands. Encoders of the user's own have no name.
    """
    kinds: dict[Any, str] = {ENCODERS[kind]: kind for kind in ENCODERS}
    names = {f"encoder {kinds[type(module)]}" for module in pipeline.modules() if type(module) in kinds}
    parts = [module for module in pipeline.modules() if isinstance(module, Component)]
    return names | {f"method {key}" for part in parts for key in _methods_of(part)}


def _methods_of(part: Component) -> set[str]:
    keys = {vars(base)["card"].key for base in type(part).__mro__ if "card" in vars(base)}
    if not keys:
        try:
            keys.add(address(part).partition(".")[0])
        except ConfigError:  # a class of the user's own, in no file of a method
            return set()
    return keys


def versions_held(pipeline: Pipeline) -> dict[str, int]:
    """The version of each of :func:`names_held`, and of the task; a saved model carries them."""
    versions = {f"task {pipeline.schema.task.key}": TASKS.version(pipeline.schema.task.key)}
    for name in names_held(pipeline):
        kind, _, key = name.partition(" ")
        versions[name] = METHODS.card(key).version if kind == "method" else ENCODERS.version(key)
    return dict(sorted(versions.items()))
