"""How a promise says that it is broken: conditions with words, tried on every task of a card."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path

from kintsugi.core.component import Component
from kintsugi.testing.trials import tasks_of


def hold(condition: bool, broken: str) -> None:
    """Like ``assert``, but never without words, and under ``python -O`` too.

    Raises:
        AssertionError: the condition is not met; says what is broken.
    """
    if not condition:
        raise AssertionError(broken)


def on_every_task(cls: type[Component], promise: Callable[[str], None]) -> None:
    """Try a promise on each task of the card.

    Raises:
        AssertionError: it is broken; names the task where it is not the first of the card.
    """
    first, *others = tasks_of(cls)
    promise(first)
    for task in others:
        try:
            promise(task)
        except AssertionError as error:
            raise AssertionError(f"for {task}: {error}") from error


def place_of(error: BaseException, file: str = "") -> str:
    """Where an error was raised: line, file and source. With ``file``: the innermost place there, if it is on the way."""
    frames = traceback.extract_tb(error.__traceback__)
    place = next((frame for frame in reversed(frames) if frame.filename == file), frames[-1])
    return f"line {place.lineno} of {Path(place.filename).name}" + (f": {place.line}" if place.line else "")
