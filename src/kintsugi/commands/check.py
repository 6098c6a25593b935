"""``kintsugi check``: everything that can be checked of one method."""

from __future__ import annotations

from textwrap import indent
from typing import TYPE_CHECKING, Annotated

import typer

from kintsugi.commands.plugins import Plugins

if TYPE_CHECKING:
    from kintsugi.testing.one_method import Result

COLOURS = {"ok": typer.colors.GREEN, "failed": typer.colors.RED, "skipped": typer.colors.YELLOW}


def check(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Of a method.", show_default=False)],
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
) -> None:
    """Check one method: its card, style and types, every promise of the contract, saving and loading, golden numbers.

    What fails says why, and the next steps still run. Exit status 0: nothing failed; 1: something did.

    Examples:

    - `kintsugi check mmin`

    - `kintsugi check mmin --only golden --only no_leak`

    - `kintsugi check my_filter --plugin my_filter.py`
    """
    from kintsugi.testing.one_method import check_one

    results = check_one(key, only or (), _show)
    failed = [result.step for result in results if result.state == "failed"]
    seconds = sum(result.seconds for result in results)
    verdict = f"failed: {', '.join(failed)}" if failed else "nothing failed"
    typer.echo(f"{key}: {len(results)} steps in {seconds:.1f} s, {verdict}")
    raise typer.Exit(1 if failed else 0)


def _show(step: str, result: Result | None) -> None:
    """A step's name when it begins, and on the same line how it went."""
    if result is None:
        typer.echo(f"{step:<22}", nl=False)
        return
    first, *others = result.message.splitlines() or [""]
    state = typer.style(result.state, fg=COLOURS[result.state]) + " " * (9 - len(result.state))
    typer.echo(f"{result.seconds:6.1f} s  {state}{first}".rstrip())
    if others:
        typer.echo(indent("\n".join(others), " " * 4))
