"""What has golden numbers: everything registered, and the areas that are registered nowhere."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from kintsugi.core.encoder import ENCODERS
from kintsugi.core.errors import UnknownName
from kintsugi.core.methods import METHODS
from kintsugi.core.schema import TASKS, Schema, Task
from kintsugi.imperfect.missing import MECHANISMS, SETTINGS
from kintsugi.imperfect.operator import CROSS, OPERATORS
from kintsugi.testing import build, golden_areas, golden_bench, golden_operators, golden_parts, golden_reading, mixed
from kintsugi.testing.golden_files import Entry, rounded
from kintsugi.testing.golden_methods import arguments, method_numbers, toys, uneven
from kintsugi.testing.golden_numbers import Numbers, alone
from kintsugi.training.components import names_in, versions_of


@dataclass(frozen=True)
class Subject:
    """One thing that has golden numbers.

    name: such as ``method mmin``, ``operator fog``, ``metric accuracy of classification`` or ``reading``.
    file: of its numbers, below the folder of all. where: its version is written, for people.
    module: in which it is defined. numbers: measures it. uses: names of all whose version decides its numbers.
    """

    name: str
    file: str
    where: str
    module: str
    numbers: Callable[[], Numbers] = field(repr=False)
    uses: Callable[[], Mapping[str, int]] = field(repr=False)

    def measure(self) -> Entry:
        """Its numbers on one thread, and the versions that they were measured under."""
        with alone():
            versions = self.uses()
        with alone():
            return Entry(versions, rounded(self.numbers()))


# what there is --------------------------------------------------------------------------------------------------------
def subjects() -> dict[str, Subject]:
    """Name -> subject: methods, encoders, operators, mechanisms, settings, tasks, metrics, three areas, and the bench."""
    found = [method_subject(key) for key in METHODS]
    kinds: tuple[tuple[str, Iterable[str], Callable[[str], Any], Callable[[str], Numbers]], ...] = (
        ("encoder", ENCODERS, ENCODERS.__getitem__, golden_parts.encoder_numbers),
        ("operator", OPERATORS, OPERATORS.__getitem__, golden_operators.operator_numbers),
        ("mechanism", MECHANISMS, MECHANISMS.__getitem__, golden_operators.mechanism_numbers),
        ("task", TASKS, TASKS.__getitem__, golden_parts.task_numbers),
    )
    for kind, keys, get, numbers in kinds:
        for key in keys:
            file = f"operators/{_kind(key)}.json" if kind == "operator" else f"{kind}s.json"
            module = _module(get(key))
            where = f"the version in @{kind.upper()}S.register({key!r}, version=…) in {module}"
            found.append(_simple(f"{kind} {key}", file, where, module, partial(numbers, key)))
    for form in SETTINGS:
        where = f"the version of the Setting {form!r} in kintsugi.imperfect.published"
        numbers_of = partial(golden_operators.setting_numbers, form)
        found.append(_simple(f"setting {form}", "mechanisms.json", where, "kintsugi.imperfect.published", numbers_of))
    for key in golden_parts.toy_tasks():
        found += [_metric(key, name) for name in golden_parts.task_of(key).metrics()]
    areas = {
        "training": golden_areas.training_numbers,
        "reading": golden_reading.reading_numbers,
        "evaluation": golden_areas.evaluation_numbers,
    }
    for area, measured in areas.items():
        where = f"{area.upper()} in kintsugi.core.versions"
        found.append(Subject(area, "areas.json", where, "kintsugi.core.versions", measured, partial(_area_uses, area)))
    found.append(
        Subject(
            "bench", "areas.json", "EVALUATION (or the version of whatever else moved it) in kintsugi.core.versions",
            "kintsugi.core.versions", golden_bench.bench_numbers, golden_bench.bench_uses,
        )
    )  # fmt: skip
    return {subject.name: subject for subject in found}


def own() -> dict[str, Subject]:
    """The subjects that are defined in this library, without those of plugins."""
    return {name: subject for name, subject in subjects().items() if subject.module.split(".")[0] == "kintsugi"}


def chosen(patterns: Iterable[str]) -> dict[str, Subject]:
    """Subjects by name, by the last words of their name (``mmin``), or by a glob; without patterns all of :func:`own`.

    Raises:
        UnknownName: a pattern that fits nothing. ConfigError: the name of a method whose file cannot be used.
    """
    wanted = list(patterns)
    if not wanted:
        return own()
    known = subjects()
    found: dict[str, Subject] = {}
    for pattern in wanted:
        kind, _, key = pattern.rpartition(" ")
        current = METHODS.current(key) if kind in ("", "method") else key  # a method may have had another key before
        fitting = {
            name: subject
            for name, subject in known.items()
            if fnmatchcase(name, pattern) or fnmatchcase(name.partition(" ")[2], pattern)
            or (current != key and name == f"method {current}")
        }  # fmt: skip
        if not fitting:
            with suppress(UnknownName):
                if kind in ("", "method"):
                    METHODS.card(key)  # which says what is wrong with its file, where that is why
            raise UnknownName("subject of golden numbers", pattern, [*known, *(n.partition(" ")[2] for n in known)])
        found |= fitting
    return found


def method_subject(key: str) -> Subject:
    """The subject of one method, which is imported when it is measured. Numbers of one from outside are beside its file."""
    text = METHODS.entries.get(key)
    module = METHODS[key].__module__ if text is None else text.module
    file = f"methods/{METHODS.card(key).leaf}.json"
    if text is not None and not text.file.is_relative_to(METHODS.home):
        file = str(text.file.with_suffix(".golden.json"))
    where = f"the version of its card in {module}"
    return Subject(
        f"method {key}", file, where, module, lambda: method_numbers(METHODS[key]), partial(_method_uses, key)
    )


def _method_uses(key: str) -> Mapping[str, int]:
    found: dict[str, int] = {}
    card = METHODS[key].card
    used: list[tuple[Schema, Mapping[str, Any]]] = [(data.schema, {}) for data in toys(card).values()]
    used += [(uneven(card).schema, other) for other in arguments(card)]
    for schema, other in used:
        names = {f"method {key}", f"task {schema.task.key}", "training", "mechanism mcar"}
        found |= versions_of({*names, *names_in(build(METHODS[key], schema, **other))}, schema.task)
    return found


def _simple(name: str, file: str, where: str, module: str, numbers: Callable[[], Numbers]) -> Subject:
    return Subject(name, file, where, module, numbers, lambda: versions_of([name], _any_task()))


def _metric(key: str, name: str) -> Subject:
    task = golden_parts.task_of(key)
    full, module = f"metric {name} of {key}", type(task).__module__
    return Subject(
        full, "tasks.json", f"metric_versions of {type(task).__name__} in {module}", module,
        partial(golden_parts.metric_numbers, key, name),
        lambda: {full: versions_of([f"metric {name}"], task)[f"metric {name}"], **versions_of([f"task {key}"], task)},
    )  # fmt: skip


def _area_uses(area: str) -> Mapping[str, int]:
    """All whose version may move the numbers of this area."""
    names = {area}
    if area != "reading":
        names |= {f"method {golden_areas.PLAIN}", "encoder vector", "mechanism mcar"}
    if area == "evaluation":
        names |= {f"operator {key}" for key in ("feature_noise", "feature_dropout", "sensor_noise")}
    found = versions_of(names, _any_task())
    for key in golden_parts.toy_tasks() if area != "reading" else ():
        task = golden_parts.task_of(key)
        found |= versions_of([f"task {key}"], task)
        for metric, version in versions_of([f"metric {name}" for name in task.metrics()], task).items():
            found[f"{metric} of {key}"] = version
    return found


def _any_task() -> Task:
    return mixed("classification").schema.task


def _kind(key: str) -> str:
    kind = OPERATORS[key].kind
    return "cross_modal" if kind == CROSS else kind


def _module(thing: Any) -> str:
    module = inspect.getmodule(thing)
    return "" if module is None else module.__name__
