"""Overrides of a suite: other values for some of its trials."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from kintsugi.bench.job import Source
from kintsugi.bench.suite_file import Override, SuiteFile
from kintsugi.bench.suite_methods import Chosen, read_params, refuse_unusable
from kintsugi.bench.suite_places import Places
from kintsugi.bench.suite_trainer import read_trainer
from kintsugi.core.errors import UnknownName


def read_overrides(
    read: SuiteFile, sources: Sequence[Source], methods: Sequence[Chosen], places: Places
) -> tuple[Override, ...]:
    """The overrides, in the order of the file, with the trainer's arguments as the trainer takes them.

    Raises:
        Located: one that could match nothing, changes nothing, or has an argument that does not exist.
    """
    found = []
    for place, other in enumerate(read.overrides):
        here = ("overrides", place)
        if not other.trainer and not other.params:
            raise places.wrong("an override has trainer: or params:, with the values that are other", *here)
        _check_matches(other, sources, methods, places, here)
        for method in methods:
            if _goes_by(method, other.method):
                read_params(method.key, other.params, places, *here, "params")
        found.append(other.model_copy(update={"trainer": read_trainer(other.trainer, places, *here, "trainer")}))
    return tuple(found)


def applies(other: Override, source: Source, method: Chosen, training: str, protocol: str) -> bool:
    """Whether an override is for the trials of this data set, method, training condition and protocol."""
    return (
        (fnmatchcase(source.name, other.dataset) or fnmatchcase(source.key, other.dataset))
        and _goes_by(method, other.method)
        and fnmatchcase(training, other.training)
        and fnmatchcase(protocol, other.protocol)
    )


def _check_matches(
    other: Override, sources: Sequence[Source], methods: Sequence[Chosen], places: Places, here: tuple[Any, ...]
) -> None:
    """A word that could match nothing is a mistake; what exists may be absent here, since settings can narrow a suite."""
    from kintsugi.core.methods import METHODS, list_methods
    from kintsugi.data.datasets import DATASETS

    names = {source.name for source in sources} | set(DATASETS)
    if not any(fnmatchcase(name, other.dataset) for name in names):
        raise places.wrong(str(UnknownName("data set", other.dataset, names)), *here, "dataset")
    known = METHODS.current(other.method) in METHODS or bool(list_methods(other.method))
    if not known and not any(_goes_by(method, other.method) for method in methods):
        with places.at(*here, "method"):
            refuse_unusable(other.method)
        labels = {method.label for method in methods} | set(METHODS)
        raise places.wrong(str(UnknownName("method", other.method, labels)), *here, "method")


def _goes_by(method: Chosen, pattern: str) -> bool:
    from kintsugi.core.methods import METHODS, list_methods

    return fnmatchcase(method.label, pattern) or method.key in (METHODS.current(pattern), *list_methods(pattern))


def params_for(other: Override, key: str) -> dict[str, Any]:
    """The arguments of an override under the names that a method has for them today; :func:`read_overrides` checked them."""
    from kintsugi.core.methods import METHODS

    return {METHODS[key].renamed.get(name, name): value for name, value in other.params.items()}
