"""The examples of the documentation are whole methods: each keeps every promise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kintsugi.core.catalogue import METHODS, load_plugin
from kintsugi.core.methods import create
from kintsugi.core.wrappers import Monitor, Restorer, Strategy
from kintsugi.testing import CHECKS, toy

FOLDER = Path(__file__).parent.parent / "docs" / "examples"
EXAMPLES = ("complete_teacher", "limit_guard", "linear_filler", "max_fusion")


@pytest.fixture(scope="module", autouse=True)
def loaded() -> Iterator[None]:
    for key in EXAMPLES:
        load_plugin(FOLDER / f"{key}.py")
    yield
    for key in EXAMPLES:
        METHODS.forget_plugin(FOLDER / f"{key}.py")


def test_there_is_one_of_each_kind_of_component_and_the_page_shows_it() -> None:
    schema = toy(rows=24).schema
    kinds = {key: create(key, schema) for key in EXAMPLES}
    assert isinstance(kinds["linear_filler"].restore, Restorer)
    assert isinstance(kinds["complete_teacher"].strategies[0], Strategy)
    assert isinstance(kinds["limit_guard"].monitors[0], Monitor)
    page = (FOLDER.parent / "contract.rst").read_text(encoding="utf-8")
    assert all(f"examples/{key}.py" in page for key in EXAMPLES)


@pytest.mark.parametrize("promise", CHECKS)
@pytest.mark.parametrize("key", EXAMPLES)
def test_an_example_keeps(key: str, promise: str) -> None:
    CHECKS[promise](METHODS[key])
