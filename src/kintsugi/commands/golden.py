"""``kintsugi golden``: whether anything registered gives other numbers than when its version was last raised."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kintsugi.commands.plugins import Plugins


def golden(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="Of subjects, or globs: mmin, 'operator fog', 'method *'; default: all of the library.",
            show_default=False,
        ),
    ] = None,
    renew: Annotated[
        bool, typer.Option("--renew", help="Write new numbers where a version was raised; add what is new.")
    ] = False,
    folder: Annotated[Path, typer.Option(help="Of the files.")] = Path("tests/golden"),
    plugin: Plugins = None,
) -> None:
    """What gives other numbers than its golden ones: methods, encoders, operators, mechanisms, tasks, metrics, and more.

    Golden numbers are first losses of every stage and twenty answers of a method, and a few numbers of everything else.
    Whoever changes numbers on purpose raises a version first: that of a method is on its card. Then `--renew` writes them.

    Exit status 0: nothing moved, or all was written; 1: something moved, or was refused; 2: a name or a file is wrong.

    Examples:

    - `kintsugi golden mmin` measures one method, in about a second

    - `kintsugi golden "operator *"`

    - `kintsugi golden mmin --renew` after its version was raised
    """
    from rich.console import Console

    from kintsugi.core.errors import ConfigError
    from kintsugi.testing import golden as numbers

    if not names and not folder.is_dir():
        raise ConfigError(
            f"there is no folder {folder}; run this in a source checkout, or say where golden numbers are: --folder"
        )
    subjects = numbers.chosen(names or ()).values()
    if renew:
        report = numbers.renew(subjects, folder, gone=() if names else numbers.stale(folder))
    else:
        report = numbers.compare(subjects, folder)
    Console(soft_wrap=True, highlight=False).print(report.text(), markup=False)
    raise typer.Exit(1 if report.refused or (report.moved and not renew) else 0)
