"""The report of a store: one file that stands alone, small, true to the store, and that sorts and filters in a browser."""

from __future__ import annotations

import builtins
import html
import json
import math
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kintsugi.bench import Store, Trial
from kintsugi.bench.figures import figures_of
from kintsugi.bench.figures_seeds import latest, of_metric, seed_scores
from kintsugi.core.errors import ConfigError, UnknownName
from kintsugi.evaluation.protocols import Condition, Protocol
from kintsugi.report import appendix, data, page, write_report
from kintsugi.report.ranks import Axis, diagram
from kintsugi.report.trust import averaged, pooled
from test_bench_figures import keep

for package in ("jinja2", "plotly"):
    pytest.importorskip(package)

EVIL = "<img src=x onerror=window.evil=1>&\"'"
VOID = {"meta", "link", "img", "path", "br", "wbr", "input", "line", "circle"}
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
NAMES = ("mean_fusion", "late_fusion", "ccm", EVIL, *(f"other {i}" for i in range(6)))
CONDITIONS = (
    Condition("clean", "clean", x=0.0),
    Condition("a", "subset", keep=("a",)),
    Condition("b", "subset", keep=("b",)),
    *(
        Condition(f"mcar({r}) mask {s}", "rate/mcar", missing=f"mcar({r})", seed=s, x=r)
        for r in (0.2, 0.4)
        for s in (0, 1)
    ),
    *(
        Condition(f"noise({m}, {v})", f"corruption/white_noise({m})", corruptions=(f"noise({m}, {v})",), x=float(v))
        for m in ("a", "b")
        for v in (1, 3)
    ),
)


def a_trial(method: str = "mean_fusion", dataset: str = "toy", training: str = "complete", seed: int = 0) -> Trial:
    return Trial(
        method, {"method": method, "params": {"width": 8}, "resamples": 200}, dataset, f"f00d{dataset}", training, seed,
        Protocol("standard", CONDITIONS), {"torch": "2.6", "sources": f"digest of {method}"},
        {"rows": 90, "task": "classification"},
    )  # fmt: skip


def table_of(trial: Trial, start: float, metrics: Sequence[str] = ("accuracy", "log_loss")) -> pd.DataFrame:
    """Values fall from ``start`` with what is done to the rows; the seed moves them a little."""
    lines = []
    for c in trial.protocol.conditions:
        worse = 0.0 if c.clean else 0.3 if c.keep else 0.05 * (c.x or 0) + 0.001 * c.seed
        for metric in metrics:
            value = start - worse + 0.004 * trial.seed
            higher = metric == "accuracy"
            lines.append(
                {
                    "dataset": trial.dataset, "method": trial.method, "seed": trial.seed, "training": trial.training,
                    "condition": c.name, "group": c.group, "x": math.nan if c.x is None else c.x, "metric": metric,
                    "value": value if higher else 1 - value, "low": value - 0.03, "high": value + 0.01, "n": 90,
                    "higher_is_better": higher, "seconds": 0.1, "mask_hash": "" if c.clean else c.name,
                }
            )  # fmt: skip
    return pd.DataFrame(lines)


FACTS = {
    "rows": 90,
    "machine": {"cores": 2, "system": "Linux"},
    "training": {"seconds": 2.5, "epochs": 1},
    "reliability": {"clean": [[0.5, 0.4, 10], [0.9, 1.0, 30]], "degraded": [[0.7, 0.5, 40]]},
    "risk_coverage": {"clean": [[0.5, 0.1], [1.0, 0.2]], "degraded": [[0.5, 0.2], [1.0, 0.4]]},
    "costs": {
        "parameters": 1234,
        "cells": [{"subset": ["a", "b"], "batch_size": 1, "flops": 5e4, "p50": 0.002, "p95": 0.003, "memory": None}],
    },
}


