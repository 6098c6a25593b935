"""Whether a job is the same trial in the process that runs it as in the one that planned it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kintsugi.bench.job import Planned
from kintsugi.bench.made_with import packages
from kintsugi.bench.trial import Trial
from kintsugi.core.errors import ConfigError

MOST = 5  # differences that are named


def refuse_another(planned: Planned, planned_with: Mapping[str, str], place: str, remedy: str) -> None:
    """Raise unless a job is the trial that it was planned as, with the same packages.

    A trial that names no versions of what it uses, which no plan makes, cannot be told from another.

    Args:
        planned: the job, and the trial as the process that planned it named it.
        planned_with: packages of that process, as :func:`~kintsugi.bench.made_with.packages` gives them.
        place: where this process runs, such as ``in worker 1``.
        remedy: what to do, as the end of the message.

    Raises:
        ConfigError: another trial; names what differs, ``planned`` and ``here``.
        UnknownName, DataError: as :meth:`~kintsugi.bench.job.Job.trial`, of what is not here at all.
    """
    if not planned.trial.registered:
        return
    own = planned.job.trial()
    differing = [
        f"{what} {before!r} where it was planned, {now!r} here"
        for what, before, now in _pairs(planned.trial, own, planned_with)
        if before != now
    ]
    if differing or own.hash != planned.trial.hash:
        more = [f"and {len(differing) - MOST} more"] * (len(differing) > MOST)
        words = "; ".join([*differing[:MOST], *more]) or "its protocol differs"
        raise ConfigError(f"{place} this job is another trial than the one it was planned as: {words}. {remedy}")


def _pairs(planned: Trial, own: Trial, planned_with: Mapping[str, str]) -> Iterator[tuple[str, Any, Any]]:
    """What is compared, as it was planned, and as it is here."""
    yield "fingerprint of the data", planned.fingerprint, own.fingerprint
    yield "protocol", planned.protocol.name, own.protocol.name
    yield from _each("version of ", planned.versions, own.versions)
    yield from _parameters(planned, own)
    yield from _each("", planned_with, packages())


def _parameters(planned: Trial, own: Trial) -> Iterator[tuple[str, Any, Any]]:
    nested = {"params": "argument ", "trainer": "trainer's "}
    for name in sorted(planned.parameters.keys() | own.parameters.keys()):
        before, now = planned.parameters.get(name), own.parameters.get(name)
        if name in nested and isinstance(before, Mapping) and isinstance(now, Mapping):
            yield from _each(nested[name], before, now)
        else:
            yield name, before, now


def _each(kind: str, planned: Mapping[str, Any], own: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for name in sorted(planned.keys() | own.keys()):
        yield f"{kind}{name}", planned.get(name), own.get(name)
