"""The gallery: all is in it, nothing comes from outside, what it says of the damage is true, and it is whole or not there."""

from __future__ import annotations

import base64
import io
import re
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import kintsugi as kg
from kintsugi.core.batch import Batch
from kintsugi.core.errors import ConfigError, UnknownName
from kintsugi.core.schema import Modality, Schema
from kintsugi.data.dataset import Dataset, TensorSource
from kintsugi.gallery import cards, damage, gallery, page, pieces, samples, write_gallery
from kintsugi.gallery.samples import Sample
from kintsugi.imperfect.operator import CROSS, OPERATORS, Operator, levels
from kintsugi.imperfect.plan import Plan
from kintsugi.tasks.classification import Classification

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("jinja2")
soundfile = pytest.importorskip("soundfile")
VOID = {"meta", "link", "img", "input", "br", "path", "rect"}
Change = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor | None]]


class Page(HTMLParser):
    """Elements with their attributes; tags that are not closed in order; text that is seen."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture
def operator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Registers an operator that does what a function says; the only one of its kind while the test runs."""
    made: list[str] = []

    def make(kind: str, change: Change, check: Callable[[Modality], None] | None = None, title: str = "as told") -> str:
        key, kinds = "told_" + kind, kind

        class Told(Operator):
            """Does what it is told: ``amount``."""

            key, kind = "told_" + kinds, kinds
            source = "proposed here: a test"
            parameters = {"default": levels(amount=(0.1, 0.2, 0.3, 0.4, 0.5))}  # noqa: RUF012

            def check(self, modality: Modality) -> None:
                super().check(modality)
                if check is not None:
                    check(modality)

            def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
                seen = torch.ones(x.shape[:2], dtype=torch.bool) if mask is None else mask
                return change(x, seen, plan.parameters["amount"])

        Told.title = title
        OPERATORS._things[key] = Told
        made.append(key)
        monkeypatch.setattr(cards, "of_kind", lambda kind: [k for k in made if OPERATORS[k].kind == kind])
        return key

    list(OPERATORS)  # the walk comes first
    yield make
    for key in made:
        OPERATORS._things.pop(key)


def vectors(rows: int = 12, kind: str = "vector", shape: tuple[int, ...] = (8,)) -> Dataset:
    """One modality ``x`` of standard normal numbers, in [0, 1] for images."""
    x = torch.randn(rows, *shape, generator=torch.Generator().manual_seed(0))
    x = x.sigmoid() * 0.4 + 0.1 if kind == "image" else x
    schema = Schema((Modality("x", kind, shape),), Classification(["a", "b"]))
    target = torch.arange(rows) % 2
    batch = Batch(("x",), {"x": x}, torch.ones(rows, 1, dtype=torch.bool), torch.arange(rows), target)
    return Dataset(TensorSource(schema, batch, "mine"))


def shown(data: Dataset, key: str, rows: int = 2) -> page.Shown:
    (section,) = gallery(data=data, kinds=[OPERATORS[key].kind], rows=rows)
    (entry,) = section.entries
    (only,) = entry.shown
    return only


# the page -------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page with up to two operators of each kind."""
    few = {kind: cards.of_kind(kind)[:2] for kind in cards.kinds()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cards, "of_kind", lambda kind: few[kind])
        out = tmp_path_factory.mktemp("gallery") / "gallery.html"
        assert write_gallery(out, severities=(1, 5), command="kintsugi gallery <here>", progress=False) == []
    return out.read_text(encoding="utf-8")


def test_it_is_sound_and_needs_no_network(whole: str) -> None:
    found = Page(whole)
    assert found.wrong == []
    assert found.open == []
    outside = [
        value
        for _, attrs in found.elements
        for name, value in attrs.items()
        if name in ("src", "href") and not value.startswith(("data:", "#"))
    ]
    assert outside == []
    assert "url(" not in whole.replace("url(#hatch)", "")
    assert "kintsugi gallery &lt;here&gt;" in whole


