"""The command line: a table there and back, one message for everything that is wrong, and an interruption that costs nothing."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from typer.testing import CliRunner

import kintsugi as kg
from kintsugi import cli
from kintsugi.cli import app
from kintsugi.core.card import Card
from kintsugi.core.methods import METHODS
from kintsugi.data.columns import read_columns
from kintsugi.data.datasets import DATASETS
from kintsugi.imperfect.operator import OPERATORS
from kintsugi.io.files import replacing
from kintsugi.testing.fixture import toy
from kintsugi.training import checkpoint as saved

Image = pytest.importorskip("PIL.Image")
COMMANDS = ("demo", "train", "predict", "evaluate", "gallery", "methods", "corruptions", "datasets")
COLUMNS = """\
modalities:
  scan:
    kind: image
    column: scan
    size: 6
  note: {kind: text, column: note, length: 16}
  vitals:
    kind: tabular
    columns: [age, ward]
target: outcome
"""


def members(model: Path) -> list[str]:
    """Names of the files of a saved model."""
    return sorted(["model.json", json.loads((model / "model.json").read_text())["weights"]])


def table(folder: Path, count: int = 36, first: int = 0) -> pd.DataFrame:
    """A target that each modality tells; rows 1 and 2 lack their scan, row 3 holds nothing."""
    noise = np.random.default_rng(first)
    y = np.arange(count) % 3
    names = [f"scan{i + first}.png" for i in range(count)]
    for name, label in zip(names, y, strict=True):
        Image.fromarray((noise.integers(0, 40, (6, 6)) + 90 * label).astype(np.uint8)).save(folder / name)
    frame = pd.DataFrame(
        {
            "scan": pd.Series(names, dtype=object),
            "note": pd.Series([("red apple", "blue sky", "green leaf")[i] for i in y], dtype=object),
            "age": y * 10.0 + noise.normal(size=count),
            "pulse": y * 7.0,
            "ward": pd.Series([("a", "b", "c")[i] for i in y], dtype=object),
            "outcome": [("low", "mid", "top")[i] for i in y],
        }
    )
    frame.loc[1, "scan"] = None
    (folder / names[2]).unlink()
    frame.loc[3, ["scan", "note", "age", "ward", "pulse"]] = None
    return frame


class Told:
    """How a command ended and what it said."""

    def __init__(self, *words: object) -> None:
        done = CliRunner().invoke(app, [str(word) for word in words], prog_name="kintsugi", catch_exceptions=False)
        self.status, self.out, self.err = done.exit_code, done.stdout, done.stderr


def refused(*words: object, status: int = 2) -> str:
    """The message of a command that ends so, which is all that it says; a training said before how columns are read."""
    told = Told(*words)
    head, *lines = told.out.splitlines() or [""]
    assert told.status == status, told.out + told.err
    assert head == "" or (words[0] == "train" and head.endswith("columns as they are read:")), told.out
    assert all(line.startswith("  ") for line in lines), told.out
    said = "".join(line for line in told.err.splitlines(True) if not line.startswith("warning: "))
    assert said.startswith("error: ")
    assert "Traceback" not in said
    return said.removeprefix("error: ").rstrip("\n")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table for training, one for testing, and how to read them. Not to be changed."""
    folder = tmp_path_factory.mktemp("home")
    table(folder).to_parquet(folder / "train.parquet")
    table(folder, 18, first=100).to_parquet(folder / "test.parquet")
    table(folder, 18, first=100).to_csv(folder / "test.csv", index=False)
    (folder / "columns.yaml").write_text(COLUMNS)
    return folder


@pytest.fixture(scope="module")
def model(home: Path) -> Path:
    """A trained model. Not to be changed."""
    return trained(home, home / "model", "--epochs", 12, "--lr", 0.02, "--batch-size", 16, "--set", "dim=8")


@pytest.fixture
def work(home: Path, tmp_path: Path) -> Path:
    """The same files, to be changed."""
    shutil.copytree(home, tmp_path / "work", ignore=shutil.ignore_patterns("model"))
    return tmp_path / "work"


def trained(home: Path, out: Path, *more: object, data: str = "train.parquet", columns: str = "columns.yaml") -> Path:
    told = Told("train", home / data, home / columns, "-o", out, *more)
    assert told.status == 0, told.out + told.err
    return out


# help ---------------------------------------------------------------------------------------------------------------
def test_every_command_shows_examples() -> None:
    overview = Told("--help")
    assert overview.status == 0
    for command in COMMANDS:
        assert command in overview.out
        told = Told(command, "--help")
        assert told.status == 0
        assert "Examples" in told.out
        assert f"kintsugi {command}" in told.out.partition("Examples")[2]
    assert "kintsugi demo" in overview.out
    assert Told("-h").out == overview.out
    assert Told().out.split() == overview.out.split()


def probe(*words: object, **options: Any) -> str:
    """What the command says and which of the heavy packages it loaded, in a fresh process."""
    code = (
        "import sys\nsys.argv[0] = 'kintsugi'\nfrom kintsugi.cli import main\ntry:\n    main()\nfinally:\n"
        "    heavy = {'torch', 'numpy', 'pandas', 'sklearn', 'lightning_fabric', 'torchmetrics', 'plotly', 'typer'}\n"
        "    print('loaded:', *sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=True, **options
    )
    return done.stdout


