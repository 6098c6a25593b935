"""Facts of a trial that decide nothing of what it is: packages, Python, and a digest of the sources it ran through."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING

from kintsugi.bench.sources import ALWAYS, sources_digest

if TYPE_CHECKING:
    from kintsugi.bench.job import Planned
    from kintsugi.bench.store import Record

PACKAGES = ("torch", "torchmetrics", "numpy")
FACT = "made_with"  # among the facts of a trial
SOURCES = "sources"
UNKNOWN = "nobody knows what they were made with"


def made_with(registered: Mapping[str, int]) -> dict[str, str]:
    """Versions of the packages that compute, of Python and of this library, and ``sources``, a digest.

    Args:
        registered: what the trial uses, as :attr:`kintsugi.bench.trial.Trial.registered`.
    """
    return {**packages(), SOURCES: sources_of(registered)}


@cache
def _packages() -> tuple[tuple[str, str], ...]:
    from kintsugi import __version__

    python = ".".join(platform.python_version_tuple()[:2])
    return (*((name, version(name)) for name in PACKAGES), ("python", python), ("kintsugi", __version__))


def packages() -> dict[str, str]:
    """Name -> version."""
    return dict(_packages())


def sources_of(registered: Mapping[str, int]) -> str:
    """Digest of the modules of these things, and of what they import; see :mod:`kintsugi.bench.sources`."""
    from kintsugi.core.methods import METHODS
    from kintsugi.training.components import REGISTRIES

    roots = set(ALWAYS)
    for name in registered:
        kind, _, key = name.partition(" ")
        if kind == "method":
            roots.add(METHODS[key].__module__)
        elif kind in REGISTRIES:
            roots.add(str(REGISTRIES[kind][key].__module__))
    return sources_digest(frozenset(roots))


def made_with_of(record: Record) -> dict[str, str]:
    """What a stored trial was made with. Version 0.1.0 wrote it among the trial's versions; nothing: nobody knows."""
    stored = record.facts.get(FACT)
    if isinstance(stored, dict):
        return {str(name): str(value) for name, value in stored.items()}
    versions = record.trial.versions
    return {name: value for name, value in versions.items() if isinstance(value, str) and name != "origin"}


def differences(a: Iterable[Mapping[str, str]], b: Iterable[Mapping[str, str]]) -> tuple[str, ...]:
    """What two sets of trials were made with that differs: ``torch 2.6 → 2.7``; of sources only ``sources``."""
    seen: list[dict[str, set[str]]] = [{}, {}]
    for side, many in zip(seen, (a, b), strict=True):
        for facts in many:
            for name, value in facts.items():
                side.setdefault(name, set()).add(value)
    words = []
    for name in sorted(seen[0].keys() | seen[1].keys()):
        before, after = (side.get(name, set()) for side in seen)
        if before != after:
            words.append(name if name == SOURCES else f"{name} {_joined(before)} → {_joined(after)}")
    return tuple(words)


def _joined(versions: set[str]) -> str:
    return " and ".join(sorted(versions)) or "absent"


def said_of_sources(records: Iterable[Record], planned: Sequence[Planned]) -> str:
    """One line about results that count as done though the sources they ran through have changed; "": there are none.

    Args:
        records: done trials of a store.
        planned: those that are asked for.
    """
    wanted = {p.trial.hash: p for p in planned}
    changed: Counter[str] = Counter()
    for record in records:
        before = made_with_of(record).get(SOURCES)
        if record.trial.hash in wanted and before and before != sources_of(record.trial.registered):
            changed[wanted[record.trial.hash].job.method] += 1
    if not changed:
        return ""
    most, total = changed.most_common(5), changed.total()
    methods = ", ".join(f"{count} of {method}" for method, count in most)
    if others := total - sum(count for _, count in most):
        methods += f" and {others} of others"
    return (
        f"{total} {'result counts' if total == 1 else 'results count'} as done though sources that they ran through have "
        f"changed ({methods}): versions say that numbers have not; raise the version of what changed numbers, or use another "
        "folder"
    )
