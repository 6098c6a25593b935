"""What a table is taken for is shown: by ``describe``, on the command line, and before a training."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

import kintsugi as kg
from kintsugi.cli import app
from kintsugi.core.errors import ConfigError
from kintsugi.data.column_kinds import ColumnKind, decide
from kintsugi.data.describe import LETTERS, NAMED, column_frame, column_lines, delivered, note, values_in_short
from kintsugi.testing.fixture import toy

WORDS = ("left lung clear", "right lung is dense", "no change since spring", "some fluid below the heart")
YAML = """\
modalities:
  vitals: {kind: tabular, columns: [age, ward]}
  words: {kind: text, column: report}
target: ill
group: patient
"""


def frame(rows: int = 60) -> pd.DataFrame:
    """Ages from 40 on with two holes, wards in the proportions 3:2:1, a patient for every two rows."""
    ages = 40.0 + np.arange(rows)
    ages[[5, 9]] = np.nan
    return pd.DataFrame(
        {
            "patient": [f"p{row // 2}" for row in range(rows)],
            "age": ages,
            "ward": [("a", "a", "a", "b", "b", "c")[row % 6] for row in range(rows)],
            "report": [f"{WORDS[row % 4]}, seen {row} times" for row in range(rows)],
            "ill": [row % 3 == 0 for row in range(rows)],
            "on": pd.date_range("2021-03-01", periods=rows),
        }
    )


def table(**options: object) -> kg.Table:
    readers = {"vitals": kg.tabular(["age", "ward"]), "words": kg.text("report")}
    return kg.Table.from_pandas(frame(), modalities=readers, target="ill", group="patient", name="wards", **options)  # type: ignore[arg-type]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    frame().to_csv(tmp_path / "cases.csv", index=False)
    frame().to_parquet(tmp_path / "cases.parquet")
    (tmp_path / "columns.yaml").write_text(YAML)
    return tmp_path


def told(*words: object, status: int = 0) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words], prog_name="kintsugi")
    assert done.exit_code == status, done.output
    return done.output


# in Python ---------------------------------------------------------------------------------------------------------
def test_columns_of_a_table_are_described_with_kind_reason_and_role() -> None:
    shown = table().describe_columns().set_index("column")
    assert list(shown.index) == ["age", "ward", "report", "ill", "patient"]
    assert shown["kind"].to_dict() == {
        "age": "numbers", "ward": "categories", "report": "text", "ill": "booleans", "patient": "categories",
    }  # fmt: skip
    assert shown["role"].to_dict() == {
        "age": "input of vitals (tabular)", "ward": "input of vitals (tabular)", "report": "input of words (text)",
        "ill": "target (classification, 2 classes)", "patient": "group",
    }  # fmt: skip
    assert shown.loc["age", ["rows", "holes", "distinct"]].tolist() == [60, 2, 58]
    assert shown.loc["age", "values"] == "40 to 99"
    assert shown.loc["ward", "values"] == "a (30), b (20), c (10)"
    assert shown.loc["ill", "values"] == "False (40), True (20)"
    assert shown.loc["patient", "values"].endswith("and 25 more")
    assert shown["note"].tolist() == [""] * 5


def test_describe_keeps_its_table_of_patterns_and_says_the_columns_beside() -> None:
    data = table()
    patterns = data.describe()
    assert list(patterns.columns) == ["vitals", "words", "rows", "share"]
    assert patterns.attrs["columns"] == data.columns_
    assert len(pd.concat([patterns, data.describe()])) == 2 * len(patterns)  # pandas compares attrs
    part = data.split(seed=0)[0]
    pd.testing.assert_frame_equal(part.describe_columns(), data.describe_columns())


def test_tensors_have_no_columns() -> None:
    data = toy(rows=8)
    assert "columns" not in data.describe().attrs
    with pytest.raises(ConfigError, match="tensors, which have no columns"):
        data.describe_columns()


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ([3, 1, 2.5], "1 to 3"),
        ([0, 1, 1], "1 (2), 0 (1)"),  # two values: as good as classes
        (["x"] * 3 + ["y z"], "x (3), 'y z' (1)"),
        ([None, "", None], "nothing"),
        ([f"s{n}.png" for n in range(9)], "'s0.png', 's1.png', 's2.png'"),
        ([[1, 2], [3, 4]], "list"),
        ([7, 7.0, "7", "P"], "7 (3), P (1)"),
    ],
)
def test_values_are_shown_in_short(cells: list[object], words: str) -> None:
    values = pd.Series(cells, dtype=object)
    assert values_in_short(decide(values, "c"), values) == words


def test_many_names_and_long_cells_are_cut() -> None:
    values = pd.Series([f"name{n % 11}" for n in range(44)])
    assert values_in_short(decide(values, "c"), values).endswith(f"and {11 - NAMED} more")
    long = pd.Series(["word " * 40, "other " * 40] * 3)
    shown = values_in_short(decide(long, "c"), long)
    assert all(len(part) < LETTERS + 12 for part in shown.split(", "))
    assert "…'" in shown


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ([1] * 30 + ["?"], "numbers but for '?' in row 30"),
        (["1,5"] * 30, "numbers but for '1,5' in row 0"),
        (["1.5"] * 30, "numbers, or names that are digits"),
        (["2020-02-03"] * 30, "days since a date"),
        ([[1]] * 30, "vector, series"),
        ([f"q{n}" for n in range(60)], "nearly every row has one of its own"),
        ([f"q{n}.wav" for n in range(60)], ""),
        ([1, 2, 3], ""),
    ],
)
def test_what_stands_against_a_column_is_noted(cells: list[object], words: str) -> None:
    said = note(decide(pd.Series(cells, dtype=object), "c"))
    assert words in said if words else not said


def test_a_line_a_column_is_aligned() -> None:
    data = frame()
    kinds = [decide(data[c], c) for c in ("age", "ward")]
    assert column_lines(kinds, data) == [
        "age   numbers     40 to 99; 2 holes",
        "ward  categories  a (30), b (20), c (10)",
    ]
    assert column_lines([], data) == []
    assert list(column_frame([], data).columns)[:3] == ["column", "role", "kind"]


def test_columns_of_other_readers_are_what_their_reader_takes_them_for(tmp_path: Path) -> None:
    cells = pd.DataFrame({"code": [7, 8, None] * 4, "curve": ["[1, 2]", "[3, 4]", None] * 4, "y": [0, 1, 1] * 4})
    data = kg.Table.from_pandas(cells, target="y", modalities={"t": kg.text("code"), "s": kg.series("curve")})
    kinds = {kind.column: kind.kind for kind in data.columns_}
    assert kinds == {"code": "text", "curve": "arrays", "y": "numbers"}


def test_what_readers_make_of_a_table_is_tried_on_some_rows() -> None:
    cells = frame().assign(age=lambda f: f["age"].astype(object).where(f.index != 7, "n/k"))
    readers = {"vitals": kg.tabular(["age"], numbers=["age"]), "words": kg.text("report")}
    data = kg.Table.from_pandas(cells, target="ill", modalities=readers, on_error="missing")
    vitals, words = delivered(data)
    assert (vitals.shape, vitals.present, vitals.looked_at, vitals.read) == ((1,), 58, 58, 57)
    assert vitals.problem == "row 7: column 'age': 'n/k' is no number"
    assert (words.columns, words.present, words.read, words.problem) == (("report",), 60, 60, "")


# on the command line -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["cases.csv", "cases.parquet"])
def test_a_file_is_described_without_a_yaml(files: Path, name: str) -> None:
    said = told("describe", files / name)
    assert "60 rows, 6 columns" in said
    assert "age: numbers; input of table (tabular)?" in said
    assert "values: 40 to 99; 2 holes, 58 distinct" in said
    assert "on: times; left out?" in said
    assert "note: no input as it is" in said
    assert "ill: booleans; target?" in said
    assert "patient: categories; group?" in said
    assert "kintsugi init" in said


def test_with_a_yaml_it_says_what_readers_make_of_it(files: Path) -> None:
    said = told("describe", files / "cases.csv", "--columns", files / "columns.yaml", "--csv", files / "out" / "c.csv")
    assert "ill: booleans; target (classification, 2 classes)" in said
    assert "on: times; not read" in said
    assert "vitals: tabular of age, ward, 2 a row; 60 of 60 rows hold it" in said
    assert "60 (100.0%): vitals, words" in said
    written = pd.read_csv(files / "out" / "c.csv")
    assert written["column"].tolist() == list(frame().columns)
    assert written["holes"].tolist() == [0, 2, 0, 0, 0, 0]


def test_a_table_that_cannot_be_read_is_shown_before_the_error(files: Path) -> None:
    spoilt = frame().assign(age=lambda f: f["age"].astype(object).where(f.index != 4, "?"))
    spoilt.to_csv(files / "cases.csv", index=False)
    said = told("describe", files / "cases.csv", "--columns", files / "columns.yaml", status=2)
    assert "age: numbers; input of vitals (tabular)" in said
    assert "numbers but for '?' in row 4" in said
    assert "Repair it, or say what it is" in said


def test_a_built_in_set_shows_its_modalities() -> None:
    said = told("describe", "handwritten")
    assert "what readers make of handwritten" in said
    assert "2,000" in said
    assert "2,000 (100.0%): " in said
    assert "fou: arrays; input of fou (vector)" in said
    generated = told("describe", "factors")
    assert "what readers make of factors" in generated
    assert "no columns to write" in told("describe", "factors", "--csv", "x.csv", status=2)
    assert "neither a file nor a built-in" in told("describe", "handwriten", status=2)


@pytest.mark.parametrize(("width", "framed"), [(160, True), (60, False)])
def test_a_wide_terminal_gets_a_table_and_a_narrow_one_paragraphs(
    files: Path, monkeypatch: pytest.MonkeyPatch, width: int, framed: bool
) -> None:
    out = io.StringIO()

    monkeypatch.setattr("rich.console.Console", lambda **options: Terminal(out, width))
    said = told("describe", files / "cases.csv", "--columns", files / "columns.yaml") + out.getvalue()
    assert ("│ age" in said) == framed
    assert ("age: numbers" in said) == (not framed)
    assert "input of vitals" in said


class Terminal(Console):
    """A terminal of this width."""

    def __init__(self, out: io.StringIO, width: int) -> None:
        super().__init__(file=out, force_terminal=True, width=width, color_system=None)


def test_help_teaches_with_examples() -> None:
    said = told("describe", "--help")
    for words in ("kintsugi describe cases.csv", "--columns", "--csv", "note"):
        assert words in said


def test_training_says_first_what_each_column_was_taken_for(files: Path) -> None:
    words = ("train", files / "cases.csv", "--columns", files / "columns.yaml", "--epochs", 1, "-o", files / "m")
    lines = told(*words).splitlines()
    assert lines[0] == "cases: 60 rows; columns as they are read:"
    assert lines[1] == "  age      numbers     40 to 99; 2 holes; input of vitals (tabular)"
    assert lines[2] == "  ward     categories  a (30), b (20), c (10); input of vitals (tabular)"
    assert lines[3] == "  report   text        60 distinct; input of words (text)"
    assert lines[4] == "  ill      booleans    False (40), True (20); target (classification, 2 classes)"
    assert lines[5].startswith("  patient  categories  p0 (2), p1 (2)")
    assert "given twice" in told(*words, files / "columns.yaml", status=2)


def test_the_words_of_a_role_do_not_hang_on_the_kind() -> None:
    kind = ColumnKind("y", "numbers", "", 6, 0, 3, role="target (regression)")
    values = pd.Series([1, 2, 3, 1, 2, 3])
    assert values_in_short(kind, values) == "1 to 3"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = kg.Table.from_pandas(pd.DataFrame({"a": [1.0, 2.5] * 6, "y": [0, 1, 2] * 4}), target="y",
                                    modalities={"v": kg.tabular(["a"])})  # fmt: skip
    assert data.describe_columns()["values"].tolist() == ["1 (6), 2.5 (6)", "0 (4), 1 (4), 2 (4)"]
    assert torch.equal(data.present, torch.ones(12, 1, dtype=torch.bool))
