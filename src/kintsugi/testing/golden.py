"""Golden numbers: what everything registered gave when its version was last raised, and what it gives today.

Whoever changes numbers raises a version, so that results and saved models of before are not taken for those of today.
``kintsugi golden`` (:mod:`kintsugi.commands.golden`) says what moved; ``kintsugi golden --renew`` writes the numbers anew,
and refuses where no version was raised.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache, partial
from pathlib import Path
from typing import Any

from kintsugi.contract import build, mixed
from kintsugi.core.encoder import ENCODERS
from kintsugi.core.errors import UnknownName
from kintsugi.core.methods import METHODS
from kintsugi.core.schema import TASKS, Task
from kintsugi.imperfect.missing import MECHANISMS, SETTINGS
from kintsugi.imperfect.operator import CROSS, OPERATORS
from kintsugi.testing import golden_areas, golden_operators, golden_parts
from kintsugi.testing.golden_files import Entry, read_entries, rounded, write_entries
from kintsugi.testing.golden_methods import method_numbers, toys
from kintsugi.testing.golden_numbers import Numbers, alone, differences
from kintsugi.training.components import names_in, versions_of

FOLDER = Path("tests/golden")


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
    """Name -> subject: methods, encoders, operators, mechanisms, published settings, tasks, metrics, and three areas."""
    found = [_method(key) for key in METHODS]
    for kind, registry, numbers in (
        ("encoder", ENCODERS, golden_parts.encoder_numbers),
        ("operator", OPERATORS, golden_operators.operator_numbers),
        ("mechanism", MECHANISMS, golden_operators.mechanism_numbers),
        ("task", TASKS, golden_parts.task_numbers),
    ):
        for key in registry:
            file = f"operators/{_kind(key)}.json" if kind == "operator" else f"{kind}s.json"
            module = _module(registry[key])
            where = f"the version in @{kind.upper()}S.register({key!r}, version=…) in {module}"
            found.append(_simple(f"{kind} {key}", file, where, module, partial(numbers, key)))
    for form in SETTINGS:
        where = f"the version of the Setting {form!r} in kintsugi.imperfect.published"
        numbers_of = partial(golden_operators.setting_numbers, form)
        found.append(_simple(f"setting {form}", "mechanisms.json", where, "kintsugi.imperfect.published", numbers_of))
    for key in golden_parts.toy_tasks():
        found += [_metric(key, name) for name in golden_parts.task_of(key).metrics()]
    for area, numbers in (
        ("training", golden_areas.training_numbers),
        ("reading", golden_areas.reading_numbers),
        ("evaluation", golden_areas.evaluation_numbers),
    ):
        where = f"{area.upper()} in kintsugi.core.versions"
        found.append(Subject(area, "areas.json", where, "kintsugi.core.versions", numbers, partial(_area_uses, area)))
    return {subject.name: subject for subject in found}


def own() -> dict[str, Subject]:
    """The subjects that are defined in this library, without those of plugins."""
    return {name: subject for name, subject in subjects().items() if subject.module.split(".")[0] == "kintsugi"}


def chosen(patterns: Iterable[str]) -> dict[str, Subject]:
    """Subjects by name, by the last words of their name (``mmin``), or by a glob; without patterns all of :func:`own`.

    Raises:
        UnknownName: a pattern that fits nothing.
    """
    wanted = list(patterns)
    if not wanted:
        return own()
    known = subjects()
    found: dict[str, Subject] = {}
    for pattern in wanted:
        fitting = {
            name: subject
            for name, subject in known.items()
            if fnmatchcase(name, pattern) or fnmatchcase(name.partition(" ")[2], pattern)
        }
        if not fitting:
            raise UnknownName("subject of golden numbers", pattern, [*known, *(n.partition(" ")[2] for n in known)])
        found |= fitting
    return found


def _method(key: str) -> Subject:
    cls = METHODS[key]
    where = f"the version of its card in {cls.__module__}"
    file, text = f"methods/{cls.card.leaf}.json", METHODS.entries.get(key)
    if text is not None and not text.file.is_relative_to(METHODS.home):
        file = str(text.file.with_suffix(".golden.json"))  # of a method from outside: beside its own file
    return Subject(
        f"method {key}", file, where, cls.__module__, partial(method_numbers, cls), partial(_method_uses, key)
    )


@cache
def _method_uses(key: str) -> Mapping[str, int]:
    found: dict[str, int] = {}
    for data in toys(METHODS[key].card).values():
        task = data.schema.task
        names = {f"method {key}", f"task {task.key}", "training", *names_in(build(METHODS[key], data.schema))}
        found |= versions_of(names, task)
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
        names.add("operator feature_noise")
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


# what moved -----------------------------------------------------------------------------------------------------------
@dataclass
class Report:
    """What became of some subjects.

    moved: name -> sentences, one for each number that is not as in its file; of a subject without numbers in a file, a
    single sentence that says so. refused: name -> why its numbers were not renewed. done: sentences. unmoved: names.
    """

    moved: dict[str, list[str]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    unmoved: list[str] = field(default_factory=list)

    def text(self, most: int = 8) -> str:
        """For people; of each subject at most so many numbers."""
        lines: list[str] = []
        for name, sentences in self.moved.items():
            lines += [f"{name}, {sentence}" for sentence in sentences[:most]]
            if len(sentences) > most:
                lines.append(f"{name}: and {len(sentences) - most} more")
        lines += self.done
        lines += [f"{name}: REFUSED. {why}" for name, why in self.refused.items()]
        if self.unmoved:
            lines.append(f"{len(self.unmoved)} with the numbers of their files")
        return "\n".join(lines)


def check(subject: Subject, folder: Path = FOLDER) -> list[str]:
    """What is not as in its file, in sentences; empty: nothing moved.

    Raises:
        ConfigError: the file is no file of golden numbers.
    """
    before = read_entries(folder / subject.file).get(subject.name)
    if before is None:
        return [f"there are no golden numbers in {folder / subject.file}; measure them: kintsugi golden --renew"]
    now = subject.measure()
    return [*differences(before.numbers, now.numbers), *_versions_moved(before, now)]


def _versions_moved(before: Entry, now: Entry) -> list[str]:
    """The versions in a file have to be those of today, else the next change would pass without a raised version."""
    return [
        f"version of {name}: {before.versions.get(name, 'none')} in the file, {now.versions.get(name, 'none')} now; "
        "kintsugi golden --renew notes it"
        for name in sorted(before.versions.keys() | now.versions.keys())
        if before.versions.get(name) != now.versions.get(name)
    ]


def compare(wanted: Iterable[Subject], folder: Path = FOLDER) -> Report:
    """What moved, for many subjects; no file is changed."""
    report = Report()
    for subject in wanted:
        sentences = check(subject, folder)
        if sentences:
            report.moved[subject.name] = sentences
        else:
            report.unmoved.append(subject.name)
    return report


def renew(wanted: Iterable[Subject], folder: Path = FOLDER, gone: Iterable[str] = ()) -> Report:
    """Measure anew, and write what may be written.

    What is new is added. What moved is written where its version, or that of something it uses, was raised since, and
    refused otherwise. What did not move stays as it is in the file, with the versions of today.

    Args:
        wanted: what is measured.
        folder: of the files.
        gone: names of entries that are taken out, since there is no such thing any more.

    Raises:
        ConfigError: a file is no file of golden numbers; nothing of it is changed.
    """
    report = Report()
    by_file: dict[str, list[Subject]] = defaultdict(list)
    for subject in wanted:
        by_file[subject.file].append(subject)
    for file, those in by_file.items():
        entries = read_entries(folder / file)
        fresh = dict(entries)
        for subject in those:
            fresh[subject.name] = _renewed(subject, entries.get(subject.name), report)
        if fresh != entries:
            write_entries(folder / file, {name: entry for name, entry in fresh.items() if entry is not None})
    leaving = set(gone)
    for path in sorted(folder.rglob("*.json")) if leaving else ():
        entries = read_entries(path)
        if leaving & entries.keys():
            report.done += [f"{name}: taken out of {path}" for name in sorted(leaving & entries.keys())]
            write_entries(path, {name: entry for name, entry in entries.items() if name not in leaving})
    return report


def _renewed(subject: Subject, before: Entry | None, report: Report) -> Entry:
    """The entry to write, which is ``before`` where nothing may be changed."""
    now = subject.measure()
    if before is None:
        report.done.append(f"{subject.name}: new")
        return now
    moved = differences(before.numbers, now.numbers)
    raised = sorted(name for name, v in now.versions.items() if v > before.versions.get(name, 0))
    lowered = sorted(name for name, v in now.versions.items() if v < before.versions.get(name, 0))
    if not moved and not lowered:
        if now.versions == before.versions:
            report.unmoved.append(subject.name)
        else:
            report.done.append(f"{subject.name}: as before; the file has the versions of today")
        return Entry(now.versions, before.numbers)
    if moved:
        report.moved[subject.name] = moved
    if lowered:
        report.refused[subject.name] = (
            f"The file is of a newer version of {', '.join(lowered)}; take the numbers back from version control"
        )
        return before
    if not raised:
        version = before.versions[subject.name]
        report.refused[subject.name] = (
            f"It moved, and its version still is {version}. If that was not meant, mend it; if it was, first raise "
            f"{subject.where} to {version + 1}"
        )
        return before
    report.done.append(f"{subject.name}: written anew, since {', '.join(raised)} was raised")
    return now


def stale(folder: Path = FOLDER) -> list[str]:
    """Names of entries of which there is no subject any more, or not in that file."""
    known = subjects()
    found = []
    for path in sorted(folder.rglob("*.json")):
        for name in read_entries(path):
            if name not in known or folder / known[name].file != path:
                found.append(name)
    return found