def test_everything_has_a_place_a_link_and_a_text(whole: str) -> None:
    found = Page(whole)
    ids = [attrs["id"] for _, attrs in found.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = {attrs["href"].removeprefix("#") for attrs in found.all("a")}
    assert links <= set(ids)
    for kind in cards.kinds():
        assert kind in links
        for key in cards.of_kind(kind)[:2]:
            assert key in links
            operator = OPERATORS[key]
            assert operator.title in found.text
            assert operator.source in found.text
            for _, name, values in cards.parameter_rows(operator):
                assert name in found.text
                assert all(value in found.text for value in values)
    assert all(attrs["alt"] for attrs in found.all("img"))
    assert all(attrs["aria-label"] for attrs in (*found.all("audio"), *found.all("nav")))
    curves = [attrs for attrs in found.all("svg") if attrs.get("class") in ("curves", "bars")]
    assert curves
    assert all(attrs["aria-label"] for attrs in curves)


def test_every_kind_is_drawn_its_own_way(whole: str) -> None:
    found = Page(whole)
    for form, kind in (("curves", "series"), ("bars", "vector"), ("cells", "tabular"), ("strip tall", "text")):
        if kind in cards.kinds():
            assert [a for _, a in found.elements if a.get("class") == form], kind
    assert found.all("ins")
    assert found.all("audio")


def test_pictures_and_sound_can_be_read(whole: str) -> None:
    found = Page(whole)
    for attrs in found.all("img"):
        picture = Image.open(io.BytesIO(base64.b64decode(attrs["src"].partition(",")[2])))
        assert picture.size == (int(attrs["width"]), int(attrs["height"]))
        assert attrs["src"].startswith(f"data:image/{(picture.format or '').lower()};base64,")
    for attrs in found.all("audio"):
        wave, rate = soundfile.read(io.BytesIO(base64.b64decode(attrs["src"].partition(",")[2])))
        assert (len(wave), rate) == (8000, 8000)


def test_it_says_where_samples_come_from(whole: str) -> None:
    for words in ("CC BY 2.0", "CC BY-SA 3.0", "CC BY 4.0", "load_sample_images", "Efron"):
        assert words in whole


@pytest.mark.slow
def test_every_operator_is_shown_and_none_fails(tmp_path: Path) -> None:
    out = tmp_path / "gallery.html"
    assert write_gallery(out, progress=False) == []
    found = Page(out.read_text(encoding="utf-8"))
    kinds = {*samples._MAKE}
    assert {a["id"] for a in found.all("article")} == {k for k in OPERATORS if OPERATORS[k].kind in kinds}
    assert out.stat().st_size < 15e6


# what it says of the damage -------------------------------------------------------------------------------------------
def test_the_error_of_pictures_is_measured(operator: Callable[..., str]) -> None:
    key = operator("image", lambda x, seen, amount: (x + amount, None))
    said = [level.measured for level in shown(vectors(kind="image", shape=(1, 8, 8)), key).levels]
    assert said == [f"RMSE {amount:.2g}" for amount in (0.1, 0.2, 0.3, 0.4, 0.5)]


def test_the_error_of_numbers_is_in_standard_deviations(operator: Callable[..., str]) -> None:
    data = vectors(rows=400)
    wide = data.source.read(torch.arange(400))
    wide.inputs["x"] = wide.inputs["x"] * torch.linspace(1, 50, 8)
    sd = wide.inputs["x"].std(0, correction=0)
    key = operator("vector", lambda x, seen, amount: (x + amount * sd, None))
    said = shown(Dataset(TensorSource(data.schema, wide, "wide")), key).levels
    assert [level.measured for level in said] == [f"RMSE {a:.2g} sd" for a in (0.1, 0.2, 0.3, 0.4, 0.5)]


def test_gaps_are_counted_and_drawn(operator: Callable[..., str]) -> None:
    def cut(x: Tensor, seen: Tensor, amount: float) -> tuple[Tensor, Tensor]:
        seen = seen.clone()
        seen[:, 5 : 5 + round(20 * amount)] = False
        return torch.where(seen[..., None], x, torch.nan), seen

    found = shown(vectors(kind="series", shape=(20, 2)), operator("series", cut))
    assert [level.measured for level in found.levels] == [
        "10 % gone",
        "20 % gone",
        "30 % gone",
        "40 % gone",
        "50 % gone",
    ]
    curve = found.lines[0].cells[5].curves[0]
    assert curve.gaps == ((50.0, 100.0),)
    assert curve.now.count("M") == 2
    assert found.lines[0].cells[0].curves[0].gaps == ()


@pytest.mark.parametrize(
    ("before", "after", "edits"),
    [
        ("kitten", "sitting", 3),
        ("", "abc", 3),
        ("abc", "", 3),
        ("same", "same", 0),
        ("abcdef", "ABcdeF", 3),
        ("ab", "ba", 2),
    ],
)
def test_edits_of_text(before: str, after: str, edits: int) -> None:
    assert damage.distance(before, after) == edits
    found = damage.codes(before, after)
    assert "".join(before[a:b] for _, a, b, _, _ in found) == before
    assert "".join(after[c:d] for _, _, _, c, d in found) == after
    assert all((before[a:b] == after[c:d]) == (kind == "equal") for kind, a, b, c, d in found)


def test_a_change_of_case_is_marked_letter_by_letter() -> None:
    assert damage.codes("aaaaa", "aaaAa") == [("equal", 0, 3, 0, 3), ("replace", 3, 4, 3, 4), ("equal", 4, 5, 4, 5)]
    shifted = damage.codes("abcdefgh", "xabcdefg")  # equally long, but moved on: not eight replacements
    assert [code[0] for code in shifted] == ["insert", "equal", "delete"]


def test_rows_that_are_hit_come_first(operator: Callable[..., str]) -> None:
    key = operator("vector", lambda x, seen, amount: (torch.where(x > 1.2 - amount, x + 1, x), None))
    sample = Sample("mine", vectors(), "x", "a test")
    made = damage.strip(key, sample, (1, 3, 5), 0)
    assert made.clean is not None
    x, afters = made.clean.inputs["x"], [level.after.inputs["x"] for level in made.levels if level.after is not None]
    hit = [sum(not torch.equal(after[row], x[row]) for after in afters) for row in made.order()]
    assert hit == sorted(hit, reverse=True)
    assert hit[0] > hit[-1]


def test_the_same_seed_is_the_same_page(tmp_path: Path) -> None:
    def made(seed: int) -> str:
        write_gallery(tmp_path / "g.html", data=vectors(rows=40), kinds=["vector"], seed=seed, progress=False)
        return re.sub(r"Made .*? with|seed \d", "", (tmp_path / "g.html").read_text())

    if "vector" not in cards.kinds():
        pytest.skip("no operator of vectors")
    assert made(1) == made(1)
    assert made(1) != made(2)


# what goes wrong ------------------------------------------------------------------------------------------------------
def test_an_operator_that_fails_is_shown_as_failed(operator: Callable[..., str], tmp_path: Path) -> None:
    def fail(x: Tensor, seen: Tensor, amount: float) -> tuple[Tensor, None]:
        if amount > 0.35:
            raise ZeroDivisionError("too <much>")
        return x + amount, None

    key = operator("vector", fail)
    failures = write_gallery(tmp_path / "g.html", data=vectors(), kinds=["vector"], progress=False)
    assert failures == [f"{key}, severity {s}, on x of mine: ZeroDivisionError: too <much>" for s in (4, 5)]
    text = (tmp_path / "g.html").read_text()
    assert text.count("failed: ZeroDivisionError: too &lt;much&gt;") == 4
    assert "2 failed" in text
    assert "<much>" not in text


def test_what_comes_out_of_range_is_no_crash(operator: Callable[..., str]) -> None:
    key = operator("vector", lambda x, seen, amount: (x * float("inf"), None))
    cells = shown(vectors(), key).lines[0].cells
    assert [cell.form for cell in cells] == ["bars"] * 6


def test_a_refusal_is_said_and_is_no_failure(operator: Callable[..., str], tmp_path: Path) -> None:
    def never(modality: Modality) -> None:
        raise ConfigError(f"not {modality.name}, for a reason")

    operator("vector", lambda x, seen, amount: (x, None), check=never)
    assert write_gallery(tmp_path / "g.html", data=vectors(), kinds=["vector"], progress=False) == []
    assert "not x, for a reason" in (tmp_path / "g.html").read_text()


def test_an_option_that_a_user_must_give_is_a_refusal_too(
    operator: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def look(*_: object) -> dict[str, Tensor]:
        raise ConfigError("told needs files='noise/'")

    monkeypatch.setattr(OPERATORS[operator("vector", lambda x, seen, amount: (x, None))], "look", look)
    assert write_gallery(tmp_path / "g.html", data=vectors(), kinds=["vector"], progress=False) == []
    assert "told needs files=&#39;noise/&#39;" in (tmp_path / "g.html").read_text()


@pytest.mark.parametrize("moment", ["gallery", "replace"])
def test_an_interruption_leaves_the_old_file(
    moment: str, operator: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator("vector", lambda x, seen, amount: (x + amount, None))

    def stop(*args: Any, **given: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(page if moment == "gallery" else page.os, moment, stop)
    out = tmp_path / "g.html"
    out.write_text("the old one")
    with pytest.raises(KeyboardInterrupt):
        write_gallery(out, data=vectors(), progress=False)
    assert out.read_text() == "the old one"
    assert list(tmp_path.iterdir()) == [out]


def test_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean 'image'"):
        gallery(kinds=["imag"])
    with pytest.raises(ConfigError, match="mine has no modality of kind audio"):
        gallery(data=vectors(), kinds=["audio"])
    with pytest.raises(ConfigError, match="from 1 to 5"):
        gallery(data=vectors(), severities=[6])
    with pytest.raises(ConfigError, match="is a folder"):
        write_gallery(tmp_path)


@pytest.mark.parametrize(("module", "extra"), [("jinja2", "report"), ("PIL.Image", "report"), ("soundfile", "audio")])
def test_what_is_not_installed_is_named(
    module: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples._known.clear()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"kintsugi-ml\[{extra}\]"):
        write_gallery(tmp_path / "g.html", kinds=["audio"], progress=False)
    assert list(tmp_path.iterdir()) == []


# samples --------------------------------------------------------------------------------------------------------------
def test_a_table_of_the_user(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "note": ["<b>bold</b> & brave words of a patient"] * 8,
            "age": np.arange(8.0) + 40,
            "ward": ["east", "west"] * 4,
            "y": ["a", "b"] * 4,
        }
    )
    table = kg.Table.from_pandas(
        frame, modalities={"note": kg.text("note"), "vitals": kg.tabular(["age", "ward"])}, target="y", name="cases"
    )
    kinds = [kind for kind in ("text", "tabular") if kind in cards.kinds()]
    write_gallery(tmp_path / "g.html", data=table, kinds=kinds, severities=[5], progress=False)
    text = (tmp_path / "g.html").read_text()
    assert "note of cases" in text
    assert "<b>bold" not in text
    assert Page(text).wrong == []
    if "tabular" in kinds:
        assert "east" in text
        assert "<b>40</b>" in text  # in years again, not in standard deviations


def test_samples_are_real_and_complete() -> None:
    found = samples.built_in(["image", "audio", "text", "tabular", "series", "vector", CROSS])
    assert set(found) == {"image", "audio", "text", "tabular", "series", "vector", CROSS}
    for kind, several in found.items():
        for sample in several:
            assert len(sample.data) > 1
            if kind != CROSS:
                assert sample.data.schema[sample.modality].kind == kind
                x = sample.data.batch([0, 1]).inputs[sample.modality]
                assert not torch.equal(x[0], x[1])
    sizes = [s.data.schema[s.modality].shape for s in found["image"]]
    assert sizes == [(3, 224, 224), (3, 32, 32), (1, 28, 28)]


def test_rows_are_drawn_among_those_that_have_the_modality() -> None:
    data = vectors(rows=40)
    data.source.present[::2] = False
    drawn = [Sample("mine", data, "x", "a test").rows(("x",), seed, 10).tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(row % 2 for rows in drawn for row in rows)
    assert Sample("mine", data, "x", "a test", ordered=True).rows(("x",), 5, 4).tolist() == [1, 3, 5, 7]


def test_second_scans_show_the_same_digit() -> None:
    target = torch.tensor([1, 2, 1, 1, 2, 3])
    after = samples._next(target)
    assert torch.equal(target[after], target)
    assert after.tolist() == [2, 4, 3, 0, 1, 5]


def test_spectrograms_have_few_colours_and_low_tones_at_the_bottom() -> None:
    def brightest(step: float) -> float:
        source, size = pieces.spectrogram(np.sin(np.arange(8000) * step), 8000)
        picture = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
        assert picture.size == size
        assert picture.mode == "P"
        rows = np.asarray(picture.convert("RGB")).sum(-1).mean(1)
        return float(rows.argmax() / len(rows))

    assert brightest(2.5) < 0.2 < 0.6 < brightest(0.3)


# cards ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("value", "text"),
    [(0.1, "0.1"), (3, "3"), (True, "yes"), (None, "none"), ((1, 2.5), "(1, 2.5)"), ({"a": 1}, "a 1"), ("x", "x")],
)
def test_parameters_in_words(value: Any, text: str) -> None:
    assert cards.spoken(value) == text


def test_docstrings_as_plain_text() -> None:
    said = ":py:class:`~kintsugi.core.batch.Batch` takes ``x`` and\nmore.\n\n- one\n- two"
    assert cards.paragraphs(cards.plain(said)) == ["Batch takes x and more.", "- one\n- two"]


@pytest.mark.parametrize("key", list(OPERATORS))
def test_examples_on_cards_can_be_read(key: str) -> None:
    assert kg.corruptions.parse_corruption(cards.example(key)).modalities is not None