def test_help_waits_for_nothing_heavy() -> None:
    told = probe("--help")
    assert "Usage: kintsugi" in told
    assert told.splitlines()[-1] == "loaded: typer"


def test_predicting_does_not_wait_for_what_only_training_needs(home: Path, model: Path) -> None:
    told = probe("predict", model, home / "test.parquet")
    assert told.startswith("row,prediction,probability,used,uncertainty\n")
    assert told.splitlines()[-1] == "loaded: numpy pandas torch typer"


# there and back -----------------------------------------------------------------------------------------------------
def test_a_table_is_trained_on_and_the_folder_holds_the_model_and_nothing_else(model: Path) -> None:
    assert sorted(path.name for path in model.iterdir()) == members(model)
    loaded = kg.load(model)
    assert loaded.pipeline_.schema.names == ("scan", "note", "vitals")
    assert loaded.pipeline_.model.hyper["dim"] == 8
    assert loaded.trained_on_["rows"] == 31  # 15 % were held out


@pytest.mark.parametrize("kind", ["csv", "parquet", "terminal"])
def test_rows_with_holes_are_predicted(home: Path, model: Path, kind: str, tmp_path: Path) -> None:
    out = tmp_path / "new" / f"predictions.{kind}"
    given = home / ("test.csv" if kind == "csv" else "test.parquet")
    told = Told("predict", model, given, *([] if kind == "terminal" else ["-o", out]))
    assert (told.status, told.err) == (0, "")
    if kind == "terminal":
        out.parent.mkdir()
        out.write_text(told.out)
    frame = pd.read_parquet(out) if kind == "parquet" else pd.read_csv(out)
    assert list(frame.columns) == ["row", "prediction", "probability", "used", "uncertainty"]
    assert frame["row"].tolist() == list(range(18))
    assert frame["used"].tolist()[:5] == [
        "scan+note+vitals", "note+vitals", "note+vitals", "nothing (prior)", "scan+note+vitals",
    ]  # fmt: skip
    right = frame["prediction"] == table(tmp_path, 18, first=100)["outcome"]
    assert right.drop(3).mean() > 0.8
    assert frame["prediction"].tolist() == kg.load(model).predict(given).tolist()


