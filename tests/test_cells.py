"""What a cell of a table may hold: read as what it is, a hole, or an error that names it; never something else in silence."""

from __future__ import annotations

import base64
import io
import json
import os
import struct
import warnings
import zipfile
import zlib
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import kintsugi as kg
from kintsugi.core.errors import ConfigError, DataError
from kintsugi.core.schema import Modality
from kintsugi.data import cells, media, path_text, sound_files, table_source
from kintsugi.data.cells import ReadError, nothing
from kintsugi.data.columns import read_columns
from kintsugi.data.content import content_digest
from kintsugi.data.foreign_cells import plain
from kintsugi.imperfect.operator import OPERATORS

Image = pytest.importorskip("PIL.Image")
soundfile = pytest.importorskip("soundfile")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
NOISE = np.random.default_rng(3)
RATE = 8000


def column(values: list[Any]) -> pd.Series:
    held = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):
        held[row] = value
    return pd.Series(held, dtype=object)


def table(values: list[Any], reader: Any, **options: Any) -> kg.Table:
    frame = pd.DataFrame({"x": column(values), "y": [row % 2 for row in range(len(values))]})
    return kg.Table.from_pandas(frame, target="y", task="classification", modalities={"m": reader}, **options)


def read(cell: Any, reader: Any, **options: Any) -> torch.Tensor:
    batch = table([cell, cell], reader, **options).batch([0])
    assert bool(batch.present.all())
    return batch.inputs["m"][0]


def refused(cell: Any, reader: Any, words: str) -> None:
    """It is an error, and with ``on_error="missing"`` it is absent and listed."""
    with pytest.raises(DataError, match=rf"row 0 \(counted from 0\), modality 'm': .*{words}"):
        table([cell, cell], reader).batch([0])
    lenient = table([cell, cell], reader, on_error="missing")
    assert not lenient.batch([0]).present.any()
    assert len(lenient.problems) == 1


def encoded(picture: Any, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def sound(wave: np.ndarray, rate: int = RATE, kind: str = "WAV", subtype: str = "PCM_16", **options: Any) -> bytes:
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", rate, 1, format=kind, subtype=subtype, **options) as file:
        file.write(wave.astype(np.float32))
    return buffer.getvalue()


def tone(seconds: float = 0.25, hz: float = 500, rate: int = RATE, level: float = 0.5) -> np.ndarray:
    return level * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)


PNG = encoded(Image.new("RGB", (8, 8), (255, 0, 0)))
READERS = {
    "image": kg.image("x", size=8, channels=3),
    "audio": kg.audio("x", RATE, 0.1),
    "series": kg.series("x", length=4, channels=1),
    "vector": kg.vector("x"),
}
GOOD = {"image": PNG, "audio": sound(tone()), "series": [1.0, 2.0, 3.0, 4.0], "vector": [1.0, 2.0, 3.0]}


# text that is no path -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", list(READERS))
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("3 1 4 1 5", "numbers in text, not a path"),
        ("0.5;0.25;1e-3", "numbers in text"),
        ("(9, 8.5)", "numbers in text"),
        ("np.array([0.1, 0.2], dtype=float32)", "numbers in text"),
        ("tensor([[1., 2.],\n        [3., 4.]])", "numbers in text"),
        ("array([ 1, 2, ..., 9])", "numbers in text"),
        ("data:audio/wav;base64,UklGRg==", "data: URL"),
        (base64.b64encode(PNG).decode(), "base64, not a path"),
        (base64.b64encode(sound(tone(0.01))).decode(), "base64, not a path|longer than a name"),
        ("https://example.org/pictures/1.png", "is a URL, not a path; files are not fetched"),
        ("file:///tmp/pictures/1.png", "leave out 'file://'"),
        ('{"bytes": "abc"}', "is text, not a path"),
        ("<svg xmlns='x'/>", "is text, not a path"),
        ("a finding\nof two lines", "several lines"),
        ("pictures/\0.png", "holds NUL"),
        ("ab " * 100, "longer than a name may be"),
        ("deep/" * 900, "longer than a name may be"),
    ],
)
def test_text_that_is_no_path_is_refused_and_is_no_hole(kind: str, text: str, words: str) -> None:
    data = table([GOOD[kind], text], READERS[kind], on_error="missing")
    assert bool(data.present[1])
    with pytest.raises(DataError, match=rf"row 1 \(counted from 0\), modality 'm': column 'x': .*{words}"):
        table([GOOD[kind], text], READERS[kind]).batch([1])
    assert not data.batch([1]).present.any()
    assert [problem.row for problem in data.problems] == [1]


@pytest.mark.parametrize("text", ["1", "-2.5", "1e3", "nan"])
def test_one_number_is_a_name_of_pictures_and_sound_and_none_of_arrays(text: str, tmp_path: Path) -> None:
    for kind in ("series", "vector"):
        with pytest.raises(DataError, match="numbers in text"):
            table([GOOD[kind], text], READERS[kind]).batch([1])
    for kind in ("image", "audio"):
        with pytest.warns(UserWarning, match="1 of 1 paths"):
            data = table([GOOD[kind], text], READERS[kind])
        assert data.present[:, 0].tolist() == [True, False]
    (tmp_path / text).write_bytes(PNG)
    assert read(text, READERS["image"], root=tmp_path)[0].min() == 1


