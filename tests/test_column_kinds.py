"""What a column is: decided in one place, said openly, the same for inputs and targets and for every kind of file."""

from __future__ import annotations

import datetime
import gzip
import io
import json
import warnings
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
import yaml

import kintsugi as kg
from kintsugi.core.errors import ConfigError, DataError, UnknownName
from kintsugi.data.column_kinds import (
    FEW,
    NEARLY_NUMBERS,
    NEARLY_TIMES,
    OWN_NAMES_FROM,
    OWN_NAMES_SHARE,
    as_numbers,
    decide,
    distinct_cells,
    draft,
    sort_of,
    survey,
)
from kintsugi.data.columns import read_columns
from kintsugi.data.csv_tables import Roles, read_frame
from kintsugi.data.frames import open_rows
from kintsugi.data.labels import infer_task
from kintsugi.data.names import KnownNames, label
from kintsugi.data.table import ALL_UNSEEN_FROM

RNG = np.random.default_rng(3)


def column(cells, dtype=object):
    return pd.Series(cells, dtype=dtype, name="c")


def kind_of(cells, dtype=object):
    return decide(column(cells, dtype)).kind


def table(cells, reader=None, **options):
    frame = pd.DataFrame({"c": pd.Series(cells, dtype=object), "y": [i % 2 for i in range(len(cells))]})
    return kg.Table.from_pandas(frame, modalities={"v": reader or kg.tabular(["c"])}, **{"target": "y", **options})


def codes(data, count):
    return data.batch(range(count)).inputs["v"].flatten().tolist()


def again(rows, data, **options):
    return kg.Table.from_reading(rows, {**json.loads(json.dumps(data.reading)), "target": []}, **options)


# what a column is ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "cells",
    [
        [1, 2.5, None],
        [Decimal("0.25"), Decimal(3), None],
        [Fraction(1, 3), 2, 4.5],
        [np.float32(0.5), np.int8(3), np.uint64(7)],
        [pa.scalar(1.5), pa.scalar(2), None],
        [np.array(1.5), torch.tensor(2.0), float("nan")],
    ],
)
def test_numbers_of_any_library_are_numbers(cells):
    assert kind_of(cells) == "numbers"
    found = as_numbers(column(cells))
    assert np.isfinite(found[0])
    assert table(cells, target=None).schema["v"].categories == (0,)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (pd.array([1, None], dtype="Int64"), "numbers"),
        (pd.array([1.5, None], dtype="Float32"), "numbers"),
        (pd.array([True, None], dtype="boolean"), "booleans"),
        (np.array([True, False]), "booleans"),
        (pd.Categorical([3, 4]), "categories"),
        (pd.array(["a", "b"], dtype="string"), "categories"),
        (pd.date_range("2021-03-04", periods=2), "times"),
        (pd.date_range("2021-03-04", periods=2, tz="UTC"), "times"),
        (pd.to_timedelta([1, 2], unit="h"), "times"),
        (pd.period_range("2021-03", periods=2, freq="M"), "times"),
        (pd.arrays.ArrowExtensionArray(pa.array([Decimal("1.50"), None])), "numbers"),
        (pd.arrays.ArrowExtensionArray(pa.array([datetime.date(2021, 3, 4), None])), "times"),
        (pd.arrays.ArrowExtensionArray(pa.array([[1.0], [2.0, 3.0]])), "arrays"),
        (pd.arrays.ArrowExtensionArray(pa.array(["a", "b"])), "categories"),
        (pd.arrays.ArrowExtensionArray(pa.array([True, None])), "booleans"),
        (np.array([1j, 2.0]), "arrays"),
        (np.array([np.nan, np.nan]), "empty"),
        (pd.Series([None, "", "  "], dtype=object), "empty"),
    ],
)
def test_types_decide_first(values, kind):
    assert decide(pd.Series(values, name="c")).kind == kind


@pytest.mark.parametrize(
    ("cell", "sort"),
    [
        ("12", "plain"), (" 12.5 ", "plain"), ("-.5", "plain"), ("1e5", "plain"), ("0", "plain"), ("0.10", "plain"),
        ("12,5", "dressed"), ("€ 3.20", "dressed"), ("45 %", "dressed"), ("12 400", "dressed"), ("1.234.567,8", "dressed"),
        ("< 0.1", "dressed"), (">= 200", "dressed"), ("CHF 1'000", "dressed"), ("-$5", "dressed"),
        ("007", "name"), ("00", "name"), ("A12", "name"), ("1-2", "name"), ("12 kg", "name"), ("", "name"), ("%", "name"),
        ("2021-03-04", "time text"), ("2021-03-04T10:11:12.5Z", "time text"), ("4.3.2021", "time text"), ("10:15", "time text"),
        ("03/04/21 10:15", "time text"), ("4 Mar 2021", "time text"), ("March 4, 2021", "time text"), ("3 days", "time text"),
        ("2021-Q3", "time text"), ("TRUE", "truth"), (True, "truth"), (3, "number"), (b"3", "array"), ({"a": 1}, "array"),
        ((1, 2), "array"), (datetime.time(3), "time"), (pd.Timedelta(1), "time"), (np.datetime64("2021-03-04"), "time"),
        (Path("a.png"), "path"), (1j, "array"),
    ],
)  # fmt: skip
def test_sorts_of_cells(cell, sort):
    assert sort_of(cell) == sort


