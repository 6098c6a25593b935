"""Tables of the user's: what is read, what counts as a hole, and what every bad cell says."""

from __future__ import annotations

import io
import json
import math
import struct

import numpy as np
import pandas as pd
import pytest
import torch

from kintsugi.core.errors import ConfigError, DataError, UnknownName
from kintsugi.data import Table, audio, image, series, tabular, text, vector
from kintsugi.tasks import Classification, Multilabel, Regression

Image = pytest.importorskip("PIL.Image")
soundfile = pytest.importorskip("soundfile")
NOISE = np.random.default_rng(0)


def png(height=28, width=28, mode="L", kind="PNG"):
    channels = {"L": (), "RGB": (3,), "RGBA": (4,), "LA": (2,)}[mode]
    picture = Image.fromarray(NOISE.integers(0, 256, (height, width, *channels), dtype=np.uint8))
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


def encoded(picture, kind="PNG"):
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


def sound(seconds=0.5, rate=8000, channels=1, kind="WAV", hz=440.0):
    t = np.arange(int(seconds * rate)) / rate
    wave = 0.5 * np.sin(2 * np.pi * hz * t)
    if channels == 2:
        wave = np.stack([wave, -0.5 * wave], 1)
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate, format=kind, subtype="PCM_16")
    return buffer.getvalue()


def table(cells, reader, **options):
    frame = pd.DataFrame({"x": pd.Series(cells, dtype=object), "y": [i % 2 for i in range(len(cells))]})
    return Table.from_pandas(frame, modalities={"m": reader}, **{"target": "y", **options})


def first(cell, reader):
    data = table([cell, cell], reader)
    batch = data.batch([0])
    assert bool(batch.present[0, 0])
    return batch.inputs["m"][0], batch.mask.get("m", [None])[0]


# pictures ------------------------------------------------------------------------------------------------------
def test_image_takes_size_and_channels_from_the_first_readable_cell():
    data = table([None, png()[:40], png(20, 30, "RGB"), png()], image("x"), on_error="missing")
    assert data.schema["m"].shape == (3, 20, 30)
    batch = data.batch(range(4))
    assert batch.present[:, 0].tolist() == [False, False, True, True]
    assert batch.inputs["m"].dtype == torch.float32
    assert 0 <= float(batch.inputs["m"].min()) <= float(batch.inputs["m"].max()) <= 1


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA"])
@pytest.mark.parametrize("channels", [1, 3])
def test_image_of_any_mode_and_size(mode, channels):
    x, mask = first(png(40, 17, mode), image("x", size=(12, 16), channels=channels))
    assert x.shape == (channels, 12, 16)
    assert mask is None


def test_image_modes_that_pillow_would_clip():
    deep = Image.fromarray(np.full((4, 4), 30000, dtype=np.uint16))
    x, _ = first(encoded(deep), image("x", size=4))
    assert x.shape == (1, 4, 4)
    assert float(x.mean()) == pytest.approx(30000 / 65535, abs=1e-4)
    palette = Image.fromarray(NOISE.integers(0, 255, (4, 4, 3), dtype=np.uint8)).convert("P")
    assert first(encoded(palette), image("x"))[0].shape == (3, 4, 4)
    bits = Image.fromarray(np.eye(4, dtype=bool))
    assert torch.equal(first(encoded(bits), image("x"))[0], torch.eye(4)[None])


