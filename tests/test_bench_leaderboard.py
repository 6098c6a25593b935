"""The Markdown page of a store: its numbers, what it claims and what it does not, and that nothing breaks its tables."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from kintsugi.bench import Store
from kintsugi.bench.leaderboard import write_leaderboard
from kintsugi.bench.leaderboard_tables import code, joined
from test_bench_figures import ALL, keep, trial_of, values

STEPS = (0.0, 0.01, -0.01, 0.02, -0.02)  # of the seeds
COSTS = {
    "parameters": 128186,
    "cells": [{"subset": ["image", "speech"], "batch_size": 1, "flops": 1, "p50": 0.0031, "p95": 0.004, "memory": 1}],
}
MACHINE = {"processor": "Abacus 9", "accelerator": None, "system": "Linux", "cores": 2, "threads": 1}


def method(store: Store, name: str, shift: float, jitter: float = 0.0, count: int = 5, **about: Any) -> None:
    """One trial a seed, ``shift`` above the values of ALL; jitter: of differences between methods."""
    for seed, step in enumerate(STEPS[:count]):
        moved = shift + step + jitter * (-1) ** seed
        facts = {"costs": COSTS, "training": {"seconds": 4.0}, "machine": MACHINE}
        keep(
            store, {n: (g, x, v + moved) for n, (g, x, v) in ALL.items()}, method=name, seed=seed,
            facts=facts if seed == 0 else {}, **about,
        )  # fmt: skip


def page(store: Store, folder: Path, **options: Any) -> str:
    given: dict[str, Any] = {"command": "kintsugi bench full -o runs", "commit": "c0ffee"} | options
    made = write_leaderboard(store, folder / "pages" / "leaderboard.md", **given)
    return made.read_text(encoding="utf-8")


def table_of(text: str, heading: str) -> list[list[str]]:
    """Cells of the table below a heading, without the line of dashes."""
    part = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [line for line in part.split("\n") if line.startswith("|")]
    cells = [[c.strip() for c in re.split(r"(?<!\\)\|", row.strip("|"))] for row in rows]
    return [cells[0], *cells[2:]]


HEADING = "`toy`, protocol `all`"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store.open(tmp_path / "runs")
    method(made, "best", 0.05, 0.001)
    method(made, "level", 0.05 - 0.002, -0.002)
    method(made, "ref", -0.1, 0.001)
    return made


def test_the_head_says_how_to_run_it_again(store: Store, tmp_path: Path) -> None:
    text = page(store, tmp_path, date="2026-01-02", budget=150, suite_text="about: all\n```\nx\n")
    for said in (
        "- Command: `kintsugi bench full -o runs`", "- Commit: `c0ffee`", "- Versions: torch 2.6", "- Date: 2026-01-02",
        "- Machine: Abacus 9, Linux, 2 cores, 1 thread a trial", "- Seeds: 0, 1, 2, 3, 4", "- Trials: 15 done",
        "- Budget: 150 minutes on two cores", "Student's t over training seeds", "````yaml\nabout: all\n```\nx\n````",
    ):  # fmt: skip
        assert said in text
    assert "- Machine: mine\n" in page(store, tmp_path, machine="mine")


def test_a_guess_is_said_where_trials_know_it(tmp_path: Path, store: Store) -> None:
    assert "A guess gets" not in page(store, tmp_path)
    known = Store.open(tmp_path / "known")
    for seed in range(2):
        keep(known, method="new", seed=seed, facts={"guess": {"accuracy": 0.25}})
    assert "100 test rows. A guess gets 25.0." in page(known, tmp_path)


def test_the_table_in_percent(store: Store, tmp_path: Path) -> None:
    rows = table_of(page(store, tmp_path, reference="ref"), HEADING)
    heads = ["Rank", "Method", "Clean", "Mean", "Subsets", "Rates", "Corruptions", "Worst", "mCE", "Params", "ms"]
    assert rows[0] == [*heads, "Train s"]
    found = dict(zip(rows[0], rows[1], strict=True))
    assert (found["Rank"], found["Method"]) == ("1", "`best`")
    assert found["Clean"] == "95.0 ± 1.8"  # 2.776 * 0.01487 / sqrt(5) = 0.01846
    assert found["Worst"] == "45.0 ± 1.8 (`noise(image, 3)`)"
    assert (found["Params"], found["ms"], found["Train s"]) == ("128 k", "3.1", "4.0")
    assert [dict(zip(rows[0], row, strict=True))["mCE"] for row in rows[1:]][2] == "1.00"
    assert [row[1] for row in rows[1:]] == ["`best`", "`level`", "`ref`"]


def test_what_cannot_be_told_apart_is_neither_bold_nor_beaten(store: Store, tmp_path: Path) -> None:
    text = page(store, tmp_path)
    assert "`level` does not differ beyond noise from the first, `best`, by the mean over degraded conditions." in text
    assert "**" not in text
    method(store, "winner", 0.09, 0.001)
    text = page(store, tmp_path)
    rows = table_of(text, HEADING)
    assert all(cell.startswith("**") for cell in rows[1][2:8])
    assert "**" not in "".join(map("".join, rows[2:]))
    assert "`winner` beats every other by the mean over degraded conditions." in text


def test_two_seeds_claim_nothing(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "runs")
    method(store, "a", 0.05, count=2)
    method(store, "b", -0.3, count=2)
    text = page(store, tmp_path)
    assert "Whether `a` beats any other cannot be said: fewer than three seeds in common, or no score." in text
    assert "**" not in text


def test_one_seed_says_where_its_intervals_come_from(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "runs")
    method(store, "a", 0.0, count=1)
    text = page(store, tmp_path)
    assert "bootstrap over test rows where there is one seed" in text
    assert "Student" not in text
    assert table_of(text, HEADING)[1][2] == "90.0 ± 2.0"
    assert "`a` is alone here" in text


def test_training_conditions_share_a_table(store: Store, tmp_path: Path) -> None:
    method(store, "best", 0.01, training="mcar(0.3)")
    rows = table_of(page(store, tmp_path), HEADING)
    assert rows[0][:3] == ["Rank", "Method", "Training"]
    assert [row[:3] for row in rows[1:]] == [
        ["1", "`best`", "`complete`"], ["2", "`level`", "`complete`"], ["3", "`best`", "`mcar(0.3)`"],
        ["4", "`ref`", "`complete`"],
    ]  # fmt: skip
    assert "`level (complete)` does not differ" in page(store, tmp_path)


def test_ranks_over_data_sets_in_words(store: Store, tmp_path: Path) -> None:
    assert "No ranks over data sets: Ranks need at least 2 blocks" in page(store, tmp_path)
    for place in range(6):
        for name, shift in (("best", 0.05), ("level", 0.04), ("ref", -0.1)):
            method(store, name, shift, count=1, dataset=f"d{place}")
    text = page(store, tmp_path)
    assert "over 7 blocks" in text
    assert "`best` 1.00, `level` 2.00, `ref` 3.00" in text
    assert "critical difference of average ranks is 1.25" in text  # 2.343 sqrt(3 * 4 / 42)
    assert "`level` is less than that behind the first, `best`." in text


def test_failures_are_listed_with_their_last_line(store: Store, tmp_path: Path) -> None:
    trial = trial_of("bad", seed=7)
    store.claim(trial)
    store.fail(trial, "Traceback (most recent call last):\n  File\nValueError: `x` | y\n\n")
    text = page(store, tmp_path)
    said = "- `bad` on `toy`, training `complete`, protocol `all`, seed 7: `ValueError: 'x' | y`"
    assert said in text.partition("## Failed trials")[2]
    assert "- Trials: 15 done, 1 failed" in text


def test_results_of_others_are_marked(store: Store, tmp_path: Path) -> None:
    method(store, "theirs", 0.01, versions={"origin": "a paper", "torch": "9.9"})
    text = page(store, tmp_path)
    assert "| `theirs` † |" in text
    assert "† Not run here: `theirs` from `a paper`." in text
    assert "9.9" not in text


def test_names_cannot_break_the_table(store: Store, tmp_path: Path) -> None:
    method(store, "a|b `c`\n<b>*d*", 0.3)
    rows = table_of(page(store, tmp_path), HEADING)
    assert {len(row) for row in rows} == {len(rows[0])}
    assert rows[1][1] == r"`a\|b 'c' <b>*d*`"


def test_a_metric_that_is_no_share_is_printed_as_it_is(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "runs")
    for seed in range(3):
        keep(store, values(ALL, *[20.0 + seed] * 9), method="a", seed=seed, metrics=["mae"], higher=False)
        keep(store, values(ALL, *[30.0 + 2 * seed] * 9), method="b", seed=seed, metrics=["mae"], higher=False)
    text = page(store, tmp_path)
    assert "Metric: `mae`, less is better; 100 test rows." in text
    rows = table_of(text, HEADING)
    assert [row[1] for row in rows[1:]] == ["`a`", "`b`"]
    assert rows[1][2] == "**21 ± 2.484**"  # t(2) 4.303 / sqrt(3)


def test_the_same_store_makes_the_same_bytes(store: Store, tmp_path: Path) -> None:
    other = Store.open(tmp_path / "other")
    for name, shift, jitter in (("ref", -0.1, 0.001), ("level", 0.048, -0.002), ("best", 0.05, 0.001)):
        method(other, name, shift, jitter)
    assert page(store, tmp_path, reference="ref") == page(other, tmp_path, reference="ref")


def test_an_empty_store_has_a_page(tmp_path: Path) -> None:
    text = page(Store.open(tmp_path / "runs"), tmp_path)
    assert "No trial is done yet." in text


def test_words() -> None:
    assert joined(["a"]) == "`a`"
    assert joined(["a", "b"]) == "`a` and `b`"
    assert joined(["a", "b", "c"]) == "`a`, `b` and `c`"
    assert code("  a `b`\n c ") == "`a 'b' c`"


def test_many_methods_are_split_by_leaf(tmp_path: Path) -> None:
    """Each method stands once below its leaf, with its rank among all; above, the hosts and the best of each leaf."""
    store = Store.open(tmp_path / "runs")
    hosts = ["mean_fusion", "late_fusion"]
    for place, key in enumerate([*hosts, "mmin", "smil", "kd_mm", "ccm"]):
        method(store, key, -0.01 * place, parameters={"method": key})
    for place in range(24):
        method(store, f"mmin {place:02}", -0.1 - 0.01 * place, parameters={"method": "mmin"})
    text = page(store, tmp_path)
    whole = text.partition(f"## {HEADING}\n")[2].partition("\n## ")[0]
    parts = whole.split("\n### ")
    short = [row for row in parts[0].split("\n") if row.startswith("| ")][2:]
    assert [row.split("|")[2].strip(" `") for row in short] == [*hosts, "mmin", "smil", "kd_mm", "ccm"]
    below = {part.split("\n")[0]: re.findall(r"^\| (\d+) \| `([^`]+)`", part, re.M) for part in parts[1:]}
    leaves = ["missing/generative", "missing/co_learning", "missing/distillation", "corrupted/detection"]
    assert list(below) == ["general", *leaves]
    assert [name for _, name in below["general"]] == hosts
    ranks = [int(rank) for rows in below.values() for rank, _ in rows]
    assert sorted(ranks) == list(range(1, 31))
    assert below["missing/generative"][0] == ("3", "mmin")
    assert len(below["missing/generative"]) == 25


def test_few_methods_share_one_table(store: Store, tmp_path: Path) -> None:
    assert "###" not in page(store, tmp_path)
