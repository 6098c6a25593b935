"""``kintsugi bench``, ``report`` and ``compare`` as a user calls them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from kintsugi.bench import Store, work
from kintsugi.bench.job import Job
from kintsugi.bench.notes import Note, notes_of, remember
from kintsugi.cli import app

SUITE = """\
about: two methods, briefly
datasets: [factors]
methods: [mean_fusion, late_fusion]
seeds: 3
protocol: subsets
trainer: {epochs: 1}
resamples: 20
costs: false
reference: mean_fusion
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    (tmp_path / "small.yaml").write_text(SUITE)
    return tmp_path / "small.yaml"


def call(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that the suite has filled."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "small.yaml").write_text(SUITE)
    result = call("bench", folder / "small.yaml", "-o", folder / "runs", "--workers", 0, "--no-report")
    assert result.exit_code == 0, result.output
    return folder / "runs"


# running ------------------------------------------------------------------------------------------------------------
def test_a_suite_runs_once(suite: Path, runs: Path) -> None:
    result = call("bench", suite, "-o", runs, "--workers", 0, "--no-report")
    assert result.exit_code == 0
    assert "0 trials run" in result.output
    assert "6 had a result before" in result.output
    assert "6 done" in call("bench", "status", runs).output


def test_one_more_seed_is_one_more_trial_a_method(suite: Path, tmp_path: Path) -> None:
    for seeds, said in ((1, "2 trials run"), (2, "2 trials run in")):
        words = ("bench", "run", suite, "-o", tmp_path / "r", "--workers", 0, "--no-report", "--set", f"seeds={seeds}")
        assert said in call(*words).output
    with Store.open(tmp_path / "r") as store:
        assert sorted({r.trial.seed for r in store.records("done")}) == [0, 1]


def test_a_dry_run_names_the_trials_and_runs_none(suite: Path, tmp_path: Path) -> None:
    result = call("bench", suite, "-o", tmp_path / "none", "--dry-run", "--workers", 2)
    assert result.exit_code == 0
    assert [line.split()[-3] for line in result.output.splitlines()[:6]] == ["mean_fusion"] * 3 + ["late_fusion"] * 3
    assert "6 trials, 0 of them done; about " in result.output
    assert not (tmp_path / "none").exists()


def test_a_dry_run_knows_what_is_done(suite: Path, runs: Path) -> None:
    result = call("bench", suite, "-o", runs, "--dry-run")
    assert [line.split()[0] for line in result.output.splitlines()[:6]] == ["done"] * 6


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("bench", "quik"), "quick"),
        (("bench", "SUITE", "--set", "trainer.epoch=3"), "epochs"),
        (("bench", "SUITE", "--set", "seeds"), "NAME=VALUE"),
        (("bench", "status", "nowhere"), "nowhere"),
        (("bench", "export", "RUNS", "table.xlsx"), ".csv or .parquet"),
        (("bench", "give", "RUNS", "0000", "--by", "me"), "0 done trials"),
        (("bench", "give", "RUNS", ""), "--by"),
        (("report", "RUNS", "--metric", "acuracy"), "accuracy"),
        (("report", "nowhere"), "nowhere"),
        (("compare", "RUNS", "nowhere"), "nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_wrong_is_one_message_and_status_2(suite: Path, runs: Path, words: tuple[str, ...], said: str) -> None:
    places = {"SUITE": str(suite), "RUNS": str(runs)}
    result = call(*(places.get(word, word) for word in words))
    assert result.exit_code == 2, result.output
    assert said in result.output
    assert "Traceback" not in result.output


def test_a_wrong_key_names_file_line_and_the_right_one(suite: Path) -> None:
    suite.write_text(SUITE.replace("methods:", "method:"))
    result = call("bench", suite)
    assert result.exit_code == 2
    assert "small.yaml, line 3" in result.output
    assert "methods" in result.output


def test_a_failed_trial_ends_with_status_1_and_can_be_retried(
    suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    perform, words = work.perform, ("bench", suite, "-o", tmp_path / "r", "--workers", 0, "--no-report")

    def broken(job: Job) -> Any:
        if job.method == "late_fusion" and job.seed == 1:
            raise ValueError("stage votes has no rows")
        return perform(job)

    with monkeypatch.context() as patched:
        patched.setattr(work, "perform", broken)
        result = call(*words)
    assert result.exit_code == 1
    assert "stage votes has no rows" in result.output
    assert "1 failed" in result.output
    assert "ValueError: stage votes has no rows" in call("bench", "status", tmp_path / "r").output
    assert call(*words).exit_code == 1  # it is not tried again by itself
    assert call(*words, "--retry").exit_code == 0


def test_an_interrupted_suite_says_how_to_go_on_and_goes_on(suite: Path, tmp_path: Path) -> None:
    suite.write_text(SUITE.replace("epochs: 1", "epochs: 8"))
    words = [sys.executable, "-m", "kintsugi.cli", "bench", str(suite), "-o", str(tmp_path / "r"), "--workers", "1"]
    # A process in the background ignores SIGINT, and what it starts does too; here it is wanted.
    process = subprocess.Popen(
        [*words, "--no-report"], stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None and _done(tmp_path / "r") < 1:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "of 6 trials are done; the same command goes on with the others" in said
    assert 1 <= _done(tmp_path / "r") < 6
    result = call("bench", suite, "-o", tmp_path / "r", "--workers", 0, "--no-report")
    assert result.exit_code == 0
    assert _done(tmp_path / "r") == 6


def _done(runs: Path) -> int:
    if not (runs / "runs.sqlite").exists():
        return 0
    with Store.open(runs) as store:
        return store.counts().get("done", 0)


# what is made of a store --------------------------------------------------------------------------------------------
def test_the_export_is_the_table(runs: Path, tmp_path: Path) -> None:
    assert call("bench", "export", runs, tmp_path / "t.csv").exit_code == 0
    frame = pd.read_csv(tmp_path / "t.csv")
    assert len(frame[(frame["metric"] == "accuracy") & (frame["seed"] == 0)]) == 2 * 7
    assert "seconds" not in frame
    assert call("bench", "export", runs, tmp_path / "t.parquet", "--timing").exit_code == 0
    assert "trial_seconds" in pd.read_parquet(tmp_path / "t.parquet")


def test_a_report_and_a_leaderboard_say_how_they_were_made(runs: Path, tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    assert call("report", runs, "-o", tmp_path / "report.html", "--title", "Small & quick").exit_code == 0
    page = (tmp_path / "report.html").read_text()
    assert "Small &amp; quick" in page
    assert "late_fusion" in page
    assert "two methods, briefly" in page  # the suite, in the appendix
    assert call("bench", "leaderboard", runs, "-o", tmp_path / "board.md").exit_code == 0
    board = (tmp_path / "board.md").read_text()
    assert "kintsugi" in board
    assert "mean_fusion" in board


def test_comparing_a_store_with_itself_finds_nothing(runs: Path, tmp_path: Path) -> None:
    result = call("compare", runs, runs, "--csv", tmp_path / "c.csv")
    assert result.exit_code == 0, result.output
    assert set(pd.read_csv(tmp_path / "c.csv")["verdict"]) == {"same"}


def test_comparing_finds_what_became_worse(suite: Path, runs: Path, tmp_path: Path) -> None:
    suite.write_text(SUITE.replace("epochs: 1", "epochs: 1, lr: 0.0000001"))
    assert call("bench", suite, "-o", tmp_path / "worse", "--workers", 0, "--no-report").exit_code == 0
    assert call("compare", runs, tmp_path / "worse").exit_code == 1
    assert call("compare", tmp_path / "worse", runs).exit_code == 0


def test_a_result_travels_to_another_store(runs: Path, tmp_path: Path) -> None:
    with Store.open(runs) as store:
        trial = next(store.records("done")).trial
    assert (
        call("bench", "give", runs, trial.hash[:12], "-o", tmp_path / "r.json", "--by", "Another laboratory").exit_code
        == 0
    )
    result = call("bench", "add", tmp_path / "r.json", "-o", tmp_path / "ours")
    assert result.exit_code == 0, result.output
    with Store.open(tmp_path / "ours") as store:
        table = store.table()
    assert table["origin"].str.contains("Another laboratory").all()
    assert set(table["method"]) == {trial.method}


def test_a_damaged_store_is_found_and_salvaged(runs: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(runs, tmp_path / "r")
    assert call("bench", "check", tmp_path / "r").exit_code == 0
    outcomes = next((tmp_path / "r").glob("trials/*/outcomes.npz"))
    outcomes.write_bytes(outcomes.read_bytes()[:-20])
    result = call("bench", "check", tmp_path / "r")
    assert result.exit_code == 1
    assert outcomes.parent.name[:12] in result.output
    result = call("bench", "check", tmp_path / "r", "--salvage", tmp_path / "new")
    assert "5 done" in result.output
    assert call("bench", "check", tmp_path / "new").exit_code == 0


def test_the_suites_that_ship_are_listed() -> None:
    result = call("bench", "list")
    assert result.exit_code == 0
    for name in ("quick", "missing-standard", "corrupted-standard", "avmnist-smil", "handwritten-subsets", "full"):
        assert name in result.output


# notes --------------------------------------------------------------------------------------------------------------
def test_a_store_remembers_each_command_once_and_survives_half_a_line(tmp_path: Path) -> None:
    first, second = Note("kintsugi bench a", "a", "about: x"), Note("kintsugi bench b", "b")
    for note in (first, first, second):
        remember(tmp_path, note)
    with (tmp_path / "commands.jsonl").open("a") as file:
        file.write(json.dumps({"command": "cut"})[:-4])
    assert notes_of(tmp_path) == [first, second]
    assert notes_of(tmp_path / "nothing") == []


def test_notes_hold_the_commit_of_a_working_tree() -> None:
    from kintsugi.bench.notes import commit

    inside = (Path(work.__file__).parents[3] / ".git").is_dir()
    assert bool(commit()) is inside
