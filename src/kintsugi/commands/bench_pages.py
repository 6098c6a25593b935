"""``kintsugi bench pages``: what it runs, keeps and writes."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kintsugi.commands import bench_run as parts

if TYPE_CHECKING:
    import pandas as pd

    from kintsugi.bench.job import Planned
    from kintsugi.bench.pages.figures import Judgement
    from kintsugi.bench.store import Store

PERFORM = "kintsugi.bench.pages.work:perform"
ADVICE = "when_does_it_help"  # key of the notes that stands on the page of all methods


def chosen(patterns: str) -> list[str]:
    """Keys of methods that any of these patterns names, by key or by leaf, in the order of the registry.

    Raises:
        UnknownName: a pattern that names none.
    """
    from kintsugi.core.catalogue import METHODS
    from kintsugi.core.errors import UnknownName

    asked = [word.strip() for word in patterns.split(",") if word.strip()]
    leaves = {key: METHODS.card(key).leaf for key in METHODS}
    found = {
        word: {key for key, leaf in leaves.items() if fnmatchcase(key, word) or fnmatchcase(f"{leaf}/{key}", word)}
        for word in asked
    }
    for word, keys in found.items():
        if not keys:
            raise UnknownName("method", word, leaves)
    named = set().union(*found.values()) if found else set()
    return [key for key in leaves if key in named]


def run_pages(
    console: Any, patterns: str, out: Path, table: Path | None, write: Path, notes: Path | None, workers: int | None,
    quick: bool, minutes: float | None, dry_run: bool, retry: bool,
) -> int:  # fmt: skip
    """All of the command; the number of trainings that failed."""
    from kintsugi.bench.pages.figures import joined, read_results, results_of
    from kintsugi.bench.pages.plan import jobs_of, planned
    from kintsugi.bench.store import Store
    from kintsugi.core.errors import ConfigError

    if table is not None and table.suffix != ".parquet":  # said before hours of training, not after them
        raise ConfigError(f"--table takes a .parquet file, not {table}")
    keys = chosen(patterns)
    said = _notes(notes)
    before = read_results(table) if table is not None and table.exists() else None
    there = set() if before is None else set(before["trial"])
    all_of_them = planned(jobs_of(keys, quick))
    left = [each for each in all_of_them if each.trial.hash not in there]
    used = min(os.cpu_count() or 1, max(1, len(left))) if workers is None else workers
    if dry_run:
        for each in left:
            console.print(f"{each.trial.hash[:12]}  {each.trial}", markup=False)
        console.print(
            f"{len(all_of_them)} trainings of {len(keys)} methods, {len(left)} of them not in the table", markup=False
        )
        return 0
    with Store.open(out) as store:
        failed = _run(console, store, left, out, used, minutes, retry) if left else 0
        results = joined(*(() if before is None else (before,)), results_of(store))
    if table is not None:
        keep_table(results, table)
    found = write_pages(keys, results, write, said, quick)
    for key, judgement in found.items():
        console.print(f"{key}: {one_line(judgement)}", markup=False)
    console.print(f"pages in {write}", markup=False)
    return failed


def _notes(path: Path | None) -> Mapping[str, str]:
    from kintsugi.core.errors import ConfigError
    from kintsugi.io.yaml_lines import document, read_text

    if path is None:
        return {}
    _, found = document(read_text(path), path.name)
    if not isinstance(found, Mapping) or not all(isinstance(text, str) for pair in found.items() for text in pair):
        raise ConfigError(f"{path} should be a YAML mapping of method -> text")
    return found


def _run(
    console: Any, store: Store, left: list[Planned], out: Path, used: int, minutes: float | None, retry: bool
) -> int:
    from kintsugi.bench.pages.work import perform
    from kintsugi.bench.processes import Processes
    from kintsugi.bench.running import InProcess, Ledger

    class Timed(Ledger):
        """Hands out nothing after so many minutes; what is running ends."""

        def next(self, worker: str = "") -> Planned | None:
            over = minutes is not None and time.monotonic() - began > 60 * minutes
            return None if over else super().next(worker)

    began = time.monotonic()
    with parts.interruptible(store, left), parts.Shown(len(left)) as shown:
        ledger = Timed(store, left, shown.watch, retry)
        shown.start(ledger.total, ledger.tally.before)
        with ledger:
            (Processes(used, perform=PERFORM) if used else InProcess(perform)).run(ledger)
    parts.tell(console, ledger.tally, left, out, time.monotonic() - began)
    return len(ledger.tally.failed)


def keep_table(results: pd.DataFrame, path: Path) -> None:
    """The trainings behind pages, sorted; the same ones make the same bytes."""
    from kintsugi.bench.export import export_table

    path.parent.mkdir(parents=True, exist_ok=True)
    export_table(results, path)


def write_pages(
    keys: Sequence[str], results: pd.DataFrame, folder: Path, notes: Mapping[str, str], quick: bool
) -> dict[str, Judgement]:
    """``KEY.md`` for each method, and ``when_does_it_help.md`` over them; gives what was judged."""
    from kintsugi.bench.pages.figures import judge
    from kintsugi.bench.pages.page import measured, when
    from kintsugi.core.catalogue import METHODS
    from kintsugi.io.files import replace_file

    folder.mkdir(parents=True, exist_ok=True)
    found = {key: judge(key, results, quick) for key in keys}
    for key, judgement in found.items():
        replace_file(folder / f"{key}.md", measured(judgement, notes.get(key, "")).encode())
    names = {key: METHODS.card(key).name for key in keys}
    replace_file(folder / f"{ADVICE}.md", when(found, names, notes.get(ADVICE, "")).encode())
    return found


def one_line(found: Judgement) -> str:
    """The two verdicts of a method, in figures."""
    from kintsugi.bench.pages.page import points, said

    gains = [f"{part or 'its mechanism'} {points(found.against('own', 1.0, part))}" for part in found.ablations]
    line = f"{said(found)}: {'; '.join(gains)}; to the plain host {points(found.against_host('own', 1.0))}"
    return line.replace("*", "") + (f"; {found.lacking} trainings lack" if found.lacking else "")
