"""Do the checks of a method notice when its mechanism is broken? Make small faults in its code, and see which are seen.

Each mutant is a copy of the package with one fault in the method's file, or in a component that its training goes through:
a gradient cut, a live teacher in place of a frozen one, a loss left out, a stage that trains everything, a target of
another row, a sign. It runs in a process of its own; nothing of the repository changes. Two columns tell whether it was
noticed, by contract and claims (which a person may rely on when writing the method anew), and by golden numbers alone
(which notice nearly everything, but cannot tell right from wrong): those that the method gives as it stands now.

  python scripts/mutate.py mmin                    all mutants of mmin, some minutes on two cores
  python scripts/mutate.py mmin --list             what they are, and their numbers
  python scripts/mutate.py mmin --only 3 --only 7  these two alone
  python scripts/mutate.py mine --plugin mine.py   a method of your own, outside of the library

What survives is a test that is missing: write a claim that it breaks (see @claims_of in the method's file). A mutant that
cannot change an answer goes into scripts/mutations.toml with the reason, as "KEY: description" = "reason".

Exit status: 0; 1 where more than one mutant in ten survives contract and claims; 2 where nothing could be told.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TypeAlias

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from kintsugi.core.errors import ConfigError, KintsugiError
from kintsugi.core.methods import METHODS
from kintsugi.testing.mutation import LEAST, MOST, Mutant, chosen, read_equivalents, without_equivalents
from kintsugi.testing.mutation_run import (
    Bench,
    Result,
    all_mutants,
    as_json,
    baseline,
    bench_for,
    run,
    summary,
    survivors,
)

EQUIVALENTS = Path(__file__).with_name("mutations.toml")
TOLERATED = 0.1  # share of mutants that may survive contract and claims
STYLES = {"survived": "bold red", "killed": "green", "crash": "yellow", "timeout": "yellow", "none": "dim"}

Numbered: TypeAlias = "list[tuple[int, Mutant]]"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status."""
    options = parser().parse_args(arguments)
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # whoever ends it otherwise than by Ctrl-C sees what is done too
    console = Console(width=options.width)
    try:
        for file in options.plugin:
            METHODS.load_plugin(file)
        with bench_for(options.key) as bench:
            return mutate(bench, options, console)
    except KintsugiError as error:
        console.print(Text(str(error), style="red"), soft_wrap=True)
        return 2


def mutate(bench: Bench, options: argparse.Namespace, console: Console) -> int:
    """List or run the mutants of one method; the exit status."""
    with console.status(f"{bench.key} as it stands"):
        start = baseline(bench, options.check or None, measure=not options.list)
    known = read_equivalents(options.equivalents)
    unknown = sorted(key for key in known if key not in METHODS)
    if unknown:
        raise ConfigError(f"{options.equivalents} names methods that there are not: {', '.join(unknown)}")
    counted, equivalent = without_equivalents(all_mutants(bench, start.trace), known.get(bench.key, {}))
    numbered = list(enumerate(chosen(bench.key, counted, options.most), 1))
    if len(numbered) < LEAST:
        console.print(f"only {len(numbered)} mutants were found; {LEAST} are wanted", style="yellow")
    wanted = [(number, mutant) for number, mutant in numbered if not options.only or number in options.only]
    if not wanted:
        raise ConfigError(f"--only takes numbers from 1 to {len(numbered)}; --list tells them")
    if options.list:
        for number, mutant in wanted:
            console.print(Text(f"{number:3} {mutant.description}"), soft_wrap=True)
        return 0
    if start.no_golden:
        console.print(Text(f"golden numbers are not asked: {start.no_golden}", style="yellow"))
    running = run(bench, [m for _, m in wanted], options.jobs, options.check or None, golden=not start.no_golden)
    results = watched(running, wanted, console)
    console.print(table(results))
    for mutant, reason in equivalent:
        console.print(Text(f"equivalent: {mutant.description} ({reason})", style="dim"), soft_wrap=True)
    console.print(Text(summary(bench.key, list(results.values()), len(equivalent)), style="bold"), soft_wrap=True)
    if options.json is not None:
        options.json.write_text(json.dumps(as_json(bench.key, results, equivalent), indent=1) + "\n", encoding="utf-8")
    if len(results) < len(wanted):
        console.print(f"stopped after {len(results)} of {len(wanted)}", style="yellow")
        return 2
    return int(len(survivors(results.values())) > TOLERATED * len(results))


def watched(running: Generator[Result, None, None], mutants: Numbered, console: Console) -> dict[int, Result]:
    """Results by number, with a bar while they come; what is done so far where Ctrl-C was pressed."""
    numbers = {mutant: number for number, mutant in mutants}
    results: dict[int, Result] = {}
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("mutants", total=len(mutants))
        try:
            for result in running:
                results[numbers[result.mutant]] = result
                progress.advance(task)
        except KeyboardInterrupt:
            progress.console.print("stopping", style="yellow")
        finally:
            running.close()
    return dict(sorted(results.items()))


def table(results: dict[int, Result]) -> Table:
    """One row a mutant: where, what, and whether it was noticed by which check."""
    drawn = Table(title=None, show_lines=True)
    for name, ratio in (("", 1), ("fault", 12), ("contract and claims", 10), ("golden", 3)):
        drawn.add_column(name, ratio=ratio, overflow="fold")
    for number, result in results.items():
        mutant, contract, golden = result.mutant, result.contract, result.golden
        fault = f"{mutant.function}: {mutant.operator}\n{mutant.before}\n=> {mutant.after}"
        seen = f"{contract.state}{f' by {contract.by}' if contract.by else ''}\n{contract.message}".strip()
        cells = (Text(seen, style=STYLES[contract.state]), Text(golden.state, style=STYLES[golden.state]))
        drawn.add_row(str(number), Text(fault), *cells)
    return drawn


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("key", metavar="KEY", help="of a registered method")
    made.add_argument("--list", action="store_true", help="say what the mutants are, and run none")
    made.add_argument(
        "--only", type=int, action="append", default=[], metavar="N", help="run mutant N of the list alone; repeat"
    )
    made.add_argument(
        "--most", type=int, default=MOST, metavar="N",
        help=f"fill up to so many with arithmetic and components (default {MOST}); those that change the meaning of the "
        "method's own file are always run",
    )  # fmt: skip
    made.add_argument(
        "--check", action="append", default=[], metavar="NAME", help="try this check alone, such as claims_hold; repeat"
    )
    made.add_argument("--jobs", type=int, default=2, metavar="N", help="processes at a time (default 2)")
    made.add_argument("--json", type=Path, metavar="FILE", help="write all results there")
    made.add_argument(
        "--plugin", type=Path, action="append", default=[], metavar="FILE", help="a file of methods outside the library"
    )
    made.add_argument(
        "--equivalents", type=Path, default=EQUIVALENTS, metavar="FILE", help=f"default: {EQUIVALENTS.name}"
    )
    made.add_argument("--width", type=int, metavar="N", help="of the table, in characters")
    return made


if __name__ == "__main__":
    sys.exit(main())
