"""``kintsugi bench``: suites of trials in a store, and what one does with such a store."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from kintsugi.commands import bench_run as parts
from kintsugi.commands.plugins import Plugins

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
    plugins: Plugins = None,
) -> None:
    """Run a suite. What the store has already is not run again; the same command goes on after an interruption.

    A trial is named by its data, masks, method, parameters, seed, protocol, and the versions of everything registered that
    it uses. If any of these changes it is another trial. Two processes may work on one store at once.

    Examples:

    - `kintsugi bench quick -o runs/`

    - `kintsugi bench full -o runs/ --workers 2`

    - `kintsugi bench my.yaml -o runs/ --dry-run`

    - `kintsugi bench avmnist-smil -o runs/ --set avmnist.fsdd=recordings/ --workers 2`
    """
    from kintsugi.bench.running import Ledger
    from kintsugi.bench.store import Store
    from kintsugi.bench.suite import load_suite

    asked = load_suite(suite, parts.settings_of(set_ or []))
    console = parts.plain_console()
    planned = asked.planned()
    used = min(os.cpu_count() or 1, max(1, len(planned))) if workers is None else workers
    if dry_run:
        parts.show_plan(console, asked, planned, out, max(1, used))
        return
    executor = parts.executor_of(used, ray, asked.limits, workers is not None)
    with Store.open(out) as store, parts.tracked(track or []) as trackers:
        began = time.monotonic()
        with parts.interruptible(store, planned), parts.Shown(len(planned)) as shown:
            ledger = Ledger(store, planned, parts.told_to_all([shown, *trackers]), retry, trackers)
            parts.keep_note(store, asked, max(1, used))
            shown.start(ledger.total, ledger.tally.before)
            with ledger:
                executor.run(ledger)
        parts.tell(console, ledger.tally, planned, out, time.monotonic() - began)
        if ledger.tally.before:
            parts.tell_sources(console, store, planned)
        if report and ledger.tally.before + ledger.tally.done:
            parts.report_at_end(console, store, out / "report.html")
    raise typer.Exit(1 if ledger.tally.failed else 0)


@app.command()
def pages(
    methods: Annotated[
        str,
        typer.Option("--methods", "-m", help="Keys or globs over keys and leaves, with commas between; default: all."),
    ] = "*",
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the store; made if there is none.")] = Path(
        "runs/pages"
    ),
    table: Annotated[
        Path | None,
        typer.Option(
            help="A Parquet file of trainings: those in it are not run again, and all are written to it.",
            show_default=False,
        ),
    ] = None,
    write: Annotated[
        Path | None, typer.Option(help="Folder of the Markdown pages; default: OUT/pages.", show_default=False)
    ] = None,
    notes: Annotated[
        Path | None, typer.Option(help="YAML of key -> what is said beside its figures.", show_default=False)
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("-w", "--workers", min=0, show_default=False, help="Local processes; default: one a core."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Two seeds and 200 updates: minutes, and nothing to conclude from.")
    ] = False,
    minutes: Annotated[
        float | None, typer.Option(help="Stop after so long; the same command goes on.", show_default=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be run.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Run those again that failed.")] = False,
    plugins: Plugins = None,
) -> None:
    """Judge methods where their premises hold, and write a measured page for each.

    Each method is trained in the world of its premise at strengths 0, 0.5 and 1, in another world and on a real set, beside its
    ablation, the plain host on all rows, late fusion and the plain scikit-learn baseline; the optimum stands beside every number.
    What has a result is not run again; Ctrl-C loses nothing but what is running.

    - `kintsugi bench pages --methods mmin --quick -o runs/`

    - `kintsugi bench pages --methods "missing/*" --table pages.parquet --workers 2`
    """
    from kintsugi.commands.bench_pages import run_pages

    failed = run_pages(
        parts.plain_console(), methods, out, table, out / "pages" if write is None else write, notes, workers, quick, minutes,
        dry_run, retry,
    )  # fmt: skip
    raise typer.Exit(1 if failed else 0)


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
    parts.plain_console().print(table)


@app.command()
def status(runs: Runs) -> None:
    """How many trials are done, running, failed, and why these failed."""
    from kintsugi.bench.store import Store

    console = parts.plain_console()
    with Store.open(runs, create=False) as store:
        counts = store.counts()
        console.print(
            ", ".join(
                f"{counts[state]} {state}" for state in ("done", "running", "pending", "failed") if state in counts
            )
            or "no trials"
        )
        parts.tell_newer(console, store)
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
        console = parts.plain_console()
        console.print(f"{store.export(file, timing)}: {len(store.table(timing=False))} results", markup=False)
        parts.tell_newer(console, store)


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
    parts.plain_console().print(f"added: {trial}, from {trial.origin}", markup=False)


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
        parts.plain_console().print(f"{give_out(store, found[0], out, by)}", markup=False)


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

    console = parts.plain_console()
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
    parts.plain_console().print(str(page), markup=False)
