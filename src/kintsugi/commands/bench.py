"""``kintsugi bench``: suites of trials in a store, and what one does with such a store."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from kintsugi.bench.job import Planned
    from kintsugi.bench.running import Event, Executor, Limits, Tally, Watch
    from kintsugi.bench.store import Store
    from kintsugi.bench.suite import Suite
    from kintsugi.bench.tracking import Tracker

Runs = Annotated[Path, typer.Argument(help="Folder of a store.", show_default=False)]


class _OrSuite(TyperGroup):
    """``kintsugi bench quick`` is ``kintsugi bench run quick``."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            args = ["run", *args]
        return super().resolve_command(ctx, args)

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        formatter.write_usage(ctx.command_path, "[SUITE | COMMAND] [ARGS]...")


app = typer.Typer(
    name="bench",
    cls=_OrSuite,
    help=(
        "Suites of trials: data sets x training conditions x methods x seeds, each under a protocol, in a store that can be "
        "interrupted, resumed and shared.\n\n`kintsugi bench quick -o runs/` runs a suite (see `kintsugi bench run --help`); "
        "`kintsugi bench list` shows the suites that ship."
    ),
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def run(
    suite: Annotated[str, typer.Argument(help="A YAML file, or the name of a suite that ships.", show_default=False)],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the store; made if there is none.")] = Path(
        "runs"
    ),
    workers: Annotated[
        int | None,
        typer.Option(
            "-w",
            "--workers",
            min=0,
            show_default=False,
            help="Local processes, one thread each; 0: no other process; default: one a core.",
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(help="Run on Ray: auto (a running cluster), local, or an address.", show_default=False),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the trials and an estimate of time, run nothing.")
    ] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Run those again that failed.")] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change the suite: seeds=2, trainer.epochs=3, avmnist.fsdd=PATH; may be repeated."),
    ] = None,
    track: Annotated[
        list[str] | None,
        typer.Option(help="Also write to tensorboard:FOLDER, mlflow[:URI] or wandb[:PROJECT]; may be repeated."),
    ] = None,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write OUT/report.html at the end.")] = True,
) -> None:
    """Run a suite. What the store has already is not run again; the same command goes on after an interruption.

    A trial is named by everything that decides its result: data, masks, method, parameters, seed, protocol, sources. If any
    of these changes it is another trial. Two processes may work on one store at once.

    Examples:

    - `kintsugi bench quick -o runs/`

    - `kintsugi bench full -o runs/ --workers 2`

    - `kintsugi bench my.yaml -o runs/ --dry-run`

    - `kintsugi bench avmnist-smil -o runs/ --set avmnist.fsdd=recordings/ --workers 2`
    """
    from kintsugi.bench.running import Ledger
    from kintsugi.bench.store import Store
    from kintsugi.bench.suite import load_suite

    asked = load_suite(suite, _settings(set_ or []))
    console = _console()
    planned = asked.planned()
    used = min(os.cpu_count() or 1, max(1, len(planned))) if workers is None else workers
    if dry_run:
        _show_plan(console, asked, planned, out, max(1, used))
        return
    executor = _executor(used, ray, asked.limits, workers is not None)
    with Store.open(out) as store, _tracked(track or []) as trackers:
        _remember(store, asked, max(1, used))
        began = time.monotonic()
        with _interruptible(store, planned), _Shown(len(planned)) as shown:
            ledger = Ledger(store, planned, _all([shown, *trackers]), retry, trackers)
            shown.start(ledger.total, ledger.tally.before)
            with ledger:
                executor.run(ledger)
        _tell(console, ledger.tally, planned, out, time.monotonic() - began)
        if report and ledger.tally.before + ledger.tally.done:
            _report(console, store, out / "report.html")
    raise typer.Exit(1 if ledger.tally.failed else 0)


