"""The methods of a suite, by key or by pattern, and their arguments."""

from __future__ import annotations

from collections.abc import Mapping
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
        if entry.key in METHODS:
            label = entry.name or entry.key
            if label in labels:
                raise places.wrong(f"two methods are called {label}; give one of them another name:", "methods", place)
            labels.add(label)
    found: list[Chosen] = []
    for place, entry in enumerate(read.methods):
        if entry.key in METHODS:
            check_params(entry.key, entry.params, places, "methods", place, "params")
            found.append(Chosen(entry.key, entry.name or entry.key, entry.params, place, True))
            continue
        keys = list_methods(entry.key)
        if not keys:
            raise places.wrong(_no_method(entry.key), "methods", place)
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
    return tuple(found)


def _no_method(pattern: str) -> str:
    from kintsugi.core.methods import METHODS, card

    leaves = {card(key).leaf for key in METHODS}
    return str(UnknownName("method", pattern, [*METHODS, *(f"{leaf}/*" for leaf in leaves)]))


def check_params(key: str, params: Mapping[str, Any], places: Places, *location: Any) -> None:
    """Raise unless a method has all these arguments, and each value is of the sort of its default."""
    from kintsugi.core.methods import METHODS, arguments

    known = arguments(METHODS[key])
    for name, value in params.items():
        with places.at(*location, name):
            if name not in known:
                raise UnknownName(f"argument of {key}", name, known)
            _check_sort(key, name, known[name], value)


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