def test_what_a_file_is_called_counts_before_what_it_looks_like(tmp_path: Path) -> None:
    for name in ("1 2 3", "(4, 5)", "{'a'}", "back\\slash", " blank ", "data:x"):
        (tmp_path / name).write_bytes(PNG)
        assert read(name, READERS["image"], root=tmp_path).sum() == 64


def test_a_path_written_otherwise_is_named(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "1.png").write_bytes(PNG)
    for text, words in (("scans/1.png ", "blanks at its ends"), ("scans\\1.png", "has backslashes")):
        with pytest.raises(DataError, match=words):
            table([PNG, text], READERS["image"], root=tmp_path).batch([1])
    with pytest.warns(UserWarning, match="1 of 1 paths"):  # neither is there
        assert not table([PNG, "scans\\2.png"], READERS["image"], root=tmp_path).present[1]


def test_paths_that_no_system_can_have_are_no_text_either() -> None:
    for path in (Path("x" * 300), Path("a\0b")):
        with pytest.raises(DataError, match="is text, not a path"):
            table([PNG, path], READERS["image"]).batch([1])


# paths that lead nowhere --------------------------------------------------------------------------------------------
def paths(folder: Path, there: int, gone: int) -> list[str]:
    for row in range(there):
        (folder / f"{row}.png").write_bytes(PNG)
    return [f"{row}.png" for row in range(there)] + [f"gone{row}.png" for row in range(gone)]


def test_half_of_the_paths_gone_is_said_and_less_is_not(tmp_path: Path) -> None:
    names = paths(tmp_path, 11, 11)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert int(table([*names[:-1], None, ""], READERS["image"], root=tmp_path).present.sum()) == 11
    with pytest.warns(UserWarning, match="11 of 22 paths") as said:
        table([*names, None], READERS["image"], root=tmp_path)
    (words,) = [str(warning.message) for warning in said]
    assert "modality 'm': 11 of 22 paths in column 'x' lead to no file; the first is in row 11" in words
    assert str(tmp_path / "gone0.png") in words
    assert "root=" in words


def test_all_paths_gone_is_an_error_from_ten_on(tmp_path: Path) -> None:
    names = paths(tmp_path, 0, table_source.ENOUGH_PATHS)
    with pytest.raises(DataError, match="all 10 paths in column 'x' lead to no file"):
        table(names, READERS["image"], root=tmp_path)
    with pytest.warns(UserWarning, match="all 9 paths"):
        assert not table(names[:-1], READERS["image"], root=tmp_path).present.any()


def test_rows_answered_in_another_folder_are_not_answered_in_silence(tmp_path: Path) -> None:
    names = paths(tmp_path, 12, 0)
    trained = table(names, READERS["image"], root=tmp_path)
    frame = pd.DataFrame({"x": names})
    with pytest.raises(DataError, match=r"looked for at .*0\.png.*root=FOLDER"):
        kg.Table.from_reading(frame, trained.reading)
    assert kg.Table.from_reading(frame, trained.reading, root=tmp_path).present.all()


# cells of other libraries -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "cell",
    [
        (1, 2.5, 3),
        [Decimal("1"), Decimal("2.5"), Decimal(3)],
        [np.float32(1), np.float64(2.5), np.int8(3)],
        [torch.tensor(1.0), torch.tensor(2.5), torch.tensor(3.0)],
        torch.tensor([1, 2.5, 3], requires_grad=True),
        torch.tensor([1, 2.5, 3], dtype=torch.bfloat16),
        torch.tensor([1, 2.5, 3]).to_sparse(),
        pa.scalar([1, 2.5, 3]),
        pa.array([1, 2.5, 3]),
        pa.chunked_array([[1.0], [2.5, 3]]),
        [pa.scalar(1.0), pa.scalar(2.5), pa.scalar(3.0)],
        memoryview(np.array([1, 2.5, 3])),
        np.array([Decimal(1), Decimal("2.5"), 3], dtype=object),
        "[1, 2.5, 3]",
        np.array("[1, 2.5, 3]"),
    ],
    ids=lambda cell: type(cell).__module__ + "." + type(cell).__name__,
)
def test_numbers_of_any_library_are_a_vector(cell: Any) -> None:
    assert read(cell, kg.vector("x")).tolist() == [1, 2.5, 3]
    assert read(cell, kg.series("x"))[:, 0].tolist() == [1, 2.5, 3]


@pytest.mark.parametrize(
    "cell",
    [
        np.float32("nan"), np.array(np.nan), np.array(None, dtype=object), np.datetime64("NaT"), Decimal("NaN"),
        pa.scalar(None), pa.scalar(None, pa.list_(pa.float64())), torch.zeros(0), torch.tensor(float("nan")), memoryview(b""),
        bytearray(), {}, {"bytes": None, "path": None}, {"bytes": b"", "path": ""},
        {"array": None, "path": None, "sampling_rate": 8000}, np.str_(" "),
    ],
    ids=lambda cell: type(cell).__name__,
)  # fmt: skip
def test_nothing_in_any_library_is_a_hole(cell: Any) -> None:
    assert nothing(cell)
    for kind, reader in READERS.items():
        assert table([GOOD[kind], cell], reader).present[:, 0].tolist() == [True, False]