def test_a_model_is_evaluated(home: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    csv, html = tmp_path / "new" / "results.csv", tmp_path / "other" / "report.html"
    monkeypatch.setattr(sys, "argv", ["kintsugi", "evaluate", "the model", "-p", "subsets"])  # what the report names
    told = Told("evaluate", model, home / "test.parquet", "--csv", csv, "--html", html)
    assert (told.status, told.err) == (0, "")
    results = kg.Results.from_csv(csv)
    assert results.table["condition"].nunique() == 7
    assert "accuracy on 18 rows of test" in " ".join(told.out.split())
    for condition in ("clean", "scan + note", "vitals"):
        (line,) = (x for x in told.out.splitlines() if x.strip("│ ").startswith(f"{condition} "))
        chosen = results.table[(results.table["condition"] == condition) & (results.table["metric"] == "accuracy")]
        assert f"{chosen['value'].item():.4f}" in line
    assert "…" not in told.out
    assert "kintsugi evaluate 'the model' -p subsets" in unescape(html.read_text(encoding="utf-8"))
    few = Told("evaluate", model, home / "test.csv", "-p", "rates(0, 0.3)")
    assert [w in few.out for w in ("mcar(0.3)", "scan + note")] == [True, False]


def test_a_model_is_evaluated_by_metrics_that_are_named_beside_a_guess(home: Path, model: Path, tmp_path: Path) -> None:
    csv = tmp_path / "results.csv"
    words = ["evaluate", model, home / "test.parquet", "-p", "clean", "--csv", csv]
    told = Told(*words, "--metric", "auroc", "--metric", "balanced_accuracy")
    assert told.status == 0, told.err
    results = kg.Results.from_csv(csv)
    assert results.metrics == ["auroc", "balanced_accuracy"]
    lines = {x.strip("│ ").partition("│")[0].strip(): x for x in told.out.splitlines()}
    for value in results.table["value"]:
        assert f"{value:.4f}" in lines["clean"]
    assert re.findall(r"0\.\d+", lines["a guess (prior)"]) == ["0.5000", "0.3333"]  # one of three classes
    assert "did you mean 'auroc'" in refused(*words, "--metric", "aurok")
    assert "is for tasks with numbers" in refused(*words, "--metric", "r2")


def test_the_metric_that_chooses_the_epoch_is_named(home: Path, tmp_path: Path) -> None:
    told = Told(
        "train", home / "train.parquet", home / "columns.yaml", "-o", tmp_path / "m", "--epochs", 2, "--metric", "auroc"
    )
    assert told.status == 0, told.err
    assert "val/auroc" in told.out
    wrong = Told(
        "train", home / "train.parquet", home / "columns.yaml", "-o", tmp_path / "n", "--epochs", 2, "--metric", "aurok"
    )
    assert wrong.status == 2
    assert "did you mean 'auroc'" in wrong.err


def test_a_file_of_validation_rows_and_settings(home: Path, tmp_path: Path) -> None:
    out = trained(
        home, tmp_path / "m", "-m", "mmin", "--set", "blocks=2", "--set", "w_forward=1e-1", "--epochs", 1,
        "--val", home / "test.parquet", "--missing", "mcar(0.2)",
    )  # fmt: skip
    loaded = kg.load(out)
    assert loaded.trained_on_["rows"] == 36
    assert (loaded.method, loaded.training_condition_) == ("mmin", "mcar(0.2)")
    assert (loaded.pipeline_.model.hyper["blocks"], loaded.pipeline_.model.hyper["w_forward"]) == (2, 0.1)


def test_the_split_column_decides(work: Path) -> None:
    frame = pd.read_parquet(work / "train.parquet")
    (work / "columns.yaml").write_text(COLUMNS + "split: part\n")
    for parts, rows, more in (
        (["train"] * 20 + ["val"] * 6 + ["test"] * 10, 20, []),
        (["train"] * 20 + ["test"] * 16, 17, []),  # no row val: 15 % of the training rows
        (["train"] * 20 + ["val"] * 6 + ["test"] * 10, 20, ["--val", work / "test.parquet"]),
    ):
        frame.assign(part=parts).to_parquet(work / "parts.parquet")
        out = trained(work, work / "m", "--epochs", 1, *more, data="parts.parquet")
        assert kg.load(out).trained_on_["rows"] == rows


def test_numbers_are_regressed(work: Path) -> None:
    text = COLUMNS.replace("[age, ward]", "[pulse]").replace("outcome", "age")
    (work / "columns.yaml").write_text(text)
    out = trained(work, work / "m", "--epochs", 1)
    assert isinstance(kg.load(out), kg.Regressor)
    assert list(pd.read_csv(predicted(out, work / "test.csv")).columns) == ["row", "age", "used"]


def predicted(model: Path, rows: Path) -> Path:
    out = rows.with_name("predictions.csv")
    assert Told("predict", model, rows, "-o", out).status == 0
    return out


def test_a_built_in_set_needs_no_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert DATASETS["avdigits"]  # whose module is read before another takes its name
    monkeypatch.setitem(DATASETS._things, "avdigits", lambda: toy(rows=96, dim=5))
    told = Told("train", "avdigits", "-m", "late_fusion", "--set", "merge=mean", "--epochs", 2, "-o", tmp_path / "m")
    assert told.status == 0, told.err
    assert "96 rows" not in told.out
    assert "64 rows" in told.out
    assert "last epoch: " in told.out
    assert "val/accuracy 0." in told.out.partition("last epoch: ")[2]
    assert f"saved in {tmp_path / 'm'}" in told.out
    assert kg.load(tmp_path / "m").pipeline_.model.hyper["merge"] == "mean"
    assert "on 16 rows of toy" in Told("evaluate", tmp_path / "m", "avdigits").out
    assert "was trained on tensors" in refused("predict", tmp_path / "m", "avdigits")
    assert "was trained on tensors" in refused("evaluate", tmp_path / "m", tmp_path / "m" / "model.json")
    assert "leave --val out" in refused("train", "avdigits", "--val", "x.parquet", "-o", tmp_path / "n")


def test_an_argument_of_before_is_that_of_today(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(METHODS["late_fusion"], "renamed", {"how": "merge"})
    words = [
        "train",
        home / "train.parquet",
        home / "columns.yaml",
        "-m",
        "late_fusion",
        "--epochs",
        1,
        "-o",
        tmp_path / "m",
    ]
    told = Told(*words, "--set", "how=mean")
    assert told.status == 0, told.out + told.err
    assert "warning: late_fusion: the argument 'how' is called 'merge' now\n" in told.err
    saved = json.loads((tmp_path / "m" / "model.json").read_text())
    assert saved["parts"]["model"]["hyper"]["merge"] == "mean"
    assert "both are given; leave 'how' out" in refused(*words, "--set", "how=mean", "--set", "merge=mean")


def test_a_command_to_type_quotes_a_path_with_blanks(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "my model"
    told = Told("train", home / "train.parquet", home / "columns.yaml", "--epochs", 1, "-o", out)
    assert f"use it with: kintsugi predict '{out}' ROWS.parquet" in told.out


def test_python_runs_the_package_as_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "kintsugi", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"kintsugi {kg.__version__}\n"


@pytest.mark.parametrize(("word", "near"), [("metods", "did you mean 'methods'?"), ("xyz", "known: bench, check,")])
def test_an_unknown_command_names_the_nearest(word: str, near: str) -> None:
    told = Told(word)
    assert told.status == 2
    assert f"no such command {word!r}; {near}" in " ".join(told.err.split())


def test_the_card_of_a_method_whose_file_is_broken_says_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    problems = {"/somewhere/torn.py": "line 3: unknown field 'premis'"}
    monkeypatch.setattr(type(METHODS), "problems", property(lambda self: problems))
    for word in ("torn", "general/torn"):
        assert "method 'torn' cannot be used: /somewhere/torn.py: line 3: unknown field" in refused("methods", word)
    assert "did you mean 'mmin'" in refused("methods", "mmim")


def test_a_folder_with_brackets_in_its_name_is_named_as_it_is(home: Path, tmp_path: Path) -> None:
    told = Told("train", home / "train.parquet", home / "columns.yaml", "--epochs", 1, "-o", tmp_path / "run[bold]1")
    assert f"saved in {tmp_path / 'run[bold]1'}; use it with" in told.out
    assert told.err == "warning: train: 1 training rows hold nothing at all and are left out\n"
    assert "[nowhere]" in refused("predict", tmp_path / "[nowhere]", home / "test.csv")


# what is wrong is one message ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("-m mean_fuson", "unknown method 'mean_fuson'; did you mean 'mean_fusion'?"),
        ("-m mmin --set block=3", "unknown argument of mmin 'block'; did you mean 'blocks'?"),
        ("--set dim", "--set takes NAME=VALUE, not 'dim'"),
        ("--set =3", "--set takes NAME=VALUE, not '=3'"),
        ("--set dim=wide", "--set dim=wide: dim is like 32, not 'wide'"),
        ("--set dim=[1", "--set dim=[1: '[1' is not YAML"),
        ("--missing mcr(0.3)", "unknown missingness mechanism 'mcr'; did you mean 'mcar'?"),
        ("--missing mcar(3)", "must be a share between 0 and 1, not 3"),
        ("--missing mcar(", "cannot read 'mcar('"),
        ("--missing per_modality(scann=0.5)", "unknown modality 'scann'; did you mean 'scan'?"),
        ("--device gpu", "--device is cpu, cuda, cuda:0 or auto, not 'gpu'"),
        ("--device cuda:99", "--device cuda:99: this machine has"),
        ("--val nowhere.parquet", "nowhere.parquet does not exist"),
        ("--lr 0", "lr must be above 0"),
        ("--patience 0", "patience must be at least 1"),
    ],
)
def test_a_wrong_option_of_train(home: Path, words: str, message: str, tmp_path: Path) -> None:
    told = refused("train", home / "train.parquet", home / "columns.yaml", "-o", tmp_path / "m", *words.split())
    assert message in told
    assert "\n" not in told
    assert not (tmp_path / "m").exists()


def test_names_that_do_not_exist(home: Path, model: Path, tmp_path: Path) -> None:
    words = "neither a file nor a built-in data set; did you mean 'avdigits'?"
    assert words in refused("train", "avdigit", "-o", tmp_path / "m")
    assert words in refused("evaluate", model, "avdigit")
    assert "unknown data set 'avdigit'; did you mean 'avdigits'?" in refused("datasets", "avdigit")
    assert "unknown protocol 'subset'; did you mean 'subsets'?" in refused(
        "evaluate", model, home / "test.csv", "-p", "subset"
    )
    assert "gaussian_noise" in refused("evaluate", model, home / "test.csv", "-p", "corruptions(gausian_noise)")
    assert "unknown method or leaf 'mmni'; did you mean 'mmin'?" in refused("methods", "mmni")
    assert "did you mean 'gaussian_noise'?" in refused("corruptions", "gausian_noise")
    assert "did you mean 'tabular'?" in refused("corruptions", "tabula")
    assert "unknown task 'regresion'; did you mean 'regression'?" in refused("methods", "--task", "regresion")
    assert "say how to read its columns in a YAML file" in refused("train", home / "train.parquet")
    assert "needs fsdd; load it in Python" in refused("train", "avmnist", "-o", tmp_path / "m")
    assert "--on-error is raise or missing, not 'ignore'" in refused(
        "predict", model, home / "test.csv", "--on-error", "ignore"
    )
    assert "unknown method 'mena_fusion'; did you mean 'mean_fusion'?" in refused(
        "demo", "--methods", "mena_fusion", "-o", tmp_path / "demo"
    )
    assert "at least one method" in refused("demo", "--methods", ",", "-o", tmp_path / "demo")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_option_or_command_is_a_usage_error() -> None:
    for words in (["train", "x", "--epoch", "3"], ["trian"], ["train", "x", "--epochs", "0"]):
        told = Told(*words)
        assert (told.status, told.out) == (2, "")
        assert "Usage" in told.err


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    size: 6", "    sise: 6", "line 5: modalities.scan.sise: unknown key; did you mean 'size'?"),
        ("target: outcome", "target: outcome\ntaks: x", "line 11: taks: unknown key; did you mean 'task'?"),
        ("kind: image", "kind: imag", "line 2: modalities.scan: unknown kind 'imag'; did you mean 'image'?"),
        ("    kind: image\n", "", "line 2: modalities.scan: kind is lacking; known: audio, image, series"),
        ("length: 16", "length: long", "line 6: modalities.note.length: 'long': input should be a valid integer"),
        ("size: 6", "size: big", "line 5: modalities.scan.size: 'big': input should be a valid integer"),
        ("length: 16", "length: 2", "line 6: modalities.note: length must be 4 bytes or more"),
        ("size: 6", "size: 0", "line 2: modalities.scan: size must be pixels"),
        ("[age, ward]", "[age, 3]", "line 9: modalities.vitals.columns.1: 3: input should be a valid string"),
        ("[age, ward]", "age", "line 9: modalities.vitals.columns: 'age': input should be a valid list"),
        ("target: outcome\n", "", "line 1: target: is lacking"),
        ("target: outcome", "target: outcome\ntask: rank", "line 11: task: 'rank': input should be 'classification'"),
        ("target: outcome", "target: [outcome", "not YAML"),
        ("  vitals:", "  note:", "line 7: note is there twice"),
        ("column: scan", "column: scann", "unknown column 'scann'; did you mean 'scan'?"),
        ("outcome", "outcom", "unknown column 'outcom'; did you mean 'outcome'?"),
        (COLUMNS, "", "expected keys such as modalities: and target:, found NoneType"),
        (COLUMNS, "modalities: {}\ntarget: outcome", "line 1: modalities: "),
        (COLUMNS, "modalities: {scan: image}\ntarget: y", "line 1: modalities.scan: 'image': input should be a valid"),
        (COLUMNS, "a: b: c", "line 1: not YAML: mapping values are not allowed here"),
    ],
)
def test_a_wrong_yaml_names_its_line(home: Path, old: str, new: str, message: str, tmp_path: Path) -> None:
    assert COLUMNS.count(old) == 1
    (tmp_path / "columns.yaml").write_text(COLUMNS.replace(old, new))
    told = refused("train", home / "train.parquet", tmp_path / "columns.yaml", "-o", tmp_path / "m")
    assert message in told
    assert "\n" not in told
    assert not (tmp_path / "m").exists()


