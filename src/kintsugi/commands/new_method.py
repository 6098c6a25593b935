"""``kintsugi new-method``: the file of a new method, ready to run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def new_method(
    key: Annotated[
        str, typer.Argument(metavar="KEY", help="Small letters, digits and underscores.", show_default=False)
    ],
    leaf: Annotated[
        str, typer.Option(help="Place in the taxonomy, such as missing/alignment or general.", show_default=False)
    ],
    kind: Annotated[str, typer.Option(help="model, restorer, strategy or monitor.")] = "model",
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FILE",
            help="The file; default: its place in the source checkout.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write the file of a new method: a small one that works, with its ablation, its claims and a card to fill in.

    A model changes how features are joined, a restorer mends inputs, a strategy changes training, a monitor watches answers.

    Examples:

    - `kintsugi new-method m3care --leaf missing/co_learning`

    - `kintsugi new-method my_filter --leaf corrupted/denoising --kind restorer --out my_filter.py`
    """
    from kintsugi.testing.new_method import next_steps, write_method

    typer.echo(next_steps(key, write_method(key, leaf, kind, out)))