def share_of_numbers(share, odd, of=100):
    numbers = round(share * of)
    cells = [f"{v:.3f}" for v in RNG.normal(50, 9, numbers)]
    return [*cells[:3], odd, *cells[3:], *[f"{odd}{i}" for i in range(of - numbers - 1)]]


@pytest.mark.parametrize("odd", ["?", "unknown", "n.a.", "see note"])
def test_numbers_but_for_some_cells_are_an_error_from_the_threshold_on(odd):
    with pytest.raises(
        DataError, match=rf"column 'c' is nearly numbers .*row 3 .*holds '{odd[:3]}.*numbers=\['c'\].*categor"
    ):
        table(share_of_numbers(NEARLY_NUMBERS, odd))
    with pytest.warns(UserWarning, match="nearly every row has one of its own"):
        data = table(share_of_numbers(NEARLY_NUMBERS - 0.01, odd))
    assert data.schema["v"].categories == (100,)


@pytest.mark.parametrize(
    "form", ["{:.2f}", " {:.2f}", "${:.2f}", "{:.1f}%", "{:,.0f}", "<{:.1f}", "{:.2f} EUR", "≥{:.0f}", "{:.3e}"]
)
def test_text_that_reads_as_numbers_is_refused_unless_it_is_told(form):
    cells = [form.format(v) for v in RNG.uniform(1000, 9000, 40)]
    with pytest.raises(DataError, match=r"column 'c' .*row 0 \(counted from 0\) holds"):
        table(cells)
    commas = [cell.replace(",", "").replace(".", ",") for cell in cells]
    with pytest.raises(DataError, match="row 0"):
        table(commas)
    assert table(cells, kg.tabular(["c"], categories=["c"])).schema["v"].categories == (len(set(map(label, cells))),)
    assert table(cells, kg.text("c")).present.all()  # who says text is not asked again


def test_numbers_that_are_told_read_text_and_take_nothing_else():
    cells = ["1.5", " 2.5 ", "?", None, "1,5", Decimal("3.5")]
    data = table(cells, kg.tabular(["c"], numbers=["c"]))
    assert data.schema["v"].categories == (0,)
    assert data.source.readers["v"].mean == (2.5,)
    with pytest.raises(DataError, match=r"row 2 .*column 'c': '\?' is no number"):
        data.batch(range(6))
    lenient = table(cells, kg.tabular(["c"], numbers=["c"]), on_error="missing")
    assert lenient.batch(range(6)).present.flatten().tolist() == [True, True, False, False, False, True]
    assert [(p.row, p.modality) for p in lenient.problems] == [(2, "v"), (4, "v")]


def test_one_bad_cell_does_not_take_its_row_along():
    frame = pd.DataFrame({"a": [1.0, np.inf, 3.0], "b": [1.0, 2.0, 3.0], "k": ["u", "v", "u"], "y": [0, 1, 0]})
    readers = {"v": kg.tabular(["a", "b", "k"])}
    data = kg.Table.from_pandas(frame, modalities=readers, target="y", on_error="missing")
    batch = data.batch([1])
    assert batch.present.all()
    assert batch.mask["v"].tolist() == [[False, True, True]]
    assert batch.inputs["v"][0].tolist() == [0, 0, 2]
    (problem,) = data.problems
    assert problem.row == 1
    assert "infinity" in problem.reason
    huge = kg.Table.from_reading([{"a": 10**400, "b": 1, "k": "u"}], data.reading, on_error="missing")
    assert huge.batch([0]).mask["v"].tolist() == [[False, True, True]]


def test_numbers_said_twice_or_of_no_column_are_refused():
    with pytest.raises(ConfigError, match="'a' is said to be categories and numbers"):
        kg.tabular(["a"], categories=["a"], numbers=["a"])
    with pytest.raises(UnknownName, match="column in numbers= 'bmi'; did you mean 'bm'"):
        kg.tabular(["bm"], numbers=["bmi"])
    saved = kg.tabular(["a", "b"], numbers=["a"]).to_json()
    assert saved["numbers"] == ["a"]
    assert "numbers" not in kg.tabular(["a"]).to_json()  # as version 0.1.0 wrote it


@pytest.mark.parametrize(
    "cells",
    [
        ["2021-03-04", "2021-03-05", "2021-03-06", None],
        [datetime.date(2021, 3, 4), None],
        [pd.Timestamp("2021-03-04"), pd.NaT],
        [pd.Period("2021-03"), pd.Period("2021-04")],
        [datetime.timedelta(hours=3), None],
        ["4/3/2021 10:00", "5/3/2021 11:30"],
        ["10:15:00", "11:20:01"],
        ["1 days 02:00:00", "3 days 00:00:00"],
        [np.datetime64("2021-03-04"), np.datetime64("NaT")],
    ],
)
def test_times_are_refused_as_inputs_and_as_targets(cells):
    with pytest.raises(ConfigError, match=r"column 'c' holds times.*row 0 .*days since a date"):
        table(cells)
    frame = pd.DataFrame({"x": range(len(cells)), "c": pd.Series(cells, dtype=object)})
    for task in (None, "regression"):
        with pytest.raises(DataError, match=r"target 'c' holds times.*days since a date"):
            kg.Table.from_pandas(frame, modalities={"v": kg.tabular(["x"])}, target="c", task=task)


def test_text_with_some_times_is_names_below_the_threshold():
    times = [f"2021-03-{i % 28 + 1:02d}" for i in range(round(100 * NEARLY_TIMES))]
    others = ["never"] * (100 - len(times))
    assert decide(column(times + others)).fault == "times"
    assert decide(column(times[1:] + others + ["never"])).fault == ""


