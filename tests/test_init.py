"""A draft of the columns' YAML: each guess with its reason, and a training that reads it as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

import kintsugi as kg
from kintsugi.cli import app
from kintsugi.commands.init import WIDEST, draft_text
from kintsugi.core.errors import DataError, UnknownName
from kintsugi.core.schema import TAKEN
from kintsugi.data.columns import read_columns

Image = pytest.importorskip("PIL.Image")
ROWS = 64


def told(*words: object, status: int = 0) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words], prog_name="kintsugi")
    assert done.exit_code == status, done.output
    return done.output


def frame() -> pd.DataFrame:
    """A table as people have them: ids, dates, sentences, pictures, lists, and a column that tells nothing."""
    noise = np.random.default_rng(5)
    return pd.DataFrame(
        {
            "case_no": np.arange(1000, 1000 + ROWS),
            "mrn": [f"M{noise.integers(10**6):06}-{row}" for row in range(ROWS)],
            "subject": [f"s{row // 2}" for row in range(ROWS)],
            "height": noise.normal(170, 9, ROWS).round(1),
            "clinic": [("north", "south", "east")[row % 3] for row in range(ROWS)],
            "smoker": [row % 2 == 0 for row in range(ROWS)],
            "admitted": [f"2023-01-{row % 28 + 1:02}" for row in range(ROWS)],
            "letter": [f"dear colleague, visit {row} was without any finding" for row in range(ROWS)],
            "picture": [f"shots/{row}.png" for row in range(ROWS)],
            "pulse": [f"[{row}, {row + 1}, {row + 2}]" for row in range(ROWS)],
            "device": ["mk2"] * ROWS,
            "relapse": [row % 2 for row in range(ROWS)],
        }
    )


def write(table: pd.DataFrame, path: Path) -> Path:
    (path.parent / "shots").mkdir(exist_ok=True)
    for row in range(ROWS):
        Image.fromarray(np.full((4, 4), row, np.uint8)).save(path.parent / f"shots/{row}.png")
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    elif path.suffix == ".xlsx":
        table.to_excel(path, index=False)
    else:
        table.to_parquet(path)
    return path


def drafted(table: pd.DataFrame, tmp_path: Path, target: str | None = None) -> tuple[str, dict[str, Any]]:
    """The text, and what the library reads out of it."""
    text = draft_text(table, Path("t.csv"), target)
    path = tmp_path / "draft.yaml"
    path.write_text(text, encoding="utf-8")
    return text, read_columns(path)


@pytest.mark.parametrize("name", ["cases.csv", "cases.parquet", "cases.xlsx"])
def test_a_draft_is_trained_on_as_it_is(tmp_path: Path, name: str) -> None:
    if name.endswith(".xlsx"):
        pytest.importorskip("openpyxl")
    data, out = write(frame(), tmp_path / name), tmp_path / "columns.yaml"
    said = told("init", data, "-o", out, "--target", "relapse")
    assert "wrote" in said
    assert "CHECK" not in said
    options = read_columns(out)
    assert options["target"] == "relapse"
    assert options["group"] == "subject"
    assert options["modalities"] == {
        "letter": kg.text("letter", length=64), "picture": kg.image("picture"), "pulse": kg.vector("pulse"),
        "table": kg.tabular(["height", "clinic", "smoker"]),
    }  # fmt: skip
    lines = told("train", data, "--columns", out, "--epochs", 1, "-o", tmp_path / "m").splitlines()
    assert lines[0] == "cases: 64 rows; columns as they are read:"
    assert kg.load(tmp_path / "m").predict(data).shape == (ROWS,)


def test_each_guess_stands_beside_its_reason() -> None:
    text = draft_text(frame(), Path("t.csv"), "relapse")
    assert "target: relapse  # target (as you said); numbers: is of type int64; 0 (32), 1 (32)" in text
    assert "- height  # numbers: is of type float64" in text
    assert "- clinic  # categories: holds 3 distinct names in 64 cells; north (22), south (21), east (21)" in text
    assert "column: pulse  # lists, as JSON has them\n" in text


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("case_no", "a number or name of the row"),
        ("mrn", "nearly every row has one of its own"),
        ("admitted", "days since a date: (pd.to_datetime(df['admitted']) - start).dt.days"),
        ("device", "the same in every row"),
    ],
)
def test_what_cannot_be_an_input_is_commented_out_with_the_reason(tmp_path: Path, column: str, words: str) -> None:
    text, options = drafted(frame(), tmp_path, "relapse")
    (line,) = [line for line in text.splitlines() if line.startswith(f"#   {column}: ")]
    assert words in line
    assert not any(column in reader.columns for reader in options["modalities"].values())


@pytest.mark.parametrize("odd", ["?", "n/k", "<5", "1,5"])
def test_nearly_numbers_are_flagged_and_refused_until_they_are_repaired(tmp_path: Path, odd: str) -> None:
    table = frame().drop(columns=["picture"])
    table["height"] = table["height"].astype(object)
    table.loc[11, "height"] = odd
    table.to_csv(tmp_path / "t.csv", index=False)
    said = told("init", tmp_path / "t.csv", "-o", tmp_path / "c.yaml", "--target", "relapse")
    assert "look at 1 place marked CHECK" in said
    line = next(x for x in (tmp_path / "c.yaml").read_text().splitlines() if "- height  #" in x)
    assert "CHECK" in line
    assert f"{odd!r} in row 11" in line
    words = ("train", tmp_path / "t.csv", tmp_path / "c.yaml", "--epochs", 1, "-o", tmp_path / "m")
    assert f"row 11 (counted from 0), modality 'table': column 'height': {odd!r} is no number" in told(*words, status=2)
    table.loc[11, "height"] = 171.0
    table.to_csv(tmp_path / "t.csv", index=False)
    told(*words)


def test_the_target_is_a_guess_that_says_so_and_may_be_missing(tmp_path: Path) -> None:
    assert "target: relapse  # CHECK: target (the last column that can be one: check it)" in draft_text(
        frame(), Path("t")
    )
    named = frame().rename(columns={"clinic": "diagnosis"})
    assert "target: diagnosis  # target (its name says so)" in draft_text(named, Path("t.csv"))
    only = frame()[["letter", "admitted"]]
    text = draft_text(only, Path("t.csv"))
    assert "# target: COLUMN" in text
    assert "target" not in yaml.safe_load(text)
    with pytest.raises(UnknownName, match="did you mean 'relapse'"):
        draft_text(frame(), Path("t.csv"), "relaps")


def test_the_column_that_was_guessed_is_an_input_when_another_is_named(tmp_path: Path) -> None:
    _, options = drafted(frame(), tmp_path, "clinic")
    assert options["target"] == "clinic"
    assert "relapse" in options["modalities"]["table"].columns


def test_an_own_file_is_not_written_over_without_being_told(tmp_path: Path) -> None:
    frame().to_parquet(tmp_path / "t.parquet")
    out = tmp_path / "columns.yaml"
    out.write_text("mine")
    said = told("init", tmp_path / "t.parquet", "-o", out, status=2)
    assert "is there already; --force writes over it" in said
    assert out.read_text() == "mine"
    told("init", tmp_path / "t.parquet", "-o", out, "--force")
    assert out.read_text().startswith("# A draft by kintsugi init from t.parquet: 64 rows, 12 columns.")


@pytest.mark.parametrize(
    "column", ["yes", "on", "null", "1", "a: b", "- x", "#c", "naïve Ω", 'say "so"', "it's", "tab\there", "new\nline", "x\\y",
               "*star", "&amp", "{a}", "[b]", "%c", "@d", "`e", "a.b", "values", "type", "😀", "~", "1e3", "\u2028"]
)  # fmt: skip
def test_names_of_any_kind_are_written_so_that_they_are_read_again(tmp_path: Path, column: str) -> None:
    noise = np.random.default_rng(1).normal(size=40)
    texts = [f"some words of row {row} are here" for row in range(60)]
    numbers, options = drafted(pd.DataFrame({column: noise, "ill": [0, 1] * 20}), tmp_path)
    assert options["modalities"]["table"].columns == (column,)
    _, options = drafted(pd.DataFrame({column: texts, "ill": [0, 1] * 30}), tmp_path)
    (name,) = options["modalities"]
    assert options["modalities"][name].columns == (column,)
    assert "." not in name
    assert name not in TAKEN
    assert column not in numbers or column.isprintable()


def test_a_modality_of_cells_shares_its_name_with_no_other(tmp_path: Path) -> None:
    texts = [f"some words of row {row} are here" for row in range(60)]
    table = pd.DataFrame({"table": texts, "cells": texts, "age": np.linspace(1, 2, 60), "ill": [0, 1] * 30})
    _, options = drafted(table, tmp_path)
    assert list(options["modalities"]) == ["table", "cells", "table_cells"]


def test_paths_that_lead_nowhere_are_flagged(tmp_path: Path) -> None:
    data = write(frame(), tmp_path / "t.csv")
    for row in range(ROWS // 2):
        (tmp_path / f"shots/{row}.png").unlink()
    told("init", data, "-o", tmp_path / "c.yaml", "--target", "relapse")
    text = (tmp_path / "c.yaml").read_text()
    assert f"# CHECK: 32 of 64 paths that were looked at lead to no file, such as {tmp_path}/shots/0.png" in text


def test_lengths_of_text_follow_the_longest(tmp_path: Path) -> None:
    for longest, length in ((10, 64), (65, 128), (128, 128), (9000, 1024)):
        cells = [f"a b c d {row}".ljust(longest, "x") for row in range(60)]
        text, options = drafted(pd.DataFrame({"n": cells, "ill": [0, 1] * 30}), tmp_path)
        assert options["modalities"]["n"].length == length
        assert f"the longest has {longest:,}" in text


def test_a_table_of_which_nothing_can_be_read_is_refused_with_the_reasons() -> None:
    table = pd.DataFrame({"id": range(60), "day": pd.date_range("2020-01-01", periods=60), "ill": [0, 1] * 30})
    with pytest.raises(DataError, match=r"no column of it can be an input \(id: .*day: times"):
        draft_text(table, Path("t.csv"))


@pytest.mark.parametrize(
    ("cells", "kept"),
    [
        (list(range(1, 61)), False),  # a count of the rows
        ([*range(1, 60), 61], True),
        ([0.5 + row for row in range(60)], True),  # no whole numbers
        ([1, 1, *range(3, 61)], True),  # one comes again
        ([7] * 60, False),
        ([7] * 59 + [8], True),
    ],
)
def test_counts_of_rows_and_constants_are_left_out(tmp_path: Path, cells: list[float], kept: bool) -> None:
    table = pd.DataFrame({"x": cells, "w": np.linspace(0, 1, 60), "ill": [0, 1] * 30})
    _, options = drafted(table, tmp_path)
    assert ("x" in options["modalities"]["table"].columns) == kept


def test_comments_stay_on_their_line_and_are_cut() -> None:
    names = [f"{'long ' * 30}\n{n}" for n in range(4)]
    table = pd.DataFrame({"c": [names[row % 4] for row in range(40)], "ill": [0, 1] * 20})
    lines = draft_text(table, Path("t.csv")).splitlines()
    assert max(map(len, lines)) < WIDEST + 40
    assert all(line.startswith(("#", "target", "modalities", " ")) or not line for line in lines)


@pytest.mark.parametrize("command", ["init", "describe"])
def test_files_that_are_no_table_are_refused(tmp_path: Path, command: str) -> None:
    for content, words in (
        (b"", "no readable CSV file"), (b"a,b\n", "has no rows"), (b"a,a\n1,2\n", "two columns named 'a'"),
        (b"a,b\n1,2,3\n", "row 0 (counted from 0) has 3 cells"), (b"\xff,b\n1,2\n", "is not UTF-8"),
    ):  # fmt: skip
        (tmp_path / "t.csv").write_bytes(content)
        more = ("-o", tmp_path / "c.yaml") if command == "init" else ()
        assert words in told(command, tmp_path / "t.csv", *more, status=2)
    assert not (tmp_path / "c.yaml").exists()


def test_help_teaches_with_examples() -> None:
    said = told("init", "--help")
    for words in ("kintsugi init cases.csv --target outcome", "--force", "CHECK"):
        assert words in said
