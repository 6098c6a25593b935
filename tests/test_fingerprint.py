"""Fingerprints are of content: not of times, places, addresses in memory or printed forms."""

from __future__ import annotations

import datetime
import decimal
import hashlib
import io
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from kintsugi.core.batch import Batch
from kintsugi.core.errors import ConfigError, DataError
from kintsugi.core.methods import create
from kintsugi.core.schema import Modality, Schema
from kintsugi.data import content, datasets
from kintsugi.data.content import content_digest, file_digest
from kintsugi.data.dataset import TensorSource
from kintsugi.data.media import image
from kintsugi.data.readers import tabular, text, vector
from kintsugi.data.table import Table
from kintsugi.imperfect import mcar
from kintsugi.tasks import Classification
from kintsugi.testing.fixture import toy
from kintsugi.training.trainer import Trainer


def picture(level: int, mode: str = "L") -> bytes:
    memory = io.BytesIO()
    Image.new(mode, (6, 6), level).save(memory, "png")
    return memory.getvalue()


def of_cells(cells: list[Any], reader: Any = None, **options: Any) -> Table:
    frame = pd.DataFrame({"x": pd.Series(cells, dtype=object), "y": ["a", "b"] * (len(cells) // 2)})
    return Table.from_pandas(frame, modalities={"m": reader or vector("x")}, target="y", **options)


def with_files(folder: Path, levels: tuple[int, ...] = (1, 2, 3, 4), absolute: bool = False) -> Table:
    folder.mkdir(exist_ok=True)
    for place, level in enumerate(levels):
        (folder / f"{place}.png").write_bytes(picture(level))
    paths = [str(folder / f"{place}.png") if absolute else f"{place}.png" for place in range(len(levels))]
    return of_cells(paths, image("x", 6, 1), root=folder)


# files --------------------------------------------------------------------------------------------------------------
def test_the_times_of_files_do_not_count(tmp_path: Path) -> None:
    before = with_files(tmp_path / "a").fingerprint
    for file in (tmp_path / "a").iterdir():
        os.utime(file, (1, 1))
    assert of_cells([f"{n}.png" for n in range(4)], image("x", 6, 1), root=tmp_path / "a").fingerprint == before


@pytest.mark.parametrize("absolute", [False, True])
def test_a_copy_in_another_folder_is_the_same_table(tmp_path: Path, absolute: bool) -> None:
    before = with_files(tmp_path / "a", absolute=absolute).fingerprint
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    names = [str(tmp_path / "b" / f"{n}.png") if absolute else f"{n}.png" for n in range(4)]
    assert of_cells(names, image("x", 6, 1), root=tmp_path / "b").fingerprint == before


def test_the_bytes_of_files_count_also_at_the_same_size_and_time(tmp_path: Path) -> None:
    before = with_files(tmp_path / "a")
    found = (tmp_path / "a" / "0.png").stat()
    other = picture(9)
    assert len(other) == found.st_size
    assert with_files(tmp_path / "b", (9, 2, 3, 4)).fingerprint != before.fingerprint
    (tmp_path / "a" / "0.png").write_bytes(other)
    os.utime(tmp_path / "a" / "0.png", ns=(found.st_atime_ns, found.st_mtime_ns))
    again = of_cells([f"{n}.png" for n in range(4)], image("x", 6, 1), root=tmp_path / "a")
    assert again.fingerprint == with_files(tmp_path / "b", (9, 2, 3, 4)).fingerprint


def test_which_row_has_which_file_counts(tmp_path: Path) -> None:
    one = with_files(tmp_path / "a")
    turned = of_cells(["1.png", "0.png", "2.png", "3.png"], image("x", 6, 1), root=tmp_path / "a")
    gone = of_cells(["0.png", "1.png", "2.png", "none.png"], image("x", 6, 1), root=tmp_path / "a")
    assert len({one.fingerprint, turned.fingerprint, gone.fingerprint}) == 3


def test_a_path_that_is_also_read_as_text_counts_as_text_too(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        with_files(tmp_path / folder)

    def fingerprint(folder: str) -> str:
        frame = pd.DataFrame({"x": [str(tmp_path / folder / f"{n}.png") for n in range(4)], "y": list("abab")})
        return Table.from_pandas(frame, modalities={"m": image("x", 6, 1), "name": text("x")}, target="y").fingerprint

    assert fingerprint("a") != fingerprint("b")
    before = fingerprint("a")
    (tmp_path / "a" / "0.png").write_bytes(picture(77))
    assert fingerprint("a") != before


def test_an_old_file_is_read_once_in_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"one")
    os.utime(file, (1, 1))
    opened: list[Path] = []
    plain = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *a, **k: opened.append(self) or plain(self, *a, **k))
    moment = file.stat().st_ctime
    monkeypatch.setattr(content.time, "time", lambda: moment + 0.5)
    assert file_digest(file) == file_digest(file)
    assert len(opened) == 2  # it may be written again within the resolution of its time
    monkeypatch.setattr(content.time, "time", lambda: moment + 60)
    assert file_digest(file) == file_digest(file)
    assert len(opened) == 3
    file.write_bytes(b"another one")
    os.utime(file, (1, 1))
    assert file_digest(file) == hashlib.sha256(b"another one").digest()


# cells --------------------------------------------------------------------------------------------------------------
def test_numbers_in_the_middle_of_long_cells_count() -> None:
    one = np.zeros((2, 2000))
    other = one.copy()
    other[1, 1000] = 1

    def nested(values: np.ndarray) -> np.ndarray:
        rows = np.empty(2, dtype=object)  # as Arrow gives nested lists
        rows[:] = list(values)
        return rows

    forms: list[Callable[[np.ndarray], Any]] = [
        np.ndarray.tolist, nested, torch.from_numpy, lambda v: v.astype(np.int32), lambda v: {"a": v},
        lambda v: torch.from_numpy(v).to(torch.bfloat16),
    ]  # fmt: skip
    for form in forms:
        assert content_digest(form(one)) == content_digest(form(one.copy()))
        assert content_digest(form(one)) != content_digest(form(other))


VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**70, 0.0, -0.0, 1.0, float("nan"), float("inf"), 1j, "", "1", "None", "ab", b"", b"ab", b"1",
    pd.NA, pd.NaT, decimal.Decimal("1"), decimal.Decimal("1.0"), datetime.date(2020, 1, 1), datetime.datetime(2020, 1, 1),
    datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC), pd.Timestamp(2020, 1, 1, nanosecond=1), datetime.time(1),
    datetime.timedelta(1), pd.Timedelta(1, "ns"), pd.Timedelta(2, "ns"), pd.Timedelta(86.4, "s"),
    uuid.UUID(int=1), Path("ab"), [], [[]], [1, 2],
    [1.0, 2.0], [[1], 2], [1, [2]], ["a", "b"], ["ab"], {}, {"a": 1}, {"a": 2}, {1, 2}, {1, 3}, np.zeros(2),
    np.zeros(2, np.float32), np.zeros((2, 1)), np.zeros(2, np.int64), np.array(["a", "b"]), np.array([None, 1], dtype=object),
    np.datetime64("2020-01-01"), torch.zeros(2), torch.zeros(2, dtype=torch.int32), torch.zeros(1, 2),
    Image.new("L", (2, 2)), Image.new("L", (2, 2), 1), Image.new("RGB", (2, 2)), Image.new("L", (1, 4)),
)  # fmt: skip


