"""Input that is not as it should be, as a user of the estimator meets it: a clear error or a report, and nothing lost.

What single readers, the trainer and the store say is tested where they are; here it is what arrives at the other end.
"""

from __future__ import annotations

import errno
import io
import json
import pickle
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import kintsugi as kg
from kintsugi.core.errors import ConfigError, DataError, ModelFileError, NonFiniteLoss, UnknownName
from kintsugi.core.methods import METHODS, arguments
from kintsugi.io import saved_models as store
from kintsugi.testing.fixture import toy

Image = pytest.importorskip("PIL.Image")
soundfile = pytest.importorskip("soundfile")
READERS = {
    "scan": kg.image("scan", size=8, channels=1),
    "say": kg.audio("say", rate=8000, seconds=0.1),
    "note": kg.text("note", 16),
    "vitals": kg.tabular(["age", "ward"]),
    "pulse": kg.series("pulse", length=4, channels=1),
    "lab": kg.vector("lab"),
}
NAMES = tuple(READERS)


def png(height: int = 8, width: int = 8, mode: str = "L", grey: int = 120) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (width, height), int(grey)).convert(mode).save(buffer, "PNG")
    return buffer.getvalue()


def wav(rate: int = 8000, channels: int = 1, hz: float = 500.0, seconds: float = 0.1) -> bytes:
    wave = 0.5 * np.sin(2 * np.pi * hz * np.arange(int(rate * seconds)) / rate)
    buffer = io.BytesIO()
    soundfile.write(buffer, np.stack([wave] * channels, 1), rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def rows(count: int = 30, seed: int = 0) -> pd.DataFrame:
    noise = np.random.default_rng(seed)
    y = np.arange(count) % 2
    made: dict[str, Any] = {
        "scan": [png(grey=60 + 120 * i) for i in y],
        "say": [wav(hz=300.0 + 1200 * i) for i in y],
        "note": ["all is well" if i else "it hurts" for i in y],
        "ward": ["b" if i else "a" for i in y],
        "pulse": [[60.0 + 30 * i] * 4 for i in y],
        "lab": [[float(v) for v in noise.normal(size=3) + i] for i in y],
        "outcome": ["yes" if i else "no" for i in y],
    }
    frame = pd.DataFrame({name: pd.Series(cells, dtype=object) for name, cells in made.items()})
    return frame.assign(age=y * 10.0 + noise.normal(size=count))


def classifier(method: str = "mean_fusion", **options: Any) -> kg.Classifier:
    usual = {"dim": 4, "modalities": READERS, "target": "outcome", "epochs": 1, "batch_size": 16, "progress": False}
    return kg.Classifier(method, **{**usual, **options})


def put(frame: pd.DataFrame, row: int, column: str, cell: Any) -> pd.DataFrame:
    """The same frame with another cell."""
    cells = list(frame[column])
    cells[row] = cell
    return frame.assign(**{column: pd.Series(cells, dtype=frame[column].dtype)})


def tolerant(frame: pd.DataFrame, model: kg.Classifier) -> kg.Table:
    """New rows, of which what cannot be used is left out."""
    return kg.Table.from_reading(frame, model.reading_ or {}, on_error="missing")


@pytest.fixture(scope="module")
def model() -> kg.Classifier:
    """Fitted on whole rows. Not to be changed."""
    return classifier(epochs=2).fit(rows(), rows(10, seed=1))


# names --------------------------------------------------------------------------------------------------------------
def test_unknown_names_suggest_the_nearest(model: kg.Classifier) -> None:
    table = kg.Table.from_reading(rows(10), model.reading_ or {})
    with pytest.raises(UnknownName, match="unknown data set 'avdigit'; did you mean 'avdigits'"):
        kg.datasets.load("avdigit")
    with pytest.raises(UnknownName, match="unknown option of data set factors 'row'; did you mean 'rows'"):
        kg.datasets.load("factors", row=3)
    with pytest.raises(UnknownName, match="unknown protocol 'subset'; did you mean 'subsets'"):
        kg.evaluate(model, table, "subset")
    with pytest.raises(UnknownName, match="unknown modality 'scann'; did you mean 'scan'"):
        kg.evaluate(model, table, kg.Protocol("mine", (kg.Condition("x", "subset", keep=("scann",)),)))
    with pytest.raises(UnknownName, match="unknown modality 'lap'; did you mean 'lab'"):
        table.with_missing(kg.missing.per_modality({"lap": 0.5}))
    with pytest.raises(DataError, match="no column 'note', which the model was trained on; did you mean 'notes'"):
        model.predict(rows(4).rename(columns={"note": "notes"}))
    with pytest.raises(DataError, match="no column 'note', which the model was trained on; did you mean 'notes'"):
        model.predict([{"notes": "all is well"}])


# targets ------------------------------------------------------------------------------------------------------------
def test_a_target_of_one_class_is_refused_wherever_it_shows() -> None:
    with pytest.raises(DataError, match="one class only, 'no'"):
        classifier().fit(rows().assign(outcome="no"), rows())
    table = kg.Table.from_pandas(rows(), modalities=READERS, target="outcome")
    with pytest.raises(DataError, match="training rows hold a single class"):
        classifier().fit(table.subset(range(0, 30, 2)), table)
    with pytest.raises(DataError, match="'days' is the same in every row"):
        kg.Regressor(modalities=READERS, target="days").fit(rows().assign(days=1.0), rows())


def test_rows_without_a_label_are_neither_learned_nor_scored_and_still_answered() -> None:
    frame = rows()
    frame.loc[::3, "outcome"] = None
    model = classifier(epochs=2).fit(frame, frame)
    assert model.classes_.tolist() == ["no", "yes"]
    lied = rows()
    lied.loc[::3, "outcome"] = ["yes" if v == "no" else "no" for v in lied.loc[::3, "outcome"]]
    other = classifier(epochs=2).fit(lied, frame)
    assert not np.array_equal(other.predict_proba(rows()), model.predict_proba(rows()))  # there a label would count
    answers = model.predict(frame)
    assert len(answers) == 30
    there = frame["outcome"].notna()
    assert model.score(frame) == pytest.approx((answers == frame["outcome"])[there].mean())
    with pytest.raises(DataError, match="no label in any row"):
        classifier().fit(rows().assign(outcome=None), rows())


def test_labels_that_training_did_not_know(model: kg.Classifier) -> None:
    frame = put(rows(), 4, "outcome", "maybe")
    with pytest.raises(DataError, match=r"label 'maybe' in column 'outcome', row 4 .*known classes: no, yes"):
        model.score(frame)
    with pytest.raises(DataError, match="label 'maybe'"):
        classifier().fit(rows(), frame)
    assert np.array_equal(model.predict_proba(frame), model.predict_proba(rows()))
    keep = [i for i in range(30) if i != 4]
    assert model.score(tolerant(frame, model)) == model.score(rows().iloc[keep])


# modalities ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", NAMES)
def test_a_modality_that_no_training_row_has_is_refused_by_name(name: str) -> None:
    columns = list(READERS[name].columns)
    frame = rows()
    for column in columns:
        frame[column] = None
    with pytest.raises(DataError, match=f"modality '{name}' is absent in all 30 training rows"):
        classifier().fit(frame, rows())


@pytest.mark.parametrize("name", NAMES)
def test_a_modality_that_no_new_row_has_is_done_without(name: str, model: kg.Classifier) -> None:
    frame = rows(6)
    for column in READERS[name].columns:
        frame[column] = None
    told = model.explain(frame)
    assert not told[f"{name}_used"].any()
    assert all(told[f"{other}_used"].all() for other in NAMES if other != name)
    assert np.isfinite(model.predict_proba(frame)).all()


@pytest.mark.parametrize("method", ["mmin", "smil", "kd_mm"])
def test_a_method_that_needs_complete_rows_says_what_there_is(method: str) -> None:
    frame = rows()
    frame.loc[::2, "note"] = None
    frame.loc[1::2, ["age", "ward"]] = None
    lean = {name: READERS[name] for name in ("note", "vitals")}
    with pytest.raises(
        DataError, match=rf"{method}: stage .* needs 'complete' rows, and table has none \(30 rows, 0 compl"
    ):
        classifier(method, modalities=lean).fit(frame, rows())
    assert classifier("mean_fusion", modalities=lean).fit(frame, rows()).predict(frame).shape == (30,)


def test_rows_with_nothing_are_said_left_out_and_answered_by_the_prior(model: kg.Classifier) -> None:
    frame = rows()
    for column in ("scan", "say", "note", "ward", "pulse", "lab", "age"):
        frame.loc[[2, 5, 9], column] = None
    with pytest.warns(UserWarning, match="3 training rows hold nothing at all and are left out"):
        fitted = classifier().fit(frame, rows())
    answers = fitted.predict_proba(frame)
    assert np.isfinite(answers).all()
    assert np.array_equal(answers[2], answers[5])
    assert answers[2] == pytest.approx([0.5, 0.5], abs=0.05)
    assert fitted.predict_frame(frame)["used"].tolist().count("nothing (prior)") == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.predict([{}, {"note": "all is well"}]).shape == (2,)


# cells that cannot be used ------------------------------------------------------------------------------------------
CELLS = [
    ("scan", png()[:44], "cannot be decoded"),
    ("scan", b"no picture", "no image in a known format"),
    ("scan", np.full((8, 8), np.nan), "NaN in present data"),
    ("say", wav()[:200], "is truncated"),
    ("say", np.full(800, np.inf), "infinity in present data"),
    ("note", b"\xff\xfe\xfa", "is not UTF-8 text"),
    ("age", float("inf"), "NaN or infinity in present data"),
    ("pulse", [1.0, float("inf"), 2.0, 3.0], "infinity in present data"),
    ("pulse", [[1.0, 2.0]] * 4, "has 2 channels; 1 were expected"),
    ("lab", [1.0, float("nan"), 2.0], "NaN in present data"),
    ("lab", [1.0, 2.0], "has 2 numbers; 3 were expected"),
]


@pytest.mark.parametrize(("column", "cell", "words"), CELLS, ids=[f"{c}: {w}" for c, _, w in CELLS])
def test_a_cell_that_cannot_be_used_stops_or_is_left_out_and_listed(
    column: str, cell: Any, words: str, model: kg.Classifier
) -> None:
    name = "vitals" if column == "age" else column
    frame = put(rows(12), 3, column, cell)
    for call in (model.predict, model.score, model.explain):
        with pytest.raises(
            DataError, match=rf"row 3 \(counted from 0\), modality '{name}'.*{words}.*on_error='missing'"
        ):
            call(frame)
    table = tolerant(frame, model)
    told = model.explain(table)
    gone = ~told[[f"{n}_present" for n in NAMES]].to_numpy()
    a_part = column == "age" or (column == "pulse" and words.startswith("infinity"))  # one cell or step, masked alone
    assert np.argwhere(gone).tolist() == ([] if a_part else [[3, NAMES.index(name)]])
    assert np.array_equal(told[[f"{n}_used" for n in NAMES]].to_numpy(), ~gone)
    (problem,) = table.problems
    assert (problem.row, problem.modality) == (3, name)
    assert words in problem.reason
    clean = model.predict_proba(rows(12))
    answers = model.predict_proba(table)
    others = [i for i in range(12) if i != 3]
    assert np.allclose(answers[others], clean[others], atol=1e-6)
    assert np.isfinite(answers).all()


def test_training_rows_that_cannot_be_used_stop_or_are_left_out_and_listed(tmp_path: Path) -> None:
    frame = rows()
    for row, column, cell in ((2, "scan", png()[:30]), (3, "say", wav()[:200]), (4, "lab", [float("nan")] * 3)):
        frame = put(frame, row, column, cell)
    with pytest.raises(DataError, match=r"row 2 \(counted from 0\), modality 'scan'"):
        classifier().fit(frame, rows())
    table = kg.Table.from_pandas(frame, modalities=READERS, target="outcome", on_error="missing")
    fitted = classifier().fit(table, rows())
    assert sorted((p.row, p.modality) for p in table.problems) == [(2, "scan"), (3, "say"), (4, "lab")]
    loaded = kg.load(fitted.save(tmp_path / "model"))
    assert np.array_equal(loaded.predict_proba(frame), fitted.predict_proba(frame))  # as it was trained: missing


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        ("scan", [png(40, 17), png(8, 8, "RGB"), png(5, 9, "RGBA"), png(8, 8, "1"), png(8, 8, "P")]),
        ("say", [wav(44100), wav(channels=2), wav(44100, 2), wav(seconds=0.03), wav(seconds=2.0)]),
        ("note", ["x" * 5000, "naïve Ærøskøbing 日本語", "\N{ROCKET}" * 40, b"bytes", 3.5]),
        ("pulse", [[60.0], [60.0] * 50, [60.0, float("nan"), 60.0], "[60, 60]", np.array([[60], [61]])]),
        ("age", [1e6, -1e6, 0, True, "7"]),
        ("ward", ["never seen", "", 3, True, b"a"]),
    ],
)
def test_unusual_cells_are_read_all_the_same(column: str, cells: list[Any], model: kg.Classifier) -> None:
    frame = rows(10)
    for i, cell in enumerate(cells):
        frame = put(frame.astype({column: object}), i, column, cell)
    told = model.explain(frame)
    assert told.to_numpy().all()
    assert np.isfinite(model.predict_proba(frame)).all()
    assert np.allclose(model.predict_proba(frame)[5:], model.predict_proba(rows(10))[5:], atol=1e-6)