@app.command("list")
def list_() -> None:
    """The suites that ship."""
    from rich.table import Table

    from kintsugi.bench.suite import list_suites, load_suite

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name in list_suites():
        asked = load_suite(name, check=False)
        table.add_row(f"[bold]{name}[/bold]", asked.about + (f" ({asked.budget:g} min)" if asked.budget else ""))
    _console().print(table)


@app.command()
def status(runs: Runs) -> None:
    """How many trials are done, running, failed, and why these failed."""
    from kintsugi.bench.store import Store

    console = _console()
    with Store.open(runs, create=False) as store:
        counts = store.counts()
        console.print(
            ", ".join(
                f"{counts[state]} {state}" for state in ("done", "running", "pending", "failed") if state in counts
            )
            or "no trials"
        )
        for record in store.records("failed"):
            console.print(f"failed: {record.trial}: {record.traceback.strip().splitlines()[-1]}", markup=False)


@app.command()
def export(
    runs: Runs,
    file: Annotated[Path, typer.Argument(help="A .csv or .parquet file.", show_default=False)],
    timing: Annotated[bool, typer.Option("--timing", help="Also seconds and starting times.")] = False,
) -> None:
    """All results as one tidy table. Without timing, the same trials make the same bytes."""
    from kintsugi.bench.store import Store

    with Store.open(runs, create=False) as store:
        file.parent.mkdir(parents=True, exist_ok=True)
        _console().print(f"{store.export(file, timing)}: {len(store.table(timing=False))} results", markup=False)


@app.command()
def add(
    result: Annotated[Path, typer.Argument(help="A result that somebody else ran, as JSON.", show_default=False)],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the store.")] = Path("runs"),
) -> None:
    """Take in a result from elsewhere; tables and reports mark it so. The documentation describes the format.

    - `kintsugi bench add theirs.json -o runs/`
    """
    from kintsugi.bench.outside import add_outside
    from kintsugi.bench.store import Store

    with Store.open(out) as store:
        trial = add_outside(store, result)
    _console().print(f"added: {trial}, from {trial.versions.get('origin', '')}", markup=False)


@app.command()
def give(
    runs: Runs,
    trial: Annotated[str, typer.Argument(help="Hash of a trial, or its beginning.", show_default=False)],
    out: Annotated[Path, typer.Option("-o", "--out", help="The JSON file.")] = Path("result.json"),
    by: Annotated[str, typer.Option(help="Who ran it.")] = "",
) -> None:
    """Write one result as JSON for others to add to their store."""
    from kintsugi.bench.outside import give_out
    from kintsugi.bench.store import Store
    from kintsugi.core.errors import ConfigError

    if not by:
        raise ConfigError("say who ran it with --by NAME: others see it beside the result")
    with Store.open(runs, create=False) as store:
        found = [r.trial.hash for r in store.records("done") if r.trial.hash.startswith(trial)]
        if len(found) != 1:
            raise ConfigError(f"{len(found)} done trials of {runs} begin with {trial!r}; give more of the hash")
        _console().print(f"{give_out(store, found[0], out, by)}", markup=False)


@app.command()
def check(
    runs: Runs,
    salvage: Annotated[
        Path | None,
        typer.Option(help="Copy what can be read of a damaged store into this new folder.", show_default=False),
    ] = None,
) -> None:
    """Is every page, row and file of a store as it was written? Exit status 1 where it is not."""
    from kintsugi.bench.store import Store

    console = _console()
    if salvage is not None:
        saved = Store.salvage(runs, salvage)
        console.print(
            f"{salvage}: {', '.join(f'{n} {state}' for state, n in saved.kept.items()) or 'nothing'} kept", markup=False
        )
        for lost in saved.lost:
            console.print(f"lost: {lost}", markup=False)
        return
    with Store.open(runs, create=False) as store:
        found = store.check()
    for line in found or [f"{runs}: as it was written"]:
        console.print(line, markup=False)
    raise typer.Exit(1 if found else 0)