def test_each_value_has_a_digest_of_its_own() -> None:
    digests = [content_digest(value) for value in VALUES]
    twins = [(i, j) for i in range(len(VALUES)) for j in range(i) if digests[i] == digests[j]]
    assert twins == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.float64(0.5), 0.5), (np.int16(3), 3), (np.bool_(True), True), (np.str_("a"), "a"), ((1, 2), [1, 2]),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}), (bytearray(b"a"), b"a"), (memoryview(b"a"), b"a"),
        (np.arange(4)[::2], np.array([0, 2])), (np.arange(3, dtype=">i4"), np.arange(3, dtype="<i4")),
        (torch.arange(6).reshape(2, 3).T, torch.arange(6).reshape(2, 3).T.contiguous()),
        (torch.ones(2, requires_grad=True), torch.ones(2)), (float("nan"), -float("nan")),
    ],
)  # fmt: skip
def test_the_same_content_has_one_digest(one: Any, other: Any) -> None:
    assert content_digest(one) == content_digest(other)


def test_digests_are_those_of_another_process() -> None:
    script = (
        "from PIL import Image\nfrom kintsugi.data.content import content_digest\n"
        "print(content_digest([Image.new('L', (4, 4), 7), {'b', 'a', 'c'}, {'x': b'1', 'y': None}]).hex())"
    )
    own = content_digest([Image.new("L", (4, 4), 7), {"b", "a", "c"}, {"x": b"1", "y": None}]).hex()
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    assert result.stdout.strip() == own


