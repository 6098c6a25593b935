"""Which registered operators, mechanisms and published settings an imperfection is made of, and which files it may read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from kintsugi.imperfect.distortion import Corruption, Distortion
from kintsugi.imperfect.mechanism import MECHANISMS, Mechanism
from kintsugi.imperfect.operator import OPERATORS
from kintsugi.imperfect.published import SETTINGS, Published


def components_of(value: Any) -> tuple[str, ...]:
    """Names of all that a value holds, at any depth, as ``operator fog``, ``mechanism mcar`` or ``setting smil-ETA``.

    A mechanism of the library says its name in its text. One from outside also counts with whatever is registered in its
    module, since its text may say anything.
    """
    names: list[str] = []
    for each in imperfections_in(value):
        if isinstance(each, Corruption):
            names.append(f"operator {each.operator}")
        elif isinstance(each, Published):
            names += [f"setting {each.form}", *(f"mechanism {name}" for name in SETTINGS[each.form].uses)]
        elif isinstance(each, Mechanism):
            names += [f"mechanism {name}" for name in _names_of(each)]
    return tuple(dict.fromkeys(names))


def imperfections_in(value: Any, seen: set[int] | None = None) -> Iterator[Mechanism | Distortion]:
    """Every mechanism and distortion in a value: itself, and what lists, mappings and dataclasses hold."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return
    own = isinstance(value, Mechanism | Distortion)
    if own:
        yield value
    if isinstance(value, Mapping):
        inside = list(value.values())
    elif isinstance(value, list | tuple | set | frozenset):
        inside = list(value)
    elif own or (is_dataclass(value) and not isinstance(value, type)):
        inside = list(getattr(value, "__dict__", {}).values()) + list(getattr(value, "parts", ()) if own else ())
    else:
        return
    seen.add(id(value))
    for each in inside:
        yield from imperfections_in(each, seen)


def paths_given(value: Any) -> tuple[str, ...]:
    """Texts that operators in a value were given for their options and that may name a file.

    Those of options that have no default, whatever they look like, and others that look like paths: a word such as ``mean``
    must not count for a folder of its name.
    """
    texts: list[str] = []
    for each in imperfections_in(value):
        if isinstance(each, Corruption):
            needed = {name for name, usual in OPERATORS[each.operator].options.items() if usual is None}
            for name, option in each.given:
                words = [os.fspath(one) for one in _flat(option) if isinstance(one, str | os.PathLike)]
                texts += [str(word) for word in words if name in needed or like_path(str(word))]
    return tuple(dict.fromkeys(texts))


def like_path(text: str) -> bool:
    """Has it folders or an ending?"""
    return Path(text).name != text or Path(text).suffix != ""


def _flat(option: Any) -> list[Any]:
    return [one for each in option for one in _flat(each)] if isinstance(option, tuple) else [option]


def _names_of(mechanism: Mechanism) -> list[str]:
    said = str(mechanism).partition("(")[0]
    names = [said] if said in MECHANISMS else []
    home = type(mechanism).__module__
    if not home.startswith("kintsugi."):
        names += [name for name in MECHANISMS if getattr(MECHANISMS[name], "__module__", None) == home]
    return names
