"""The demonstration: what it leaves behind, what it refuses, and that its table fits a terminal."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

import kintsugi as kg
from kintsugi import demo
from kintsugi.core.errors import ConfigError, UnknownName
from kintsugi.evaluation.intervals import Interval
from kintsugi.evaluation.results import COLUMNS, Run

CLEAN = kg.Protocol("clean", (kg.Condition("clean", "clean"),))
pytest.importorskip("PIL.Image")
pytest.importorskip("soundfile")
pytest.importorskip("plotly")


# the whole of it ----------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_it_trains_compares_saves_and_predicts(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "demo"
    (out / "models").mkdir(parents=True)
    (out / "models" / "mine.txt").write_text("mine")
    assert demo.run(out, ("mean_fusion",), epochs=1, workers=1, command="kintsugi demo --epochs 1") == 0
    said = capfd.readouterr().out

    left = {"report.html", "results.csv", "model", "rows.parquet", "predictions.csv", "models"}
    assert {path.name for path in out.iterdir()} == left
    assert (out / "models" / "mine.txt").read_text() == "mine"

    results = kg.Results.from_csv(out / "results.csv")
    accuracy = results.table[results.table["metric"] == "accuracy"]
    assert set(accuracy["training"]) == {"complete", "mcar(0.3)"}
    assert set(accuracy["method"]) == {"mean_fusion"}
    assert set(accuracy["n"]) == {400}
    assert accuracy["value"].between(0, 1).all()
    assert (accuracy["low"] <= accuracy["value"]).all()
    assert (accuracy["value"] <= accuracy["high"]).all()
    clean = accuracy[accuracy["condition"] == "clean"].set_index("training")["value"]
    assert clean["complete"] > 0.2  # ten digits, one pass over the rows
    board = results.leaderboard("accuracy")
    for training in ("complete", "mcar(0.3)"):
        (line,) = (x for x in said.splitlines() if x.startswith("mean_fusion") and training in x)
        assert f"{100 * clean[training]:.1f} ±" in line
        mean = board.loc[board["training"] == training, "subset_mean"].item()
        assert f"{100 * mean:.1f} ±" in line
    assert max(map(len, (x for x in said.splitlines() if str(tmp_path) not in x))) <= 80

    report = (out / "report.html").read_text(encoding="utf-8")
    assert "kintsugi demo --epochs 1" in report
    assert "mean_fusion" in report

    model = kg.load(out / "model")
    assert model.method == "mean_fusion"
    assert model.training_condition_ in ("complete", "mcar(0.3)")
    assert f"mean_fusion trained on {model.training_condition_} rows, saved in {out / 'model'}" in said
    _, _, test = kg.datasets.load("avdigits").split()
    assert model.score(test) == pytest.approx(clean[model.training_condition_], abs=1e-6)

    predicted = pd.read_csv(out / "predictions.csv")
    assert predicted["used"].tolist() == [
        "image+speech+clue", "speech+clue", "image+clue", "image+speech", "image", "nothing (prior)",
    ]  # fmt: skip
    assert predicted["prediction"].tolist() == [int(v) for v in model.predict(out / "rows.parquet")]
    assert predicted["probability"].between(0.1, 1).all()
    assert predicted["probability"][5] == pytest.approx(0.1, abs=0.02)


# what is refused before anything is trained -------------------------------------------------------------------------
@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever asks for work fails the test."""

    def ask(*_: Any) -> Any:
        raise AssertionError("something was trained")

    monkeypatch.setattr(demo, "_all", ask)


@pytest.mark.usefixtures("idle")
def test_what_makes_no_sense_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="unknown method 'mmni'; did you mean 'mmin'"):
        demo.run(tmp_path / "out", ("mean_fusion", "mmni"))
    with pytest.raises(ConfigError, match="at least one method"):
        demo.run(tmp_path / "out", ())
    assert not (tmp_path / "out").exists()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "plane.txt").write_text("made of paper")
    with pytest.raises(ConfigError, match="model is there and is no saved model"):
        demo.run(tmp_path, ("mean_fusion",))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "plane.txt").read_text() == "made of paper"


