"""The report: one file that stands alone, is well formed and shows what was measured."""

from __future__ import annotations

import base64
import builtins
import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from kintsugi.core.batch import Batch
from kintsugi.core.encoder import own_encoders
from kintsugi.core.model import Model
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.schema import Modality, Schema
from kintsugi.data.dataset import Dataset, TensorSource
from kintsugi.evaluation import Results, evaluate, examples
from kintsugi.evaluation.examples import Shown
from kintsugi.evaluation.pictures import log_mel, piece
from kintsugi.evaluation.report import chart_data, number
from kintsugi.tasks import Classification

for package in ("jinja2", "plotly", "PIL"):
    pytest.importorskip(package)

EVIL = "<script>alert('x')</script>"
SCHEMA = Schema(
    (
        Modality("pic", "image", (3, 8, 8)),
        Modality("sound", "audio", (1600,), rate=8000),
        Modality("note", "text", (40,), vocab=257),
        Modality("pulse", "series", (20, 2)),
        Modality("cells", "vector", (30,)),
    ),
    Classification(["fine", EVIL]),
)
VOID = {"meta", "link", "img", "polyline", "path", "br"}


class Embed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(257, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.table(x)
        return out


def model() -> Pipeline:
    flat = {n: nn.Sequential(nn.Flatten(), nn.Linear(k, 4)) for n, k in (("pic", 192), ("sound", 1600), ("pulse", 40))}
    with own_encoders({**flat, "note": Embed(), "cells": nn.Linear(30, 4)}):
        return Pipeline(Model(SCHEMA, 4))


def data(n: int = 30) -> Dataset:
    g = torch.Generator().manual_seed(0)
    text = f"{EVIL} & more".encode()
    note = torch.zeros(n, 40, dtype=torch.int64)
    note[:, : len(text)] = torch.tensor(list(text)) + 1
    x = {
        "pic": torch.rand(n, 3, 8, 8, generator=g),
        "sound": torch.rand(n, 1600, generator=g) * 2 - 1,
        "note": note,
        "pulse": torch.randn(n, 20, 2, generator=g),
        "cells": torch.randn(n, 30, generator=g),
    }
    present = torch.ones(n, 5, dtype=torch.bool)
    present[::3, 0] = False
    batch = Batch(
        SCHEMA.names, x, present, torch.arange(n), torch.randint(2, (n,), generator=g), mask={"note": note > 0}
    )
    return Dataset(TensorSource(SCHEMA, batch, f"set {EVIL}"))


class Page(HTMLParser):
    """Tags with their attributes, and whether they nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.scripts: list[str] = []

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
        (self.scripts if self.open and self.open[-1] == "script" else self.text).append(content)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Page, Results]:
    torch.manual_seed(0)
    models = {EVIL: model(), "plain": model()}
    results = evaluate(models, data(), "standard(3)", metrics=["accuracy"], resamples=20, training="mcar(0.5)")
    results += evaluate(models, data(), "rates(0.2, 0.4)", metrics=["accuracy"], resamples=20, training="mcar(0.5)")
    path = results.to_html(
        tmp_path_factory.mktemp("r") / "r.html", examples=examples(models, data(), [0, 1]), command=f"make {EVIL}"
    )
    content = path.read_text(encoding="utf-8")
    page = Page()
    page.feed(content)
    return content, page, results


def test_well_formed(made: tuple[str, Page, Results]) -> None:
    _, page, _ = made
    assert page.open == []
    assert page.tags[0][0] == "html"


def test_nothing_is_fetched(made: tuple[str, Page, Results]) -> None:
    content, page, _ = made
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "action", "poster", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith("data:"), (tag, name, value)
    styles = "".join(re.findall(r"<style>(.*?)</style>", content, re.S))
    assert "@import" not in styles
    assert "url(" not in styles
    own = content.replace(max(page.scripts, key=len), "")  # without the library, which names its licence
    assert not re.search(r"https?:", own)


def test_the_library_is_there_once_and_the_rest_is_small(made: tuple[str, Page, Results]) -> None:
    content, page, _ = made
    library = max(page.scripts, key=len)
    assert content.count("plotly.js v") == 1
    assert len(content) - len(library) < 400_000


def test_strange_names_are_text(made: tuple[str, Page, Results]) -> None:
    content, page, _ = made
    assert EVIL not in content
    shown = " ".join(page.text)
    assert shown.count(EVIL) >= 5  # title, leaderboard, text of a row, label, command
    charts = [s for s in page.scripts if s.startswith("{")]
    assert all(json.loads(s)["lines"] for s in charts)
    names = {line["name"] for s in charts for line in json.loads(s)["lines"]}
    assert names == {"plain", "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;"}


def test_it_shows_what_was_measured(made: tuple[str, Page, Results]) -> None:
    _, page, results = made
    shown = " ".join(" ".join(page.text).split())
    for line in results.leaderboard().to_dict("records"):
        assert f"{line['clean']:.3f}" in shown
        assert f"[{line['clean_low']:.3f}, {line['clean_high']:.3f}]" in shown
        assert str(line["subset_worst_in"]) in shown
    subsets = results.table[(results.table["condition"] == "note + cells") & (results.table["method"] == "plain")]
    assert number(float(subsets["value"].iloc[0])) in shown
    for word in (
        "fingerprint",
        "mcar(0.5)",
        "standard(3)",
        "20 bootstrap",
        "torchmetrics",
        "absent in the data",
        "without note",
    ):
        assert word.lower() in shown.lower()
    charts = [s for s in page.scripts if s.startswith("{")]
    assert len(charts) == results.curves()["group"].nunique()
    assert "✓" in shown or "✗" in shown


def test_pictures_are_pictures(made: tuple[str, Page, Results]) -> None:
    from PIL import Image

    _, page, _ = made
    pictures = [a["src"] for tag, a in page.tags if tag == "img"]
    assert len(pictures) == 3  # the first row has no picture, both have sound
    for source in pictures:
        assert source is not None
        kind, _, content = source.partition(",")
        assert kind == "data:image/png;base64"
        Image.open(io.BytesIO(base64.b64decode(content))).verify()
    assert sum(tag == "polyline" for tag, _ in page.tags) == 4


def test_a_tone_is_where_it_sounds() -> None:
    rate, seconds = 8000, 1.0
    t = np.arange(int(rate * seconds)) / rate
    low, high = (log_mel(np.sin(2 * np.pi * f * t).astype(np.float32), rate) for f in (300, 2500))
    assert low.shape[0] == 64
    assert low.max() == 1
    assert low.min() >= 0
    mel = 2595 * np.log10(1 + np.array([300, 2500, 4000]) / 700)
    expected = mel[:2] / mel[2] * 65 - 1
    assert np.abs(np.array([low.mean(1).argmax(), high.mean(1).argmax()]) - expected).max() <= 1.5
    assert log_mel(np.zeros(10, dtype=np.float32), rate).shape[1] == 1


def test_pieces_of_every_kind() -> None:
    video = piece(Shown(Modality("m", "video", (4, 3, 8, 8)), torch.rand(4, 3, 8, 8)))
    volume = piece(Shown(Modality("m", "volume", (1, 8, 8, 8)), torch.randn(1, 8, 8, 8)))
    assert video.picture is not None
    assert volume.picture is not None
    points = piece(Shown(Modality("m", "points", (50, 3)), torch.rand(50, 3)))
    assert points.text is not None
    assert points.text.endswith("(150 numbers)")
    big = piece(Shown(Modality("m", "image", (3, 512, 512)), torch.rand(3, 512, 512)))
    assert big.picture is not None
    assert len(big.picture) < 200_000
    assert piece(Shown(Modality("m", "image", (1, 8, 8)), None)).absent


def test_it_shows_what_a_guess_gets(made: tuple[str, Page, Results]) -> None:
    content, page, results = made
    guess = float(results.guess().iloc[0])
    assert 0 < guess < 1
    line = content.partition('<tr class="guess">')[2].partition("</tr>")[0]
    assert "A guess (prior)" in line
    assert (
        line.count(f"<td>{number(guess)}</td>")
        == content.partition('<table class="board">')[2].partition("</thead>")[0].count('scope="col"') - 1
    )
    charts = [json.loads(s) for s in page.scripts if s.startswith("{")]
    assert {chart["guess"] for chart in charts} == {float(f"{guess:.5g}")}
    assert all(chart["range"][0] < chart["guess"] < chart["range"][1] for chart in charts)
    shown = " ".join(" ".join(page.text).split())
    assert f"A guess gets {number(guess)} whatever is there" in shown
    assert f"The thin dashed line is what a guess gets: {number(guess)}" in shown


def test_results_of_before_have_no_guess_to_show(tmp_path: Path, made: tuple[str, Page, Results]) -> None:
    old = Results(made[2].table.drop(columns="guess"))
    content = old.to_html(tmp_path / "r.html").read_text(encoding="utf-8")
    assert "guess" not in content.partition("<main>")[2].partition("</main>")[0].lower()


def test_little_results_make_a_report_too(tmp_path: Path) -> None:
    """No runs, no curves, no subsets, no examples: no library is needed then."""
    results = evaluate(model(), data(), "clean", resamples=5)
    content = Results(results.table).to_html(tmp_path / "r.html", metric="log_loss").read_text()
    assert "Lower is better" in content
    assert len(content) < 30_000
    page = Page()
    page.feed(content)
    assert page.open == []


def test_many_subsets_are_averaged_by_size(tmp_path: Path) -> None:
    schema = Schema(tuple(Modality(f"m{i}", "vector", (2,)) for i in range(7)), Classification(["a", "b"]))
    batch = Batch(
        schema.names,
        {n: torch.rand(20, 2) for n in schema.names},
        torch.ones(20, 7, dtype=torch.bool),
        torch.arange(20),
        torch.arange(20) % 2,
    )
    with own_encoders({n: nn.Linear(2, 2) for n in schema.names}):
        wide = Pipeline(Model(schema, 2))
    results = evaluate(wide, Dataset(TensorSource(schema, batch)), "subsets", metrics=["accuracy"], resamples=5)
    content = results.to_html(tmp_path / "r.html").read_text()
    assert content.count('<th scope="row">any ') == 6
    twos = results.table[results.table["condition"].str.count(r"\+") == 1]["value"].mean()
    assert re.search(rf"any 2</th><td[^>]*>{twos:.3f}<", content)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "plotly":
            raise ImportError("no", name="plotly")
        return real(name, *args, **kwargs)

    results = evaluate(model(), data(), "clean", resamples=5)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"needs plotly.*kintsugi-ml\[report\]"):
        results.to_html(tmp_path / "r.html")


def test_numbers_and_chart_data() -> None:
    assert [number(v) for v in (0.12345, 12.3456, math.nan, None, -3)] == ["0.123", "12.35", "–", "–", "-3.000"]
    said = chart_data({"title": "</script>", "lines": [{"name": "<b>", "x": [1.0]}]}, (0.0, 1.0))
    assert "<" not in said
    assert json.loads(said) == {"title": "</script>", "lines": [{"name": "&lt;b&gt;", "x": [1.0]}], "range": [0.0, 1.0]}