@pytest.mark.parametrize(
    "cells",
    [[["cat"], ["dog", "cat"]], [np.array([1, 0]), np.array([0, 1])], [{"a": 1}, None], [b"x", b"y"], [{1}, {2}]],
)
def test_lists_are_refused_as_cells_and_as_targets(cells):
    with pytest.raises(ConfigError, match=r"column 'c' holds .*a table cell is a number or a category"):
        table(cells)
    frame = pd.DataFrame({"x": range(2), "c": pd.Series(cells, dtype=object)})
    for task in (None, "classification", "multilabel", "regression"):
        target = ["c"] if task == "multilabel" else "c"
        with pytest.raises(DataError, match=r"target 'c' holds .*one column of 0 and 1 for each label"):
            kg.Table.from_pandas(frame, modalities={"v": kg.tabular(["x"])}, target=target, task=task)


@pytest.mark.parametrize("told", [False, True])
def test_a_name_of_its_own_in_nearly_every_row_is_a_warning(told):
    def made(distinct, cells):
        names = [f"id{i % distinct}" for i in range(cells)]
        return table(names, kg.tabular(["c"], categories=["c"] if told else []))

    rows = round(OWN_NAMES_FROM / OWN_NAMES_SHARE)
    silent = [(OWN_NAMES_FROM, rows), (OWN_NAMES_FROM - 1, OWN_NAMES_FROM - 1)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for distinct, cells in silent:
            assert made(distinct, cells).schema["v"].categories == (distinct,)
        if told:
            made(OWN_NAMES_FROM, OWN_NAMES_FROM)
    if not told:
        with pytest.warns(UserWarning, match=rf"column 'c': {OWN_NAMES_FROM} distinct names in {rows - 1} cells"):
            made(OWN_NAMES_FROM, rows - 1)


def test_the_error_names_the_row_of_the_whole_table():
    cells = ["1.0", "2.0", "3.0", "4.0", "x", *[f"{i}.5" for i in range(20)]]
    frame = pd.DataFrame({"c": cells, "s": ["test"] * 4 + ["train"] * 21, "y": ["a", "b", "a", "b", "a"] * 5})
    with pytest.raises(DataError, match=r"^cases: column 'c' .*row 4 \(counted from 0\) holds 'x'"):
        kg.Table.from_pandas(frame, modalities={"v": kg.tabular(["c"])}, target="y", split="s", name="cases")


# targets -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("cells", "task"),
    [
        (list(range(FEW)), "classification"),
        (list(range(FEW + 1)), "regression"),
        ([float(i) for i in range(FEW)], "classification"),
        ([*[float(i) for i in range(FEW)], None], "classification"),
        ([0.0, 1.0, 1.0], "classification"),
        ([0.0, 1.0, None], "classification"),
        ([0.0, 1.0, 0.5], "regression"),
        (["0", "1", "2"], "classification"),
        (["0", 1, 2.0], "classification"),
        ([Decimal("0.5"), Decimal("1.5")], "regression"),
        ([Decimal(1), Decimal(2)], "classification"),
        (["a", "1", "2"], "classification"),
        ([True, False, None], "classification"),
    ],
)
def test_the_task_follows_from_the_same_decision(cells, task):
    assert infer_task(pd.DataFrame({"c": pd.Series(cells, dtype=object)}), ["c"], False) == task
    if not any(isinstance(c, str) for c in cells):
        assert infer_task(pd.DataFrame({"c": pd.Series(cells)}), ["c"], False) == task


@pytest.mark.parametrize(
    "cells", [["0.5", "1.5", "2.5"], ["1,5", "2,5", "3,5"], [*map(str, range(FEW + 1))], ["$1", "$2"]]
)
def test_a_target_of_numbers_as_text_has_to_be_told(cells):
    frame = pd.DataFrame({"x": range(len(cells)), "c": cells})
    with pytest.raises(DataError, match=r"target 'c' .*row 0 .*task='regression'.*task='classification'"):
        kg.Table.from_pandas(frame, modalities={"v": kg.tabular(["x"])}, target="c")
    data = kg.Table.from_pandas(frame, modalities={"v": kg.tabular(["x"])}, target="c", task="classification")
    assert len(data.schema.task.names) == len(cells)


def test_a_target_below_the_limit_of_detection_is_no_class_id(tmp_path):
    cells = ["<2.0", *[f"{v:.2f}" for v in RNG.normal(9, 2, 30)]]
    (tmp_path / "t.csv").write_text("x,y\n" + "\n".join(f"{i},{c}" for i, c in enumerate(cells)))
    with pytest.raises(DataError, match=r"target 'y' is nearly numbers .*row 0 .*'<2.0'"):
        kg.Table.from_csv(tmp_path / "t.csv", modalities={"v": kg.tabular(["x"])}, target="y")


def test_a_class_of_its_own_in_nearly_every_row_is_a_warning():
    frame = pd.DataFrame({"x": range(60), "y": [f"p{i}" for i in range(60)]})
    with pytest.warns(UserWarning, match="target 'y': 60 distinct names in 60 cells"):
        kg.Table.from_pandas(frame, modalities={"v": kg.tabular(["x"])}, target="y", task="classification")