class Odd:
    """A type that nobody knows."""


def test_a_cell_of_an_unknown_type_is_named_with_column_row_and_type() -> None:
    data = of_cells(["one", "two", Odd(), "four"], text("x"))
    with pytest.raises(
        DataError, match=r"column 'x', row 2 \(counted from 0\) holds a value of type .*Odd, whose content"
    ):
        data.fingerprint  # noqa: B018


def test_equal_pictures_in_cells_are_one_table() -> None:
    def fingerprint(level: int) -> str:
        return of_cells([Image.new("L", (4, 4), level) for _ in range(4)], image("x", 4, 1)).fingerprint

    assert fingerprint(3) == fingerprint(3) != fingerprint(4)


# what stays as it was -----------------------------------------------------------------------------------------------
def test_sets_that_come_with_the_library_keep_their_fingerprints() -> None:
    known = {"factors": "fb9d56d771abd9c3", "handwritten": "3288db1acab4c695", "avdigits": "80cbccb34d08a638"}
    assert {name: datasets.load(name).fingerprint for name in known} == known  # those of version 0.1.0


def test_tables_of_plain_columns_keep_their_fingerprints() -> None:
    frame = pd.DataFrame({"a": np.arange(6.0), "b": pd.array([1, None] * 3, dtype="Int64"), "c": list("uvuvuv")})
    frame["s"], frame["y"] = pd.Categorical(list("pqpqpq")), [0, 1] * 3
    data = Table.from_pandas(frame, target="y", modalities={"t": tabular(["a", "b", "s"]), "w": text("c")})
    assert data.fingerprint == "8c2d9a5e10bd4388"  # that of version 0.1.0
    assert data.with_missing(mcar(0.5)).fingerprint == "af934738e213d8a5"


# checkpoints --------------------------------------------------------------------------------------------------------
def named(method: str = "mean_fusion", trainer: dict[str, Any] | None = None, rows: int = 48, **hyper: Any) -> str:
    from kintsugi.core.data import Splits

    data = toy(rows=rows, modalities=2)
    return Trainer(**trainer or {})._name_run(create(method, data.schema, **hyper), Splits(*data.split()))


def test_a_run_is_named_by_what_decides_it(monkeypatch: pytest.MonkeyPatch) -> None:
    own = named()
    assert named() == own == named(trainer={"progress": False, "checkpoint": "somewhere"})
    others = [named("late_fusion"), named(trainer={"lr": 0.5}), named(rows=60), named(dim=8)]
    monkeypatch.setattr("kintsugi.core.versions.TRAINING", 2)
    assert len({own, *others, named()}) == 6


def test_where_a_method_stands_does_not_name_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from kintsugi.core.methods import METHODS

    own = named()
    monkeypatch.setattr(METHODS["mean_fusion"], "__module__", "kintsugi.elsewhere")
    assert named() == own


def test_an_argument_whose_content_nobody_knows_is_refused_with_a_checkpoint() -> None:
    from kintsugi.core.data import Splits

    data = toy(rows=48, modalities=2)
    pipeline = create("mean_fusion", data.schema)
    pipeline.model.hyper["odd"] = Odd()
    with pytest.raises(ConfigError, match=r"an argument of MeanFusion is a value of type .*Odd.*without checkpoint"):
        Trainer()._name_run(pipeline, Splits(*data.split()))


# what 0.1.0 took for the same ---------------------------------------------------------------------------------------
def of_column(values: Any, **options: Any) -> str:
    frame = pd.DataFrame({"k": values, "y": ["a", "b", "a", "b"]})
    return Table.from_pandas(frame, modalities={"m": tabular(["k"])}, target="y", **options).fingerprint


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pd.Series([1, 2, 1, -1], dtype="int8"), pd.Series([1, 2, 1, 255], dtype="int16")),
        (pd.Series([1, 2, 1, -1], dtype="Int16"), pd.Series([1, 2, 1, 65535], dtype="Int32")),
        (pd.Series([1, 2, 1, -1]), pd.Series([1, 2, 1, 2**64 - 1], dtype="uint64")),
        (pd.Categorical(np.array([1, 2, 1, -1], "int8")), pd.Categorical(np.array([1, 2, 1, 255], "int16"))),
    ],
    ids=["small", "with NA", "unsigned", "categories"],
)  # fmt: skip
def test_numbers_that_share_their_bits_in_other_types_are_other_tables(one: Any, other: Any) -> None:
    frames = [pd.DataFrame({"a": np.arange(4.0), "k": values, "y": list("abab")}) for values in (one, other)]
    readers = {"m": tabular(["a"])}  # k is no input, so that nothing but its own bits can tell
    first, second = (
        Table.from_pandas(frame, modalities=readers, target="y", group="k").fingerprint for frame in frames
    )
    assert first != second


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "Int64", "UInt16", "int64[pyarrow]"])
def test_whole_numbers_are_one_table_in_every_type(dtype: str) -> None:
    values = pd.Series([3, 1, 2, 0])
    if dtype == "int64[pyarrow]":
        pytest.importorskip("pyarrow")
    else:
        assert of_column(values.astype(dtype)) == of_column(values)
    assert of_column(values.astype(dtype)) != of_column(values + 1)


