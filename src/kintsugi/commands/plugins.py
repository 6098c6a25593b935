"""``--plugin FILE``: methods of one's own on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def _load(files: list[Path] | None) -> list[Path] | None:
    from kintsugi.core.catalogue import METHODS

    for file in files or ():
        METHODS.load_plugin(file)
    return files


# Eager, so that names of methods in other options and arguments are known already.
Plugins = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        metavar="FILE",
        help="A Python file of your own that registers methods; it is run. May be said several times.",
        callback=_load,
        is_eager=True,
        show_default=False,
    ),
]