# names ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("values", "name"),
    [
        (
            [7, 7.0, "7", "7.0", " 7.00 ", np.int64(7), np.float32(7), Decimal("7.0"), Fraction(7), pa.scalar(7), b"7"],
            "7",
        ),
        ([True, np.True_, "TRUE", "true", "True ", pa.scalar(True)], "True"),
        ([False, "false", b"FALSE"], "False"),
        (["P7", "P7 ", "\tP7", np.str_("P7")], "P7"),
        (["Zo\u00eb", "Zoe\u0308"], "Zo\u00eb"),
        (["007"], "007"),
        (["1E5"], "1E5"),
        (["0.50"], "0.50"),
        ([0.5, Decimal("0.50"), Fraction(1, 2), "0.5"], "0.5"),
        ([0, -0.0, "-0", "-0.0", "0"], "0"),
        ([-3, "-3.0"], "-3"),
        (
            [pd.Timestamp("2021-03-04"), datetime.date(2021, 3, 4), np.datetime64("2021-03-04"), "2021-03-04"],
            "2021-03-04",
        ),
        ([123456789012345678, "123456789012345678"], "123456789012345678"),
    ],
)
def test_one_value_has_one_name(values, name):
    assert {label(value) for value in values} == {name}


def test_a_name_is_found_by_its_old_spelling_too():
    old = KnownNames(["7", "7.0", "TRUE", "P7 ", "007"])
    assert [old.place(v) for v in (7, "7", "7.0", 7.0, True, "true", "P7", "007", "07")] == [
        0,
        0,
        1,
        0,
        2,
        2,
        3,
        4,
        None,
    ]
    truths = KnownNames(["False", "True", "unknown"])
    assert [truths.place(v) for v in (1, 0, "1.0", False, "x")] == [1, 0, 1, 0, None]
    digits = KnownNames(["0", "1"])
    assert [digits.place(v) for v in (True, "false", 1, 2)] == [1, 0, 1, None]
    both = KnownNames(["1", "True"])
    assert [both.place(v) for v in (1, True)] == [0, 1]


def test_distinct_cells_tell_true_from_one():
    codes, cells = distinct_cells(column([1, True, "1", 1, None, "  ", True]))
    assert codes.tolist() == [0, 1, 2, 0, -1, -1, 1]
    assert [type(cell) for cell in cells] == [int, bool, str]


@pytest.mark.parametrize(
    ("trained", "new"),
    [
        (["1.0", "2.0", "1.0"], [1, 2, Decimal(1)]),
        ([1, 2, 1], ["1.0", "2", 1.0]),
        ([True, False, True], [1, 0, "true"]),
        (["TRUE", "FALSE", "unknown"], [True, False, "unknown"]),
        (["0", "1", "0"], [False, True, 0.0]),
        (["A ", "B", "A"], ["A", " B", "A"]),
    ],
)
def test_a_category_keeps_its_code_however_it_is_typed(trained, new):
    data = table(trained, kg.tabular(["c"], categories=["c"]))
    assert codes(data, 3) == codes(again(pd.DataFrame({"c": pd.Series(new, dtype=object)}), data), 3)
    assert codes(data, 3) == codes(again([{"c": v} for v in new], data), 3)
    file = io.StringIO("c\n" + "\n".join(str(v) for v in new) + "\n")
    assert codes(data, 3) == codes(again(file, data), 3)


def test_codes_keep_their_zeros_in_every_csv(tmp_path):
    frame = pd.DataFrame({"c": ["007", "012", "A1"] * 4, "y": list("ab") * 6})
    frame.to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "new.csv").write_text("c\n012\n007\n7\n")
    data = kg.Table.from_csv(tmp_path / "t.csv", modalities={"v": kg.tabular(["c"])}, target="y")
    with pytest.warns(UserWarning, match=r"'c' in 1 of 3 cells \('7'; first in row 2"):
        new = again(tmp_path / "new.csv", data)
    assert codes(new, 3) == [2, 1, 0]
    digits = frame[frame["c"] != "A1"].assign(n=range(8))
    digits.to_csv(tmp_path / "d.csv", index=False)
    for source in (digits, tmp_path / "d.csv"):
        both = kg.Table.from_rows(source, modalities={"v": kg.tabular(["c", "n"])}, target="y")
        assert both.schema["v"].categories == (2, 0)


@pytest.mark.parametrize(
    "ids",
    [
        [7, "7", 7.0, "7.0", np.int64(7), Decimal(7)],
        ["P7", "P7 ", " P7", "P7\t"],
        ["Jos\u00e9", "Jose\u0301"],
        [b"p", "p"],
    ],
)
def test_a_group_is_one_whatever_its_spelling(ids):
    frame = pd.DataFrame({"x": range(len(ids) + 2), "g": pd.Series([*ids, None, None], dtype=object)})
    data = kg.Table.from_pandas(frame, modalities={"v": kg.tabular(["x"])}, group="g")
    assert data.groups.tolist() == [0] * len(ids) + [1, 2]


