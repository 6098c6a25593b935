"""The promises that every method keeps, as checks that anyone can run on a method of their own.

``check_method("my_method")`` runs them all; each is a function of the method class that raises ``AssertionError`` and says
what is broken. They choose what to do by the card, never by the name.
"""

from __future__ import annotations

from collections.abc import Callable

from kintsugi.contract.promises import PROMISES, hold, round_trip
from kintsugi.contract.trials import ROWS, ask, build, data_for, everything, fitted, mixed, subsets, train
from kintsugi.core.methods import METHODS
from kintsugi.core.part import Part
from kintsugi.training.lab import toy

__all__ = [
    "CHECKS",
    "ROWS",
    "ask",
    "build",
    "check_method",
    "data_for",
    "everything",
    "fitted",
    "hold",
    "mixed",
    "round_trip",
    "subsets",
    "toy",
    "train",
]

CHECKS: dict[str, Callable[[type[Part]], None]] = {promise.__name__: promise for promise in PROMISES}


def check_method(key: str) -> None:
    """Run every promise on one registered method; the first that is broken raises ``AssertionError`` with what it saw.

    It may stand in this library, in a file that was given to ``load_plugin``, in an installed package that names it, or
    in a notebook. The round trip through a fresh process is the one promise that needs a folder: see ``kintsugi check``.

    Raises:
        UnknownName: no such method.
    """
    for check in CHECKS.values():
        check(METHODS[key])