def test_text_is_one_table_whether_it_is_object_string_or_category() -> None:
    cells = ["u", None, "v", "u"]
    prints = {
        of_column(values)
        for values in (pd.Series(cells, dtype=object), pd.Series(cells, dtype="string"), pd.Categorical(cells))
    }
    assert len(prints) == 1
    assert of_column(pd.Series(["u", None, "v", "v"], dtype=object)) not in prints


def test_the_column_of_weights_counts() -> None:
    frame = pd.DataFrame({"a": np.arange(4.0), "w": [1.0, 2, 3, 4], "v": [4.0, 3, 2, 1], "y": list("abab")})
    readers = {"one": tabular(["a"]), "two": tabular(["w", "v"])}
    prints = [
        Table.from_pandas(frame, modalities=readers, target="y", **more).fingerprint
        for more in ({}, {"weight": "w"}, {"weight": "v"})
    ]
    assert len(set(prints)) == 3


def test_the_order_of_modalities_counts_where_their_columns_do_not_tell_it() -> None:
    frame = pd.DataFrame({"a": np.arange(4.0), "b": [1.0, 2, 1, 2], "y": list("abab")})
    for one, two in ((["a", "b"], ["b", "a"]), (["a", "b"], ["a"]), (["a"], ["b"])):
        prints = {
            Table.from_pandas(frame, modalities=readers, target="y").fingerprint
            for readers in ({"p": tabular(one), "q": tabular(two)}, {"q": tabular(two), "p": tabular(one)})
        }
        assert len(prints) == 2, (one, two)


def of_tensors(inputs: dict[str, torch.Tensor], **more: Any) -> str:
    schema = Schema((Modality("a", "vector", (3,)), Modality("b", "vector", (3,))), Classification(["p", "q"]))
    batch = Batch(("a", "b"), inputs, torch.ones(6, 2, dtype=torch.bool), torch.arange(6), torch.arange(6) % 2, **more)
    return TensorSource(schema, batch).fingerprint


def test_tensors_count_with_their_names_types_and_places() -> None:
    x, y = torch.rand(6, 3), torch.rand(6, 3)
    seen = torch.tensor([[True, False, True]] * 6)
    usual = of_tensors({"a": x, "b": y})
    assert of_tensors({"b": y, "a": x}) == usual  # the schema has the order
    bits = x.view(torch.int32)
    others = [
        of_tensors({"b": x, "a": y}),
        of_tensors({"a": bits, "b": y}),
        of_tensors({"a": x, "b": y}, mask={"a": seen}),
        of_tensors({"a": x, "b": y}, mask={"b": seen}),
        of_tensors({"a": x, "b": y}, mask={"b": seen}, weight=torch.ones(6)),
    ]
    assert len({usual, *others}) == 6


class Gain(nn.Module):
    """A module whose number is no parameter."""

    def __init__(self, gain: float, names: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.gain, self.names = gain, names


def test_modules_of_equal_state_that_compute_otherwise_have_digests_of_their_own() -> None:
    linear = nn.Linear(2, 2)
    modules = [
        nn.Sequential(linear, nn.ReLU()), nn.Sequential(linear, nn.GELU()), nn.Sequential(linear, nn.Dropout(0.1)),
        nn.Sequential(linear, nn.Dropout(0.9)), nn.Sequential(linear), Gain(1.0), Gain(2.0), Gain(1.0, ("a",)),
    ]  # fmt: skip
    assert len({content_digest(module) for module in modules}) == len(modules)
    assert content_digest(Gain(2.0, ("a",))) == content_digest(Gain(2.0, ("a",)))
    assert content_digest(nn.Sequential(linear, nn.ReLU())) == content_digest(modules[0])