def test_image_arrays_are_the_same_as_files():
    pixels = NOISE.integers(0, 256, (10, 12, 3), dtype=np.uint8)
    reader = image("x", size=(10, 12), channels=3)
    from_file, _ = first(encoded(Image.fromarray(pixels)), reader)
    for cell in (pixels, pixels.tolist(), pixels / 255.0, (pixels / 255.0).astype(np.float32)):
        assert torch.allclose(first(cell, reader)[0], from_file, atol=1e-6)
    grey, _ = first(pixels, image("x", size=5, channels=1))
    from_file, _ = first(encoded(Image.fromarray(pixels)), image("x", size=5, channels=1))
    assert torch.allclose(grey, from_file, atol=0.01)  # Pillow rounds to 8 bits twice


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (png(64, 64, "RGB")[:4000], "cannot be decoded"),
        (b"this is no picture", "no image in a known format"),
        (np.full((4, 4), 7.0), "must be in \\[0, 1\\]"),
        (np.full((4, 4), np.nan), "NaN in present data"),
        (np.full((4, 4), np.inf), "infinity in present data"),
        (np.zeros((4, 4, 7)), "C from 1 to 4"),
        (np.full((4, 4), 300), "pixels run from"),
        ([[1, 2], [3]], "no array of numbers"),
        ({"pixels": [1, 2]}, "no array of numbers"),
    ],
)
def test_bad_image(cell, words):
    data = table([png(), cell], image("x"))
    with pytest.raises(
        DataError, match=rf"row 1 \(counted from 0\), modality 'm': column 'x'.*{words}.*on_error='missing'"
    ):
        data.batch([0, 1])
    data = table([png(), cell], image("x"), on_error="missing")
    batch = data.batch([0, 1])
    assert batch.present[:, 0].tolist() == [True, False]
    assert not batch.inputs["m"][1].any()
    assert [(p.row, p.modality) for p in data.problems] == [(1, "m")]
    data.subset([1]).batch([0])
    assert len(data.problems) == 1


# sound ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["WAV", "FLAC"])
def test_audio_is_cut_and_filled(kind):
    x, mask = first(sound(0.5, kind=kind), audio("x", 8000, 1.0))
    assert x.shape == (8000,)
    assert mask is None
    assert float(x[:4000].abs().max()) == pytest.approx(0.5, abs=0.01)
    assert not x[4000:].any()
    assert first(sound(2.0, kind=kind), audio("x", 8000, 1.0))[0].shape == (8000,)


def test_stereo_is_averaged():
    x, _ = first(sound(0.5, channels=2), audio("x", 8000, 0.5))
    assert float(x.abs().max()) == pytest.approx(0.125, abs=0.01)


@pytest.mark.parametrize("seconds", [0.3, 0.5, 1.5])
def test_another_rate_is_resampled(seconds):
    x, _ = first(sound(seconds, rate=44100), audio("x", 8000, 0.5))
    there = int(min(seconds, 0.5) * 8000)
    t = torch.arange(there) / 8000
    assert torch.allclose(x[50 : there - 50], 0.5 * torch.sin(2 * math.pi * 440 * t)[50 : there - 50], atol=0.01)


def test_audio_arrays_are_at_the_rate():
    wave = 0.5 * np.sin(np.arange(100))
    for cell in (
        wave,
        wave.tolist(),
        (wave * 32768).astype(np.int16),
        np.stack([wave, wave], 1),
        np.stack([wave, wave]),
    ):
        x, _ = first(cell, audio("x", 100, 1.0))
        assert np.allclose(x, wave, atol=1e-4)


def nan_wav():
    buffer = io.BytesIO()
    soundfile.write(buffer, np.array([0.1, np.nan, 0.2]), 8000, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (sound()[:3000], "truncated"),
        (sound()[:30], "truncated|decoded"),
        (sound(kind="FLAC")[:1500], "truncated|decoded"),
        (b"no sound", "cannot be decoded"),
        (nan_wav(), "NaN in present data"),
        (np.array([0.0, 30000.0]), "must be in \\[-1, 1\\]"),
        (np.zeros((2, 3, 4)), "sound is"),
        (np.array([10**6, 0]), "beyond 16 bits"),
    ],
    ids=["half", "header", "half_flac", "text", "nan", "loud", "axes", "wide"],  # a float WAV holds the time
)
def test_bad_audio(cell, words):
    with pytest.raises(DataError, match=words):
        table([sound(), cell], audio("x", 8000, 0.5)).batch([1])