@app.command()
def leaderboard(
    runs: Runs,
    out: Annotated[Path, typer.Option("-o", "--out", help="The Markdown page.")] = Path("leaderboard.md"),
) -> None:
    """All results as a page of tables, with intervals, and with what does not differ beyond noise."""
    from kintsugi.bench.leaderboard import write_leaderboard
    from kintsugi.bench.notes import notes_of
    from kintsugi.bench.store import Store
    from kintsugi.core.errors import ConfigError

    notes = notes_of(runs)
    if not notes:
        raise ConfigError(f"{runs} does not say by which command it was made; run a suite with kintsugi bench first")
    with Store.open(runs, create=False) as store:
        last = notes[-1]
        page = write_leaderboard(
            store, out, command=last.command, commit=last.commit, machine=None, suite_text=last.text,
            reference=last.reference, date=last.date, budget=last.budget,
        )  # fmt: skip
    _console().print(str(page), markup=False)


# parts of a run ----------------------------------------------------------------------------------------------------


def _settings(pairs: list[str]) -> dict[str, Any]:
    import yaml

    from kintsugi.core.errors import ConfigError

    found: dict[str, Any] = {}
    for pair in pairs:
        name, sign, word = (part.strip() for part in pair.partition("="))
        if not sign or not name:
            raise ConfigError(f"--set takes NAME=VALUE, not {pair!r}")
        try:
            value = yaml.safe_load(word)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {pair}: {word!r} is not YAML") from error
        if isinstance(value, str):
            with contextlib.suppress(ValueError):  # YAML takes 1e-3 for text
                value = float(value)
        found[name] = value
    return found


def _show_plan(console: Any, suite: Suite, planned: list[Planned], out: Path, workers: int) -> None:
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
        f"{len(planned)} trials, {len(there)} of them done; about {_time(seconds)} for all with "
        f"{workers} worker{'s' * (workers > 1)}{allowed}",
        markup=False,
    )
    if store is not None:
        store.close()


def _executor(workers: int, ray: str | None, limits: Limits, asked: bool) -> Executor:
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
def _tracked(specs: list[str]) -> Iterator[list[Tracker]]:
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


def _all(watchers: list[Any]) -> Watch:
    def watch(event: Event, planned: Planned, text: str) -> None:
        for watcher in watchers:
            watcher.watch(event, planned, text)

    return watch


def _remember(store: Store, suite: Suite, workers: int) -> None:
    import shlex

    from kintsugi.bench.notes import Note, commit, now, remember

    called = shlex.join(["kintsugi", *sys.argv[1:]])
    remember(
        store.folder, Note(called, suite.name, suite.text(), suite.reference, commit(), now(), suite.budget, workers)
    )


@contextlib.contextmanager
def _interruptible(store: Store, planned: list[Planned]) -> Iterator[None]:
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


class _Shown:
    """A bar with an estimate where the error stream is a terminal, else nothing; failures are always said."""

    def __init__(self, total: int) -> None:
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> _Shown:
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


def _tell(console: Any, tally: Tally, planned: list[Planned], out: Path, seconds: float) -> None:
    said = [f"{tally.done} trials run in {_time(seconds)}"]
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


def _report(console: Any, store: Store, path: Path) -> None:
    from kintsugi.bench.notes import notes_of
    from kintsugi.report import write_report

    last = notes_of(store.folder)[-1]
    try:
        write_report(store, path, reference=last.reference, command=last.command, suite_text=last.text)
    except ImportError as error:
        typer.echo(f"no report: {error}", err=True)
        return
    console.print(f"Report: {path} (opens without a network)", markup=False)


def _time(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 100
        else f"{seconds / 60:.0f} min"
        if seconds < 6000
        else f"{seconds / 3600:.1f} h"
    )


def _console() -> Any:
    from rich.console import Console

    return Console(soft_wrap=True, highlight=False)