def test_several_mistakes_are_all_said_and_a_modality_may_be_called_like_a_kind(tmp_path: Path) -> None:
    place = tmp_path / "columns.yaml"
    place.write_text("modalities:\n  image:\n    kind: image\n    column: scan\n    sise: 3\ntraget: x\n")
    with pytest.raises(kg.KintsugiError) as told:
        read_columns(place)
    assert str(told.value).splitlines() == [
        f"{place}, line 5: modalities.image.sise: unknown key; did you mean 'size'?",
        f"{place}, line 1: target: is lacking",
        f"{place}, line 6: traget: unknown key; did you mean 'target'?",
    ]
    place.write_bytes(COLUMNS.encode("utf-16"))
    with pytest.raises(kg.KintsugiError, match="is not UTF-8"):
        read_columns(place)


def test_every_key_of_the_yaml_arrives(tmp_path: Path) -> None:
    said = {
        "modalities": {
            "a": {"kind": "image", "column": "a", "size": [4, 6], "channels": 3},
            "b": {"kind": "audio", "column": "b", "rate": 8000, "seconds": 0.5},
            "c": {"kind": "text", "column": "c"},
            "d": {"kind": "tabular", "columns": ["d", "e"], "categories": ["e"]},
            "e": {"kind": "series", "column": "f", "length": 3, "channels": 2},
            "f": {"kind": "vector", "column": "g", "standardise": True},
        },
        "target": ["x", "y"], "task": "multilabel", "group": "p", "split": "s", "weight": "w",
        "on_error": "missing",
    }  # fmt: skip
    (tmp_path / "columns.yaml").write_text(yaml.safe_dump(said))
    readers = {
        "a": kg.image("a", size=(4, 6), channels=3), "b": kg.audio("b", 8000, 0.5), "c": kg.text("c"),
        "d": kg.tabular(["d", "e"], ["e"]), "e": kg.series("f", 3, 2), "f": kg.vector("g", True),
    }  # fmt: skip
    assert read_columns(tmp_path / "columns.yaml") == {**said, "modalities": readers}


