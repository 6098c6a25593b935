"""Training conditions, protocols, seeds and metrics of a suite: each exists and is there once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kintsugi.bench.spelling import training_spelling
from kintsugi.bench.suite_file import SuiteFile
from kintsugi.bench.suite_places import Places
from kintsugi.core.errors import ConfigError, UnknownName


def read_training(read: SuiteFile, places: Places) -> tuple[str, ...]:
    """The training conditions, each in one spelling."""
    found = []
    for place, text in enumerate(read.training):
        with places.at("training", place):
            _check_brackets(text)
            found.append(training_spelling(text))
    return tuple(_once(found, "training condition", places, "training"))


def _check_brackets(text: str) -> None:
    if text.count("(") != text.count(")"):
        raise ConfigError(
            f"{text!r} is cut off: a comma inside [ ] or {{ }} ends a word, so quote it there: 'gaussian_noise(image, 3)'"
        )


def read_protocols(read: SuiteFile, places: Places) -> tuple[str, ...]:
    """The protocols, as they are written."""
    from kintsugi.evaluation.protocols import PROTOCOLS
    from kintsugi.imperfect.published import SETTINGS, published

    found = []
    for place, text in enumerate(read.protocol):
        with places.at("protocol", place):
            _check_brackets(text)
            name = text.partition("(")[0].strip()
            if name not in PROTOCOLS and published(text) is None:
                raise UnknownName("protocol", name, [*PROTOCOLS, *SETTINGS])
            found.append(text.strip())
    return tuple(_once(found, "protocol", places, "protocol"))


def read_seeds(read: SuiteFile, places: Places) -> tuple[int, ...]:
    """The seeds."""
    return tuple(_once(read.seeds, "seed", places, "seeds"))


def read_metrics(read: SuiteFile, places: Places) -> tuple[str, ...]:
    """The metrics. Which exist depends on the data sets, so that is not looked at here."""
    return tuple(_once(read.metrics, "metric", places, "metrics"))


def _once(values: Sequence[Any], what: str, places: Places, *location: Any) -> Sequence[Any]:
    for place, value in enumerate(values):
        if value in values[:place]:
            raise places.wrong(f"{what} {value} is there twice", *location, place)
    return values