def test_a_group_never_stands_on_both_sides_of_a_split():
    spelled = [f"{i // 4}.0" if i % 4 == 1 else i // 4 if i % 2 else f" {i // 4}" for i in range(120)]
    frame = pd.DataFrame({"x": range(120), "g": pd.Series(spelled, dtype=object), "y": list("aaaabbbb") * 15})
    parts = kg.Table.from_pandas(frame, modalities={"v": kg.tabular(["x"])}, target="y", group="g").split()
    sides = [{int(row) // 4 for row in part.index.tolist()} for part in parts]
    assert not sides[0] & sides[1]
    assert not sides[0] & sides[2]
    assert not sides[1] & sides[2]


def test_a_list_is_no_group():
    frame = pd.DataFrame({"x": range(2), "g": [[1], [2]]})
    with pytest.raises(DataError, match="group column 'g' holds list"):
        kg.Table.from_pandas(frame, modalities={"v": kg.tabular(["x"])}, group="g")


# unseen categories ---------------------------------------------------------------------------------------------
def test_an_unseen_category_is_an_unseen_cell_and_said_once():
    frame = pd.DataFrame({"c": list("uvuv"), "n": [1.0, 2.0, 3.0, 4.0], "y": list("abab")})
    data = kg.Table.from_pandas(frame, modalities={"v": kg.tabular(["c", "n"])}, target="y")
    with pytest.warns(UserWarning, match="training did not have") as caught:
        new = again(pd.DataFrame({"c": ["z", "u", "z", "w"], "n": [1.0, 2.0, None, 4.0]}), data, name="ward 3")
    (said,) = caught
    assert str(said.message).startswith(
        "ward 3: categories that training did not have: column 'c' in 3 of 4 cells ('z', 'w'; first"
    )
    batch = new.batch(range(4))
    assert batch.present.flatten().tolist() == [True, True, False, True]
    assert batch.mask["v"].tolist() == [[False, True], [True, True], [False, False], [False, True]]
    assert batch.inputs["v"][:, 0].tolist() == [0, 1, 0, 0]


def test_an_unseen_category_is_answered_as_a_hole():
    frame = pd.DataFrame({"c": list("uv") * 40, "n": RNG.normal(size=80), "y": list("ab") * 40})
    data = kg.Table.from_pandas(frame, modalities={"v": kg.tabular(["c", "n"])}, target="y")
    model = kg.Classifier("mean_fusion", epochs=1, progress=False).fit(data, data)
    with pytest.warns(UserWarning, match="training did not have"):
        strange = model.predict_proba([{"c": "zz", "n": 0.5}, {"c": None, "n": 0.5}])
    assert np.allclose(strange[0], strange[1])


def test_a_column_of_nothing_but_unseen_categories_is_an_error_from_some_rows_on():
    data = table(list("uv") * 4)
    with pytest.raises(
        DataError, match=rf"column 'c': none of its {ALL_UNSEEN_FROM} cells .*'p0'.*training had 'u', 'v'.*missing"
    ):
        again([{"c": f"p{i}"} for i in range(ALL_UNSEEN_FROM)], data)
    with pytest.warns(UserWarning, match="training did not have"):
        fewer = again([{"c": f"p{i}"} for i in range(ALL_UNSEEN_FROM - 1)], data)
    assert not fewer.present.any()
    with pytest.warns(UserWarning, match="training did not have"):
        assert not again([{"c": "p"}] * ALL_UNSEEN_FROM, data, on_error="missing").present.any()
    with pytest.warns(UserWarning, match="in 9 of 10"):
        again([{"c": "u"}] + [{"c": "p"}] * 9, data)


# CSV -----------------------------------------------------------------------------------------------------------
def csv_table(tmp_path, text, **options):
    (tmp_path / "t.csv").write_text(text)
    return kg.Table.from_csv(tmp_path / "t.csv", **{"modalities": {"v": kg.tabular(["x"])}, **options})


@pytest.mark.parametrize(
    ("words", "names", "task"),
    [
        (["01", "02"], ("01", "02"), None),
        (["1E5", "2E7"], ("1E5", "2E7"), "classification"),
        (["1E5", "2E7"], ("1E5", "2E7"), None),
        (["None", "Mild"], ("Mild", "None"), None),
        (["NA", "FR"], ("FR", "NA"), "classification"),
        (["1", "2"], ("1", "2"), None),
        (["1.0", "2.0"], ("1", "2"), None),
        (["TRUE", "FALSE"], ("False", "True"), None),
        (["123456789012345678", "123456789012345679"], ("123456789012345678", "123456789012345679"), None),
    ],
)
@pytest.mark.filterwarnings("ignore:.*look like holes")
def test_classes_are_called_as_they_are_written(tmp_path, words, names, task):
    text = "x,y\n" + "\n".join(f"{i},{words[i % 2]}" for i in range(20)) + "\n20,\n"
    data = csv_table(tmp_path, text, target="y", task=task)
    assert data.schema.task.names == names
    assert data.target_present.tolist() == [True] * 20 + [False]


def test_names_that_look_like_holes_are_counted_and_kept(tmp_path):
    text = "x,k,y\n" + "".join(f"{i},{['NA', 'FR', ''][i % 3]},{['None', 'some'][i % 2]}\n" for i in range(12))
    with pytest.warns(UserWarning, match="look like holes") as caught:
        data = csv_table(tmp_path, text, target="y", modalities={"v": kg.tabular(["k"])})
    assert [str(w.message).partition(": ")[2].partition(";")[0] for w in caught] == [
        "column 'k' holds words that look like holes ('NA' in 4 rows)",
        "column 'y' holds words that look like holes ('None' in 6 rows)",
    ]
    assert data.source.readers["v"].known == {"k": ("FR", "NA")}
    assert int(data.present.sum()) == 8
    pd.read_csv(tmp_path / "t.csv", keep_default_na=False).to_parquet(tmp_path / "t.parquet")
    other = kg.Table.from_parquet(tmp_path / "t.parquet", target="y", modalities={"v": kg.tabular(["k"])})
    assert codes(other, 12) == codes(data, 12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what is known needs no word
        assert codes(kg.Table.from_reading(tmp_path / "t.csv", data.reading), 12) == codes(data, 12)


@pytest.mark.parametrize("word", ["NA", "nan", "NULL", "#N/A", " "])
def test_words_for_holes_among_numbers_are_holes(tmp_path, word):
    text = "x,y,g\n" + "".join(
        f"{word if i == 2 else i + 0.5},{word if i == 3 else i % 2},{word if i < 2 else 7}\n" for i in range(8)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = csv_table(tmp_path, text, target="y", group="g")
    assert data.present.flatten().tolist() == [i != 2 for i in range(8)]
    assert data.target_present.tolist() == [i != 3 for i in range(8)]
    assert data.schema.task.names == ("0", "1")
    assert data.groups.tolist() == [1, 2, 0, 0, 0, 0, 0, 0]


def test_a_model_of_old_takes_the_word_none_for_the_hole_that_it_was(tmp_path):
    data = csv_table(tmp_path, "x,y\n1,ill\n2,well\n", target="y")
    (tmp_path / "new.csv").write_text("x,y\n1,None\n2,well\n")
    new = kg.Table.from_reading(tmp_path / "new.csv", data.reading)
    assert new.target_present.tolist() == [False, True]


def test_long_ids_stay_apart_where_one_is_lacking(tmp_path):
    ids = [f"90071992547409{930 + i // 2}" for i in range(40)]
    text = "x,g\n" + "".join(f"{i},{'' if i == 0 else ids[i]}\n" for i in range(40))
    data = csv_table(tmp_path, text, group="g")
    assert len(data.groups.unique()) == 21


@pytest.mark.parametrize("width", [3, 4])
@pytest.mark.parametrize("row", [0, 1, 700])
@pytest.mark.parametrize("columns", [["a"], ["a", "b", "c"]])
def test_a_row_longer_than_the_head_is_named(tmp_path, width, row, columns):
    rows = [["1", "2", "3"] for _ in range(800)]
    rows[row] += ["4"] * (width - 3)
    (tmp_path / "t.csv").write_text("a,b,c\n" + "\n".join(map(",".join, rows)) + "\n")
    if width == 3:
        assert len(kg.Table.from_csv(tmp_path / "t.csv", modalities={"v": kg.tabular(columns)})) == 800
        return
    with pytest.raises(DataError, match=rf"row {row} \(counted from 0\) has 4 cells, and the head names 3"):
        kg.Table.from_csv(tmp_path / "t.csv", modalities={"v": kg.tabular(columns)})


@pytest.mark.parametrize("piece", [7, 64, 1 << 23])
def test_quotes_commas_and_lines_in_cells_are_no_longer_rows(tmp_path, piece, monkeypatch):
    monkeypatch.setattr("kintsugi.data.csv_tables.PIECE", piece)
    rows = ['1,"a, b, c",x', '2,"line\nbreak, ""quoted""",y', '3,5" pipe,z', '4,"",x', "5,,y"]
    text = "n,t,y\n" + "\n".join(rows) + "\n"
    frame = read_frame(text.encode(), "t", None, [kg.text("t")], Roles())
    assert frame["t"].tolist() == ["a, b, c", 'line\nbreak, "quoted"', '5" pipe', "", ""]
    with pytest.raises(DataError, match=r"row 4 \(counted from 0\) has 4 cells"):
        read_frame((text.rstrip("\n") + ",7").encode(), "t", None, [kg.text("t")], Roles())


def test_a_csv_with_a_column_twice_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("x,x,y\n1,2,a\n3,4,b\n")
    with pytest.raises(DataError, match="two columns named 'x'"):
        kg.Table.from_csv(tmp_path / "t.csv", modalities={"v": kg.tabular(["x"])}, target="y")


def test_csv_numbers_are_the_same_bits_with_and_without_words_for_holes(tmp_path):
    numbers = [repr(float(v)) for v in RNG.normal(size=200)]
    for name, word in (("a", ""), ("b", "NA")):
        lines = [word if i == 5 else cell for i, cell in enumerate(numbers)]
        (tmp_path / f"{name}.csv").write_text("x\n" + "\n".join(lines) + "\n")
    one, other = (open_rows(tmp_path / f"{n}.csv", {"v": kg.tabular(["x"])}).frame["x"] for n in "ab")
    assert one.dtype == other.dtype == np.float64
    assert one.to_numpy()[:5].tobytes() == other.to_numpy()[:5].tobytes()


@pytest.mark.parametrize("kind", ["image", "vector"])
def test_paths_that_are_numbers_are_read_as_text(tmp_path, kind):
    for i in range(3):
        np.save(tmp_path / f"{i:03d}.npy", np.arange(2.0) + i)
        (tmp_path / f"{i:03d}.npy").rename(tmp_path / f"{i:03d}")
    (tmp_path / "t.csv").write_text("p,n\n000,1\n001,1\n,1\n002,1\n")
    frame = open_rows(tmp_path / "t.csv", {"v": kg.image("p") if kind == "image" else kg.vector("p")}).frame
    assert frame["p"].dropna().tolist() == ["000", "001", "002"]
    assert len(frame) == 4


# other tables --------------------------------------------------------------------------------------------------
class Foreign:
    """What matters of the frames of other libraries."""

    def __init__(self, frame):
        self.frame = frame

    def to_pandas(self):
        return self.frame


FRAME = pd.DataFrame({"c": list("uvu"), "n": [1.0, 2.0, 3.5], "y": list("abb")})


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: FRAME,
        lambda folder: Foreign(FRAME),
        lambda folder: pa.Table.from_pandas(FRAME),
        lambda folder: FRAME.to_dict("records"),
        lambda folder: [row for _, row in FRAME.iterrows()],
        lambda folder: io.StringIO(FRAME.to_csv(index=False)),
        lambda folder: io.BytesIO(FRAME.to_csv(index=False).encode()),
        lambda folder: io.BytesIO(FRAME.to_parquet()),
        lambda folder: FRAME.to_csv(folder / "t.csv", index=False) or folder / "t.csv",
        lambda folder: FRAME.to_csv(folder / "t.tsv", index=False, sep="\t") or folder / "t.tsv",
        lambda folder: FRAME.to_csv(folder / "t.csv.gz", index=False) or str(folder / "t.csv.gz"),
        lambda folder: FRAME.to_csv(folder / "t.csv.xz", index=False) or folder / "t.csv.xz",
        lambda folder: FRAME.to_parquet(folder / "t.parquet") or folder / "t.parquet",
        lambda folder: FRAME.convert_dtypes(dtype_backend="pyarrow"),
    ],
)
def test_tables_of_every_sort_are_read_alike(make, tmp_path):
    readers = {"v": kg.tabular(["c", "n"])}
    expected = kg.Table.from_pandas(FRAME, modalities=readers, target="y")
    data = kg.Table.from_rows(make(tmp_path), modalities=readers, target="y")
    assert torch.equal(data.batch(range(3)).inputs["v"], expected.batch(range(3)).inputs["v"])
    assert data.schema == expected.schema
    new = again(make(tmp_path), expected)
    assert torch.equal(new.batch(range(3)).inputs["v"], expected.batch(range(3)).inputs["v"])


@pytest.mark.parametrize(
    "row", [{"c": "v", "n": 2.0}, pd.Series({"c": "v", "n": 2.0}), [{"c": np.str_("v"), "n": np.float64(2)}]]
)
def test_one_row_is_a_table_of_one(row):
    data = kg.Table.from_pandas(FRAME, modalities={"v": kg.tabular(["c", "n"])}, target="y")
    assert torch.equal(again(row, data).batch([0]).inputs["v"], data.batch([1]).inputs["v"])


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (None, "not NoneType"), (7, "not int"), (np.zeros((2, 2)), "not numpy.ndarray; name its columns"), ([1, 2], "not list"),
        ({"c": ["u", "v"], "n": [1, 2]}, "a dict is one row"), (Foreign([1]), "whose to_pandas"), ([], "no rows"),
        (pd.DataFrame({"c": []}), "no rows"), ("x" * 5000, "cannot be a path"),
    ],
)  # fmt: skip
def test_what_is_no_table_is_refused_by_name(rows, words):
    with pytest.raises(DataError, match=words):
        open_rows(rows)
    with pytest.raises(DataError):
        kg.Table.from_rows(rows, modalities={"v": kg.tabular(["c"])})


def test_files_that_cannot_be_read_say_so(tmp_path):
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"c,y\n1,2\n")[:-9])
    (tmp_path / "t.xlsx").write_bytes(b"PK no workbook")
    (tmp_path / "t.json").write_text("{}")
    (tmp_path / "folder.csv").mkdir()
    for name, words in (
        ("t.csv.gz", "cannot be unpacked"),
        ("t.json", "files are told by their names"),
        ("folder.csv", "folder"),
    ):
        with pytest.raises(DataError, match=words):
            open_rows(tmp_path / name)
    with pytest.raises((DataError, ImportError), match=r"no readable Excel|kintsugi-ml\[excel\]"):
        open_rows(tmp_path / "t.xlsx")


