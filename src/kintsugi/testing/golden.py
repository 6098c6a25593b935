"""Golden numbers: what everything registered gave when its version was last raised, and what it gives today.

Whoever changes numbers raises a version, so that results and saved models of before are not taken for those of today.
``kintsugi golden`` says what moved; ``kintsugi golden --renew`` writes the numbers anew,
and refuses where no version was raised.
"""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from kintsugi.core.catalogue import METHODS
from kintsugi.io.files import taking_turns
from kintsugi.testing.golden_files import Entry, read_entries, write_entries
from kintsugi.testing.golden_numbers import differences, merged, not_finite, untrained
from kintsugi.testing.golden_subjects import Subject, chosen, method_subject, own, subjects

__all__ = [
    "FOLDER", "Report", "Subject", "check", "chosen", "compare", "method_subject", "own", "renew", "renewing", "stale",
    "subjects",
]  # fmt: skip

FOLDER = Path("tests/golden")
CARRIED = ("method", "component", "encoder", "task")  # kinds of things whose versions a saved model carries


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
        return [f"there are no golden numbers in {folder / subject.file}; measure them: {renewing(subject)}"]
    now = subject.measure()
    moved = differences(before.numbers, now.numbers)
    if newer := _newer(before, now):
        return [*moved, _of_a_newer_version(folder / subject.file, newer)]
    return [*moved, *_versions_moved(subject, before, now)]


def _newer(before: Entry, now: Entry) -> list[str]:
    """What the file has a newer version of."""
    return sorted(name for name, version in now.versions.items() if version < before.versions.get(name, 0))


def _of_a_newer_version(path: Path, names: list[str]) -> str:
    return (
        f"The file is of a newer version of {', '.join(names)}; take its numbers back from version control (git checkout "
        f"{path})"
    )


def renewing(subject: Subject) -> str:
    """The command that writes the numbers of one subject, as a shell reads it."""
    text = METHODS.entries.get(subject.name.removeprefix("method "))
    plugin = [] if text is None or text.file not in METHODS.plugins else ["--plugin", str(text.file)]
    return shlex.join(["kintsugi", "golden", subject.name, *plugin, "--renew"])


def _versions_moved(subject: Subject, before: Entry, now: Entry) -> list[str]:
    """The versions in a file have to be those of today, else the next change would pass without a raised version."""
    return [
        f"version of {name}: {before.versions.get(name, 'none')} in the file, {now.versions.get(name, 'none')} now; "
        f"{renewing(subject)} notes it"
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

    What is new is added, also to an entry whose other numbers stay. What moved is written where its version, or that of
    something it uses, was raised since, and refused otherwise. What did not move stays as it is in the file, with the
    versions of today. Several may renew at once: a file is read again when its turn has come.

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
        path = folder / file
        read_entries(path)  # one that cannot be written to is told before minutes of measuring
        measured = [(subject, subject.measure()) for subject in those]
        with taking_turns(path.parent):
            entries = read_entries(path)
            fresh = {s.name: _renewed(s, entries.get(s.name), now, path, report) for s, now in measured}
            renewed = {**entries, **{name: entry for name, entry in fresh.items() if entry is not None}}
            if renewed != entries:
                write_entries(path, renewed)
    leaving = set(gone)
    for path in sorted(folder.rglob("*.json")) if leaving else ():
        with taking_turns(path.parent):
            entries = read_entries(path)
            if leaving & entries.keys():
                report.done += [f"{name}: taken out of {path}" for name in sorted(leaving & entries.keys())]
                write_entries(path, {name: entry for name, entry in entries.items() if name not in leaving})
    return report


def _renewed(subject: Subject, before: Entry | None, now: Entry, path: Path, report: Report) -> Entry | None:
    """The entry to write, which is ``before`` where nothing may be changed."""
    if strange := not_finite(now.numbers):
        report.refused[subject.name] = (
            f"It gives a number that is not finite ({strange[0]}), which could move without being seen. Mend it"
        )
        return before
    version = now.versions[subject.name]
    if before is None:
        report.done.append(
            f"{subject.name}: NEW, as version {version}; {path} had no numbers of it, so nothing was compared"
        )
        return now
    if newer := _newer(before, now):
        report.moved[subject.name] = differences(before.numbers, now.numbers)
        report.refused[subject.name] = _of_a_newer_version(path, newer)
        return before
    both = merged(before.numbers, now.numbers)
    moved = differences(both, now.numbers)
    if not moved:
        if differences(before.numbers, both):
            report.done.append(f"{subject.name}: as before; the file has more numbers of it")
        elif now.versions != before.versions:
            report.done.append(f"{subject.name}: as before; the file has the versions of today")
        else:
            report.unmoved.append(subject.name)
        return Entry(now.versions, both)
    report.moved[subject.name] = moved
    raised = sorted(name for name, v in now.versions.items() if v > before.versions.get(name, v))
    remedy = f"If that was not meant, mend it; if it was, first raise {subject.where} to {version + 1}"
    if not raised:
        report.refused[subject.name] = f"It moved, and its version still is {version}. {remedy}"
        return before
    carried = any(name.split()[0] in CARRIED for name in raised)
    if not carried and differences(untrained(both), untrained(now.numbers)):
        report.refused[subject.name] = (
            f"It answers otherwise without training too, so models that were saved before would, and {', '.join(raised)}, "
            f"which was raised, is no part of a saved model. {remedy}"
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
