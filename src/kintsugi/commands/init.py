"""``kintsugi init``: a first version of the YAML that says how to read a table."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import pandas as pd

    from kintsugi.data.column_kinds import ColumnKind

TEXT_BYTES = (64, 1024)  # the length of text that is drafted: at least and at most
LOOKED_AT = 64  # paths, evenly spread, of which is seen whether they lead to a file
WIDEST = 240  # characters of a comment


def init(
    data: Annotated[Path, typer.Argument(metavar="FILE", help="A Parquet, CSV or Excel file.", show_default=False)],
    out: Annotated[Path, typer.Option("-o", "--out", help="The YAML file to write.")] = Path("columns.yaml"),
    target: Annotated[
        str | None,
        typer.Option(help="Column that is to be predicted; default: a guess by names.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Draft the YAML that says how to read the columns of a table: each guess stands there with its reason.

    Columns that cannot be used as they are, such as dates, or from which nothing can be learned, such as ids, are commented
    out. What should be looked at is marked CHECK. It is a draft: read it before you train.

    Examples:

    - `kintsugi init cases.csv --target outcome`

    - `kintsugi init cases.parquet -o columns.yaml && kintsugi describe cases.parquet --columns columns.yaml`

    - `kintsugi train cases.csv columns.yaml`
    """
    from kintsugi.core.errors import ConfigError
    from kintsugi.data.frames import open_rows
    from kintsugi.io.files import replace_file

    if out.exists() and not force:
        raise ConfigError(f"{out} is there already; --force writes over it, and -o FILE chooses another")
    opened = open_rows(data)
    text = draft_text(opened.frame, data, target, out, opened.root)
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out, text.encode())
    checks = text.count("CHECK")
    typer.echo(f"wrote {out}" + (f"; look at {checks} place{'s' * (checks != 1)} marked CHECK" if checks else ""))
    files = f"{shlex.quote(str(data))} {shlex.quote(str(out))}"
    described = f"{shlex.quote(str(data))} --columns {shlex.quote(str(out))}"
    typer.echo(f"see what is read:  kintsugi describe {described}\nthen train:        kintsugi train {files}")


def draft_text(
    frame: pd.DataFrame,
    data: Path,
    target: str | None = None,
    out: Path = Path("columns.yaml"),
    root: Path | None = None,
) -> str:
    """The draft as YAML with comments.

    Args:
        frame: the table.
        data: its file, for the head.
        target: its column; None: guessed.
        out: where the YAML will be, for the head.
        root: folder that relative paths start at.

    Raises:
        UnknownName: there is no such target.
        DataError: two columns of one name, or none that can be an input.
    """
    from kintsugi.core.errors import DataError
    from kintsugi.data.column_kinds import draft, survey

    drafted = draft(frame, target)
    kinds = {kind.column: kind for kind in survey(frame)}
    if not drafted["modalities"]:
        words = "; ".join(f"{_word(column)}: {why}" for column, why in list(drafted["reasons"].items())[:5])
        raise DataError(f"{data}: no column of it can be an input ({words}); see kintsugi describe {data}")
    return "\n".join(_lines(drafted, kinds, frame, data, out, root)) + "\n"


def _lines(
    drafted: Mapping[str, Any],
    kinds: Mapping[str, ColumnKind],
    frame: pd.DataFrame,
    data: Path,
    out: Path,
    root: Path | None,
) -> Iterator[str]:
    reasons = drafted["reasons"]
    yield _comment(
        f"A draft by kintsugi init from {data.name}: {len(frame):,} rows, {len(kinds)} columns. Read it, mend it, then:"
    )
    yield _comment(f"kintsugi train {shlex.quote(str(data))} {shlex.quote(str(out))}")
    yield ""
    used = {name: drafted[name] for name in ("target", "group", "split") if drafted.get(name) is not None}
    if "target" not in used:
        yield "# CHECK: no column looks like a target. Name the one that is to be predicted:"
        yield "# target: COLUMN"
    for role, column in used.items():
        yield from _said(f"{role}: {_word(column)}", _reason(kinds[column], reasons[column], frame, role))
    yield ""
    yield "modalities:"
    for name, spec in drafted["modalities"].items():
        yield f"  {_word(name)}:"
        yield from _modality(spec, kinds, reasons, frame, root)
        used |= {f"{name} {place}": column for place, column in enumerate(_columns(spec))}
    left = [column for column in kinds if column not in used.values()]
    if left:
        yield ""
        yield "# Left out:"
    for column in left:
        yield _comment(f"  {_word(column)}: {_left_out(kinds[column], reasons[column])}")