def test_an_archive_that_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("kintsugi.data.csv_tables.MOST_UNPACKED", 1000)
    for size, name in ((990, "a"), (1200, "b")):
        (tmp_path / f"{name}.csv.gz").write_bytes(gzip.compress(b"c\n" + b"1\n" * (size // 2 - 1)))
    assert len(open_rows(tmp_path / "a.csv.gz").frame) == 494
    with pytest.raises(DataError, match="unpacks to more than 1,000 bytes"):
        open_rows(tmp_path / "b.csv.gz")


def test_excel_is_read_as_it_is_typed(tmp_path):
    pytest.importorskip("openpyxl")
    frame = pd.DataFrame({"n": [1.5, "NA", 3.0, 4.0], "k": ["007", "NA", "x", None], "y": list("abab")})
    frame.to_excel(tmp_path / "t.xlsx", index=False)
    data = kg.Table.from_excel(tmp_path / "t.xlsx", modalities={"v": kg.tabular(["n", "k"])}, target="y")
    assert data.schema["v"].categories == (0, 3)
    assert data.batch(range(4)).mask["v"].tolist() == [[True, True], [False, True], [True, True], [True, False]]
    assert codes(again(tmp_path / "t.xlsx", data), 4) == codes(data, 4)


def test_an_index_that_is_named_is_a_column(tmp_path):
    frame = pd.DataFrame({"patient": list("ppqq"), "x": range(4), "y": list("abab")}).set_index("patient")
    frame.to_parquet(tmp_path / "t.parquet")
    for source in (frame, tmp_path / "t.parquet"):
        data = kg.Table.from_rows(source, modalities={"v": kg.tabular(["x"])}, target="y", group="patient")
        assert data.groups.tolist() == [0, 0, 1, 1]
        assert kg.Table.from_reading(source, data.reading).groups.tolist() == [0, 0, 1, 1]


def test_a_column_twice_is_refused_where_it_is_read():
    data = kg.Table.from_pandas(FRAME, modalities={"v": kg.tabular(["n"])}, target="y")
    with pytest.raises(DataError, match="two columns named 'n'"):
        again(pd.concat([FRAME, FRAME[["n"]]], axis=1), data)
    assert again(pd.concat([FRAME, FRAME[["c"]]], axis=1), data).present.all()


def test_damaged_metadata_of_pandas_in_a_parquet_file_is_an_error_of_ours(tmp_path):
    stored = pa.Table.from_pandas(FRAME)
    pa.parquet.write_table(
        stored.replace_schema_metadata({b"pandas": b'{"index_columns": [{"kind'}), tmp_path / "t.parquet"
    )
    with pytest.raises(DataError, match=r"t\.parquet is no readable Parquet file"):
        open_rows(tmp_path / "t.parquet")


def test_records_of_numpy_scalars_are_as_those_of_python():
    rows = [{"n": np.float64(i), "k": np.int64(i % 2), "w": np.float32(1), "y": np.bool_(i % 2)} for i in range(6)]
    rows[2]["n"] = np.float64("nan")
    plain = [{"n": float(i), "k": i % 2, "w": 1.0, "y": bool(i % 2)} for i in range(6)]
    plain[2]["n"] = None
    options = {"modalities": {"v": kg.tabular(["n"])}, "target": "y", "weight": "w", "group": "k"}
    one, other = (kg.Table.from_records(r, **options) for r in (rows, plain))
    assert one.schema == other.schema
    assert torch.equal(one.batch(range(6)).inputs["v"], other.batch(range(6)).inputs["v"])
    assert one.groups.tolist() == other.groups.tolist() == [0, 1, 0, 1, 0, 1]


# saying it -----------------------------------------------------------------------------------------------------
MIXED = pd.DataFrame(
    {
        "pid": [f"P{i:03d}" for i in range(60)],
        "age": RNG.normal(50, 9, 60),
        "lab": [*["<0.1"], *[f"{v:.2f}" for v in RNG.uniform(1, 9, 59)]],
        "ward": ["north", "south", None] * 20,
        "seen": pd.date_range("2021-01-01", periods=60),
        "scan": [f"scans/{i}.png" for i in range(60)],
        "note": [f"patient number {i} slept rather well" for i in range(60)],
        "ecg": [RNG.normal(size=4) for _ in range(60)],
        "void": [None] * 60,
        "smokes": [True, False] * 30,
        "split": ["train", "train", "val", "test"] * 15,
        "outcome": ["ill", "well"] * 30,
    }
)


def test_a_survey_says_what_each_column_is_and_why():
    kinds = {kind.column: kind for kind in survey(MIXED)}
    assert {name: kind.kind for name, kind in kinds.items()} == {
        "pid": "categories", "age": "numbers", "lab": "numbers", "ward": "categories", "seen": "times", "scan": "paths",
        "note": "text", "ecg": "arrays", "void": "empty", "smokes": "booleans", "split": "categories", "outcome": "categories",
    }  # fmt: skip
    assert all(kind.reason for kind in kinds.values())
    assert (kinds["ward"].rows, kinds["ward"].holes, kinds["ward"].distinct) == (60, 20, 2)
    assert kinds["lab"].fault == "nearly"
    assert kinds["lab"].examples == ((0, "'<0.1'"),)
    assert "60 distinct names in 60 cells" in kinds["pid"].warning
    with pytest.raises(DataError, match="two columns named 'age'"):
        survey(pd.concat([MIXED, MIXED[["age"]]], axis=1))


def test_a_draft_is_a_file_of_columns_that_can_be_read(tmp_path):
    drafted = draft(MIXED)
    reasons = drafted.pop("reasons")
    assert set(reasons) == set(MIXED.columns)
    assert drafted == {
        "modalities": {
            "scan": {"kind": "image", "column": "scan"},
            "note": {"kind": "text", "column": "note"},
            "ecg": {"kind": "vector", "column": "ecg"},
            "table": {"kind": "tabular", "columns": ["age", "lab", "ward", "smokes"], "numbers": ["lab"]},
        },
        "target": "outcome",
        "split": "split",
    }
    assert "left out" in reasons["pid"]
    assert "left out" in reasons["seen"]
    (tmp_path / "columns.yaml").write_text(yaml.safe_dump(drafted))
    read = read_columns(tmp_path / "columns.yaml")
    assert read["modalities"]["table"] == kg.tabular(["age", "lab", "ward", "smokes"], numbers=["lab"])


def test_a_table_says_what_its_columns_were_taken_for():
    readers = {"v": kg.tabular(["age", "ward", "lab"], categories=["lab"]), "note": kg.text("note")}
    with pytest.warns(UserWarning, match=r"'lab' in \d+ of 60 cells"):
        data = kg.Table.from_pandas(MIXED, modalities=readers, target="outcome", split="split", group="pid")
    told = {kind.column: (kind.kind, kind.role) for kind in data.columns_}
    assert told == {
        "age": ("numbers", "input of v (tabular)"),
        "ward": ("categories", "input of v (tabular)"),
        "lab": ("categories", "input of v (tabular)"),
        "note": ("text", "input of note (text)"),
        "outcome": ("categories", "target (classification, 2 classes)"),
        "pid": ("categories", "group"),
        "split": ("categories", "split"),
    }
    assert "told by categories=" in next(kind.reason for kind in data.columns_ if kind.column == "lab")
    assert not any(kind.fault or kind.warning for kind in data.columns_)
