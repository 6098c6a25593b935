"""The page "What is read, and how" says what the code does: its constants, its words, its examples."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

import kintsugi as kg
from kintsugi.core.errors import KintsugiError
from kintsugi.data import column_kinds, frames, profile, readers, table, table_source
from kintsugi.training import checks

PAGE = (Path(__file__).parents[1] / "docs" / "reading.rst").read_text(encoding="utf-8")
ROWS = re.findall(r"\* - ``(kintsugi\.[\w.]+)\.([A-Z_]+)``\n     - ([^\n]+)\n", PAGE)


def test_the_page_has_a_row_for_every_bound() -> None:
    assert len(ROWS) == PAGE.count("* - ``kintsugi.") >= 25
    named = {f"{module}.{name}" for module, name, _ in ROWS}
    for module in {module for module, _, _ in ROWS}:
        bounds = [
            n
            for n in vars(importlib.import_module(module))
            if re.fullmatch(r"MOST_(BYTES|UNPACKED|\w*PIXELS)|DEEPEST", n)
        ]
        imported = [
            n for n in bounds if f"import {n}" in Path(str(importlib.import_module(module).__file__)).read_text()
        ]
        assert {f"{module}.{n}" for n in bounds if n not in imported} <= named


@pytest.mark.parametrize(("module", "name", "value"), ROWS, ids=[f"{m}.{n}" for m, n, _ in ROWS])
def test_every_bound_is_what_the_page_says(module: str, name: str, value: str) -> None:
    found = getattr(importlib.import_module(module), name)
    numbers = [float(word.replace(",", "")) for word in value.split(" to ")]
    assert (list(found) if isinstance(found, tuple) else [found]) == numbers


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (column_kinds, "FEW"), (column_kinds, "OWN_NAMES_FROM"), (column_kinds, "OWN_NAMES_SHARE"),
        (column_kinds, "NEARLY_NUMBERS"), (column_kinds, "NEARLY_TIMES"), (column_kinds, "TEXT_WORDS"),
        (table, "ALL_UNSEEN_FROM"), (table_source, "ENOUGH_PATHS"), (readers, "MUCH_LOST"),
        (profile, "ROWS_FOR_ABSENCE"), (profile, "MORE_ABSENT"), (profile, "TIMES_ABSENT"), (profile, "CELLS_FOR_RANGE"),
        (checks, "FEW_SHARE"),
    ],
)  # fmt: skip
def test_every_threshold_is_what_the_page_says(module: ModuleType, name: str) -> None:
    """The number stands before the name of the constant, in the same sentence."""
    number = f"{getattr(module, name):g}"
    sentence = re.search(rf"([^.;:\n]|\.\d|\n[^*\n])*``{name}``", PAGE)
    assert sentence is not None, f"{name} is not on the page"
    assert re.search(rf"(?<![\d.]){re.escape(number)}(?![\d.]\d)", sentence[0]), (number, sentence[0])


def test_thresholds_that_are_named_in_pairs_or_in_words() -> None:
    assert (profile.MUCH_OVERLAP, profile.ROWS_FOR_OVERLAP, checks.ENOUGH_ROWS, table_source.MANY_LOST) == (
        0.5,
        10,
        100,
        0.5,
    )
    assert "more than 0.5 of 10 rows or more (``MUCH_OVERLAP``, ``ROWS_FOR_OVERLAP``)" in PAGE
    assert "less than 0.1 of 100 training rows or more (``FEW_SHARE``, ``ENOUGH_ROWS``)" in PAGE
    assert "Where half of the paths of a column lead nowhere (``MANY_LOST``)" in PAGE


def test_the_names_on_the_page_are_those_of_the_code() -> None:
    (example,) = [b for b in re.findall(r"\.\. code-block:: python\n\n((?:   .*\n|\n)+)", PAGE) if "label(7)" in b]
    exec(re.sub(r"^   ", "", example, flags=re.MULTILINE), {})


def said(cells: list[object], reader: kg.data.Reader | None = None) -> str:  # type: ignore[name-defined]
    rows = pd.DataFrame({"c": pd.Series(cells, dtype=object), "y": [n % 2 for n in range(len(cells))]})
    with pytest.raises(KintsugiError) as error:
        kg.Table.from_pandas(rows, target="y", modalities={"m": reader or kg.tabular(["c"])}).batch(range(len(cells)))
    return str(error.value)


@pytest.mark.parametrize(
    ("cells", "reader", "words"),
    [
        ([1.5] * 19 + ["old"], None, "Repair it, or say what it is: tabular(..., numbers=['c'])"),
        (["2020-03-04"] * 9, None, "turn it into numbers, such as days since a date: (df['c'] - start).dt.days"),
        (
            [[1, 2]] * 9,
            None,
            "a table cell is a number or a category; read lists of numbers with vector(…) or series(…)",
        ),
        ([1, "?"], kg.tabular(["c"], numbers=["c"]), "'?' is no number"),
        (["a", [1]], kg.text("c"), "is a list, not text; join its words first"),
        ([[1.0, float("nan")], [1.0, 2.0]], kg.vector("c"), "NaN in present data"),
        (["https://x.org/a.png", None], kg.image("c", size=4), "files are not fetched, save them first"),
        (["1 2 3", "[1, 2]"], kg.series("c"), "is numbers in text, not a path"),
    ],
)
def test_what_is_refused_is_refused_in_these_words(cells: list[object], reader: object, words: str) -> None:
    assert words in said(cells, reader)  # type: ignore[arg-type]
    plain = " ".join(PAGE.split())
    part = max(re.split(r"\['\w+'\]|'\?'|NaN|\(df.*", words), key=len).strip(" .,:;")
    assert part in plain or words.startswith("is numbers"), part


def test_rows_of_no_kind_are_refused_in_these_words() -> None:
    with pytest.raises(KintsugiError, match=r"rows must be a data frame.*name its columns"):
        frames.open_rows(pd.DataFrame({"a": [1]}).to_numpy())
    with pytest.raises(KintsugiError, match=r"give pd\.DataFrame\(rows\)"):
        frames.open_rows({"a": [1, 2], "b": [3, 4]})
