"""What is written about the library: it compiles, it is complete, and it is made from what is there."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import kintsugi
from kintsugi.core.card import LEAVES
from kintsugi.core.citations import citation
from kintsugi.core.methods import METHODS, arguments
from kintsugi.gallery import cards
from kintsugi.imperfect.operator import OPERATORS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MARKDOWN = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((DOCS / "reproductions").glob("*.md"))]
PAGES = [
    p for p in sorted(DOCS.rglob("*.rst")) if not {"_build", "generated", "methods"} & set(p.relative_to(DOCS).parts)
]


@pytest.fixture(autouse=True)
def _extensions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS / "ext"))


def blocks(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        yield from re.findall(r"^```python\n(.*?)^```", text, re.S | re.M)
        return
    for match in re.finditer(r"^( *)\.\. code-block:: python\n((?:\1 +.*\n|\s*\n)+)", text + "\n", re.M):
        yield inspect.cleandoc("\n" + match[2])


# code in documents --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", [*MARKDOWN, *PAGES], ids=lambda p: str(p.relative_to(ROOT)))
def test_code_compiles_and_names_exist(path: Path) -> None:
    for code in blocks(path):
        compile(code, str(path), "exec")
    for name in re.findall(r"\bkg\.(\w+)", path.read_text(encoding="utf-8")):
        assert name in kintsugi.__all__, f"{path.name} names kg.{name}, which is not there"


def test_documents_have_code() -> None:
    assert len(list(blocks(ROOT / "README.md"))) >= 2
    assert len(list(blocks(DOCS / "index.rst"))) == 1
    assert len(list(blocks(DOCS / "add_a_method.rst"))) == 2


def test_the_worked_example_keeps_every_promise() -> None:
    path = DOCS / "examples" / "max_fusion.py"
    try:
        assert METHODS.load_plugin(path) == ("max_fusion",)
        kintsugi.testing.check_method("max_fusion")
    finally:
        METHODS.forget_plugin(path)


def test_install_commands_are_constrained() -> None:
    for path in [*MARKDOWN, *PAGES]:
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.strip().startswith(("pip install", "python -m pip install")):
                assert "-c constraints.txt" in line, f"{path.name}: {line.strip()}"


def test_the_readme_names_no_method_that_is_gone() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
    assert rows
    assert [key for key in rows if key not in METHODS] == []


# docstrings ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [n for n in kintsugi.__all__ if not n.startswith("_")])
def test_public_names_are_explained(name: str) -> None:
    thing = getattr(kintsugi, name)
    own = thing.__doc__ if isinstance(thing, ModuleType) else vars(thing).get("__doc__") or inspect.getdoc(thing)
    assert own, f"kg.{name} has no docstring"
    assert not own.startswith(f"{name}("), f"kg.{name} has the docstring that dataclasses make"


def test_every_module_has_a_page(tmp_path: Path) -> None:
    import api_pages

    written = {path.stem for path in api_pages.write_module_pages(tmp_path)}
    assert {"kintsugi.core.model", "kintsugi.evaluation.examples", "kintsugi.testing"} <= written
    assert not any("._" in name for name in written)
    assert "kg.Table" in api_pages.names_table()


def test_what_a_package_defines_itself_is_on_its_page() -> None:
    import api_pages

    page = api_pages.module_page("kintsugi.imperfect.corrupt.text", ["kintsugi.imperfect.corrupt.text.words"])
    assert ".. autofunction:: kintsugi.imperfect.corrupt.text.corrupt_texts" in page
    assert "   kintsugi.imperfect.corrupt.text.words\n" in page
    assert "neighbours" not in page  # it comes from a module that has a page


def test_several_arguments_on_one_line_are_taken_apart() -> None:
    import docstrings

    def f(a: int, b: int, c: int) -> None:
        """Do it.

        Args:
            a: one thing; other: no argument. b, c: two
                things.
        """

    assert docstrings.explained(f) == {"a": "one thing; other: no argument.", "b": "two things.", "c": "two things."}
    lines = docstrings.tidy((inspect.getdoc(f) or "").splitlines(), f)
    assert "    a: one thing; other: no argument." in lines
    assert "    b, c: two things." in lines


# pages of methods ---------------------------------------------------------------------------------------------------
def test_every_method_has_a_page(tmp_path: Path) -> None:
    import method_pages

    (tmp_path / "gone.rst").write_text("an old page")
    written = method_pages.write_method_pages(tmp_path)
    assert {path.stem for path in written} == {*METHODS, "index"}
    assert {path.stem for path in tmp_path.iterdir()} == {*METHODS, "index"}
    index = (tmp_path / "index.rst").read_text()
    for key in METHODS:
        page, card = (tmp_path / f"{key}.rst").read_text(), METHODS[key].card
        assert f"<{key}>`" in index
        for text in (
            card.name,
            citation(key).title,
            citation(key).short,
            card.premise[1:],
            card.leaf,
            card.defaults_from,
            *card.faithful,
            *card.simplified,
        ):
            assert text in page.replace("\\", ""), f"{key}: {text!r} is not on its page"
        for name in arguments(METHODS[key]):
            assert f"``{name}``" in page
        for _, stage in method_pages.stages_of(METHODS[key]):
            assert f"- {stage.name}\n" in page


def test_the_tree_has_every_leaf() -> None:
    import method_pages

    index = method_pages.index_page()
    page = (DOCS / "taxonomy.rst").read_text(encoding="utf-8")
    for leaf in LEAVES:
        title = method_pages.leaf_title(leaf)
        assert title.partition(": ")[2] in index, leaf
        assert f"   * - ``{leaf}``\n     - {title}\n" in page, leaf


def test_equal_pages_are_left_alone(tmp_path: Path) -> None:
    import rst

    path = rst.write_if_changed(tmp_path / "a.rst", "text")
    before = path.stat().st_mtime_ns
    assert rst.write_if_changed(path, "text").stat().st_mtime_ns == before


# pages of corruptions -----------------------------------------------------------------------------------------------
def test_every_corruption_has_a_card(tmp_path: Path) -> None:
    import api_pages

    names = {path.name for path in api_pages.write_corruption_pages(tmp_path)}
    overview = (tmp_path / "kinds.txt").read_text()
    for key in OPERATORS:
        operator = OPERATORS[key]
        file = f"{api_pages.page_of(operator.kind)}.txt"
        assert file in names
        page = (tmp_path / file).read_text()
        anchor = f"corruption-{key.replace('_', '-')}"
        assert page.count(f".. _{anchor}:") == 1
        assert f"<{anchor}>" in page.partition(f".. _{anchor}:")[0]  # in the table at its top
        assert f"<{anchor}>" in overview
        card = page.partition(f".. _{anchor}:")[2].partition(".. _corruption-")[0].replace("\\", "")
        for text in (operator.title, operator.source, *operator.parameters, *operator.options, operator.not_monotone):
            assert text.replace("\\", "") in card, f"{key}: {text!r} is not on its card"
        assert f":py:class:`{operator.__module__}.{operator.__qualname__}`" in card
        for _, name, values in cards.parameter_rows(operator):
            row = f"``{name}``\n     - " + "\n     - ".join(values)
            assert row in card, f"{key}: {row}"


def test_every_kind_of_corruption_has_a_page_that_is_listed() -> None:
    import api_pages

    index = (DOCS / "corruptions" / "index.rst").read_text(encoding="utf-8")
    for kind in cards.kinds():
        page = api_pages.page_of(kind)
        assert f"\n   {page}\n" in index
        text = (DOCS / "corruptions" / f"{page}.rst").read_text(encoding="utf-8")
        assert f".. include:: ../api/generated/corruptions/{page}.txt" in text


def test_a_private_base_stands_for_what_it_extends() -> None:
    import docstrings

    class _Hidden(kintsugi.Restorer):
        """Not shown."""

    class Shown(_Hidden):
        """Shown."""

    _Hidden.__module__ = Shown.__module__ = "kintsugi.somewhere"
    assert docstrings.parents(Shown) == [":py:class:`~kintsugi.core.wrappers.Restorer`"]


# Markdown -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("markdown", "rst"),
    [
        ("# Title", "Title\n====="),
        ("## Part one ##", "Part one\n--------"),
        ("one\ntwo\n\nthree", "one two\n\nthree"),
        ("**bold** and *soft* and _soft_", "**bold** and *soft* and *soft*"),
        ("`code` with ``a ` b``", "``code`` with ``a ` b``"),
        ("a `kg.load`s b", "a ``kg.load``\\ s b"),
        ("[text](https://example.org/a_b)", "`text <https://example.org/a_b>`__"),
        ("<https://example.org>", "`https://example.org <https://example.org>`__"),
        ("[guide](docs/x.rst)", "guide (``docs/x.rst``)"),
        ("snake_case_name and 2 * 3 * 4", "snake_case_name and 2 \\* 3 \\* 4"),
        ("a trailing_ one", "a trailing\\_ one"),
        ("- one\n- two\n  more", "- one\n\n- two more"),
        ("1. one\n2. two", "#. one\n\n#. two"),
        ("- one\n  - inner\n- two", "- one\n\n  - inner\n\n- two"),
        ("```sh\nmake  demo\n```", ".. code-block:: sh\n\n   make  demo"),
        ("```\nx | y\n```", ".. code-block:: text\n\n   x | y"),
        ("a\n\n---\n\nb", "a\n\n----\n\nb"),
        ("> said\n> so", "   said so"),
        ("<!-- not shown -->\nshown", "shown"),
        (
            "| a | b |\n| --- | ---: |\n| 1 | `x|y` |\n| 2 | |",
            ".. list-table::\n   :header-rows: 1\n\n   * - a\n     - b\n   * - 1\n     - ``x|y``\n   * - 2\n     -",
        ),
    ],
)
def test_markdown(markdown: str, rst: str) -> None:
    import markdown_pages

    assert markdown_pages.convert(markdown).strip("\n") == rst


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"], ids=lambda p: p.name
)
def test_converted_documents_are_sound(path: Path) -> None:
    import markdown_pages

    pytest.importorskip("docutils")
    from docutils.core import publish_doctree
    from docutils.parsers.rst import directives
    from docutils.parsers.rst.directives.body import CodeBlock

    directives.register_directive("code-block", CodeBlock)
    text = markdown_pages.convert(path.read_text(encoding="utf-8"))
    tree = publish_doctree(text, settings_overrides={"report_level": 5, "halt_level": 5})
    said = [node.astext() for node in tree.findall(lambda n: n.tagname == "system_message")]
    problems = [text for text in said if "Duplicate implicit target" not in text]  # each version has its "Added"
    assert problems == []
    links = re.findall(r"\]\((https?://[^)]+)\)", path.read_text(encoding="utf-8"))
    assert len([n for n in tree.findall(lambda n: n.tagname == "reference") if n.get("refuri")]) >= len(links)


def test_markdown_pages_are_listed(tmp_path: Path) -> None:
    import markdown_pages

    target = tmp_path / "generated"
    markdown_pages.write_markdown_pages(tmp_path, target)
    assert "None" in (target / "contents.txt").read_text()
    (tmp_path / "one.md").write_text("# One\n\nText.\n")
    markdown_pages.write_markdown_pages(tmp_path, target)
    assert "generated/one" in (target / "contents.txt").read_text()
    assert (target / "one.rst").read_text().startswith("One\n====")
