"""Each idea has one word: no class, function, parameter or attribute bears a name that was given up."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import kintsugi
from kintsugi.core.retired import GLOSSARY

HOME = Path(kintsugi.__file__).parent
PLACES = ("core", "methods", "components", "testing", "training")
BANNED = {name.banned: name.new for name in GLOSSARY if name.banned}
# The property of a method that is called claims today; elsewhere the word means how values come to be missing.
BANNED_IN = {"mechanism": ("methods", "components", "core")}


def borne(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of every class, function, parameter, attribute of self or cls, and field or attribute of a class."""
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef():
                yield node.lineno, node.name
                yield from ((line, name) for each in node.body for line, name in _fields(each))
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield node.lineno, node.name
            case ast.arg():
                yield node.lineno, node.arg
            case ast.Attribute(value=ast.Name(id="self" | "cls"), ctx=ast.Store()):
                yield node.lineno, node.attr


def _fields(statement: ast.stmt) -> Iterator[tuple[int, str]]:
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    yield from ((statement.lineno, target.id) for target in targets if isinstance(target, ast.Name))


def given_up(source: str, place: str) -> list[str]:
    """Lines with names that are banned in this place, each with the name of today."""
    words = {**BANNED, **{word: "claims" for word, places in BANNED_IN.items() if place in places}}
    return [f"{line}: {name} is {words[name]} now" for line, name in borne(ast.parse(source)) if name in words]


@pytest.mark.parametrize("place", PLACES)
def test_no_name_that_was_given_up_is_borne(place: str) -> None:
    files = sorted((HOME / place).rglob("*.py"))
    assert files
    broken = [f"{f.relative_to(HOME)}:{line}" for f in files for line in given_up(f.read_text("utf-8"), place)]
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize(
    "source",
    [
        "class Part: ...", "def or_prior(): ...", "def step(batch, side=None): ...", "def step(batch, *, side): ...",
        "lambda side: side", "async def check_of(): ...", "class A:\n    off = {}", "class A:\n    off: dict = {}",
        "class A:\n    side: int", "class A:\n    def f(self):\n        self.side = 1",
        "class A:\n    def f(self):\n        self.side: int = 1",
        "class A:\n    def f(self):\n        self.a, self.side = 1, 2", "class A:\n    def f(self):\n        self.side += 1",
        "class A:\n    def mechanism(self): ...", "class A:\n    @classmethod\n    def f(cls):\n        cls.off = 1",
    ],
)  # fmt: skip
def test_a_name_is_found_wherever_it_is_borne(source: str) -> None:
    assert len(given_up(source, "methods")) == 1


@pytest.mark.parametrize(
    ("source", "place"),
    [
        ("def f():\n    side = 1\n    return side", "core"), ("def f(mechanism): ...", "testing"),
        ("def f(share, plan): ...", "core"),
        ("x.side = 1", "core"), ("'side off Part'", "core"), ("def offset(sides): ...", "methods"),
    ],
)  # fmt: skip
def test_other_words_and_other_places_are_left_alone(source: str, place: str) -> None:
    assert given_up(source, place) == []


def test_a_name_of_today_is_no_name_of_before() -> None:
    assert not set(BANNED) & set(BANNED.values())
    assert len({name.old for name in GLOSSARY}) == len(GLOSSARY)