def _columns(spec: Mapping[str, Any]) -> list[str]:
    columns: list[str] = spec.get("columns") or [spec["column"]]
    return columns


def _modality(
    spec: Mapping[str, Any],
    kinds: Mapping[str, ColumnKind],
    reasons: Mapping[str, str],
    frame: pd.DataFrame,
    root: Path | None,
) -> Iterator[str]:
    yield f"    kind: {spec['kind']}"
    if spec["kind"] == "tabular":
        for key in ("columns", "numbers"):
            if key in spec:
                yield f"    {key}:"
            for column in spec.get(key, ()):
                why = _reason(kinds[column], reasons[column], frame) if key == "columns" else ""
                yield from _said(f"      - {_word(column)}", why)
        return
    column = spec["column"]
    yield from _said(f"    column: {_word(column)}", _reason(kinds[column], reasons[column], frame))
    if kinds[column].kind == "paths":
        yield from _paths_that_lead_nowhere(frame[column], spec["kind"], root)
    yield from (f"    {key}: {value}" for key, value in spec.items() if key not in ("kind", "column"))
    if spec["kind"] == "text":
        longest = max((len(str(cell).encode()) for cell in frame[column].dropna()), default=0)
        length = min(max(TEXT_BYTES[0], 2 ** max(0, longest - 1).bit_length()), TEXT_BYTES[1])
        yield f"    length: {length}  # bytes that are read of each text; the longest has {longest:,}"


def _paths_that_lead_nowhere(values: pd.Series, kind: str, root: Path | None) -> Iterator[str]:
    from kintsugi.data.cells import exists, nothing, path_of, resolve

    paths = [
        path
        for cell in values.array[:: max(1, len(values) // LOOKED_AT)]
        if (path := path_of(cell)) and not nothing(cell)
    ]
    lost = [path for path in paths if not exists(path, root)]
    if lost:
        yield "    " + _comment(
            f"CHECK: {len(lost)} of {len(paths)} paths that were looked at lead to no file, such as {resolve(lost[0], root)}; "
            "relative ones start at the folder of the table"
        )


def _reason(kind: ColumnKind, reason: str, frame: pd.DataFrame, role: str = "") -> str:
    from dataclasses import replace

    from kintsugi.data.column_kinds import LISTS
    from kintsugi.data.describe import note, values_in_short

    check = (
        "CHECK: " if kind.fault in ("nearly", "written", "times") or "check it" in reason or "guesses" in reason else ""
    )
    odd = f" ({note(replace(kind, warning=''))})" if kind.fault in ("nearly", "times") else ""
    shown = kind if role != "target" or kind.distinct > 20 else replace(kind, role="target (classification)")
    plain = kind.kind in ("text", "arrays") or reason == LISTS
    values = "" if plain else f"; {values_in_short(shown, frame[kind.column])}"
    holes = f"; {kind.holes:,} hole{'s' * (kind.holes != 1)}" if kind.holes else ""
    return f"{check}{reason}{odd}{values}{holes}"


def _left_out(kind: ColumnKind, reason: str) -> str:
    remedy = (
        f" (days since a date: (pd.to_datetime(df[{kind.column!r}]) - start).dt.days)" if kind.kind == "times" else ""
    )
    return reason.replace("; left out", "", 1) + remedy


def _said(line: str, why: str) -> Iterator[str]:
    yield f"{line}  {_comment(why)}" if why else line


def _comment(text: str) -> str:
    words = "".join(letter if letter.isprintable() else " " for letter in text).rstrip()
    return "# " + (words if len(words) <= WIDEST else f"{words[: WIDEST - 1]}…")


def _word(text: str) -> str:
    """Text as a scalar of YAML: bare where that means the same, else in double quotes."""
    import json
    import re

    import yaml

    if re.fullmatch(r"[A-Za-z_][\w-]*", text, re.ASCII) and yaml.safe_load(text) == text:
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())