def test_a_wav_of_unknown_length_is_read():
    data = bytearray(sound())
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", 0xFFFFFFFF)
    assert first(bytes(data), audio("x", 8000, 0.5))[0].any()


# text ----------------------------------------------------------------------------------------------------------
def test_text_is_bytes_with_a_mask():
    x, mask = first("héllo", text("x", length=8))
    assert x.tolist() == [b + 1 for b in "héllo".encode()] + [0, 0]
    assert mask.tolist() == [True] * 6 + [False] * 2
    assert x.dtype == torch.int64
    assert torch.equal(first("he\u0301llo", text("x", length=8))[0], x)  # the same letter, composed
    assert torch.equal(first("héllo".encode(), text("x", length=8))[0], x)


def test_text_is_not_cut_inside_a_character():
    x, mask = first("ab€€", text("x", length=6))
    assert bytes((x[mask] - 1).tolist()).decode() == "ab€"


def test_text_holes_and_bad_bytes():
    data = table(["word", "", "  ", None, float("nan"), b""], text("x"))
    assert data.present[:, 0].tolist() == [True] + [False] * 5
    batch = data.batch(range(6))
    assert torch.equal(batch.mask["m"].any(1), batch.present[:, 0])
    for cell in (b"\xff\xfe", "\ud800"):
        with pytest.raises(DataError, match="not UTF-8"):
            table(["word", cell], text("x")).batch([1])


# tables and series ---------------------------------------------------------------------------------------------
def cells(**columns):
    return pd.DataFrame({"y": [0, 1, 0, 1], **columns})


def test_tabular_numbers_and_categories():
    frame = cells(
        age=[1.0, 3.0, None, np.nan], sex=["f", None, "m", None], ward=[7, 9, 7, 9], ok=[True, False, None, True]
    )
    reader = tabular(["age", "sex", "ward", "ok"], categories=["ward"])
    data = Table.from_pandas(frame, modalities={"m": reader}, target="y")
    assert data.schema["m"].categories == (0, 2, 2, 2)
    batch = data.batch(range(4))
    assert batch.inputs["m"].tolist() == [[-1, 1, 1, 2], [1, 0, 2, 1], [0, 2, 1, 0], [0, 0, 2, 2]]
    assert batch.mask["m"].tolist() == [[True] * 4, [True, False, True, True], [False, True, True, False],
                                        [False, False, True, True]]  # fmt: skip


def test_tabular_row_of_nothing_but_holes_is_absent():
    data = Table.from_pandas(
        cells(a=[1, None, 2, 3], b=["x", None, "", "z"]), modalities={"m": tabular(["a", "b"])}, target="y"
    )
    assert data.present[:, 0].tolist() == [True, False, True, True]


def test_tabular_unseen_category_and_text_for_numbers():
    data = Table.from_pandas(cells(a=[1, 2, 3, 4], b=list("uvuv")), modalities={"m": tabular(["a", "b"])}, target="y")
    with pytest.warns(UserWarning, match=r"column 'b' in 1 of 2 cells \('w'; first in row 0"):
        new = Table.from_reading([{"a": "2.5", "b": "w"}, {"a": 2.5, "b": "v"}], data.reading)
    batch = new.batch([0, 1])
    assert batch.inputs["m"].tolist() == [[0, 0], [0, 2]]
    assert batch.mask["m"].tolist() == [[True, False], [True, True]]
    with pytest.raises(DataError, match="'old' is no number"):
        Table.from_reading([{"a": "old", "b": "v"}], data.reading).batch([0])
    with pytest.raises(DataError, match="infinity"):
        Table.from_reading([{"a": math.inf, "b": "v"}], data.reading).batch([0])


def test_tabular_columns_that_never_vary_and_times():
    data = Table.from_pandas(cells(a=[5.0] * 4), modalities={"m": tabular("a")}, target="y")
    assert not data.batch(range(4)).inputs["m"].any()
    with pytest.raises(ConfigError, match="holds times"):
        Table.from_pandas(cells(t=pd.to_datetime(["2020-01-01"] * 4)), modalities={"m": tabular(["t"])}, target="y")
    with pytest.raises(UnknownName, match="did you mean 'age'"):
        tabular(["age"], categories=["agee"])


