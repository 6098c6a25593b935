"""Parts of ``kintsugi bench run``: what it runs on, what it shows, and how it ends."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from kintsugi.bench.job import Planned
    from kintsugi.bench.running import Event, Executor, Limits, Tally, Watch
    from kintsugi.bench.store import Store
    from kintsugi.bench.suite import Suite
    from kintsugi.bench.tracking import Tracker


def settings_of(pairs: list[str]) -> dict[str, Any]:
    """Changes to a suite from ``NAME=VALUE``; values as YAML reads them.

    Raises:
        ConfigError: no pair, or a value that is not YAML.
    """
    from kintsugi.core.errors import ConfigError
    from kintsugi.io.yaml_lines import word_value

    found: dict[str, Any] = {}
    for pair in pairs:
        name, sign, word = (part.strip() for part in pair.partition("="))
        if not sign or not name:
            raise ConfigError(f"--set takes NAME=VALUE, not {pair!r}")
        found[name] = word_value(word, f"--set {pair[:200]}")
    return found


def show_plan(console: Any, suite: Suite, planned: list[Planned], out: Path, workers: int) -> None:
    """What a dry run prints: each trial, whether it is done, and about how long all take."""
    from kintsugi.bench.store import Store

    store = Store.open(out, create=False) if (out / "runs.sqlite").exists() else None
    there = (
        {p.trial.hash for p in planned} - {t.hash for t in store.missing(p.trial for p in planned)} if store else set()
    )
    for p in planned:
        t = p.trial
        said = (t.hash[:12], t.dataset, t.protocol.name, t.training, t.method, f"seed {t.seed}")
        console.print(f"{'done' if t.hash in there else '    '}  {'  '.join(said)}", markup=False)
    seconds = suite.estimate(store) / workers
    allowed = f"; the suite allows {suite.budget:g} min on two cores" if suite.budget else ""
    console.print(
        f"{len(planned)} trials, {len(there)} of them done; about {spoken_time(seconds)} for all with "
        f"{workers} worker{'s' * (workers > 1)}{allowed}",
        markup=False,
    )
    if store is not None:
        tell_newer(console, store)
        tell_sources(console, store, planned)
        store.close()


def tell_newer(console: Any, store: Store) -> None:
    """One line where a store has trials of things that are newer than here, or not here."""
    from kintsugi.bench.components import said_newer

    if line := said_newer(store):
        console.print(line, markup=False)


def tell_sources(console: Any, store: Store, planned: list[Planned]) -> None:
    """One line where results count as done though sources that they ran through have changed."""
    from kintsugi.bench.made_with import said_of_sources

    if line := said_of_sources(store.records("done"), planned):
        console.print(line, markup=False)


def executor_of(workers: int, ray: str | None, limits: Limits, asked: bool) -> Executor:
    """Ray, local processes, or this one.

    Args:
        workers: as asked, or one a core. ray: address; None: no Ray. limits: of a trial. asked: the number of workers was given.

    Raises:
        ConfigError: limits, and no process that could be ended.
    """
    from kintsugi.bench.running import InProcess
    from kintsugi.core.errors import ConfigError

    if ray is not None:
        from kintsugi.bench.on_ray import OnRay

        return OnRay(ray, limits, workers if asked else None)
    if workers:
        from kintsugi.bench.processes import Processes

        return Processes(workers, limits)
    if limits.seconds is not None or limits.memory is not None:
        raise ConfigError("this suite limits the seconds or memory of a trial, which needs --workers 1 or more")
    return InProcess()


@contextlib.contextmanager
def tracked(specs: list[str]) -> Iterator[list[Tracker]]:
    """Trackers, closed at the end whatever happens, so that what they hold is written."""
    if not specs:
        yield []
        return
    from kintsugi.bench.tracking import get_tracker

    with contextlib.ExitStack() as stack:
        trackers = [get_tracker(spec) for spec in specs]
        for tracker in trackers:
            stack.callback(tracker.close)
        yield trackers


def told_to_all(watchers: list[Any]) -> Watch:
    """One watch that tells several."""

    def watch(event: Event, planned: Planned, text: str) -> None:
        for watcher in watchers:
            watcher.watch(event, planned, text)

    return watch


def keep_note(store: Store, suite: Suite, workers: int) -> None:
    """The command beside the store, so that a report can say how to run it again."""
    import shlex

    from kintsugi.bench.notes import Note, commit, now, remember

    called = shlex.join(["kintsugi", *sys.argv[1:]])
    remember(
        store.folder, Note(called, suite.name, suite.text(), suite.reference, commit(), now(), suite.budget, workers)
    )


@contextlib.contextmanager
def interruptible(store: Store, planned: list[Planned]) -> Iterator[None]:
    """Ctrl-C and a polite kill end a run alike, and say how to go on."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt as interrupted:
        left = len(store.missing(p.trial for p in planned))
        interrupted.add_note(
            f"{len(planned) - left} of {len(planned)} trials are done; the same command goes on with the others"
        )
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


class Shown:
    """A bar with an estimate where the error stream is a terminal, else nothing; failures are always said."""

    def __init__(self, total: int) -> None:
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Shown:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )

            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                TextColumn("left"), TimeRemainingColumn(), console=Console(stderr=True), transient=True, expand=False,
            )  # fmt: skip
            self._bar.start()
            self._task = self._bar.add_task("starting", total=None)
        return self

    def start(self, total: int, before: int) -> None:
        """So many trials are to be run, so many had a result before."""
        if self._bar is not None:
            self._bar.reset(self._task, total=total, description=f"{before} done before" if before else "trials")

    def watch(self, event: str, planned: Planned, text: str) -> None:
        """For the ledger."""
        if event == "failed":
            self._say(f"failed: {planned.trial}: {text}")
        if self._bar is None:
            return
        if event == "start":
            self._bar.update(
                self._task, description=f"{planned.trial.method} on {planned.trial.dataset}, seed {planned.trial.seed}"
            )
        else:
            self._bar.update(self._task, advance=1)

    def _say(self, line: str) -> None:
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            typer.echo(line, err=True)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()


def tell(console: Any, tally: Tally, planned: list[Planned], out: Path, seconds: float) -> None:
    """What a run came to."""
    said = [f"{tally.done} trials run in {spoken_time(seconds)}"]
    if tally.startup:
        said.append(f"{tally.startup:.1f} s of it to start workers")
    if tally.before:
        said.append(f"{tally.before} had a result before")
    if tally.elsewhere:
        said.append(f"{tally.elsewhere} run by another process")
    console.print("; ".join(said), markup=False)
    if tally.failed:
        console.print(
            f"{len(tally.failed)} failed; kintsugi bench status {out} says why, --retry runs them again", markup=False
        )


def report_at_end(console: Any, store: Store, path: Path) -> None:
    """The report beside the store; without its extra, a line that says so."""
    from kintsugi.bench.notes import notes_of
    from kintsugi.report import write_report

    last = notes_of(store.folder)[-1]
    try:
        write_report(store, path, reference=last.reference, command=last.command, suite_text=last.text)
    except ImportError as error:
        typer.echo(f"no report: {error}", err=True)
        return
    console.print(f"Report: {path} (opens without a network)", markup=False)


def spoken_time(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    return (
        f"{seconds:.0f} s"
        if seconds < 100
        else f"{seconds / 60:.0f} min"
        if seconds < 6000
        else f"{seconds / 3600:.1f} h"
    )


def plain_console() -> Any:
    """A terminal that neither colours numbers nor breaks lines."""
    from rich.console import Console

    return Console(soft_wrap=True, highlight=False)