def test_files_that_are_not_what_they_should_be(home: Path, model: Path, tmp_path: Path) -> None:
    columns = home / "columns.yaml"
    (tmp_path / "folder").mkdir()
    (tmp_path / "bad.parquet").write_bytes(b"nonsense")
    (tmp_path / "folder.csv").mkdir()
    pd.read_csv(home / "test.csv").drop(columns="ward").to_csv(tmp_path / "few.csv", index=False)
    assert "x.yaml does not exist" in refused("train", home / "train.parquet", tmp_path / "x.yaml")
    assert "x.parquet does not exist" in refused("train", tmp_path / "x.parquet", columns)
    assert "folder: Is a directory" in refused("train", home / "train.parquet", tmp_path / "folder")
    assert "no rows" in refused("train", tmp_path / "folder", columns)
    assert "folder.csv: Is a directory" in refused("train", tmp_path / "folder.csv", columns)
    assert "bad.parquet is no readable Parquet file" in refused("train", tmp_path / "bad.parquet", columns)
    assert "x.parquet does not exist" in refused("predict", model, tmp_path / "x.parquet")
    assert "folder" in refused("predict", model, tmp_path / "folder")
    assert "no column 'ward', which the model was trained on" in refused("predict", model, tmp_path / "few.csv")
    assert "no column 'outcome'" in refused("evaluate", model, few_columns(home, tmp_path))
    assert "folder is not a saved model" in refused("predict", tmp_path / "folder", home / "test.csv")
    assert "nowhere does not exist" in refused("evaluate", tmp_path / "nowhere", home / "test.csv")
    assert "bad.parquet: File exists" in refused("demo", "-o", tmp_path / "bad.parquet")


