"""What differs between two stores beside their results: parameters, versions, failures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from kintsugi.bench.figures_seeds import UNIT

if TYPE_CHECKING:
    from kintsugi.bench.store import Record

Unit = tuple[str, ...]


def units_of(rows: pd.DataFrame) -> list[Unit]:
    """Names of the units of some rows of :func:`~kintsugi.bench.figures_seeds.latest`, in the order of their rows."""
    return [tuple(map(str, unit)) for unit in rows.drop_duplicates("unit")[UNIT].itertuples(index=False)]


def parameters_that_differ(a: pd.DataFrame, b: pd.DataFrame) -> dict[Unit, str]:
    """Unit -> what differs in its parameters, in words; units without a difference are absent."""
    texts = [dict(zip(units_of(one), one.drop_duplicates("unit")["parameters"], strict=True)) for one in (a, b)]
    found = {}
    for unit, text in texts[0].items():
        if text != texts[1][unit]:
            before, after = _flat(json.loads(str(text))), _flat(json.loads(str(texts[1][unit])))
            found[unit] = _differing(before, after)
    return found


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
        origin = trial.versions.get("origin", "")
        unit = (trial.dataset, trial.protocol.name, trial.method, trial.training, origin)
        if record.state == "failed" and unit in units:
            found[unit] = last_line(record.traceback)
    return found


def last_line(traceback: str) -> str:
    """What a traceback ends in."""
    lines = [line.strip() for line in traceback.splitlines() if line.strip()]
    return lines[-1] if lines else "no traceback"


def versions_that_differ(a: Sequence[Record], b: Sequence[Record], trials: set[str]) -> tuple[str, ...]:
    """Packages whose versions differ, ``torch 2.6 → 2.7``; of sources only that they differ.

    Args:
        a, b: records of the two stores.
        trials: hashes of those that count.
    """
    seen: list[dict[str, set[str]]] = [{}, {}]
    for side, records in zip(seen, (a, b), strict=True):
        for record in records:
            for name, version in record.trial.versions.items() if record.trial.hash in trials else ():
                side.setdefault(name, set()).add(version)
    found = []
    for name in sorted((seen[0].keys() | seen[1].keys()) - {"origin"}):
        before, after = (side.get(name, set()) for side in seen)
        if before != after:
            words = "" if name == "sources" else f" {_joined(before)} → {_joined(after)}"
            found.append(name + words)
    return tuple(found)


def _joined(versions: set[str]) -> str:
    return " and ".join(sorted(versions)) or "absent"
