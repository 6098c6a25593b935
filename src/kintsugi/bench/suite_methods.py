"""The methods of a suite, by key or by pattern, and their arguments."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from kintsugi.bench.suite_file import SuiteFile
from kintsugi.bench.suite_places import Places
from kintsugi.core.errors import ConfigError, UnknownName


@dataclass(frozen=True)
class Chosen:
    """A method of a suite.

    key: of the registered method; label: its name in tables; params: its arguments; place: of it in the file's list;
    named: it is there by its key, so that it has to fit every data set; False: by a pattern.
    """

    key: str
    label: str
    params: Mapping[str, Any]
    place: int
    named: bool


def read_methods(read: SuiteFile, places: Places) -> tuple[Chosen, ...]:
    """In the order of the file; what is there by its key goes before what a pattern finds under the same label."""
    from kintsugi.core.methods import METHODS, list_methods

    labels: set[str] = set()
    for place, entry in enumerate(read.methods):
        key = METHODS.current(entry.key)
        if key in METHODS:
            label = entry.name or key
            if label in labels:
                raise places.wrong(f"two methods are called {label}; give one of them another name:", "methods", place)
            labels.add(label)
    found: list[Chosen] = []
    patterns = False
    for place, entry in enumerate(read.methods):
        key = METHODS.current(entry.key)
        if key in METHODS:
            params = read_params(key, entry.params, places, "methods", place, "params")
            found.append(Chosen(key, entry.name or key, params, place, True))
            continue
        keys = list_methods(entry.key)
        if not keys:
            with places.at("methods", place):
                refuse_unusable(entry.key)
            raise places.wrong(_no_method(entry.key), "methods", place)
        patterns = True
        if entry.name or entry.params:
            raise places.wrong(
                f"{entry.key} is a pattern of several methods, so it takes no name and no params; use overrides",
                "methods",
                place,
            )
        for key in keys:
            if key not in labels:
                labels.add(key)
                found.append(Chosen(key, key, {}, place, False))
    if patterns and METHODS.problems:
        files = "; ".join(f"{file}: {why}" for file, why in METHODS.problems.items())
        warnings.warn(f"patterns find no method of what cannot be used: {files}", stacklevel=3)
    return tuple(found)


def refuse_unusable(name: str) -> None:
    """Raise with what is wrong with the file of a method, where a name is that of a method whose file cannot be used.

    Raises:
        ConfigError: names file and line.
    """
    from kintsugi.core.methods import METHODS

    with suppress(UnknownName):
        METHODS.card(name.rpartition("/")[2])


def _no_method(pattern: str) -> str:
    from kintsugi.core.methods import METHODS, card

    leaves = {card(key).leaf for key in METHODS}
    return str(UnknownName("method", pattern, [*METHODS, *(f"{leaf}/*" for leaf in leaves)]))


def read_params(key: str, params: Mapping[str, Any], places: Places, *location: Any) -> dict[str, Any]:
    """Arguments of a method under their names of today.

    Raises:
        Located: it has no such argument, one under two names, or a value that is not of the sort of the default; or its
            file cannot be used.
    """
    from kintsugi.core.methods import METHODS, arguments, current_names

    with places.at(*location):
        cls = METHODS[key]
        known, today = arguments(cls), current_names(cls, params)
    for name, value in params.items():
        with places.at(*location, name):
            if name not in known and name not in cls.renamed:
                raise UnknownName(f"argument of {key}", name, known)
            _check_sort(key, name, known[cls.renamed.get(name, name)], value)
    return today


def _check_sort(key: str, name: str, default: Any, value: Any) -> None:
    """Text in place of a number would be found out in the middle of training only."""
    if isinstance(default, bool) and not isinstance(value, bool):
        raise ConfigError(f"{name} of {key} is true or false, not {value!r}")
    if isinstance(default, int | float) and isinstance(value, str):
        raise ConfigError(f"{name} of {key} is a number such as {default}, not the text {value!r}{_exponent(value)}")


def _exponent(text: str) -> str:
    """YAML takes ``1e-3`` for text and ``1.0e-3`` for a number."""
    try:
        return f"; write {float(text)!r}"
    except ValueError:
        return ""
