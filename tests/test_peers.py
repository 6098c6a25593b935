"""The comparison with other libraries: its arithmetic and table, that it resumes, and that failures are said in words."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kintsugi as kg

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))  # the harness is not part of the library

import peers
import peers_child

HEAD = "import json, sys, time\nimport numpy as np\nfrom pathlib import Path\nfolder = Path(sys.argv[1])\n"
FIRST = HEAD + (
    "job = json.loads((folder / 'job.json').read_text())\n"
    "rows = np.load(folder / 'rows.npz')\n"
    "with open(Path(__file__).with_suffix('.ran'), 'a') as log:\n"
    "    log.write(job['learner'] + ' ')\n"
    "assert 'y|test0' not in rows.files\n"
    "np.savez(folder / 'answers.npz', test0=np.zeros(len(rows['x|test0|m2']), dtype=np.int64))\n"
    "(folder / 'facts.json').write_text(json.dumps({'seconds': 1.0, 'cpu_seconds': 0.5, 'megabytes': 20.0, 'load': 0.1}))\n"
)


def small(name: str, seed: int) -> peers.Made:
    data = kg.datasets.load("worlds", premise="redundant", rows=(100, 30, 40), labels=0.4, seed=seed)
    train, val, test = data.split()
    return peers.Made(train, val, {"as it is": test}, {"as it is": data.note["optimum"]})


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Puts another script in the place of the child, and small rows in the place of the data."""
    monkeypatch.setattr(peers, "make", small)

    def written(text: str) -> Path:
        path = tmp_path / "fake.py"
        path.write_text(text)
        monkeypatch.setattr(peers, "CHILD", path)
        return path

    return written


def asked(out: Path, **more: Any) -> argparse.Namespace:
    usual = {"data": ["redundant"], "seeds": 1, "only": ["simple", "knn"], "pypots": None, "imml": None, "limit": 20.0}
    return argparse.Namespace(**{**usual, "json": out, "updates": 10, **more})


def result(accuracy: float, seconds: float = 1.0) -> dict[str, Any]:
    return {"accuracy": {"test0": accuracy}, "seconds": seconds, "cpu_seconds": 0.25, "megabytes": 30.0}


def test_intervals_are_those_of_student() -> None:
    mean, half = peers.interval([1.0, 2.0, 3.0])
    assert mean == 2
    assert half == pytest.approx(
        4.302653 / math.sqrt(3), rel=1e-6
    )  # t of 0.975 with two degrees of freedom, from a table
    assert math.isnan(peers.interval([0.5])[1])
    assert peers.shown([0.5]) == "50.0"
    assert peers.shown([0.01, 0.03], sign=True) == "+2.0 ± 12.7"


def test_differences_are_paired_and_failures_are_words() -> None:
    results = {
        "redundant|mean_fusion|0": result(0.5), "redundant|mean_fusion|1": result(0.7), "redundant|mmin|0": result(0.6),
        "redundant|mmin|1": result(0.8, 3.0), "redundant|knn|0": result(0.9), "redundant|knn|1": {"failure": "a | b"},
        "redundant|muse|0": {"failure": "no answer within 5 s"}, "handwritten|simple|0": result(0.1),
    }  # fmt: skip
    optimum = {0: {"as it is": 0.9}, 1: {"as it is": 1.0}}
    lines = peers.table("redundant", results, ["as it is"], optimum).splitlines()
    assert lines[0] == "| method | accuracy, % | optimum | to mean_fusion, paired | seconds | of CPU | MB |"
    assert lines[2] == "| scikit-learn: KNNImputer (1 of 2 seeds; else a / b) | 90.0 | 90.0 | +40.0 | 1.0 | 0.2 | 30 |"
    assert lines[3] == "| iMML: MUSE | failed: no answer within 5 s |  |  |  |  |  |"
    assert lines[4] == "| Kintsugi: mean_fusion | 60.0 ± 127.1 | 95.0 |  | 1.0 | 0.2 | 30 |"
    assert lines[5] == "| Kintsugi: mmin | 70.0 ± 127.1 | 95.0 | +10.0 ± 0.0 | 2.0 | 0.2 | 30 |"
    assert len(lines) == 6  # other data and learners that were not asked have no line
    two = {"handwritten|simple|0": {**result(0.1), "accuracy": {"test0": 0.9, "test1": 0.8}}}
    bare = peers.table("handwritten", two, ["30% missing", "50% missing"], {}).splitlines()
    assert "optimum" not in bare[0]
    assert bare[2] == "| scikit-learn: mean and indicators | 90.0 |  | 80.0 |  | 1.0 | 0.2 | 30 |"


