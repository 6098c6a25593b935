"""The digest of sources: the method's own and what it imports count, comments and pictures do not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kintsugi.bench import sources
from kintsugi.bench.job import Job, Source
from kintsugi.bench.made_with import sources_of
from kintsugi.bench.sources import closure, sources_digest

FILES = {
    "__init__.py": "from shop.tools import saw\n",
    "tools.py": "from shop.metal import iron\n\ndef saw():\n    return iron()\n",
    "metal.py": "def iron():\n    return 1\n",
    "paint.py": "def red():\n    return 1\n",
    "table.py": (
        "from typing import TYPE_CHECKING\nfrom shop import saw\n\nif TYPE_CHECKING:\n    from shop.paint import red\n\n"
        "def make():\n    import json\n    return json.dumps(saw())\n"
    ),
    "lazy.py": "def make():\n    from shop.paint import red\n    return red()\n",
}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
        monkeypatch.delitem(sys.modules, name)
    forget()
    yield folder
    forget()


def forget() -> None:
    for remembered in (
        sources._file, sources._imports, sources._import_nodes, sources._content, sources.sources_digest,
    ):  # fmt: skip
        remembered.cache_clear()


def digest(module: str) -> str:
    forget()
    return sources_digest(frozenset([f"shop.{module}"]))


def test_a_module_counts_with_all_that_it_imports_from_where_it_comes(shop: Path) -> None:
    assert closure(["shop.table"]) == {"shop.table", "shop.tools", "shop.metal"}  # saw is only handed on by shop
    assert closure(["shop.lazy"]) == {"shop.lazy", "shop.paint"}  # also inside a function


@pytest.mark.parametrize(("changed", "counts"), [("table", True), ("tools", True), ("metal", True), ("paint", False)])
def test_the_digest_changes_with_what_is_imported(shop: Path, changed: str, counts: bool) -> None:
    before, file = digest("table"), shop / f"{changed}.py"
    file.write_text(file.read_text().replace("return", "print()\n    return"))
    assert (digest("table") != before) is counts


def test_comments_layout_and_docstrings_do_not_count(shop: Path) -> None:
    before = digest("metal")
    (shop / "metal.py").write_text(
        '"""Metals."""\n\n\ndef iron():\n    """The usual one."""\n    # as ever\n    return (1)\n'
    )
    assert digest("metal") == before
    (shop / "metal.py").write_text('def iron():\n    """The usual one."""\n    return 2\n')
    assert digest("metal") != before


def test_what_a_card_says_does_not_count_and_what_stands_beside_it_does(shop: Path) -> None:
    def written(words: str, dim: int) -> str:
        (shop / "metal.py").write_text(
            "def iron():\n    return 1\n\nclass Card(dict):\n    pass\n\n"
            f"@(lambda cls: cls)\nclass Iron:\n    card = Card(key='iron', check={words!r})\n    dim = {dim}\n"
        )
        return digest("metal")

    before = written("holds", 1)
    assert written("holds well", 1) == before
    assert written("holds", 2) != before


def test_names_that_a_package_imports_when_they_are_used_are_followed(shop: Path) -> None:
    (shop / "__init__.py").write_text("from kintsugi.core.lazy import attach\n")
    (shop / "__init__.pyi").write_text(
        "from shop.tools import saw as saw\nfrom shop import paint as paint\nfrom shop.metal import iron as ferrum\n"
    )
    (shop / "user.py").write_text("from shop import ferrum, paint\n")
    forget()
    assert closure(["shop.table"]) == {"shop.table", "shop.tools", "shop.metal"}
    assert closure(["shop.user"]) == {"shop.user", "shop.metal", "shop.paint"}
    method = closure(["kintsugi.methods.missing.generative.mmin"])
    assert {"kintsugi.core.features", "kintsugi.core.model", "kintsugi.core.stage"} <= method
    assert not method & {"kintsugi.core", "kintsugi.core.card", "kintsugi.core.catalogue"}


def test_a_function_without_a_module_file_counts_by_its_source(shop: Path) -> None:
    assert sources_digest(frozenset(["a_notebook_cell"])) != sources_digest(frozenset(["another_cell"]))


def test_the_digest_of_a_trial_follows_its_method_its_encoders_and_its_operators() -> None:
    registered = Job(Source("factors"), "mmin", protocol="clean", training="mcar(0.3)").trial().registered
    noisy = registered | {"operator feature_noise": 1}
    assert len({sources_of(registered), sources_of(noisy), sources_of(registered | {"method late_fusion": 1})}) == 3
    found = closure(["kintsugi.methods.missing.generative.mmin", *sources.ALWAYS])
    assert {"kintsugi.layers.imagination", "kintsugi.training.trainer", "kintsugi.evaluation.evaluator"} <= found
    assert not {
        m for m in found if m.startswith(("kintsugi.methods.missing.prompt", "kintsugi.gallery", "kintsugi.report"))
    }