def test_a_method_that_is_named_twice_is_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[demo.Job] = []

    def ask(jobs: list[demo.Job], *_: Any) -> Any:
        asked.extend(jobs)
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "_all", ask)
    with pytest.raises(KeyboardInterrupt):
        demo.run(tmp_path, ("mmin", "ccm", "mmin"), epochs=3, seed=7)
    assert [(job.method, job.condition, job.epochs, job.seed) for job in asked] == [
        (method, condition, 3, 7) for method in ("mmin", "ccm") for condition in demo.CONDITIONS
    ]
    assert len({job.folder for job in asked}) == 4


# the table ----------------------------------------------------------------------------------------------------------
def measured(methods: tuple[str, ...], worst: str, value: float) -> kg.Results:
    """Results of these methods, with one condition of each kind; the mean over subsets reaches from 0.60 to 0.66."""
    lines, runs = [], []
    for method in methods:
        for training in demo.CONDITIONS:
            for condition, group, reached in (
                ("clean", "clean", value),
                (worst, "subset", 0.2825),
                ("gaussian_noise(image, 3)", "corruption/gaussian_noise(image)", 0.9),
            ):
                line = dict.fromkeys(COLUMNS, "")
                line |= {"dataset": "avdigits", "method": method, "seed": 0, "training": training, "n": 400}
                line |= {"condition": condition, "group": group, "x": 3.0, "metric": "accuracy", "seconds": 1.0}
                line |= {"value": reached, "low": reached - 0.02, "high": reached + 0.006, "higher_is_better": True}
                lines.append(line)
            means = {"accuracy": {"subset": Interval(0.63, 0.60, 0.66), "corruption": Interval(0.9, 0.888, 0.912)}}
            runs.append(
                Run("avdigits", method, 0, training, "", "as given", 400, 0, CLEAN, 1000, 1.0, {}, means)
            )  # fmt: skip
    return kg.Results(pd.DataFrame(lines), runs)


def rendered(results: kg.Results) -> list[str]:
    console = Console(width=80, file=io.StringIO(), legacy_windows=False)
    console.print(demo.leaderboard(results))
    said: str = console.file.getvalue()  # type: ignore[attr-defined]
    return said.splitlines()


@pytest.mark.parametrize("worst", ["clue", "image + speech"])
@pytest.mark.parametrize("value", [0.985, 1.0])
@pytest.mark.parametrize("extra", ["", "a_method_of_mine_with_a_name_that_is_long"])
def test_the_table_fits_80_columns_and_cuts_nothing(worst: str, value: float, extra: str) -> None:
    methods = (*demo.METHODS, extra) if extra else demo.METHODS
    lines = rendered(measured(methods, worst, value))
    whole = "\n".join(lines)
    assert max(map(len, lines)) <= 80
    assert "…" not in whole
    assert "on 400 test digits" in whole
    assert "± half of the 95 % interval" in whole
    assert whole.count(f"{100 * value:.1f} ±1.3") == 2 * len(methods)
    if not extra:
        for method in methods:
            assert sum(line.startswith(f"{method} ") for line in lines) == 2
    assert whole.count("28.2 clue" if worst == "clue" else "28.2") == 2 * len(methods)
    assert whole.count("clue" if worst == "clue" else "image+speech") == 2 * len(methods)
    names = "".join(line.split()[0] for line in lines if line[:1].strip())  # what is folded goes on below
    assert names.count(extra) >= 2


def test_the_table_says_what_was_measured() -> None:
    lines = rendered(measured(("mmin",), "clue", 0.985))
    (line,) = (x for x in lines if x.startswith("mmin") and "complete" in x)
    mean = f"{100 * (0.985 + 0.2825) / 2:.1f}"
    assert line.split() == ["mmin", "complete", "98.5", "±1.3", mean, "±3.0", "28.2", "clue", "90.0", "±1.2"]