def fill(store: Store) -> Store:
    """Ten methods, two data sets, two training conditions, three seeds; somebody else's result; a failure; one pending."""
    for dataset, easy in (("toy", 0.0), (f"zone {EVIL}", 0.1)):
        for training in ("complete", "mcar(0.3)"):
            for place, method in enumerate(NAMES):
                for seed in range(3):
                    trial = a_trial(method, dataset, training, seed)
                    # the second differs from the first by noise alone
                    start = 0.9 - easy - (0.001 * (-1) ** seed if place == 1 else 0.02 * place)
                    facts = FACTS if method != "ccm" else {}
                    store.finish(trial, table_of(trial, start), None, facts)
    outside = replace(a_trial("paper"), versions={"origin": f"A paper {EVIL}"})
    store.finish(outside, table_of(outside, 0.7))
    for seed in (0, 1):
        broken = a_trial("broken", seed=seed)
        store.claim(broken)
        store.fail(broken, f"Traceback:\n  line of {EVIL}\nValueError: no {EVIL}")
    store.add([a_trial("waiting")])
    return store


class Page(HTMLParser):
    """Tags with their attributes, text and scripts, and whether tags nest."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, content: str) -> None:
        (self.scripts if self.open and self.open[-1] in ("script", "style") else self.words).append(content)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    @property
    def data(self) -> Any:
        return json.loads(next(s for s in self.scripts if s.startswith('{"methods"')))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return fill(Store.open(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="module")
def path(store: Store) -> Path:
    target = store.folder / "r" / "report.html"
    said = write_report(store, target, reference="late_fusion", command=f"make {EVIL}", suite_text=f"name: {EVIL}")
    assert said == target
    return target


@pytest.fixture(scope="module")
def shown(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


# one file -----------------------------------------------------------------------------------------------------------
def test_it_stands_alone_and_nests(shown: Page, path: Path) -> None:
    assert shown.open == []
    for tag, attributes in shown.tags:
        for name in ("src", "href", "srcset", "action", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, name, value)
    content = path.read_text(encoding="utf-8")
    library = max(shown.scripts, key=len)
    assert content.count("plotly.js v") == 1
    own = content.replace(library, "")
    assert not re.search(r"https?:|@import|url\(", own)
    assert len(own) < 400_000
    anchors = {str(a["href"])[1:] for tag, a in shown.tags if tag == "a"}
    assert anchors <= {a.get("id") for _, a in shown.tags}
    assert {"leaderboard", "critical", "rates", "severity", "subsets", "cost", "trust", "share", "failed"} <= anchors


def test_strange_names_are_text(shown: Page, path: Path) -> None:
    assert "<img" not in path.read_text(encoding="utf-8").replace(max(shown.scripts, key=len), "")
    assert not any(tag == "img" for tag, _ in shown.tags)
    said = shown.text
    for text in (EVIL, f"zone {EVIL}", f"make {EVIL}", f"name: {EVIL}", f"A paper {EVIL}", f"line of {EVIL}"):
        assert text in said
    assert EVIL in shown.data["methods"]


def test_a_folder_and_a_missing_package_are_named(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"is a folder; a report is one file, such as .*report\.html"):
        write_report(store, tmp_path)
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "plotly":
            raise ImportError("no", name="plotly")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"needs plotly.*kintsugi-ml\[report\]"):
        write_report(store, tmp_path / "r.html")


def test_an_interruption_leaves_no_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "r.html"
    target.write_text("before")
    monkeypatch.setattr(page.os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_report(Store.open(tmp_path / "empty"), target)
    assert target.read_text() == "before"
    assert [f.name for f in tmp_path.iterdir() if f.is_file()] == ["r.html"]


# what it says -------------------------------------------------------------------------------------------------------
def rows_of(shown: Page, content: str, dataset: str = "toy") -> list[str]:
    """The rows of one leaderboard, as text with spaces between cells."""
    block = content.partition(f'<div class="block" data-dataset="{html.escape(dataset)}">')[2].partition("</table>")[0]
    return [
        " ".join(html.unescape(re.sub(r"<(?!wbr)[^>]+>", " ", row).replace("<wbr>", "")).split())
        for row in re.findall(r"<tr data-training.*?</tr>", block, re.S)
    ]


def test_the_leaderboard_says_what_was_measured(shown: Page, path: Path, store: Store) -> None:
    board = figures_of(store.table(), list(store.records("done")), None, "late_fusion")
    board = board[board["dataset"] == "toy"].sort_values("rank", kind="stable")
    rows = rows_of(shown, path.read_text(encoding="utf-8"))
    assert len(rows) == len(board) == 21
    for row, line in zip(rows, board.to_dict("records"), strict=True):
        assert row.startswith(line["method"])
        assert line["training"] in row
        for figure in ("clean", "mean", "worst", "subset_mean", "rate_area", "corruption_mean"):
            half = (line[f"{figure}_high"] - line[f"{figure}_low"]) / 2
            assert f"{line[figure]:.3f} ±{half:.3f}" in row
        assert line["worst_in"] in row
    assert "mCE" in shown.text


def test_noise_origin_and_leaf_are_marked(shown: Page, path: Path) -> None:
    rows = rows_of(shown, path.read_text(encoding="utf-8"))
    assert rows[0].startswith("mean_fusion ●")
    level = {row.partition(" ≈")[0] for row in rows if " ≈" in row}
    assert level == {"mean_fusion", "late_fusion"}
    assert [row for row in rows if "not run here" in row] == [row for row in rows if row.startswith("paper")]
    assert "Not compared with the best: too few seeds for paper (complete)" in shown.text
    leaves = {row.split()[0]: row for row in rows}
    assert leaves["mean_fusion"].endswith(" general")
    assert leaves["ccm"].endswith("corrupted/detection")
    assert leaves["other"].endswith(" other")


def test_curves_are_means_over_masks_then_seeds(shown: Page) -> None:
    block = shown.data["blocks"][0]
    assert block["title"] == "toy, standard"
    assert [c["title"] for c in block["curves"]] == ["mcar", "white noise", "white noise"]
    assert [c["heading"] for c in block["curves"]] == ["", "a", "b"]
    assert block["curves"][0]["x"] == [0.2, 0.4]
    unit = next(u for u in block["units"] if shown.data["methods"][u["m"]] == "ccm")
    # 0.86 - 0.05 x - 0.0005 (two masks) + 0.004 seed, seeds 0, 1, 2
    middle = [0.86 - 0.05 * x - 0.0005 + 0.004 for x in (0.2, 0.4)]
    half = 4.302653 * 0.004 / math.sqrt(3)  # t(0.975, 2)
    value, low, high = unit["curves"][0]
    assert value == pytest.approx(middle, abs=5e-5)
    assert low == pytest.approx([m - half for m in middle], abs=5e-5)
    assert high == pytest.approx([m + half for m in middle], abs=5e-5)
    assert all(len(str(v).replace("0.", "")) <= 4 for v in (*value, *low, *high))
    assert block["subsets"] == ["all", "a", "b"]
    assert unit["subsets"] == pytest.approx([0.864, 0.564, 0.564], abs=5e-5)
    assert block["modalities"] == ["a", "b"]
    mine = next(u for u in block["units"] if shown.data["methods"][u["m"]] == "mean_fusion")
    assert mine["cost"][:3] == [1234, 50000, 0.002]


def test_one_seed_has_the_interval_of_its_rows(shown: Page) -> None:
    block = shown.data["blocks"][0]
    paper = next(u for u in block["units"] if shown.data["methods"][u["m"]] == "paper")
    value, low, high = paper["curves"][1]
    assert value == pytest.approx([0.65, 0.55])
    assert low == pytest.approx([0.62, 0.52])
    assert high == pytest.approx([0.66, 0.56])


def test_calibration_is_pooled_and_risk_averaged() -> None:
    bins = pooled([[[0.5, 0.4, 10], [0.9, 1.0, 30]], [[0.52, 0.8, 30]]])
    assert bins == [[0.515, 0.9], [0.7, 1], [40, 30]]  # (5 + 15.6) / 40, (4 + 24) / 40
    assert pooled([]) is None
    risk = averaged([[[0.5, 0.1], [1.0, 0.2]], [[0.5, 0.3], [1.0, 0.4]]])
    assert risk is not None
    assert len(risk) == 20
    assert risk[9] == pytest.approx(0.2)
    assert risk[14] == pytest.approx(0.25)
    assert risk[19] == pytest.approx(0.3)
    assert averaged([]) is None


def test_failures_stand_together_and_pending_ones_are_counted(shown: Page, store: Store) -> None:
    found = appendix.failures(store.records("failed"))
    assert [(f.method, f.seeds, f.reason) for f in found] == [("broken", [0, 1], f"ValueError: no {EVIL}")]
    assert "2 failed, 1 pending, 0 running" in shown.text
    long = replace(next(store.records("failed")), traceback="x" * 9000 + "\nend")
    assert appendix.failures([long])[0].traceback == "…\n" + ("x" * 9000 + "\nend")[-appendix.MOST_TRACEBACK :]


def test_the_appendix_says_how_to_run_it_again(shown: Page) -> None:
    said = shown.text
    for text in (
        "121 done, 2 failed, 1 pending", "f00dtoy", "torch 2.6", "cores 2, system Linux", "Rows90", "0, 1, 2",
        'sources digest of late_fusion', '"params": {"width": 8}', "200 bootstrap resamples", "90 rows scored",
        "10 different ones", "complete, mcar(0.3)", "11 conditions",
    ):  # fmt: skip
        assert text in said, text


def test_notes_beside_the_store_are_printed(tmp_path: Path) -> None:
    from kintsugi.bench.notes import Note, remember

    store = Store.open(tmp_path / "s")
    for command in ("kintsugi bench one", "kintsugi bench two"):
        remember(store.folder, Note(command, "mine", "seeds: 7\n", commit="abc123", date="2026-01-02"))
    said = Page(
        write_report(store, tmp_path / "r.html", command="kintsugi bench two", suite_text="seeds: 7\n").read_text()
    ).text
    assert said.count("kintsugi bench two") == 1
    assert said.count("seeds: 7") == 1
    assert "2026-01-02, commit abc123: kintsugi bench one" in said


def test_a_guess_is_said_where_trials_know_it(tmp_path: Path, shown: Page) -> None:
    assert not re.search(r"a guess gets \d", shown.text)
    assert all(block["guess"] is None for block in shown.data["blocks"])
    known = Store.open(tmp_path / "known")
    keep(known, facts={"guess": {"accuracy": 0.25}})
    made = Page(write_report(known, tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "a guess gets 0.250" in made.text
    assert [block["guess"] for block in made.data["blocks"]] == [0.25]


def test_little_stores_make_a_report_too(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "s")
    empty = Page(write_report(store, tmp_path / "r.html").read_text())
    assert "No trial is done yet" in empty.text
    assert "plotly.js v" not in "".join(empty.scripts)
    trial = replace(a_trial(), protocol=Protocol("clean", CONDITIONS[:1]))
    store.finish(trial, table_of(trial, 0.9, ["log_loss"]))
    little = Page(write_report(store, tmp_path / "r.html").read_text())
    assert "log loss, lower is better" in little.text
    assert "There is no critical-difference diagram. Ranks need at least 2 blocks" in little.text
    sections = {a.get("id") for tag, a in little.tags if tag == "section"}
    assert sections == {"leaderboard", "critical", "failed", "appendix"}
    assert little.data["blocks"][0]["higher"] is False
    with pytest.raises(UnknownName, match="unknown metric of this store 'accuracy'"):
        write_report(store, tmp_path / "r.html", metric="accuracy")


# the critical-difference diagram ------------------------------------------------------------------------------------
def test_the_diagram_joins_what_cannot_be_told_apart() -> None:
    axis = Axis(3)
    svg = diagram({"x": 1.2, EVIL: 1.9, "z": 2.9}, [["x", EVIL], ["z"]], 0.9)
    Page(svg)
    bars = re.findall(r'class="cd-bar" x1="([\d.]+)" y1="[\d.]+" x2="([\d.]+)"', svg)
    assert [(float(a) + 5, float(b) - 5) for a, b in bars] == [
        (pytest.approx(axis.at(1.2), abs=0.1), pytest.approx(axis.at(1.9), abs=0.1))
    ]
    dots = [float(x) for x in re.findall(r'cx="([\d.]+)"', svg)]
    assert dots == pytest.approx([axis.at(r) for r in (1.2, 1.9, 2.9)], abs=0.1)
    assert "critical difference 0.90" in svg
    assert EVIL not in svg
    assert html.escape(EVIL) in svg


def test_the_page_has_the_diagram_of_its_ranks(shown: Page) -> None:
    label = next(a["aria-label"] for tag, a in shown.tags if tag == "svg" and a.get("class") == "cd")
    assert label is not None
    assert label.startswith(("Average ranks, best first: mean_fusion 1", "Average ranks, best first: late_fusion 1"))
    assert "Friedman's test over 4 blocks" in shown.text
    assert "left out: paper" in shown.text


# colours ------------------------------------------------------------------------------------------------------------
SIGHT = {  # Machado, Oliveira and Fernandes 2009, severity 1
    "usual": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour: str) -> Any:
    """``#rrggbb`` as linear RGB."""
    c = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def fixture(rgb: Any) -> Any:
    """CIELAB, white point D65."""
    x = XYZ @ np.clip(rgb, 0, 1) / [0.9505, 1, 1.089]
    f = np.where(x > 0.008856, np.cbrt(x), 7.787 * x + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("theme", [0, 1])
@pytest.mark.parametrize("sight", SIGHT)
def test_colours_differ_for_colour_blind_eyes(theme: int, sight: str) -> None:
    style = page._text("bench.css")
    colours = re.findall(r"--m\d: (#\w{6})", re.findall(r"--m0: #.*", style)[theme])
    card = re.findall(r"--card: (#\w{6})", style)[theme]
    assert len(set(colours)) == 8
    seen = [fixture(np.array(SIGHT[sight]) @ linear(c)) for c in colours]
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 12  # 2 can just be told apart side by side
    for colour in colours:  # WCAG 2.2, 1.4.11: 3 to 1 for graphics
        dim, bright = sorted(XYZ[1] @ linear(c) for c in (colour, card))
        assert (bright + 0.05) / (dim + 0.05) >= 3


# size ---------------------------------------------------------------------------------------------------------------
def made_up(units: int, seeds: int, conditions: int, subsets: int = 0) -> data.Shown:
    """What a store of many results gives, without the store."""
    names = [f"c{i}" for i in range(subsets)]
    group = np.array(
        ["clean", *("subset" for _ in names), *(f"corruption/op{i // 5}(m)" for i in range(conditions - subsets - 1))]
    )
    x = np.array([0.0, *(math.nan for _ in names), *(float(i % 5 + 1) for i in range(conditions - subsets - 1))])
    condition = np.array(
        [
            "clean",
            *(" + ".join(names[: i % 7 + 1]) + f" {i}" for i in range(subsets)),
            *map(str, range(conditions - subsets - 1)),
        ]
    )
    lines = units * seeds
    value = np.random.default_rng(0).uniform(0, 1, lines * conditions)
    trial = np.repeat(np.arange(lines), conditions)
    table = pd.DataFrame(
        {
            "dataset": "d", "method": np.char.add("method ", (trial // seeds).astype(str)), "seed": trial % seeds,
            "training": "complete",
            "condition": np.tile(condition, lines), "group": np.tile(group, lines), "x": np.tile(x, lines), "metric": "accuracy",
            "value": value, "low": value - 0.0123456, "high": value + 0.0234567, "n": 100, "higher_is_better": True,
            "mask_hash": "", "parameters": "{}", "protocol": "p", "fingerprint": "f", "trial": trial.astype(str),
            "origin": "", "started": 0.0,
        }
    )  # fmt: skip
    rows = of_metric(latest(table))
    return data.Shown(Path(), {}, [], len(table), rows, seed_scores(rows), figures_of(table))


def test_the_data_of_100_000_results_are_small() -> None:
    said, left = data.page_data(made_up(units=400, seeds=5, conditions=50))
    assert left == []
    assert len(data.encoded(said)) < 600_000


def test_beyond_the_limit_bands_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = made_up(units=20, seeds=1, conditions=50)
    whole = len(data.encoded(data.page_data(shown)[0]))
    monkeypatch.setattr(data, "MOST_BYTES", whole - 1)
    said, left = data.page_data(shown)
    assert left == ["the bands of the curves"]
    assert {len(curve) for block in said["blocks"] for unit in block["units"] for curve in unit["curves"]} == {1}
    monkeypatch.setattr(data, "MOST_BYTES", whole // 10)
    assert data.page_data(shown)[1] == ["the bands of the curves", "reliability and risk-coverage"]


def test_many_subsets_are_averaged_by_size() -> None:
    shown = made_up(units=2, seeds=1, conditions=71, subsets=70)
    block = data.page_data(shown)[0]["blocks"][0]
    assert block["subsets"] == ["all", *(f"any {size}" for size in range(1, 8))]
    rows = shown.rows[(shown.rows["method"] == "method 0") & (shown.rows["condition"].str.count(r" \+ ") == 1)]
    first = next(u for u in block["units"] if u["m"] == 0 or u["m"] == 1)
    name = data.page_data(shown)[0]["methods"][first["m"]]
    mine = shown.rows[(shown.rows["method"] == name) & (shown.rows["condition"].str.count(r" \+ ") == 1)]
    assert len(rows) == 10
    assert first["subsets"][2] == pytest.approx(mine["value"].mean(), rel=1e-3)


# in a browser -------------------------------------------------------------------------------------------------------
WATCH = """<script>window.seen = []; window.onerror = function (m) { seen.push(m); };
["error", "warn"].forEach(function (k) {
  console[k] = function () { seen.push(k + ": " + [].join.call(arguments, " ")); };
});</script>"""

SCRIPT = """
var out = {}, doc = document;
function list(nodes) { return [].slice.call(nodes); }
function all(q) { return list(doc.querySelectorAll(q)); }
function at(id) { return doc.getElementById(id); }
var toy = doc.querySelector(".block"), heads = list(toy.querySelectorAll("thead th"));
function names() {
  return list(toy.querySelectorAll("tbody tr:not([hidden]) > :first-child")).map(function (n) { return n.dataset.v; });
}
function sorted() { return heads.map(function (h) { return h.getAttribute("aria-sort"); }); }
function click(text) {
  var head = heads.filter(function (h) { return h.textContent.trim() === text; })[0], k = heads.indexOf(head);
  head.querySelector("button").click();
  var cells = list(toy.querySelectorAll("tbody tr")).map(function (tr) { return tr.children[k].dataset.v; });
  return { sort: sorted(), cells: cells };
}
function set(name, value) {
  var field = doc.querySelector(".filters [name=" + name + "]");
  field.value = value;
  field.dispatchEvent(new Event("input", { bubbles: true }));
}
function change(id, value) { at(id).value = value; at(id).dispatchEvent(new Event("change")); }
function legend() { return all("#legend li").map(function (li) { return li.title; }); }
window.addEventListener("load", function () {
  out.before = [typeof window.Plotly, all("[data-drawn]").length];
  out.buttons = heads.map(function (h) { return h.firstElementChild.tagName; });
  out.start = sorted();
  out.clean = click("Clean");
  out.again = click("Clean");
  out.cost = click("Parameters");
  out.back = click("Parameters");
  out.method = click("Method");
  out.all = at("found").textContent;
  set("leaf", "general");
  out.leaf = names();
  set("training", "mcar(0.3)");
  out.both = names();
  set("leaf", "");
  set("training", "");
  set("dataset", "toy");
  out.blocks = all(".block").map(function (b) { return b.hidden; });
  out.found = at("found").textContent;
  set("dataset", "");
  set("text", "CCM");
  out.text = names();
  set("text", "no such thing");
  out.nothing = [!at("nothing").hidden, at("found").textContent];
  set("text", "");
  out.legend = legend();
  out.units = all("#pick input").length;
  out.full = all("#pick input").filter(function (i) { return i.disabled; }).length;
  all("#pick input")[0].click();
  all("#pick input")[9].click();
  out.swapped = legend();
  change("training", "-1");
  out.both_trainings = legend().slice(0, 2);
  change("block", "1");
  change("axis", "1");
  all("#figures details.numbers").forEach(function (d) { d.open = true; d.ontoggle(); });
  out.tables = all("#figures details.numbers").map(function (d) { return d.querySelectorAll("tbody tr").length; });
  out.heat = all("#subsets tbody tr").length;
  out.best = all("#subsets .best").length;
  window.dispatchEvent(new Event("beforeprint"));
  out.drawn = [all("[data-drawn]").length, all(".chart").length, all(".chart .main-svg").length > 0];
  var lines = doc.querySelector("#rates .chart").data.filter(function (t) { return t.name; });
  out.lines = lines.map(function (t) { return t.name; });
  out.looks = lines.map(function (t) { return [t.line.color, t.line.dash, t.marker.symbol].join(); });
  out.title = at("axis").selectedOptions[0].textContent;
  out.front = doc.querySelector("#cost .chart").data[0].x.length;
  out.bars = doc.querySelector("#share .chart").data.length;
  out.trust = all("#trust figcaption").map(function (f) { return f.textContent; });
  out.wide = doc.documentElement.scrollWidth - doc.documentElement.clientWidth;
  out.evil = typeof window.evil;
  out.images = doc.images.length;
  out.seen = seen;
  at("probe").textContent = JSON.stringify(out);
});
"""


@pytest.fixture(scope="module")
def browser(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What a script finds that clicks through the page, in a window of the width of a phone."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    folder = tmp_path_factory.mktemp("browser")
    content = path.read_text(encoding="utf-8").replace("<head>", "<head>" + WATCH, 1)
    before, _, after = content.rpartition("</body>")
    probe = folder / "probe.html"
    probe.write_text(f'{before}<pre id="probe"></pre><script>{SCRIPT}</script></body>{after}', encoding="utf-8")
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --window-size=500,900 --dump-dom"
    )
    ran = subprocess.run(
        [CHROMIUM, *flags.split(), f"--user-data-dir={folder / 'profile'}", probe.as_uri()],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    said = re.search(r'<pre id="probe">(.+?)</pre>', ran.stdout, re.S)
    assert said is not None, ran.stderr[-2000:]
    return json.loads(html.unescape(said[1]))


def test_nothing_is_drawn_before_it_is_seen(browser: Any) -> None:
    assert browser["before"] == ["undefined", 0]


def test_columns_sort(browser: Any) -> None:
    assert set(browser["buttons"]) == {"BUTTON"}  # reached and pressed by keyboard as they are
    assert browser["start"].index("ascending") == 1  # rank
    for name, way in (("clean", True), ("again", False)):
        values = [float(v) for v in browser[name]["cells"]]
        assert values == sorted(values, reverse=way)
        assert [s for s in browser[name]["sort"] if s != "none"] == ["descending" if way else "ascending"]
    assert [s for s in browser["cost"]["sort"] if s != "none"] == ["ascending"]  # less is better, so first the least
    for name in ("cost", "back"):  # those without a value stay below, both ways
        assert browser[name]["cells"][-3:] == ["", "", ""]  # ccm twice, and the paper
        assert "" not in browser[name]["cells"][:-3]
    assert browser["method"]["cells"] == sorted(browser["method"]["cells"], key=str.lower)


def test_filters_hide_rows(browser: Any) -> None:
    assert browser["all"] == "41 rows"
    assert sorted(browser["leaf"]) == ["late_fusion", "late_fusion", "mean_fusion", "mean_fusion"]
    assert sorted(browser["both"]) == ["late_fusion", "mean_fusion"]
    assert browser["blocks"] == [False, True]
    assert browser["found"] == "21 of 41 rows"
    assert browser["text"] == ["ccm", "ccm"]
    assert browser["nothing"] == [True, "0 of 41 rows"]


def test_eight_methods_are_chosen(browser: Any) -> None:
    assert len(browser["legend"]) == 8
    assert browser["full"] == browser["units"] - 8
    assert browser["swapped"][1:] == browser["legend"][1:]  # the others keep their colours
    assert browser["swapped"][0] not in browser["legend"]
    assert all(name.endswith(("(complete)", "(mcar(0.3))")) for name in browser["both_trainings"])


def test_every_figure_is_drawn(browser: Any) -> None:
    drawn, charts, plots = browser["drawn"]
    assert drawn == charts == 1 + 2 + 1 + 4 + 1
    assert plots
    assert len(browser["lines"]) == len(set(browser["looks"])) == 8
    assert "&lt;img src=x onerror=window.evil=1&gt;&amp;\"'" in browser["lines"]
    assert browser["tables"] == [8, 16, 8]
    assert browser["heat"] == 3
    assert browser["best"] >= 3
    assert browser["title"] == "FLOPs of one row"
    assert browser["front"] == 1
    assert browser["bars"] == 2
    assert browser["trust"] == [
        "Reliability, undamaged", "Risk–coverage, undamaged", "Reliability, degraded", "Risk–coverage, degraded"
    ]  # fmt: skip


def test_no_errors_and_nothing_sticks_out(browser: Any) -> None:
    assert browser["seen"] == []
    assert browser["evil"] == "undefined"
    assert browser["images"] == 0
    assert browser["wide"] <= 0