@pytest.mark.parametrize(
    "cell", [0, False, np.int64(0), 0.0, b" ", [None], {"a": 0}, np.zeros(1), torch.zeros(1), Decimal(0), np.array("x")]
)
def test_zero_and_the_like_are_no_holes(cell: Any) -> None:
    assert not nothing(cell)


@pytest.mark.parametrize("kind", list(READERS))
@pytest.mark.parametrize(
    "cell", [3, np.float64(2.5), np.array(7), torch.tensor(1.5), True, Decimal(2), pa.scalar(4)], ids=repr
)
def test_a_number_alone_is_said_to_be_one(kind: str, cell: Any) -> None:
    refused(cell, READERS[kind], "is one number, .*, where numbers or a file are expected")


@pytest.mark.parametrize("kind", ["series", "vector"])
@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (["1", "2"], "holds <U1"),
        ([1, [2, 3]], "no array of numbers"),
        ([1, "x", None], "no array of numbers"),
        ([[]], r"holds no numbers \(its shape is \[1, 0\]\)"),
        ([10**400, 1], "no array of numbers"),
        (f"[{'9' * 5000}]", "no array of numbers"),
        ("[" * 20_000, "no array of numbers"),
        ("[1 2]", "no array of numbers"),
        ([1 + 2j], "holds complex128"),
        ({"values": [1]}, "holds dict, not numbers"),
        ([{"a": 1}], "holds dict, not numbers"),
        (pd.Timestamp("2020-01-01"), "no array of numbers"),
        (np.array(["2020-01-01"], dtype="datetime64[D]"), "holds datetime64"),
        (object(), "no array of numbers"),
    ],
)
def test_what_holds_no_numbers_is_one_error(kind: str, cell: Any, words: str) -> None:
    refused(cell, READERS[kind], words)


def test_an_empty_list_is_a_hole_however_it_is_written() -> None:
    for kind in ("series", "vector"):
        data = table([GOOD[kind], [], "[]", " [ ] ", np.zeros((0, 3))], READERS[kind])
        assert data.present[:, 0].tolist() == [True, False, False, False, False]


def test_null_is_a_masked_step_in_one_axis_and_in_two() -> None:
    for cell in ("[[1, 2], [null, 4], [5, 6]]", [[1, 2], [None, 4], [5, 6]], [[1, 2], [float("nan"), 4], [5, 6]]):
        batch = table([cell, cell], kg.series("x")).batch([0])
        assert batch.mask["m"][0].tolist() == [True, False, True]
        assert batch.inputs["m"][0].tolist() == [[1, 2], [0, 0], [5, 6]]
    assert table(["[1, null, 3]"] * 2, kg.series("x")).batch([0]).mask["m"][0].tolist() == [True, False, True]


def test_nan_in_every_vector_is_said_to_be_nan() -> None:
    with pytest.raises(DataError, match="NaN in present data"):
        table([[1.0, float("nan")]] * 4, kg.vector("x")).batch([0])


def test_arrow_tensors_keep_their_shape(tmp_path: Path) -> None:
    values = NOISE.normal(size=(4, 5, 3))
    held = pa.FixedShapeTensorArray.from_numpy_ndarray(values)
    pq.write_table(pa.table({"x": held, "y": list("abab")}), tmp_path / "t.parquet")
    data = kg.Table.from_parquet(tmp_path / "t.parquet", target="y", modalities={"m": kg.series("x")})
    assert torch.allclose(data.batch(range(4)).inputs["m"], torch.from_numpy(values).float())
    frame = pd.read_parquet(tmp_path / "t.parquet", dtype_backend="pyarrow")
    again = kg.Table.from_reading(frame, data.reading)
    assert torch.equal(again.batch(range(4)).inputs["m"], data.batch(range(4)).inputs["m"])
    assert np.array_equal(plain(held[1]), values[1])


def test_text_of_buffers_and_scalars_reads_as_text_and_lists_are_refused() -> None:
    def said(cell: Any) -> str:
        return bytes(int(v) - 1 for v in read(cell, kg.text("x")) if v).decode()

    for cell in ("hi", b"hi", bytearray(b"hi"), memoryview(b"hi"), np.str_("hi"), np.bytes_(b"hi"), pa.scalar("hi")):
        assert said(cell) == "hi"
    assert (said(7), said(7.0), said(np.float64(7)), said(7.5), said("7.0")) == ("7", "7", "7", "7.5", "7.0")
    for cell in (["a", "b"], ("a",), {"a": 1}, np.array(["a", "b"]), torch.ones(2), pa.array(["a"])):
        refused(cell, kg.text("x"), "not text; join its words first")