def test_statistics_come_from_training_rows():
    frame = cells(a=[0.0, 2.0, 100.0, 50.0], c=["u", "v", "w", "u"], s=["train", "train", "test", "val"])
    with pytest.warns(UserWarning, match=r"column 'c' in 1 of 4 cells \('w'"):
        data = Table.from_pandas(frame, modalities={"m": tabular(["a", "c"])}, target="y", split="s")
    assert data.batch(range(4)).inputs["m"].tolist() == [[-1, 1], [1, 2], [99, 0], [49, 1]]
    assert [len(part) for part in data.split()] == [2, 1, 1]


def test_series_is_masked_cut_and_filled():
    cells = [[1.0, 2.0, 3.0], np.array([1.0, np.nan]), [[1.0], [2.0]], [np.nan, np.nan], [], None, "[1, 2, NaN]"]
    data = table(cells, series("x"))
    assert data.schema["m"].shape == (3, 1)
    batch = data.batch(range(7))
    assert batch.present[:, 0].tolist() == [True, True, True, False, False, False, True]
    assert batch.mask["m"].tolist()[1] == [True, False, False]
    assert batch.mask["m"].tolist()[6] == [True, True, False]
    assert torch.equal(batch.mask["m"].any(1), batch.present[:, 0])
    assert torch.isfinite(batch.inputs["m"]).all()
    short = table([[np.nan, np.nan, 1.0], [1.0, 2.0]], series("x", length=2))
    assert short.present[:, 0].tolist() == [False, True]
    two = table([[[1, 2], [3, np.nan]], [[1, 2]]], series("x"))
    assert two.batch([0]).mask["m"].tolist() == [[True, False]]


@pytest.mark.parametrize(("cell", "words"), [([[1, 2]], "2 channels"), ([np.inf], "infinity"), (["a"], "no array")])
def test_bad_series(cell, words):
    with pytest.raises(DataError, match=words):
        table([[1.0, 2.0], cell], series("x")).batch([1])


def test_vector():
    data = table([[1, 2], None, [3, 6]], vector("x"))
    assert data.batch([0, 2]).inputs["m"].tolist() == [[1, 2], [3, 6]]
    data = table([[1, 2], None, [3, 6]], vector("x", standardise=True))
    assert data.batch([0, 2]).inputs["m"].tolist() == [[-1, -1], [1, 1]]


@pytest.mark.parametrize(
    ("cell", "words"),
    [([1.0, np.nan], "NaN in present data"), ([1, 2, 3], "3 numbers; 2 were expected"), ([[1, 2]], "one axis"),
     (["a", "b"], "no array of numbers"), (np.array([1, np.inf]), "infinity")],
)  # fmt: skip
def test_bad_vector(cell, words):
    with pytest.raises(DataError, match=words):
        table([[1, 2], cell], vector("x")).batch([1])


def test_npy_paths(tmp_path):
    np.save(tmp_path / "a.npy", np.array([1.0, 2.0]))
    (tmp_path / "b.npy").write_bytes(b"broken")
    data = table(["a.npy", "b.npy", "c.npy"], vector("x"), root=tmp_path)
    assert data.present[:, 0].tolist() == [True, True, False]
    assert data.batch([0]).inputs["m"].tolist() == [[1, 2]]
    with pytest.raises(DataError, match=r"b\.npy"):
        data.batch([1])