def test_a_number_that_is_beyond_all_measure_is_no_silent_nan(model: kg.Classifier) -> None:
    frame = put(rows(6), 4, "age", 1e30)
    for call in (model.predict, model.score, model.predict_frame, model.explain):
        with pytest.raises(DataError, match=r"rows: the answer to 1 rows is not finite: row 4 \(counted from 0\)"):
            call(frame, on_error="raise")
        with pytest.warns(UserWarning, match="They get the answer of a row with nothing"):
            call(frame)


@pytest.mark.parametrize("cell", ["", "   ", None, float("nan"), pd.NA, b"", b"  "])
def test_text_that_is_empty_is_a_hole(cell: Any, model: kg.Classifier) -> None:
    told = model.explain(put(rows(4), 2, "note", cell))
    assert told["note_present"].tolist() == [True, True, False, True]


def test_a_category_that_training_did_not_know_is_a_hole_and_said(model: kg.Classifier) -> None:
    frame = put(put(rows(6), 0, "ward", "z"), 2, "ward", "y")
    frame.loc[[0, 2, 4], "age"] = 1.0
    alone = frame[["age", "ward"]].to_dict("records")
    with pytest.warns(UserWarning, match=r"column 'ward' in 2 of 6 cells \('z', 'y'; first in row 0"):
        answers = model.predict_proba(alone)
    assert np.allclose(answers[0], answers[2], atol=1e-6)  # what is unknown is unknown, by whatever name
    assert not np.allclose(answers[0], answers[4], atol=1e-6)