# pictures -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "HSV", "YCbCr", "I;16", "F", "La", "PA"])
def test_a_picture_of_pillow_reads_as_its_file_would(mode: str) -> None:
    colour = Image.fromarray(NOISE.integers(0, 256, (12, 9, 3), dtype=np.uint8)).resize(
        (90, 120), Image.Resampling.BICUBIC
    )
    picture = {
        "I;16": lambda: Image.fromarray(NOISE.integers(0, 65536, (12, 9), dtype=np.uint16)),
        "F": lambda: Image.fromarray(NOISE.random((12, 9), dtype=np.float32)),
        "La": lambda: colour.convert("LA").convert("La"),
        "PA": lambda: colour.convert("PA"),
    }.get(mode, lambda: colour.convert(mode))()
    assert picture.mode == mode
    reader = kg.image("x", size=16, channels=3)
    same = (
        picture
        if mode in ("I;16", "F")
        else picture.convert("LA" if mode == "La" else "RGBA" if mode == "PA" else mode)
    )
    file = same if mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "F") else same.convert("RGB")
    expected = read(encoded(file, "TIFF" if mode == "F" else "PNG"), reader)
    assert torch.allclose(read(picture, reader), expected, atol=1e-6)
    records = [{"x": picture, "y": "a"}, {"x": picture, "y": "b"}]
    data = kg.Table.from_records(records, target="y", modalities={"m": reader})
    assert torch.allclose(data.batch([0]).inputs["m"][0], expected, atol=1e-6)


def test_a_mode_that_pillow_cannot_convert_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(self: Any, mode: str) -> Any:
        raise ValueError(f"conversion from {self.mode} to {mode} not supported")

    monkeypatch.setattr(Image.Image, "convert", cannot)
    refused(Image.new("YCbCr", (4, 4)), kg.image("x", size=4, channels=3), "from mode YCbCr into RGB .*not supported")


@pytest.mark.parametrize("turn", [1, 3, 6, 8])
def test_the_way_up_counts_in_pictures_of_pillow_too(turn: int) -> None:
    note = Image.Exif()
    note[0x0112] = turn
    pixels = np.zeros((16, 32), np.uint8)
    pixels[:8, :8] = 255
    data = encoded(Image.fromarray(pixels), "JPEG", exif=note, quality=95)
    opened = Image.open(io.BytesIO(data))
    assert torch.equal(read(opened, kg.image("x")), read(data, kg.image("x")))
    bright = read(data, kg.image("x"))[0]
    corner = {1: bright[:8, :8], 3: bright[-8:, -8:], 6: bright[:8, -8:], 8: bright[-8:, :8]}[turn]
    assert float(corner.mean()) > 0.9


def test_what_is_transparent_lies_on_white() -> None:
    shape = np.zeros((10, 10, 4), np.uint8)
    shape[2:5, 2:5, 3] = 255
    expected = torch.ones(10, 10)
    expected[2:5, 2:5] = 0
    for cell in (encoded(Image.fromarray(shape)), Image.fromarray(shape), shape, shape / 255.0, shape[:, :, [0, 3]]):
        assert torch.equal(read(cell, kg.image("x", channels=1))[0], expected)
    half = np.full((4, 4, 4), 128, np.uint8)
    for cell in (encoded(Image.fromarray(half)), half):
        assert torch.allclose(
            read(cell, kg.image("x")), torch.full((3, 4, 4), (128 * 128 + 127 * 255) / 255**2), atol=0.005
        )


def test_a_white_drawing_that_white_would_hide_lies_on_black() -> None:
    shape = np.full((10, 10, 4), 255, np.uint8)
    shape[:, :, 3] = 0
    shape[6:, 1, 3] = 255
    for cell in (encoded(Image.fromarray(shape)), shape):
        seen = read(cell, kg.image("x", channels=3))
        assert float(seen.sum()) == 12
        assert torch.equal(seen[0, 6:, 1], torch.ones(4))


