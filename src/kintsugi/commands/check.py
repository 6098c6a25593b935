"""``kintsugi check``: everything that can be checked of a method."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import indent
from typing import TYPE_CHECKING, Annotated

import typer

from kintsugi.commands.plugins import Plugins

if TYPE_CHECKING:
    from kintsugi.testing.one_method import Result

COLOURS = {"ok": typer.colors.GREEN, "failed": typer.colors.RED, "skipped": typer.colors.YELLOW}


def check(
    keys: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY]...", help="Of methods; with --changed those that a change concerns.", show_default=False
        ),
    ] = None,
    plugin: Plugins = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STEP",
            help="card, ruff, mypy, architecture, contract or one of its promises such as no_leak, fresh_process, golden. "
            "May be said several times; default: all.",
            show_default=False,
        ),
    ] = None,
    changed: Annotated[
        bool,
        typer.Option(
            "--changed", help="Every method of this library that what changed since the branch main concerns."
        ),
    ] = False,
    timing: Annotated[bool, typer.Option("--timing", help="CPU seconds of each step, in the end.")] = False,
    seeds: Annotated[
        int,
        typer.Option(
            min=0, help="Only measure the claims, over so many seeds: margins, spreads, and what the ablation has."
        ),
    ] = 0,
    record: Annotated[
        bool, typer.Option("--record", help="Keep these figures, for the method's page; without --seeds over five.")
    ] = False,
) -> None:
    """Check methods: card, style and types, every promise of the contract, saving and loading, golden numbers.

    What fails says why, and the next steps still run. Exit status 0: nothing failed; 1: something did.

    Examples:

    - `kintsugi check mmin`

    - `kintsugi check mmin --only golden --only no_leak`

    - `kintsugi check my_filter --plugin my_filter.py`

    - `kintsugi check --changed --timing`

    - `kintsugi check mmin --seeds 5 --record`
    """
    from kintsugi.testing.claim_figures import SEEDS

    chosen = _chosen(keys or (), changed)
    if seeds or record:
        failed = [key for key in chosen if not _claims_are_firm(key, seeds or SEEDS, record)]
        raise typer.Exit(1 if failed else 0)
    results = {key: _check_one(key, only or ()) for key in chosen}
    if timing:
        _show_timing(results)
    raise typer.Exit(1 if any(r.state == "failed" for each in results.values() for r in each) else 0)


def _chosen(keys: Sequence[str], changed: bool) -> list[str]:
    from kintsugi.core.errors import ConfigError
    from kintsugi.testing.changed import changed_methods

    concerned = [key for key in changed_methods() if key not in keys] if changed else []
    if not keys and not changed:
        raise ConfigError("say which method is to be checked, as in kintsugi check mmin, or --changed")
    if not keys and not concerned:
        typer.echo("no method is concerned by what changed")
    return [*keys, *concerned]


def _check_one(key: str, only: Sequence[str]) -> list[Result]:
    from kintsugi.testing.one_method import check_one

    results = check_one(key, only, _show)
    failed = [result.step for result in results if result.state == "failed"]
    seconds = sum(result.seconds for result in results)
    verdict = f"failed: {', '.join(failed)}" if failed else "nothing failed"
    typer.echo(f"{key}: {len(results)} steps in {seconds:.1f} s, {verdict}")
    return results


def _show(step: str, result: Result | None) -> None:
    """A step's name when it begins, and on the same line how it went."""
    if result is None:
        typer.echo(f"{step:<24}", nl=False)
        return
    first, *others = result.message.splitlines() or [""]
    state = typer.style(result.state, fg=COLOURS[result.state]) + " " * (9 - len(result.state))
    typer.echo(f"{result.seconds:6.1f} s  {state}{first}".rstrip())
    if others:
        typer.echo(indent("\n".join(others), " " * 4))


def _show_timing(results: dict[str, list[Result]]) -> None:
    """CPU seconds of promises by method; what other processes do (ruff, mypy, a fresh process) is not in it."""
    steps = list(dict.fromkeys(r.step for each in results.values() for r in each))
    spent = {key: {r.step: r.cpu for r in each} for key, each in results.items()}
    rows = [(step, *(f"{spent[key].get(step, 0.0):.2f}" for key in results)) for step in steps]
    totals = [sum(each.values()) for each in spent.values()]
    rows.append(("together", *(f"{total:.2f}" for total in totals)))
    _print_table(("CPU seconds", *results), rows)
    if len(totals) > 1:
        typer.echo(f"mean {sum(totals) / len(totals):.2f} s")


def _claims_are_firm(key: str, seeds: int, keep: bool) -> bool:
    """Measure the claims of a method and show them. True: nothing is wrong with them."""
    from kintsugi.core.methods import METHODS
    from kintsugi.testing.claim_figures import COLUMNS, measure_claims, record, rows_of

    try:
        measured = measure_claims(METHODS[key], seeds)
    except AssertionError as error:
        typer.echo(f"{key}: {error}")
        return False
    _print_table(COLUMNS, rows_of(measured))
    faults = [m.fault for m in measured if m.fault is not None]
    for fault in faults:
        typer.echo(fault)
    if keep:
        typer.echo(f"kept in {record(key, measured)}")
    typer.echo(
        f"{key}: {len(measured)} claims over {seeds} seeds, {f'{len(faults)} at fault' if faults else 'all firm'}"
    )
    return not faults


def _print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """The first column to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    for row in (head, *rows):
        first, *others = (
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        typer.echo("  ".join((first, *others)).rstrip())
