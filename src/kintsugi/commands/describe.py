"""``kintsugi describe``: what is in a table, and what the library takes its columns for."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import pandas as pd

    from kintsugi.data.column_kinds import ColumnKind
    from kintsugi.data.dataset import Dataset

WIDE = 110  # columns of a terminal below which each column of the table is a paragraph, not a row
PATTERNS = 12  # that are shown


def describe(
    data: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="A Parquet, CSV or Excel file, or the name of a built-in data set.", show_default=False
        ),
    ],
    columns: Annotated[
        Path | None,
        typer.Option(
            help="YAML that says how to read the columns: also shows what each reader makes of them.",
            show_default=False,
        ),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the table of columns.", show_default=False)] = None,
) -> None:
    """What each column of a table is taken for, and why; which rows hold what.

    A column is numbers, categories (names that come again), booleans, text (sentences), paths, arrays, times or empty.
    `holes` counts cells with nothing in them. What stands against a column, or is to be minded, is in the note: numbers with
    a stray "?" are shown with the cell and its row, counted from 0. The role is a guess (it ends in ?) until a YAML says it.

    With the YAML the file is read as `kintsugi train` would: what each reader makes of its columns, how many rows hold each
    modality, whether 64 of these can be read, and the patterns in which modalities are missing.

    Examples:

    - `kintsugi describe cases.csv`

    - `kintsugi describe cases.parquet --columns columns.yaml`

    - `kintsugi describe cases.parquet --csv columns.csv`
    """
    from kintsugi.core.errors import ConfigError
    from kintsugi.data import datasets
    from kintsugi.data.describe import column_frame

    table: Dataset | None = None
    if columns is None and (data in datasets.list_datasets() or not Path(data).exists()):
        frame, kinds, table = _built_in(data)
        if csv is not None and not kinds:
            raise ConfigError(f"{data} has no columns to write; --csv is for files")
    elif columns is None:
        frame, kinds = _surveyed(data)
    else:
        frame, kinds, table = _as_read(data, columns)
    shown = column_frame(kinds, frame)
    if csv is not None:
        _write(shown, csv)
    if kinds:
        _show_columns(f"{data}: {len(frame):,} rows, {len(kinds)} columns", shown)
    if table is not None:
        _show_rows(table)
    else:
        typer.echo(f"draft a YAML: kintsugi init {shlex.quote(data)}")


def _built_in(data: str) -> tuple[pd.DataFrame, list[ColumnKind], Dataset]:
    """A data set of the library: its columns, if it is a table, and its rows."""
    import pandas as pd

    from kintsugi.commands.rows import built_in
    from kintsugi.data.describe import columns_of
    from kintsugi.data.table_source import TableSource

    table = built_in(data)
    if not isinstance(table.source, TableSource):
        return pd.DataFrame(), [], table
    return table.source.frame, columns_of(table), table


def _surveyed(data: str) -> tuple[pd.DataFrame, list[ColumnKind]]:
    """All columns of a file, with the roles that a draft would give them."""
    from kintsugi.data.column_kinds import LISTS, draft, survey
    from kintsugi.data.frames import open_rows

    frame = open_rows(data).frame
    drafted = draft(frame)
    roles = {drafted[role]: f"{role}?" for role in ("split", "group", "target") if drafted.get(role) is not None}
    for name, spec in drafted["modalities"].items():
        roles |= dict.fromkeys(spec.get("columns", [spec.get("column")]), f"input of {name} ({spec['kind']})?")
    kinds = []
    for kind in survey(frame):
        kind = replace(kind, role=roles.get(kind.column, "left out?"))
        if drafted["reasons"][kind.column] == LISTS:
            kind = replace(kind, kind="arrays", reason=f"holds {LISTS}", warning="")
        kinds.append(kind)
    return frame, kinds


def _as_read(data: str, columns: Path) -> tuple[pd.DataFrame, list[ColumnKind], Dataset]:
    """All columns of a file, those in use as they are read; and the table.

    Raises:
        KintsugiError: the file cannot be read so; the columns are shown before.
    """
    from kintsugi.core.errors import KintsugiError
    from kintsugi.data.column_kinds import survey
    from kintsugi.data.columns import read_columns
    from kintsugi.data.describe import column_frame
    from kintsugi.data.frames import open_rows
    from kintsugi.data.table import Table

    options = read_columns(columns)
    with warnings.catch_warnings():  # said below of the columns in use
        warnings.simplefilter("ignore")
        frame = open_rows(data).frame
        whole = {kind.column: kind for kind in survey(frame)}
    try:
        table = Table.from_rows(data, **{**options, "on_error": "missing"})
    except KintsugiError:
        told = [replace(kind, role=_role(kind.column, options)) for kind in whole.values()]
        _show_columns(f"{data}: {len(frame):,} rows; it cannot be read as {columns} says", column_frame(told, frame))
        raise
    used = {kind.column: kind for kind in table.columns_}
    source: Any = table.source
    frame = frame.assign(**{column: source.frame[column].array for column in used})
    kinds = [used.get(column, replace(kind, role="not read")) for column, kind in whole.items()]
    return frame, [*kinds, *(kind for column, kind in used.items() if column not in whole)], table


def _role(column: str, options: Mapping[str, Any]) -> str:
    for name, reader in options["modalities"].items():
        if column in reader.columns:
            return f"input of {name} ({reader.kind})"
    targets = options["target"] if isinstance(options["target"], list) else [options["target"]]
    if column in targets:
        return "target"
    return next((role for role in ("group", "split", "weight") if options.get(role) == column), "not read")


def _write(shown: pd.DataFrame, out: Path) -> None:
    from kintsugi.io.files import replacing

    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as fresh:
        shown.to_csv(fresh, index=False)


# on the terminal -------------------------------------------------------------------------------------------------
def _show_columns(title: str, shown: pd.DataFrame) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console()
    if not console.is_terminal or console.width < WIDE:
        typer.echo(title)
        for row in shown.to_dict("records"):
            typer.echo(_paragraph(row))
        return
    names = ("column", "role", "kind", "reason", "holes", "distinct", "values", "note")
    rows = [
        [f"{row[name]:,}" if isinstance(row[name], int) else row[name] for name in names]
        for row in shown.to_dict("records")
    ]
    console.print(_table(escape(title), names, rows, right=("holes", "distinct")))


def _paragraph(row: Mapping[Any, Any]) -> str:
    holes = f"{row['holes']:,} hole{'s' * (row['holes'] != 1)}, {row['distinct']:,} distinct"
    lines = [f"{row['column']}: {row['kind']}" + (f"; {row['role']}" if row["role"] else "")]
    lines += [f"  reason: {row['reason']}", f"  values: {row['values']}; {holes}"]
    if row["note"]:
        lines.append(f"  note: {row['note']}")
    return "\n".join("".join(letter if letter.isprintable() else " " for letter in line) for line in lines)


def _show_rows(table: Dataset) -> None:
    from rich.console import Console
    from rich.markup import escape

    from kintsugi.data.describe import delivered, patterns

    console = Console(soft_wrap=True, highlight=False)
    made = [
        (
            d.modality, d.kind, ", ".join(d.columns), " x ".join(str(size or "any") for size in d.shape),
            f"{d.present:,} of {len(table):,}", f"{d.read} of {d.looked_at}", d.problem,
        )
        for d in delivered(table)
    ]  # fmt: skip
    heads = ("modality", "kind", "columns", "a row", "rows with it", "could be read", "first problem")
    found = patterns(table)
    names = list(table.schema.names)
    missing = [
        (", ".join(n for n in names if row[n]) or "nothing", f"{row['rows']:,}", f"{row['share']:.1%}")
        for row in found.head(PATTERNS).to_dict("records")
    ]
    more = f" ({len(found)} patterns, the most frequent ones)" if len(found) > PATTERNS else ""
    if console.is_terminal and console.width >= WIDE:
        console.print(
            _table(escape(f"what readers make of {table.name}"), heads, made, right=("rows with it", "could be read"))
        )
        console.print(_table(f"what rows hold{more}", ("there", "rows", "share"), missing, right=("rows", "share")))
        return
    typer.echo(f"what readers make of {table.name}")
    for modality, kind, columns, shape, rows, read, problem in made:
        of = f" of {columns}" if columns else ""
        typer.echo(
            f"{modality}: {kind}{of}, {shape} a row; {rows} rows hold it, of which {read} looked at could be read"
        )
        if problem:
            typer.echo(f"  first problem: {problem}")
    typer.echo(f"what rows hold{more}")
    for there, rows, share in missing:
        typer.echo(f"{rows} ({share}): {there}")


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> Any:
    """A table for the terminal, without the columns that are empty in every row."""
    from rich.markup import escape
    from rich.table import Table as Shown

    kept = [place for place in range(len(heads)) if any(row[place] for row in rows)]
    shown = Shown(title=title, title_justify="left")
    for place in kept:
        shown.add_column(heads[place], justify="right" if heads[place] in right else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(escape(row[place]) for place in kept))
    return shown