def test_transparent_colours_of_a_palette_and_of_a_key_lie_on_white_too() -> None:
    pixels = np.zeros((6, 6), np.uint8)
    pixels[0, 0] = 1
    palette = Image.fromarray(pixels).convert("P")
    palette.putpalette([0, 0, 0, 200, 0, 0])
    seen = read(encoded(palette, transparency=0), kg.image("x", channels=3))
    assert torch.equal(seen[:, 1, 1], torch.ones(3))
    assert torch.allclose(seen[:, 0, 0], torch.tensor([200 / 255, 0, 0]))
    grey = Image.fromarray(np.full((3, 3), 7, np.uint8))
    assert float(read(encoded(grey, transparency=9), kg.image("x")).max()) == pytest.approx(7 / 255)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_opaque_pictures_are_what_they_were_bit_for_bit(mode: str) -> None:
    pixels = NOISE.integers(0, 256, (20, 20, 4 if mode == "RGBA" else 2), dtype=np.uint8)
    pixels[:, :, -1] = 255
    bare = np.ascontiguousarray(pixels[:, :, :3] if mode == "RGBA" else pixels[:, :, 0])
    for channels in (1, 3):
        reader = kg.image("x", size=7, channels=channels)
        assert torch.equal(read(encoded(Image.fromarray(pixels)), reader), read(encoded(Image.fromarray(bare)), reader))
        assert torch.equal(read(pixels, reader), read(bare, reader))


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "uint16"])
def test_white_is_the_largest_number_of_the_type(kind: str) -> None:
    most = np.iinfo(kind).max
    assert float(read(np.full((3, 3), most, kind), kg.image("x")).min()) == 1
    assert float(read(np.full((3, 3), most // 4, kind), kg.image("x")).max()) == pytest.approx(most // 4 / most)
    if kind[0] == "i":
        refused(np.full((3, 3), -1, kind), kg.image("x"), "pixels run from -1")


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "I;16", "I"])
def test_the_pixels_of_a_picture_are_bounded_before_it_is_decoded(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = mode in media.DEEP
    made = (
        Image.fromarray(np.zeros((10, 20), np.uint16 if mode == "I;16" else np.int32))
        if deep
        else Image.new(mode, (20, 10))
    )
    reader = kg.image("x", size=4, channels=1)
    file, bound = encoded(made, "TIFF" if mode == "I" else "PNG"), "MOST_DEEP_PIXELS" if deep else "MOST_PIXELS"
    monkeypatch.setattr(media, bound, 200)
    assert read(file, reader).shape == (1, 4, 4)
    monkeypatch.setattr(media, bound, 199)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("it is decoded"))
    refused(file, reader, "has 20 x 10 pixels of mode .*; at most 199 are read")
    refused(made, reader, "has 20 x 10 pixels")


def test_without_a_size_the_first_picture_must_not_be_huge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "MOST_OWN_PIXELS", 200)
    for cell in (np.zeros((10, 20)), encoded(Image.new("L", (20, 10)))):
        assert read(cell, kg.image("x")).shape == (1, 10, 20)
    for cell in (np.zeros((3, 67)), encoded(Image.new("L", (67, 3)))):
        with pytest.raises(DataError, match=r"the first picture has 3 x 67 pixels.*image\('x', size=224\)"):
            table([cell, cell], kg.image("x"))
        assert read(cell, kg.image("x", size=9)).shape == (1, 9, 9)


def test_a_bomb_of_a_picture_costs_neither_time_nor_memory() -> None:
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 16, 0, 0, 0, 0)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    refused(bomb, kg.image("x", size=4), r"60000 x 60000 pixels|exceeds limit of \d+ pixels")


# sound --------------------------------------------------------------------------------------------------------------
def test_hugging_face_cells_are_read_by_bytes_path_or_array(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "a.wav").write_bytes(sound(tone()))
    for kind, name in (("image", "a.png"), ("audio", "a.wav")):
        expected = read(GOOD[kind], READERS[kind])
        held = {"bytes": GOOD[kind], "path": "elsewhere"}
        for cell in (held, {"bytes": None, "path": name}, {"path": name}, pa.scalar(held)):
            assert torch.equal(read(cell, READERS[kind], root=tmp_path), expected)
    with pytest.warns(UserWarning, match="1 of 1 paths"):
        assert not table([PNG, {"bytes": None, "path": "gone.png"}], READERS["image"]).present[1]
    refused({"pixels": [1]}, READERS["image"], "holds dict, not numbers")


def test_sound_with_its_rate_is_resampled_from_it() -> None:
    reader = kg.audio("x", RATE, 0.2)
    expected = torch.from_numpy(tone(0.2)).float()
    for rate in (RATE, 16_000, 44_100, 4_000):
        cell = {"array": tone(0.25, rate=rate), "sampling_rate": rate, "path": None}
        assert torch.allclose(read(cell, reader)[40:-40], expected[40:-40], atol=0.01)
    for rate in (None, 0, -8000, 22.5, True, "8000", 999, 1_000_001, float("nan")):
        refused(
            {"array": tone(), "sampling_rate": rate},
            reader,
            "sampling_rate .* must be whole, from 1,000 to 1,000,000 Hz",
        )


def wav_of_rate(rate: int, samples: int = 200) -> bytes:
    body = struct.pack("<h", 8000) * samples
    form = struct.pack("<IHHIIHH", 16, 1, 1, rate, rate * 2 & 0xFFFFFFFF, 2, 16)
    return (
        b"RIFF" + struct.pack("<I", 36 + len(body)) + b"WAVEfmt " + form + b"data" + struct.pack("<I", len(body)) + body
    )


def test_the_rate_of_a_file_is_bounded_on_both_sides() -> None:
    reader = kg.audio("x", RATE, 0.01)
    low, high = sound_files.RATES
    for rate in (low, high):
        assert bool(read(wav_of_rate(rate), reader).any())
    for rate in (low - 1, high + 1, 2**31 - 1, 1):
        refused(wav_of_rate(rate), reader, "samples a second; read are 1,000 to 1,000,000|cannot be decoded")


