"""What differs between two stores beside their results: parameters, versions, failures."""

from __future__ import annotations

import json
from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from kintsugi.bench.figures_seeds import UNIT
from kintsugi.bench.made_with import SOURCES, UNKNOWN, differences, made_with_of

if TYPE_CHECKING:
    from kintsugi.bench.store import Record
    from kintsugi.bench.trial import Trial

Unit = tuple[str, ...]


def units_of(rows: pd.DataFrame) -> list[Unit]:
    """Names of the units of some rows of :func:`~kintsugi.bench.figures_seeds.latest`, in the order of their rows."""
    return [tuple(map(str, unit)) for unit in rows.drop_duplicates("unit")[UNIT].itertuples(index=False)]


def parameters_that_differ(a: pd.DataFrame, b: pd.DataFrame, partial: Container[str] = ()) -> dict[Unit, str]:
    """Unit -> what differs in its parameters, in words; units without a difference are absent.

    Args:
        a, b: rows of units that both stores have.
        partial: hashes of trials that do not name what they left at its default, as those of version 0.1.0: what only the
            other side names is no difference.
    """
    sides = [
        {
            unit: (trial in partial, _flat(json.loads(str(text))))
            for unit, trial, text in zip(units_of(first), first["trial"], first["parameters"], strict=True)
        }
        for first in (rows.drop_duplicates("unit") for rows in (a, b))
    ]
    differing = {}
    for unit, (before_in_part, before) in sides[0].items():
        after_in_part, after = sides[1][unit]
        if before_in_part and not after_in_part:
            before, after = _in_common(before, after)
        elif after_in_part and not before_in_part:
            after, before = _in_common(after, before)
        if words := _differing(before, after):
            differing[unit] = words
    return differing


def _in_common(part: Mapping[str, Any], whole: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the part says, and the same of the whole; an empty list or mapping says nothing."""
    named = {name: value for name, value in part.items() if value not in ([], {})}
    return named, {name: value for name, value in whole.items() if name in named}


def _flat(value: Any, where: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {where: value} if where else {}
    return {k: v for key, each in value.items() for k, v in _flat(each, f"{where}.{key}" if where else key).items()}


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    names = [name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)]
    return ", ".join(f"{n} {_value(before, n)} → {_value(after, n)}" for n in names)


def _value(values: Mapping[str, Any], name: str) -> str:
    return json.dumps(values[name]) if name in values else "absent"


def failures_of(records: Sequence[Record], units: Sequence[Unit]) -> dict[Unit, str]:
    """Last line of the traceback of those of the units that failed."""
    found: dict[Unit, str] = {}
    for record in records:
        trial = record.trial
        unit = unit_of(trial)
        if record.state == "failed" and unit in units:
            found[unit] = last_line(record.traceback)
    return found


def last_line(traceback: str) -> str:
    """What a traceback ends in."""
    lines = [line.strip() for line in traceback.splitlines() if line.strip()]
    return lines[-1] if lines else "no traceback"


def unit_of(trial: Trial) -> Unit:
    """Data set, protocol, method, training condition and origin."""
    return (trial.dataset, trial.protocol.name, trial.method, trial.training, trial.origin)


def versions_that_differ(a: Sequence[Record], b: Sequence[Record]) -> tuple[str, ...]:
    """What is registered and has other versions in trials of the one and the other: ``method mmin 1 → 2``.

    Trials of version 0.1.0 name no such versions; a side that has only these is said once.
    """
    seen = [[r.trial.registered for r in records if r.trial.registered] for records in (a, b)]
    if not all(seen):
        return tuple(
            f"{name} names no versions of methods and operators"
            for name, named, records in (("A", seen[0], a), ("B", seen[1], b))
            if not named and any(seen) and records
        )
    return differences(*([{n: str(v) for n, v in named.items()} for named in side] for side in seen))


def made_with_that_differs(a: Sequence[Record], b: Sequence[Record]) -> dict[Unit, tuple[str, ...]]:
    """Unit -> what its trials were made with that differs; units without a difference are absent.

    Trials of one seed are compared with each other, and all of a unit with all, since one store may have more seeds. Where
    neither store knows anything of a trial, ``UNKNOWN`` stands for it.

    Args:
        a, b: those records of the two stores that are compared.
    """
    sides: list[dict[Unit, dict[int, dict[str, str]]]] = [{}, {}]
    for side, records in zip(sides, (a, b), strict=True):
        for record in records:
            side.setdefault(unit_of(record.trial), {})[record.trial.seed] = made_with_of(record)
    differing: dict[Unit, tuple[str, ...]] = {}
    for unit, before in sides[0].items():
        if (after := sides[1].get(unit)) is None:
            continue
        words = list(differences(before.values(), after.values()))
        for seed in sorted(before.keys() & after.keys()):
            words += differences([before[seed]], [after[seed]])
        if any(not facts for facts in before.values()) and any(not facts for facts in after.values()):
            words.append(UNKNOWN)
        if words:
            differing[unit] = tuple(dict.fromkeys(words))
    return differing


def said_made_with(differing: Mapping[Unit, tuple[str, ...]]) -> str:
    """Differences of many units in one line: ``torch 2.6 → 2.7; sources of mmin and smil differ``."""
    packages = list(
        dict.fromkeys(word for words in differing.values() for word in words if word not in (SOURCES, UNKNOWN))
    )
    methods = list(dict.fromkeys(unit[2] for unit, words in differing.items() if SOURCES in words))
    parts = [", ".join(packages)] if packages else []
    if methods:
        more = f" and {len(methods) - 5} more methods" if len(methods) > 5 else ""
        parts.append(f"sources of {', '.join(methods[:5])}{more} differ")
    if unknown := [unit for unit, words in differing.items() if UNKNOWN in words]:
        parts.append(f"of {len(unknown)} units {UNKNOWN}")
    return "; ".join(parts)