def few_columns(home: Path, folder: Path) -> Path:
    frame = pd.read_csv(home / "test.csv").drop(columns="outcome")
    frame.to_csv(folder / "bare.csv", index=False)
    return folder / "bare.csv"


def test_a_damaged_model_is_refused(home: Path, model: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(model, tmp_path / "broken")
    weights = broken / json.loads((broken / "model.json").read_text())["weights"]
    weights.write_bytes(weights.read_bytes()[:-9])
    for command in ("predict", "evaluate"):
        assert "is truncated or altered" in refused(command, broken, home / "test.csv")
    (broken / "model.json").write_text("{")
    assert "model.json is damaged" in refused("predict", broken, home / "test.csv")


def test_a_folder_that_cannot_take_the_model_is_refused_before_training(home: Path, tmp_path: Path) -> None:
    given = ("train", home / "train.parquet", home / "columns.yaml", "--epochs", 1, "-o")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "own" / "checkpoint").mkdir(parents=True)
    (tmp_path / "own" / "checkpoint" / "notes.txt").write_text("mine")
    assert "is not empty and holds no saved model (chapter.tex)" in refused(*given, tmp_path / "thesis")
    assert "is a file; a saved model is a folder" in refused(*given, tmp_path / "file")
    assert "holds no saved model (notes.txt)" in refused(*given, tmp_path / "own")
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"
    assert (tmp_path / "own" / "checkpoint" / "notes.txt").read_text() == "mine"


def test_a_full_disk_is_the_machine_s_fault(home: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "predictions.csv")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    told = refused("predict", model, home / "test.csv", "-o", "predictions.csv", status=1)
    assert told == "No space left on device: predictions.csv"