def test_the_filter_of_a_resampler_is_bounded_by_the_nearest_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    import scipy.signal

    asked: list[tuple[int, int]] = []
    real = scipy.signal.resample_poly

    def watched(wave: np.ndarray, up: int, down: int) -> Any:
        asked.append((up, down))
        return real(wave, up, down)

    monkeypatch.setattr(scipy.signal, "resample_poly", watched)
    sound_files.resampled(np.ones(500), 65_521, 8_000)  # a prime number below the bound: exactly
    sound_files.resampled(np.ones(500), 999_983, 8_000)
    sound_files.resampled(np.ones(5), 8_000, 999_983)
    assert asked[0] == (8_000, 65_521)
    assert max(asked[1]) <= sound_files.MOST_RATIO
    assert asked[1] == asked[2][::-1]
    assert asked[1][0] / asked[1][1] == pytest.approx(8_000 / 999_983, rel=2e-7)


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_floats_beyond_full_scale_are_refused_in_files_as_in_arrays(subtype: str) -> None:
    reader = kg.audio("x", RATE, 0.1)
    assert float(read(sound(tone(level=1.0005), subtype=subtype), reader).abs().max()) == 1
    loud = tone(level=2.5)
    refused(sound(loud, subtype=subtype), reader, r"floats of sound must be in \[-1, 1\]; these reach 2.5")
    refused(loud, reader, r"floats of sound must be in \[-1, 1\]; these reach 2.5")
    late = np.concatenate([tone(1.0), loud])  # beyond what is read
    assert bool(read(sound(late, subtype=subtype), reader).any())


def test_lossy_sound_that_overshoots_is_clipped() -> None:
    square = np.sign(tone(0.5)) * 0.99
    assert float(read(sound(square, kind="OGG", subtype="VORBIS"), kg.audio("x", RATE, 0.4)).abs().max()) <= 1


def test_sound_of_16_bits_in_32_is_said_once_and_whole_32_bits_are_not() -> None:
    wave = (tone(level=0.9) * 32767).astype(np.int32)
    with pytest.warns(UserWarning, match="column 'x' holds sound of 32 bits whose samples reach") as said:
        table([wave] * 6, kg.audio("x", RATE, 0.1)).batch(range(6))
    assert len(said) == 1
    assert "astype('int16')" in str(said[0].message)
    for peak, warns in ((media.QUIET - 1, True), (media.QUIET, False)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            table([np.array([0, -peak], np.int32)] * 2, kg.audio("x", RATE, 0.1))
        assert bool(caught) is warns
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table([np.zeros(9, np.int32)] * 2, kg.audio("x", RATE, 0.1))


def mp3(parts: list[np.ndarray], rate: int, mode: str) -> bytes:
    """Without the first frame, which holds the length."""
    data = sound(np.concatenate(parts), rate, "MP3", "MPEG_LAYER_III", bitrate_mode=mode, compression_level=0.4)
    rates = [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320]
    first = 144 * rates[data[2] >> 4] * 1000 // rate + (data[2] >> 1 & 1)
    return data[first:]


@pytest.mark.parametrize("mode", ["VARIABLE", "CONSTANT"])
@pytest.mark.parametrize("loud_first", [True, False])
@pytest.mark.parametrize("tag", [b"", b"ID3\x04\x00\x00\x00\x00\x02\x00" + bytes(256)])
def test_mp3_without_a_length_is_heard_to_its_end(mode: str, loud_first: bool, tag: bytes) -> None:
    rate = 44_100
    loud, quiet = NOISE.normal(0, 0.2, 2 * rate), np.zeros(2 * rate)
    data = tag + mp3([loud, quiet] if loud_first else [quiet, loud], rate, mode)
    wave = sound_files.decode_audio(data, rate, "x")
    assert len(wave) == pytest.approx(4 * rate, abs=3000)
    level = [float(wave[k * rate + 4000 : (k + 1) * rate - 4000].std()) for k in range(4)]
    assert level == pytest.approx([0.2, 0.2, 0, 0] if loud_first else [0, 0, 0.2, 0.2], abs=0.05)
    assert len(sound_files.decode_audio(data, rate, "x", 1.0)) <= 1.1 * rate + 1


def test_mp3_with_a_length_is_as_long_as_it_says() -> None:
    data = sound(tone(1.0, rate=44_100), 44_100, "MP3", "MPEG_LAYER_III")
    assert len(sound_files.decode_audio(data, 44_100, "x")) == 44_100


def test_a_wav_of_endless_empty_chunks_ends() -> None:
    data = b"RIFF" + struct.pack("<I", 8_000_000) + b"WAVE" + (b"note" + struct.pack("<I", 0)) * 1_000_000
    refused(data, kg.audio("x", RATE, 0.1), "is truncated: no sound in it")


# files --------------------------------------------------------------------------------------------------------------
def npy(shape: tuple[int, ...], dtype: str, data: bytes, order: bool = False) -> bytes:
    head = repr({"descr": dtype, "fortran_order": order, "shape": shape}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + data


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a.npy", b"x")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (npy((10**12,), "<f8", b"\0" * 80), "truncated: 80 bytes for the shape"),
        (npy((2, 2**62), "<f8", b""), "truncated"),
        (npy((-4,), "<f8", b"\0" * 80), "truncated"),
        (npy((3,), "|O", b"\0" * 80), "holds object"),
        (npy((3,), "|S3", b"\0" * 80), r"holds \|S3"),
        (b"\x93NUMPY\x01\x00\x10\x00{'descr': (((((", "head of the .npy file is damaged"),
        (b"\x93NUMPY\x09\x00", "no array of numbers"),
        (b"\x93NUMPY", "head of the .npy file is damaged"),
        (zipped(), "is no .npy file"),
        (zipped()[:40], "is no .npy file"),
        (b"", "is no .npy file"),
        (npy((0,), "<f8", b""), "holds no numbers"),
    ],
    ids=lambda value: value if isinstance(value, str) else "data",
)
def test_a_damaged_npy_file_is_one_error(data: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(data)
    for kind in ("series", "vector"):
        refused(str(tmp_path / "a.npy"), READERS[kind], rf"a\.npy: .*{words}")


@pytest.mark.parametrize("dtype", ["<f8", ">f4", "<i2", "|b1", "<f2"])
def test_npy_files_of_either_order_are_read(dtype: str, tmp_path: Path) -> None:
    values = (np.arange(12).reshape(4, 3) % 2).astype(dtype)
    for order in "CF":
        np.save(tmp_path / "a.npy", np.asarray(values, order=order))
        assert read(str(tmp_path / "a.npy"), kg.series("x")).tolist() == values.astype(float).tolist()


def test_files_of_a_cell_are_regular_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "a").write_bytes(PNG)
    for kind, reader in READERS.items():
        for name in ("pipe", "folder", "/dev/zero"):
            with pytest.raises(DataError, match=r"regular file|device"):
                table([GOOD[kind], str(tmp_path / name)], reader).batch([1])
    monkeypatch.setattr(cells, "MOST_BYTES", len(PNG))
    assert read(str(tmp_path / "a"), READERS["image"]).sum() == 64
    monkeypatch.setattr(cells, "MOST_BYTES", len(PNG) - 1)
    refused(str(tmp_path / "a"), READERS["image"], f"{len(PNG)} bytes")


