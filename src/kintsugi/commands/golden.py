"""``kintsugi golden``: whether anything registered gives other numbers than when its version was last raised."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kintsugi.commands.plugins import Plugins

if TYPE_CHECKING:
    from kintsugi.testing.golden import Subject


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
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Of the files; default: tests/golden of the source checkout. Numbers of a plugin are beside its file.",
            show_default=False,
        ),
    ] = None,
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

    from kintsugi.testing import golden as numbers

    subjects = numbers.chosen(names or ()).values()
    folder = _folder(folder, subjects, bool(names))
    if renew:
        report = numbers.renew(subjects, folder, gone=() if names else numbers.stale(folder))
    else:
        report = numbers.compare(subjects, folder)
    Console(soft_wrap=True, highlight=False).print(report.text(), markup=False)
    raise typer.Exit(1 if report.refused or (report.moved and not renew) else 0)


def _folder(folder: Path | None, subjects: Iterable[Subject], named: bool) -> Path:
    """Where the numbers of the library are: never below a folder that this happens to run in."""
    from kintsugi.core.errors import ConfigError
    from kintsugi.testing.golden import FOLDER
    from kintsugi.testing.style_tools import checkout

    if folder is not None:
        if not named and not folder.is_dir():
            raise ConfigError(
                f"there is no folder {folder}; give the one of golden numbers, tests/golden of a source checkout"
            )
        return folder
    place = checkout()
    own = [subject.name for subject in subjects if not Path(subject.file).is_absolute()]
    if place is None and own:
        raise ConfigError(
            f"golden numbers of this library ({own[0]}{', …' if len(own) > 1 else ''}) are in its source checkout, and it is "
            "installed as a package here; run this in a checkout, or say where they are: --folder"
        )
    return Path() if place is None else place / FOLDER  # all files are beside plugins where there is no checkout