def test_a_missing_extra_is_named_and_another_import_error_is_not_hidden(
    home: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacks(words: str) -> Any:
        def load(*_: object) -> None:
            raise ImportError(words)

        return load

    monkeypatch.setattr("kintsugi.estimator.load", lacks("reading images needs pip install 'kintsugi-ml[image]'"))
    assert "kintsugi-ml[image]" in refused("predict", model, home / "test.csv")
    monkeypatch.setattr("kintsugi.estimator.load", lacks("a bug"))
    with pytest.raises(ImportError, match="a bug"):
        Told("predict", model, home / "test.csv")


# cells that cannot be used ------------------------------------------------------------------------------------------
def test_unreadable_cells_stop_or_are_listed(work: Path, model: Path) -> None:
    broken = work / "scan104.png"
    broken.write_bytes(broken.read_bytes()[:40])
    told = refused("predict", model, work / "test.parquet")
    assert f"row 4 (counted from 0), modality 'scan': {broken}: " in told
    assert "pass on_error='missing'" in told
    told_missing = Told("predict", model, work / "test.parquet", "--on-error", "missing", "-o", work / "p.csv")
    assert told_missing.status == 0
    assert told_missing.err.startswith(f"absent: row 4, scan: {broken}: ")
    frame = pd.read_csv(work / "p.csv")
    assert frame["used"].tolist()[3:6] == ["nothing (prior)", "note+vitals", "scan+note+vitals"]
    for i in range(24):
        (work / f"scan{i}.png").write_bytes(b"no picture")
    (work / "columns.yaml").write_text(COLUMNS + "on_error: missing\n")
    told_missing = Told("train", work / "train.parquet", work / "columns.yaml", "--epochs", 1, "-o", work / "m")
    assert told_missing.status == 0
    lines = told_missing.err.splitlines()
    absent = [line for line in lines if line.startswith("absent: row")]
    assert len(absent) == 20
    assert lines[-1] == "absent: 2 more"  # of 24, two were absent before
    assert Told("evaluate", work / "m", work / "test.parquet").err.startswith(f"absent: row 4, scan: {broken}: ")
    as_trained = Told("predict", work / "m", work / "test.parquet", "-o", work / "q.csv")
    assert as_trained.status == 0, "a model that was trained with on_error: missing predicts so too"
    assert as_trained.err.startswith(f"absent: row 4, scan: {broken}: ")
    assert "pass on_error='missing'" in refused("predict", work / "m", work / "test.parquet", "--on-error", "raise")


# interruptions ------------------------------------------------------------------------------------------------------
def test_an_interrupted_training_goes_on_and_the_old_model_stays(
    home: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shutil.copytree(model, tmp_path / "model")
    words = ["train", str(home / "train.parquet"), str(home / "columns.yaml"), "-o", str(out), "--set", "dim=8"]
    words += ["--epochs", "40", "--batch-size", "8"]
    place = out / "checkpoint" / "checkpoint.safetensors"
    process = subprocess.Popen(
        [sys.executable, "-m", "kintsugi.cli", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # what runs in the background ignores it
    )  # fmt: skip
    try:
        until = time.monotonic() + 60
        while not place.exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        said, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, said + err
    assert len(said.splitlines()) == 6  # how its five columns are read, and nothing else
    assert "Traceback" not in err
    assert f"{place} holds the last full epoch. The same call goes on from there." in err
    assert np.array_equal(answers(out, home), answers(model, home))  # the model from before

    told = refused(*words[:-4], "--epochs", 20)
    assert f"{place} belongs to a run with other data, method or settings" in told
    assert place.exists()

    before = saved.find(place.parent)
    assert before is not None
    assert 1 <= before.position.epoch < 40
    epochs: list[int] = []
    write = saved.write_checkpoint

    def count(*args: Any) -> None:
        epochs.append(args[1].epoch)
        write(*args)

    monkeypatch.setattr(saved, "write_checkpoint", count)
    assert Told(*words).status == 0
    assert epochs == list(range(before.position.epoch + 1, 41))
    assert sorted(path.name for path in out.iterdir()) == members(out)
    assert not np.array_equal(answers(out, home), answers(model, home))


def answers(model: Path, home: Path) -> np.ndarray:
    return kg.load(model).predict_proba(home / "test.parquet")


def test_an_interruption_in_a_fresh_folder_and_a_kill_in_the_middle_of_a_write(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "fresh" / "model"
    words = ("train", home / "train.parquet", home / "columns.yaml", "-o", out, "--epochs", 3)

    def stop(*args: Any) -> None:
        write(*args)
        raise KeyboardInterrupt

    write = saved.write_checkpoint
    with monkeypatch.context() as patch:
        patch.setattr(saved, "write_checkpoint", stop)
        told = refused(*words, status=130)
    assert told.startswith("stopped\nTraining was stopped; ")
    assert [path.name for path in out.iterdir()] == ["checkpoint"]
    child = os.fork()
    if child == 0:
        with replacing(out / "checkpoint" / "checkpoint.safetensors") as fresh:
            fresh.write_bytes(b"half of one")
            os._exit(0)
    os.waitpid(child, 0)
    assert len(list((out / "checkpoint").iterdir())) == 2
    assert Told(*words).status == 0
    assert sorted(path.name for path in out.iterdir()) == members(out)
    assert kg.load(out).predict(home / "test.csv").shape == (18,)


# looking things up --------------------------------------------------------------------------------------------------
def test_methods_are_shown_as_a_tree_and_one_as_its_card() -> None:
    tree = Told("methods")
    assert tree.status == 0
    assert f"methods ({len(METHODS)})" in tree.out
    for key in METHODS:
        assert f" {key}  " in tree.out
    missing = Told("methods", "missing/*").out
    assert " mmin  " in missing
    assert " mean_fusion  " not in missing
    assert " mmin  " in Told("methods", "missing/*", "--task", "regression").out
    redundant = Told("methods", "--premise", "redundant", "--task", "regression").out
    assert " mmin  " in redundant
    assert " midl  " not in redundant, "which solves no regression"
    assert " kd_mm  " not in redundant
    assert " midl  " in Told("methods", "--premise", "redundant").out
    assert "unknown premise 'redundnt'; did you mean 'redundant'?" in refused("methods", "--premise", "redundnt")
    assert "no card of these methods names the premise 'neighbours'; it is named by m3care" in refused(
        "methods", "general", "--premise", "neighbours"
    )
    assert "unknown method or leaf 'mmni'" in refused("methods", "mmni", "--premise", "redundant")
    told = " ".join(Told("methods", "mmin").out.split())
    card: Card = METHODS["mmin"].card
    for words in (
        f"{card.name} (mmin)",
        card.premise,
        ", ".join(card.worlds),
        card.claims[0],
        card.leaf,
        "blocks=5",
        *card.faithful,
        *card.simplified,
    ):
        assert " ".join(words.split()) in told


def test_corruptions_are_listed_by_kind() -> None:
    told = Told("corruptions")
    assert told.status == 0
    for key in OPERATORS:
        assert re.search(rf"^{key} ", told.out, re.M), key
    for kind in {OPERATORS[key].kind for key in OPERATORS}:
        assert f"{kind} ({len(kg.corruptions.list_corruptions(kind))})" in told.out
    audio = Told("corruptions", "audio").out
    assert "white_noise" in audio
    assert "gaussian_noise" not in audio
    noises = Told("corruptions", "*_noise").out
    assert "white_noise" in noises
    assert "gaussian_noise" in noises
    assert "keyboard_typos" not in noises


@pytest.mark.parametrize("key", ["gaussian_noise", "keyboard_typos", "mismatched_pairs"])
def test_a_corruption_is_shown_as_its_card(key: str) -> None:
    operator = OPERATORS[key]
    told = Told("corruptions", key)
    assert all(len(line.rstrip()) <= 80 for line in told.out.splitlines())
    said = " ".join(told.out.split())
    assert f"({key})" in said
    assert " ".join(operator.source.split()) in said
    for preset, levels in operator.parameters.items():
        assert preset in said
        for name in levels[1]:
            assert re.search(rf"{name} +{re.escape(f'{levels[1][name]:g}')} ", told.out)
    about = (operator.__doc__ or "").partition("\n\n")[0]
    assert " ".join(about.replace("``", "").split()) in said


def test_a_gallery_is_written(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "gallery.html"
    words = (
        "--data",
        home / "train.parquet",
        "--columns",
        home / "columns.yaml",
        "--kind",
        "text",
        "--severities",
        "5,1,5",
    )
    told = Told("gallery", out, *words, "--rows", "1")
    assert told.status == 0, told.err
    assert str(out) in told.out
    text = out.read_text(encoding="utf-8")
    assert f"{len(kg.corruptions.list_corruptions('text'))} corruptions" in text
    assert "severities 1, 5" in text
    assert text.count("<blockquote>") % 3 == 0
    assert list(out.parent.iterdir()) == [out]


def test_a_gallery_with_a_failure_has_status_1(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("out of order")

    monkeypatch.setattr(OPERATORS["keyboard_typos"], "damage", broken)
    words = ("--data", home / "train.parquet", "--columns", home / "columns.yaml", "--kind", "text")
    told = Told("gallery", tmp_path / "g.html", *words, "--severities", "2")
    assert told.status == 1
    assert "failed: keyboard_typos, severity 2, on note of train: ZeroDivisionError: out of order" in told.err
    assert "out of order" in (tmp_path / "g.html").read_text(encoding="utf-8")


def test_a_gallery_refuses_what_it_cannot_do(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "g.html"
    assert "numbers from 1 to 5" in refused("gallery", out, "--severities", "0,9")
    assert "did you mean 'image'" in refused("gallery", out, "--kind", "imge")
    assert "name the file with --data" in refused("gallery", out, "--columns", home / "columns.yaml")
    assert "did you mean 'avdigits'" in refused("gallery", out, "--data", "avdigit")
    assert "is a folder" in refused("gallery", tmp_path, "--kind", "text")
    words = ("--data", home / "train.parquet", "--columns", home / "columns.yaml")
    assert "no modality of kind audio" in refused("gallery", out, *words, "--kind", "audio")
    assert list(tmp_path.iterdir()) == []


def test_data_sets_are_listed_and_one_is_described() -> None:
    told = Told("datasets")
    assert told.status == 0
    for name in DATASETS:
        assert name in told.out
    one = " ".join(Told("datasets", "avdigits").out.split())
    assert "1,500 rows, fixed split 900 / 200 / 400" in one
    assert "``clue``, 64 bytes" in one


def test_a_command_leaves_no_trace_in_the_process(home: Path, model: Path) -> None:
    state = torch.get_rng_state()
    assert Told("predict", model, home / "test.csv").status == 0
    assert torch.equal(torch.get_rng_state(), state)


# what a terminal cannot show, and names that say something else ------------------------------------------------------
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437"])
def test_a_terminal_that_is_not_utf_8_loses_nothing(encoding: str, home: Path, model: Path, tmp_path: Path) -> None:
    csv, html = tmp_path / "results.csv", tmp_path / "report.html"
    words = ["evaluate", model, home / "test.parquet", "-p", "clean", "--csv", csv, "--html", html]
    done = subprocess.run(
        [sys.executable, "-m", "kintsugi", *map(str, words)], capture_output=True, check=False,
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
    )  # fmt: skip
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)
    assert b"accuracy on 18 rows of test" in b" ".join(done.stdout.split())
    assert kg.Results.from_csv(csv).table["condition"].unique().tolist() == ["clean"]
    assert html.read_text(encoding="utf-8").rstrip().endswith("</html>")


def test_results_are_in_their_files_before_a_line_is_shown(
    home: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("rich.console.Console.print", closed)
    with pytest.raises(OSError, match="Input/output"):
        Told("evaluate", model, home / "test.parquet", "-p", "clean", "--csv", tmp_path / "results.csv")
    assert len(kg.Results.from_csv(tmp_path / "results.csv").table) > 0


def test_predictions_go_into_a_pipe_as_they_go_into_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame({"row": [0, 1], "prediction": ["größer", "≥ 3 日"]})
    cli._write(frame, tmp_path / "p.csv")
    pipe = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(pipe, encoding="ascii", errors="replace"))
    cli._write(frame, tmp_path / "p.csv.gz")
    assert gzip.decompress((tmp_path / "p.csv.gz").read_bytes()) == (tmp_path / "p.csv").read_bytes()
    cli._write(frame, None)
    sys.stdout.flush()
    assert pipe.getvalue() == (tmp_path / "p.csv").read_bytes()
    assert pipe.getvalue().decode() == "row,prediction\n0,größer\n1,≥ 3 日\n"


@pytest.mark.parametrize("name", ["p.xlsx", "p.XLS", "p.json", "p.tsv", "p.gz", "p.feather"])
def test_predictions_get_no_name_that_says_they_are_something_else(
    name: str, home: Path, model: Path, tmp_path: Path
) -> None:
    said = refused("predict", model, home / "test.csv", "-o", tmp_path / name)
    assert f"{name} ends in" in said
    assert "written as .csv or .parquet" in said
    assert list(tmp_path.iterdir()) == []
