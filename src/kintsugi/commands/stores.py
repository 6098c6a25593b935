"""``kintsugi report`` and ``kintsugi compare``: what stores of trials say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Runs = Annotated[Path, typer.Argument(help="Folder of a store, as kintsugi bench made it.", show_default=False)]


def report(
    runs: Runs,
    out: Annotated[Path, typer.Option("-o", "--out", help="The HTML file.")] = Path("report.html"),
    metric: Annotated[
        str | None, typer.Option(help="That is shown; default: the leading one.", show_default=False)
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="Method that mCE and effective robustness refer to; default: the suite's.", show_default=False
        ),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Heading of the page.", show_default=False)] = None,
) -> None:
    """Everything that a store holds in one HTML file: leaderboard, curves, costs, reliability, failures, how to repeat it.

    It opens without a network, in light and dark, on a phone, and prints.

    Examples:

    - `kintsugi report runs/ -o report.html`

    - `kintsugi report runs/ -o f1.html --metric macro_f1 --reference late_fusion`
    """
    from rich.console import Console

    from kintsugi.bench.components import said_newer
    from kintsugi.bench.notes import notes_of
    from kintsugi.bench.store import Store
    from kintsugi.report import write_report

    notes = notes_of(runs)
    out.parent.mkdir(parents=True, exist_ok=True)
    with Store.open(runs, create=False) as store:
        page = write_report(
            store, out, metric=metric, title=title,
            reference=reference or (notes[-1].reference if notes else None),
            command=notes[-1].command if notes else None,
            suite_text=notes[-1].text if notes else "",
        )  # fmt: skip
        newer = said_newer(store)
    console = Console(soft_wrap=True, highlight=False)
    if newer:
        console.print(newer, markup=False)
    console.print(f"{page} (opens without a network)", markup=False)


def compare(
    a: Annotated[Path, typer.Argument(metavar="RUNS_A", help="The store to compare with.", show_default=False)],
    b: Annotated[Path, typer.Argument(metavar="RUNS_B", help="The store that may have changed.", show_default=False)],
    metric: Annotated[
        str | None, typer.Option(help="That is compared; default: the leading one.", show_default=False)
    ] = None,
    level: Annotated[float, typer.Option(help="Of the intervals.", min=0.5, max=0.9999)] = 0.95,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Also fail where packages, Python or sources differ, and compare none of these."),
    ] = False,
    csv: Annotated[Path | None, typer.Option(help="Write all differences as a table.", show_default=False)] = None,
) -> None:
    """What changed from one store to another beyond noise.

    Exit status 0: nothing became worse; 1: something did, or with `--strict` results were made with other packages, another
    Python or other sources; 2: the stores cannot be compared.

    Examples:

    - `kintsugi compare before/ after/`

    - `kintsugi compare before/ after/ --metric log_loss --level 0.99`
    """
    from rich.console import Console

    from kintsugi.bench.components import said_newer
    from kintsugi.bench.store import Store
    from kintsugi.bench.versus import changes
    from kintsugi.io.files import replacing

    with Store.open(a, create=False) as before, Store.open(b, create=False) as after:
        found = changes(before, after, metric, level, strict)
        newer = [line for line in map(said_newer, (before, after)) if line]
    console = Console(soft_wrap=True, highlight=False)
    for line in (found.summary(), *newer):
        console.print(line, markup=False)
    if csv is not None:
        csv.parent.mkdir(parents=True, exist_ok=True)
        with replacing(csv) as fresh:
            found.table.to_csv(fresh, index=False)
    raise typer.Exit(0 if found.passed else 1)