def test_tensors_with_nan_name_row_and_modality() -> None:
    data = toy(rows=96, dim=5)
    source = data.source
    assert isinstance(source, kg.TensorSource)
    batch = source.read(torch.arange(96))
    batch.inputs["m1"][7, 2] = torch.nan
    with pytest.raises(DataError, match=r"NaN or infinity in present data: modality 'm1', row 7 \(1 rows\)"):
        kg.TensorSource(data.schema, batch)
    batch.present[7, 1] = False
    assert len(kg.Dataset(kg.TensorSource(data.schema, batch))) == 96


@pytest.mark.filterwarnings("ignore:overflow")
def test_a_loss_that_explodes_names_the_rows() -> None:
    train, val, _ = toy("regression", rows=96, dim=5).split()
    train.source.target[5] = torch.inf  # type: ignore[index]
    with pytest.raises(NonFiniteLoss, match=r"epoch 1 .*rows of the batch: .*Look at these rows") as told:
        kg.Regressor(epochs=1, batch_size=16, progress=False).fit(train, val)
    assert 5 in told.value.rows


# encoders of one's own ----------------------------------------------------------------------------------------------
class Returns(nn.Module):
    """Whatever the function makes of the input."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (nn.Linear(4, 4), r"'lab' fails on rows of shape \[3\]: mat1 and mat2"),
        (Returns(lambda x: x[0]), r"'lab' must return \[R, D\].*with R = 2 rows; it returned \[3\]"),
        (Returns(lambda x: x[:1]), r"'lab' .*with R = 2 rows; it returned \[1, 3\]"),
        (Returns(lambda x: x[:, None, None, None]), r"'lab' .*it returned \[2, 1, 1, 1, 3\]"),
        (Returns(lambda x: {"out": x}), "'lab' .*it returned dict"),
    ],
)
def test_an_encoder_of_the_wrong_shape_is_named(module: nn.Module, words: str) -> None:
    fresh = classifier(encoders={"lab": module})
    with pytest.raises(ConfigError, match=f"the encoder given for modality {words}"):
        fresh.fit(rows(), rows())
    assert not hasattr(fresh, "pipeline_")


# saved models -------------------------------------------------------------------------------------------------------
@pytest.fixture
def folder(model: kg.Classifier, tmp_path: Path) -> Path:
    return model.save(tmp_path / "model")


def test_a_folder_that_is_damaged_of_another_version_or_a_pickle_is_not_loaded(folder: Path, tmp_path: Path) -> None:
    def broken(file: str, content: bytes) -> Path:
        shutil.rmtree(tmp_path / "broken", ignore_errors=True)
        shutil.copytree(folder, tmp_path / "broken")
        (tmp_path / "broken" / file).write_bytes(content)
        return tmp_path / "broken"

    said = json.loads((folder / store.CONFIG).read_bytes())
    weights = (folder / said["weights"]).read_bytes()
    with pytest.raises(ModelFileError, match="is truncated or altered"):
        kg.load(broken(said["weights"], weights[: len(weights) // 2]))
    with pytest.raises(ModelFileError, match="is a pickle, not safetensors"):
        kg.load(broken(said["weights"], pickle.dumps({"weights": 1})))
    with pytest.raises(ModelFileError, match="has format 99; this version reads formats 1 and 2"):
        kg.load(broken(store.CONFIG, json.dumps({**said, "format": 99}).encode()))
    with pytest.raises(ModelFileError, match="is damaged"):
        kg.load(broken(store.CONFIG, json.dumps(said).encode()[:-20]))
    with pytest.raises(ModelFileError, match="was altered: its digest differs"):
        kg.load(broken(store.CONFIG, json.dumps({**said, "extra": {}}).encode()))
    store.save(kg.load(folder).pipeline_, tmp_path / "bare")
    with pytest.raises(ModelFileError, match="holds a bare pipeline"):
        kg.load(tmp_path / "bare")
    with pytest.raises(ModelFileError, match="does not exist"):
        kg.load(tmp_path / "nowhere")
    assert kg.load(folder).predict(rows(4)).shape == (4,)


@pytest.mark.parametrize("beginning", ["model-", "model.json"])
def test_a_disk_that_fills_up_costs_neither_the_old_model_nor_the_new_one(
    beginning: str, model: kg.Classifier, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = classifier(seed=5).fit(rows(), rows())
    real = store.replace_file

    def full(path: Path, content: bytes) -> None:
        if path.name.startswith(beginning):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(store, "replace_file", full)
        with pytest.raises(OSError, match="No space left on device"):
            new.save(folder)
    assert np.array_equal(kg.load(folder).predict_proba(rows()), model.predict_proba(rows()))
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    new.save(folder)
    assert np.array_equal(kg.load(folder).predict_proba(rows()), new.predict_proba(rows()))


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_every_method_of_the_library_answers_rows_with_unusual_cells() -> None:
    """One row a modality that has nothing else, and one with nothing, for each method."""
    lean = {name: READERS[name] for name in ("note", "vitals", "lab")}
    frame = rows(4)
    for row, keep in enumerate((["note"], ["age", "ward"], ["lab"], [])):
        for column in {"note", "age", "ward", "lab"} - set(keep):
            frame.loc[row, column] = None
    for key in METHODS:
        card = METHODS.card(key)
        if "classification" not in card.tasks or (card.modalities[1] or 3) < 3:
            continue
        small = {"dim": 16} if "dim" in arguments(METHODS[key]) else {}
        fitted = kg.Classifier(key, params=small, modalities=lean, target="outcome", epochs=1, progress=False)
        answers = fitted.fit(rows(), rows()).predict_proba(frame)
        assert np.isfinite(answers).all(), key
        assert answers.sum(1) == pytest.approx(1, abs=1e-5)
        assert fitted.predict_frame(frame)["used"].tolist()[3] == "nothing (prior)"