def test_a_plan_goes_seed_by_seed_and_gives_pypots_series_only() -> None:
    jobs = list(peers.plan(["redundant", "redundant_series"], 2, ["pypots", "knn"]))
    assert jobs[:4] == [
        (0, "redundant", "sklearn", "knn"), (0, "redundant_series", "sklearn", "knn"),
        (0, "redundant_series", "pypots", "saits"), (0, "redundant_series", "pypots", "brits"),
    ]  # fmt: skip
    assert [seed for seed, *_ in jobs] == [0] * 4 + [1] * 4
    assert len(list(peers.plan(peers.DATA, 1, []))) == 5 * 16 + 2 * 2


def test_what_has_a_result_is_not_run_again(child: Callable[[str], Path], tmp_path: Path) -> None:
    script, out = child(FIRST), tmp_path / "out.json"
    ran = script.with_suffix(".ran")
    peers.run(asked(out, only=["simple"]), peers.read(out, 10))
    peers.run(asked(out), peers.read(out, 10))
    assert ran.read_text() == "simple knn "
    results = peers.read(out, 10)
    peers.run(asked(out), results)
    assert ran.read_text() == "simple knn "
    truth = peers.labels(small("redundant", 0).tests["as it is"])
    assert results["redundant|knn|0"]["accuracy"] == {"test0": pytest.approx((truth == 0).mean())}
    assert "| scikit-learn: KNNImputer |" in peers.report(["redundant"], results)
    with pytest.raises(SystemExit, match="with 10 updates, not of 1 with 20"):
        peers.read(out, 20)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEAD + "raise ValueError('holes everywhere')", "ValueError: holes everywhere"),
        (HEAD + "time.sleep(60)", "no answer within 1 s"),
        (HEAD + "import os; os.kill(os.getpid(), 9)", "killed by signal 9"),
        (FIRST.replace("test0=", "test9="), "answers do not fit the test rows"),
    ],
)
def test_a_failure_is_said_in_words(child: Callable[[str], Path], tmp_path: Path, text: str, words: str) -> None:
    child(text)
    results: peers.Results = {}
    peers.run(asked(tmp_path / "out.json", only=["knn"], limit=1.0 if "sleep" in text else 20.0), results)
    assert results["redundant|knn|0"] == {"failure": words}


def test_an_interpreter_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", x=np.zeros(1))
    said = peers.ask("/nowhere/python", {}, tmp_path / "rows.npz", {}, 5.0)
    assert said["failure"].startswith("/nowhere/python does not start")


def test_a_peer_without_interpreter_is_left_out(
    child: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    child(FIRST)
    results: peers.Results = {}
    peers.run(asked(tmp_path / "out.json", only=["muse"]), results)
    assert results == {}
    assert "imml is left out" in capsys.readouterr().err


def test_a_child_sees_holes_as_nan_and_no_label_that_it_should_not(tmp_path: Path) -> None:
    made = small("redundant", 3)
    np.savez(tmp_path / "rows.npz", **peers.arrays(made))  # type: ignore[arg-type]
    rows = peers_child.Rows(tmp_path / "rows.npz")
    assert (rows.names, rows.tests, rows.classes) == (["m1", "m2", "m3"], ["test0"], 4)
    assert rows.wide("train").shape == (100, 36)
    assert np.isnan(rows.x["test0"][0]).all()
    assert not np.isnan(rows.x["test0"][1]).any()
    assert (rows.y["train"] >= 0).sum() == 40
    assert not any(key.startswith("y|test") for key in rows.arrays)
    for learner in ("simple", "knn", "iterative"):
        answers = peers_child.plain(rows, learner, seed=0)
        assert answers["test0"].shape == (40,)


@pytest.mark.filterwarnings("ignore:worlds:UserWarning")
def test_our_own_methods_get_the_rows_of_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "make", small)
    given = peers.arrays(small("redundant", 0))
    np.savez(tmp_path / "rows.npz", **given)  # type: ignore[arg-type]
    job = {"peer": "kintsugi", "learner": "mean_fusion", "data": "redundant", "seed": 0, "updates": 12}
    (tmp_path / "job.json").write_text(json.dumps(job))
    peers_child.main(tmp_path)
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert facts["seconds"] > 0
    assert np.load(tmp_path / "answers.npz")["test0"].shape == (40,)
    given["x|train|m2"] = given["x|train|m2"] + 1
    np.savez(tmp_path / "rows.npz", **given)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="not those that the others got"):
        peers_child.kintsugi(peers_child.Rows(tmp_path / "rows.npz"), "mean_fusion", job)