def test_a_pipe_has_a_fingerprint_without_being_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert len(table([PNG, str(tmp_path / "pipe")], READERS["image"]).fingerprint) == 16


# steps and numbers --------------------------------------------------------------------------------------------------
def test_one_bad_step_is_masked_and_listed_and_the_others_stay() -> None:
    values = NOISE.normal(size=(6, 3))
    values[2, 1], values[4, 0] = -np.inf, 1e39
    with pytest.raises(DataError, match="infinity in present data"):
        table([values] * 2, kg.series("x")).batch([0])
    data = table([values] * 2, kg.series("x"), on_error="missing")
    batch = data.batch([0])
    assert batch.present.all()
    assert batch.mask["m"][0].tolist() == [True, True, False, True, False, True]
    assert torch.isfinite(batch.inputs["m"]).all()
    (problem,) = data.problems
    assert (problem.row, problem.modality) == (0, "m")
    assert problem.reason == "infinity in present data: 2 of 6 steps (2, 4); the rest of the row is read"


def test_a_series_of_nothing_but_infinity_is_absent_and_says_why() -> None:
    data = table([[1.0, 2.0], [float("inf")] * 2], kg.series("x"), on_error="missing")
    assert data.batch([1]).present.tolist() == [[False]]
    assert ["infinity in present data: 2 of 2 steps (0, 1)" in problem.reason for problem in data.problems] == [True]


def test_channels_that_are_seen_at_other_times_can_be_kept() -> None:
    nan = float("nan")
    cell = [[nan, 1], [2, nan], [nan, nan], [nan, 3], [4, nan]]
    expected = {
        None: ([[0, 0]] * 5, [False] * 5),
        "forward": ([[0, 1], [2, 1], [0, 0], [2, 3], [4, 3]], [True, True, False, True, True]),
        "zero": ([[0, 1], [2, 0], [0, 0], [0, 3], [4, 0]], [True, True, False, True, True]),
    }
    assert not table([[[1, 2]] * 5, cell], kg.series("x")).present[1]
    for fill in ("forward", "zero"):
        batch = table([cell, cell], kg.series("x", fill=fill)).batch([0])
        values, seen = expected[fill]
        assert batch.inputs["m"][0].tolist() == values
        assert batch.mask["m"][0].tolist() == seen
    with pytest.raises(ConfigError, match="fill must be 'forward', 'zero' or None"):
        kg.series("x", fill="mean")


def test_steps_lost_to_single_channels_are_said_from_more_than_half_on() -> None:
    def cell(lost: int) -> np.ndarray:
        values = np.ones((10, 4))
        values[np.arange(lost), np.arange(lost) % 4] = np.nan
        return values

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table([cell(5)] * 4, kg.series("x"))
        table([cell(6)] * 4, kg.series("x", fill="zero"))
        values = np.ones((10, 4))
        values[3:] = np.nan  # nothing of these steps is there
        table([values] * 4, kg.series("x"))
    with pytest.warns(UserWarning, match=r"60% of the steps .* \(15% of the numbers are not\).*fill='forward'"):
        table([cell(6)] * 4, kg.series("x"))


def test_fill_survives_json_and_a_reader_without_it_is_written_as_before() -> None:
    assert "fill" not in kg.series("x", 3, 2).to_json()
    reader = kg.series("x", 3, 2, fill="forward")
    assert kg.data.readers.reader_from_json(json.loads(json.dumps(reader.to_json()))) == reader