# files and constructors ----------------------------------------------------------------------------------------
@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pictures").mkdir()
    for i in range(3):
        (tmp_path / f"pictures/{i}.png").write_bytes(png())
    (tmp_path / "0.wav").write_bytes(sound())
    rows = [
        {"scan": f"pictures/{i}.png", "note": "NA" if i else "007", "say": "0.wav" if i == 0 else None, "age": 30 + i,
         "outcome": ["ill", "well"][i % 2], "patient": i // 2} for i in range(4)
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "cases.csv", index=False)
    pd.DataFrame(rows).to_parquet(tmp_path / "cases.parquet")
    return tmp_path


READERS = {
    "scan": image("scan"),
    "say": audio("say", 8000, 0.5),
    "note": text("note", length=8),
    "age": tabular(["age"]),
}


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_files_with_relative_paths(folder, kind, monkeypatch):
    monkeypatch.chdir(folder.parent)
    make = {"csv": Table.from_csv, "parquet": Table.from_parquet}[kind]
    data = make(folder / f"cases.{kind}", modalities=READERS, target="outcome", group="patient")
    assert data.name == "cases"
    assert data.present.tolist() == [[True] * 4, [True, False, True, True], [True, False, True, True],
                                     [False, False, True, True]]  # fmt: skip
    batch = data.batch(range(4))
    assert bytes((batch.inputs["note"][0][:3] - 1).tolist()) == b"007"
    assert bytes((batch.inputs["note"][1][:2] - 1).tolist()) == b"NA"
    assert batch.context["group"].tolist() == [0, 0, 1, 1]
    assert data.schema.task == Classification(["ill", "well"])
    table = data.describe()
    assert table.attrs["holes"] == {"scan": 1, "say": 3, "note": 0, "age": 0}
    assert table["rows"].tolist() == [2, 1, 1]


def test_a_broken_file_is_named(folder):
    (folder / "pictures/1.png").write_bytes(png()[:100])
    data = Table.from_csv(folder / "cases.csv", modalities=READERS, target="outcome")
    with pytest.raises(DataError, match=r"row 1 .*'scan'.*pictures/1\.png: cannot be decoded"):
        data.batch([0, 1])
    (folder / "pictures/2.png").unlink()
    with pytest.raises(DataError, match=r"2\.png: No such file"):
        data.batch([2])


def test_records_with_bytes_arrays_and_missing_keys():
    rows = [
        {"scan": png(), "v": np.arange(3), "y": 0},
        {"v": [1, 2, 3], "y": 1},
        {"scan": NOISE.random((28, 28)), "y": None},
    ]
    data = Table.from_records(rows, modalities={"scan": image("scan"), "v": vector("v")}, target="y")
    assert data.present.tolist() == [[True, True], [False, True], [True, False]]
    assert data.target_present.tolist() == [True, True, False]
    assert data.schema.task == Classification(["0", "1"])
    data.batch(range(3))


def test_row_with_nothing_is_kept():
    data = table([None, "word", None], text("x"))
    assert len(data) == 3
    assert data.positions("all").tolist() == [1]
    assert not data.batch([0, 2]).present.any()


def test_unknown_columns_suggest_the_nearest(folder):
    with pytest.raises(UnknownName, match="unknown column 'scann'; did you mean 'scan'"):
        Table.from_csv(folder / "cases.csv", modalities={"scan": image("scann")}, target="outcome")
    with pytest.raises(UnknownName, match="'outcom'; did you mean 'outcome'"):
        Table.from_parquet(folder / "cases.parquet", modalities={"note": text("note")}, target="outcom")
    table = pd.read_csv(folder / "cases.csv")
    with pytest.raises(UnknownName, match="did you mean 'patient'"):
        Table.from_pandas(table, modalities={"note": text("note")}, target="outcome", group="patients")


def test_files_that_are_no_tables(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"nonsense")
    (tmp_path / "b.csv").write_bytes("note,y\né,1\n".encode("latin-1"))
    (tmp_path / "c.csv").write_text("")
    (tmp_path / "d.csv").write_text("note,y\n")
    wanted = {
        "a.parquet": "no readable",
        "b.csv": "UTF-8",
        "c.csv": "no readable",
        "d.csv": "no rows",
        "e.csv": "does not exist",
    }
    for name, words in wanted.items():
        make = Table.from_parquet if name.endswith("parquet") else Table.from_csv
        with pytest.raises(DataError, match=words):
            make(tmp_path / name, modalities={"note": text("note")}, target="y")


def test_arguments_that_make_no_sense():
    frame = cells(a=[1, 2, 3, 4], w=[1, 1, -1, 1], s=["train", "train", "oops", "test"])
    with pytest.raises(ConfigError, match="needs a reader"):
        Table.from_pandas(frame, modalities={"m": "a"}, target="y")
    with pytest.raises(ConfigError, match="at least one modality"):
        Table.from_pandas(frame, modalities={}, target="y")
    with pytest.raises(ConfigError, match="both a target and an input"):
        Table.from_pandas(frame, modalities={"m": tabular(["a", "y"])}, target="y")
    with pytest.raises(DataError, match=r"row 2 .* holds -1"):
        Table.from_pandas(frame, modalities={"m": tabular(["a"])}, target="y", weight="w")
    with pytest.raises(DataError, match=r"row 2 .*'oops'"):
        Table.from_pandas(frame, modalities={"m": tabular(["a"])}, target="y", split="s")
    with pytest.raises(ConfigError, match="on_error"):
        Table.from_pandas(frame, modalities={"m": tabular(["a"])}, target="y", on_error="ignore")


# targets -------------------------------------------------------------------------------------------------------
def targets(y, **options):
    frame = pd.DataFrame({"x": ["word"] * len(y), "y": y})
    return Table.from_pandas(frame, modalities={"m": text("x")}, **{"target": "y", **options})


@pytest.mark.parametrize(
    ("y", "task"),
    [
        (["b", "a", None], Classification(["a", "b"])),
        ([True, False, True], Classification(["False", "True"])),
        ([10, 9, 2], Classification(["2", "9", "10"])),
        ([1, None, 2], Classification(["1", "2"])),
        (pd.Series([1, None, 2], dtype="Int64"), Classification(["1", "2"])),
        (pd.Categorical(["u", "v", "u"]), Classification(["u", "v"])),
    ],
)
def test_classes_are_inferred_and_sorted(y, task):
    assert targets(y).schema.task == task


def test_numbers_are_regressed():
    data = targets([0.5, 1.5, None])
    assert isinstance(data.schema.task, Regression)
    assert data.schema.task.centre == (1.0,)
    assert data.target.tolist() == [0.5, 1.5, 0.0]
    assert data.target_present.tolist() == [True, True, False]
    assert isinstance(targets(list(range(30))).schema.task, Regression)
    assert isinstance(targets([1, 2, 3], task="regression").schema.task, Regression)
    with pytest.raises(DataError, match="same in every row"):
        targets([1.5, 1.5, 1.5])
    with pytest.raises(DataError, match=r"row 1 .*'tall' is no number"):
        targets(["1", "tall"], task="regression")
    with pytest.raises(DataError, match=r"row 0 .*infinite"):
        targets([math.inf, 1.0, 2.0], task="regression")


def test_lists_of_columns():
    frame = pd.DataFrame({"x": ["w"] * 3, "a": [0, 1, 1], "b": [True, False, None], "c": [0.1, 0.2, 0.4]})
    data = Table.from_pandas(frame, modalities={"m": text("x")}, target=["a", "b"])
    assert data.schema.task == Multilabel(["a", "b"])
    assert data.target.tolist() == [[0, 1], [1, 0], [0, 0]]
    assert data.target_present.tolist() == [True, True, False]
    data = Table.from_pandas(frame, modalities={"m": text("x")}, target=["a", "c"])
    assert data.schema.task.names == ("a", "c")
    with pytest.raises(DataError, match="must be 0 or 1"):
        Table.from_pandas(frame, modalities={"m": text("x")}, target=["a", "c"], task="multilabel")
    with pytest.raises(ConfigError, match="one target column"):
        Table.from_pandas(frame, modalities={"m": text("x")}, target=["a", "c"], task="classification")


def test_targets_that_teach_nothing():
    with pytest.raises(DataError, match="one class only, 'a'"):
        targets(["a", "a", None])
    with pytest.raises(DataError, match="no label in any row"):
        targets([None, None], task="classification")
    with pytest.raises(UnknownName, match="did you mean 'regression'"):
        targets([1, 2], task="regresion")
    data = targets([1, 2], target=None)
    assert data.target is None
    assert not data.target_present.any()


def test_class_weights():
    assert targets(list("aaab"), class_weights="balanced").schema.task.weights == pytest.approx((4 / 6, 2.0))
    assert targets(list("ab"), class_weights=[1, 3]).schema.task.weights == (1.0, 3.0)
    with pytest.raises(ConfigError, match="3 class weights for 2 classes: a, b"):
        targets(list("ab"), class_weights=[1, 2, 3])
    with pytest.raises(ConfigError, match="for classification"):
        targets([0.1, 0.2], class_weights="balanced")


# new rows ------------------------------------------------------------------------------------------------------
def test_new_rows_are_read_as_the_training_rows(folder):
    data = Table.from_csv(folder / "cases.csv", modalities=READERS, target="outcome", group="patient")
    reading = json.loads(json.dumps(data.reading))
    for rows in (folder / "cases.csv", str(folder / "cases.parquet"), pd.read_csv(folder / "cases.csv")):
        new = Table.from_reading(rows, reading, root=folder if isinstance(rows, pd.DataFrame) else None)
        assert new.schema == data.schema
        assert new.target.tolist() == data.target.tolist()
        old, fresh = data.batch(range(4)), new.batch(range(4))
        for name in ("scan", "say", "age"):
            assert torch.equal(old.inputs[name], fresh.inputs[name])
    assert new.reading == data.reading


def test_new_rows_without_a_target_or_with_strange_labels():
    data = targets(["a", "b", "a"])
    new = Table.from_reading([{"x": "word"}], data.reading)
    assert new.target is None
    assert new.schema.task == data.schema.task
    with pytest.raises(DataError, match="no column 'y'"):
        Table.from_reading(pd.DataFrame({"x": ["w"]}), data.reading, require_target=True)
    rows = [{"x": "w", "y": "a"}, {"x": "w", "y": "c"}, {"x": "w", "y": "c"}]
    with pytest.raises(DataError, match=r"label 'c' in column 'y', row 1, 2 .*known classes: a, b"):
        Table.from_reading(rows, data.reading)
    new = Table.from_reading(rows, data.reading, on_error="missing")
    assert new.target_present.tolist() == [True, False, False]


def test_new_rows_without_a_column():
    frame = cells(a=[1, 2, 3, 4], note=list("uvuv"))
    data = Table.from_pandas(frame, modalities={"m": tabular(["a"]), "n": text("note")}, target="y")
    with pytest.raises(DataError, match="no column 'note', which the model was trained on; did you mean 'notes'"):
        Table.from_reading(pd.DataFrame({"a": [1], "notes": ["x"]}), data.reading)
    with pytest.raises(DataError, match="no column 'note'"):
        Table.from_reading([{"a": 1, "note_": "x"}], data.reading)
    assert Table.from_reading([{"a": 1}], data.reading).present.tolist() == [[True, False]]
    with pytest.raises(DataError, match="no rows"):
        Table.from_reading([], data.reading)
    with pytest.raises(DataError, match="format"):
        Table.from_reading([{"a": 1}], {})
    with pytest.raises(DataError, match="must be a data frame"):
        Table.from_reading(3, data.reading)


@pytest.mark.parametrize(
    "reader",
    [image("x", 8, 3), audio("x", 8000, 0.5), text("x"), tabular(["x"], ["x"]), series("x", 3, 1), vector("x", True)],
)
def test_readers_survive_json(reader):
    from kintsugi.data.readers import reader_from_json

    saved = json.loads(json.dumps(reader.to_json()))
    assert reader_from_json(saved) == reader


# memory and identity -------------------------------------------------------------------------------------------
def test_cache_is_bounded_and_used(monkeypatch):
    data = table([NOISE.random((16, 16)) for _ in range(50)], image("x"), cache=20_000)
    source = data.source
    before = data.batch(range(50))
    assert 0 < source.cached_bytes <= 20_000
    after = data.batch(range(50))
    assert torch.equal(before.inputs["m"], after.inputs["m"])
    data.batch([49])
    reader = source.readers["m"]
    monkeypatch.setattr(type(reader), "read", lambda *_: pytest.fail("this row was decoded already"))
    data.batch([49])
    assert table(["a", "b"], text("x"), cache=0).batch([0, 1]).present.all()


def test_in_memory_is_the_same_and_keeps_what_is_known():
    data = table([png(), png()[:50], None, png()], image("x"), on_error="missing")
    fast = data.in_memory()
    assert fast.reading == data.reading
    assert fast.fingerprint == data.fingerprint
    assert len(fast.problems) == 1
    assert fast.present[:, 0].tolist() == [True, False, False, True]
    assert torch.equal(fast.batch(range(4)).inputs["m"], data.batch(range(4)).inputs["m"])


def test_fingerprint_follows_content(folder):
    def mark(**options):
        return Table.from_csv(folder / "cases.csv", modalities=READERS, target="outcome", **options).fingerprint

    first = mark()
    assert mark() == first
    (folder / "pictures/1.png").write_bytes(png(30, 30))
    assert mark() != first
    a, b = table([png(), b"a"], image("x")), table([png(), b"b"], image("x"))
    assert a.fingerprint != b.fingerprint
    a, b = table([[1, 2], [3, 4]], vector("x")), table([[1, 2], [3, 5]], vector("x"))
    assert a.fingerprint != b.fingerprint


@pytest.mark.slow
def test_many_files_do_not_fill_the_memory(tmp_path):
    resource = pytest.importorskip("resource")
    content = [png(64, 64, "RGB") for _ in range(20)]
    for i in range(20_000):
        (tmp_path / f"{i}.png").write_bytes(content[i % 20])
    frame = pd.DataFrame({"x": [f"{i}.png" for i in range(20_000)], "y": [0, 1] * 10_000})
    data = Table.from_pandas(frame, modalities={"m": image("x")}, target="y", root=tmp_path)
    data.batch(range(64))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for batch in data.batches(256):
        assert batch.present.all()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 300, f"{grown:.0f} MB"


@pytest.mark.parametrize(
    ("package", "reader", "cell", "extra"),
    [("PIL", image("x", 4, 1), png(), "image"), ("soundfile", audio("x", 8000, 0.1), sound(), "audio")],
)
def test_a_missing_package_is_named_with_its_extra(monkeypatch, package, reader, cell, extra):
    data = table([cell, cell], reader)
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(ImportError, match=rf"kintsugi-ml\[{extra}\]"):
        data.batch([0])


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6, 0.9, 0.97])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WAV", "FLAC"])
def test_truncated_anywhere(kind, share):
    whole, reader = (
        (sound(kind=kind), audio("x", 8000, 1.0))
        if kind in ("WAV", "FLAC")
        else (png(64, 64, "RGB", kind), image("x", 8, 3))
    )
    data = table([whole, whole[: int(share * len(whole))]], reader)
    assert data.batch([0]).present.all()
    with pytest.raises(DataError, match=r"truncated|decoded|format"):
        data.batch([1])


def test_a_table_of_categories_alone_is_read_as_numbers() -> None:
    data = Table.from_records(
        [{"a": "x", "b": "u", "y": 0}, {"a": "y", "b": None, "y": 1}], modalities={"t": tabular(["a", "b"])}, target="y"
    )
    batch = data.batch(torch.arange(2))
    assert batch.inputs["t"].dtype == torch.float32
    assert batch.inputs["t"].tolist() == [[1.0, 1.0], [2.0, 0.0]]
    assert batch.mask["t"].tolist() == [[True, True], [True, False]]
