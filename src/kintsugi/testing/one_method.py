"""Everything that can be checked of one method, in order, each step on its own: a step that fails stops no other."""

from __future__ import annotations

import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from kintsugi.core.card import Card
from kintsugi.core.citations import NAME, citation, read_bibliography
from kintsugi.core.component import Component
from kintsugi.core.errors import KintsugiError, UnknownName
from kintsugi.core.methods import METHODS
from kintsugi.testing import CHECKS
from kintsugi.testing.architecture import faults_of_method
from kintsugi.testing.fresh_process import wrong_in_a_fresh_process
from kintsugi.testing.holding import place_of
from kintsugi.testing.new_method import BIBTEX, PLACEHOLDER, placeholders
from kintsugi.testing.style_tools import NotInstalled, checkout, style_faults, type_faults

GOLDEN = Path("tests/golden")  # in the source checkout


@dataclass(frozen=True)
class Result:
    """How one step went.

    seconds: by the clock. message: what failed, why it was skipped, or what else there is to say. cpu: seconds of this
    process, which a busy machine does not change.
    """

    step: str
    state: Literal["ok", "failed", "skipped"]
    seconds: float
    message: str = ""
    cpu: float = 0.0


@dataclass(frozen=True)
class Subject:
    """A method to check: key, class and, where it stands in one, its file."""

    key: str
    cls: type[Component]
    file: Path | None

    @property
    def own(self) -> bool:
        """Is it a method of this library?"""
        return self.file is not None and self.file.is_relative_to(METHODS.home)

    @property
    def flag(self) -> str:
        """How a command is told of it."""
        return f" --plugin {shlex.quote(str(self.file))}" if self.file in METHODS.plugins else ""


class _Skipped(Exception):
    """A step that says nothing of this method; why."""


def check_one(
    key: str, only: Iterable[str] = (), watch: Callable[[str, Result | None], None] | None = None
) -> list[Result]:
    """Card, style, types, architecture, every promise, saving and loading in a fresh process, golden numbers.

    Args:
        key: of a registered method; load a plugin first.
        only: names of steps, ``contract`` for all promises; default: every step.
        watch: called with a step's name and None when it begins, and with its result when it ends.

    Returns:
        One result a step, in order.

    Raises:
        UnknownName: no such method or step. ConfigError: the method's file cannot be used.
    """
    steps = _chosen(only)
    cls = METHODS[key]
    text = METHODS.entries.get(cls.card.key)
    subject = Subject(cls.card.key, cls, None if text is None else text.file)
    results = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the models are small: more threads would only wait for each other
    try:
        for name in steps:
            if watch is not None:
                watch(name, None)
            results.append(_result(name, subject))
            if watch is not None:
                watch(name, results[-1])
    finally:
        torch.set_num_threads(threads)
    return results


def _chosen(only: Iterable[str]) -> list[str]:
    wanted: set[str] = set()
    for name in only:
        if name not in STEPS and name != "contract":
            raise UnknownName("step", name, [*STEPS, "contract"])
        wanted |= set(PROMISES) if name == "contract" else {name}
    return [name for name in STEPS if name in wanted or not wanted]


def _result(name: str, subject: Subject) -> Result:
    start, worked = time.perf_counter(), time.process_time()
    state: Literal["ok", "failed", "skipped"] = "failed"
    try:
        said = STEPS[name](subject)
        state, message = "ok", said or ""
    except (_Skipped, NotInstalled) as why:
        state, message = "skipped", str(why)
    except (AssertionError, KintsugiError) as error:
        message = str(error) or f"an assertion fails in {place_of(error)}"
    except Exception as error:  # whatever is wrong with somebody's file
        message = f"{type(error).__name__} in {place_of(error, str(subject.file))}: {error}"
    return Result(name, state, time.perf_counter() - start, message, time.process_time() - worked)


# the steps ------------------------------------------------------------------------------------------------------------
def _card(subject: Subject) -> str:
    """Nothing left of the template, a reference in its place, docstrings, and the file that it says; of a plugin without a
    reference, a word about that.
    """
    card: Card = subject.cls.card
    left = placeholders(card, subject.cls.__doc__, _module_docstring(subject.cls))
    if left:
        raise AssertionError(f"still to be written, since it begins with {PLACEHOLDER!r}: {', '.join(left)}")
    CHECKS["card_is_true"](subject.cls)
    try:
        citation(subject.key)
    except UnknownName as error:
        if not subject.own:
            beside = (
                "" if subject.file is None else f": {subject.file.with_name(NAME)} has no entry {card.citation_key!r}"
            )
            return f"no reference is given{beside}"
        raise AssertionError(
            f"{error}; paste the paper's entry into {METHODS.home / NAME}, or say in the card by cite= whose entry it "
            f"shares:\n{BIBTEX % card.citation_key}"
        ) from error
    if subject.own:
        _check_order(card.citation_key, list(read_bibliography(METHODS.home / NAME)))
    return ""


def _check_order(key: str, keys: Sequence[str]) -> None:
    """Entries stand in the order of their keys, so that two people who add one seldom touch the same lines."""
    place = keys.index(key)
    near = keys[max(0, place - 1) : place + 2]
    if near != sorted(near):
        before = max((other for other in keys if other < key), default="")
        where = f"after {before!r}" if before else "first"
        raise AssertionError(f"entries of {METHODS.home / NAME} stand in the order of their keys; put {key!r} {where}")


def _module_docstring(cls: type[Component]) -> str | None:
    """The docstring of the module that a class stands in."""
    module = sys.modules.get(cls.__module__)
    return None if module is None else module.__doc__


def _style(subject: Subject) -> None:
    _no_faults(style_faults(_file(subject)))


def _types(subject: Subject) -> None:
    _no_faults(type_faults(_file(subject)))


def _architecture(subject: Subject) -> None:
    _no_faults(faults_of_method(_file(subject), subject.cls.__module__))


def _fresh_process(subject: Subject) -> None:
    _file(subject)
    with tempfile.TemporaryDirectory() as folder:
        wrong = wrong_in_a_fresh_process([subject.cls], Path(folder))
    if wrong:
        raise AssertionError(wrong[subject.key])


def _golden(subject: Subject) -> None:
    from kintsugi.testing import golden

    file, place = _file(subject), checkout()
    if subject.own and place is None:
        raise _Skipped("golden numbers of this library are in its source checkout")
    numbers = golden.method_subject(subject.key)
    folder = file.parent if place is None else place / GOLDEN
    if not (folder / numbers.file).is_file() and not subject.own:
        raise _Skipped(f"none yet: kintsugi golden {subject.key}{subject.flag} --renew")
    _no_faults(golden.check(numbers, folder))


def _promise(name: str, subject: Subject) -> None:
    CHECKS[name](subject.cls)


def _file(subject: Subject) -> Path:
    if subject.file is None:
        raise _Skipped("it stands in no file that could be looked at")
    return subject.file


def _no_faults(faults: list[str], most: int = 12) -> None:
    if faults:
        more = [f"and {len(faults) - most} more"] * (len(faults) > most)
        raise AssertionError("\n".join([*faults[:most], *more]))


PROMISES: dict[str, Callable[[Subject], Any]] = {
    name: partial(_promise, name) for name in CHECKS if name != "card_is_true"  # which is a part of the card's step
}  # fmt: skip
STEPS: dict[str, Callable[[Subject], Any]] = {
    "card": _card, "ruff": _style, "mypy": _types, "architecture": _architecture, **PROMISES,
    "fresh_process": _fresh_process, "golden": _golden,
}  # fmt: skip