def test_the_columns_of_a_yaml_file_say_how_a_series_is_filled(tmp_path: Path) -> None:
    text = "modalities:\n  pulse: {kind: series, column: x, fill: HOW}\ntarget: y\n"
    (tmp_path / "a.yaml").write_text(text.replace("HOW", "forward"))
    assert read_columns(tmp_path / "a.yaml")["modalities"]["pulse"] == kg.series("x", fill="forward")
    (tmp_path / "a.yaml").write_text(text.replace("HOW", "mean"))
    with pytest.raises(ConfigError, match="fill"):
        read_columns(tmp_path / "a.yaml")


@pytest.mark.parametrize("kind", ["series", "vector"])
def test_what_float32_cannot_hold_is_no_infinity(kind: str) -> None:
    most = float(np.finfo(np.float32).max)
    for reader in (READERS[kind],):
        cell = [most, 1.0, 1.0, 1.0]
        assert torch.isfinite(read(cell, reader)).all()
        with pytest.raises(DataError, match=r"holds 3\.5e\+38, which is beyond the numbers of float32"):
            table([[3.5e38, 1.0, 1.0, 1.0]] * 2, reader).batch([0])


def test_numbers_too_large_are_standardised_where_they_can_be() -> None:
    data = table([[1e39], [3e39]], kg.vector("x", standardise=True))
    assert data.batch([0, 1]).inputs["m"][:, 0].tolist() == [-1, 1]
    with pytest.raises(DataError, match="too large to standardise"):
        table([[1e300], [3e300]], kg.vector("x", standardise=True))


# names and textures -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name", ["values", "type", "to", "keys", "train", "forward", "items", "half", "pop", "training"]
)
def test_a_name_that_a_module_has_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"no modality can be called '{name}'.*such as '{name}_1'"):
        Modality(name, "vector", (3,))
    assert Modality(name + "_1", "vector", (3,)).name == name + "_1"


@pytest.mark.parametrize("name", ["text", "image", "value", "age", "Type", "train_rows"])
def test_other_names_are_taken(name: str) -> None:
    assert Modality(name, "vector", (3,)).name == name
    assert not hasattr(torch.nn.ModuleDict(), name)


@pytest.mark.parametrize("operator", ["fog", "frost"])
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 2), (3, 3), (5, 1), (5, 5), (6, 6), (1, 40)])
def test_weather_of_tiny_pictures_is_defined(operator: str, size: tuple[int, int]) -> None:
    assert operator in OPERATORS
    pictures = [NOISE.random(size) for _ in range(4)]
    for severity in (1, 5):
        data = table(pictures, kg.image("x")).with_corruption(kg.corruptions.corrupt(operator, "m", severity))
        seen = data.batch(range(4)).inputs["m"]
        assert torch.isfinite(seen).all()
        assert 0 <= float(seen.min()) <= float(seen.max()) <= 1


# fingerprints -------------------------------------------------------------------------------------------------------
def turned(how: int) -> Any:
    note = Image.Exif()
    note[0x0112] = how
    return Image.open(io.BytesIO(encoded(Image.new("L", (4, 2), 9), "JPEG", exif=note)))


def keyed(key: int | None) -> Any:
    picture = Image.new("L", (4, 4), 9)
    if key is not None:
        picture.info["transparency"] = key
    return picture


@pytest.mark.parametrize(
    ("make", "other"),
    [
        (lambda: Image.new("RGB", (40, 40), (1, 2, 3)), lambda: Image.new("RGB", (40, 40), (1, 2, 4))),
        (lambda: keyed(9), lambda: keyed(None)),
        (lambda: turned(6), lambda: turned(8)),
        (lambda: memoryview(b"abc"), lambda: memoryview(b"abd")),
        (lambda: memoryview(np.arange(3000.0)), lambda: memoryview(np.arange(3000.0)[::-1].copy())),
        (lambda: pa.scalar([1.0] * 3000), lambda: pa.scalar([1.0] * 1500 + [2.0] + [1.0] * 1499)),
        (lambda: pa.array([1.0, 2.0]), lambda: pa.array([1.0, 3.0])),
        (lambda: torch.ones(3000), lambda: torch.ones(3000) + torch.eye(3000)[1500]),
        (lambda: {"array": np.ones(9), "sampling_rate": 8000}, lambda: {"array": np.ones(9), "sampling_rate": 16000}),
        (lambda: {"bytes": b"a", "path": None}, lambda: {"bytes": b"b", "path": None}),
    ],
)
def test_a_digest_is_of_what_a_cell_holds(make: Any, other: Any) -> None:
    assert content_digest(make()) == content_digest(make())
    assert content_digest(make()) != content_digest(other())


def test_the_file_behind_a_mapping_counts_by_its_bytes(tmp_path: Path) -> None:
    def fingerprint(name: str) -> str:
        return table([{"bytes": None, "path": name}] * 2, READERS["image"], root=tmp_path).fingerprint

    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "b.png").write_bytes(PNG)
    before = fingerprint("a.png")
    assert fingerprint("b.png") == before
    (tmp_path / "b.png").write_bytes(encoded(Image.new("RGB", (8, 8), (0, 255, 0))))
    assert fingerprint("b.png") != before


def test_a_reason_is_a_short_sentence() -> None:
    reason = path_text.no_path("7 " * 5000, None, "image")
    assert reason is not None
    assert len(reason) < 200
    with pytest.raises(ReadError, match="column 'x': is"):
        cells.content("1 2 3", "x", None)
