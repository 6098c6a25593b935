"""Every argument of a method changes something that can be seen, or is refused in words."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from kintsugi.core.component import Component
from kintsugi.core.data import Splits
from kintsugi.core.errors import KintsugiError
from kintsugi.core.methods import arguments
from kintsugi.data.dataset import Dataset
from kintsugi.testing.fixture import toy
from kintsugi.testing.holding import hold, place_of
from kintsugi.testing.trials import ROWS, ask, build, data_for, everything, tasks_of
from kintsugi.training.trainer import Trainer

HOLES = 0.3  # share of absent slots
NONSENSE = "no such thing"
SHOWN = "no shape, stage, first loss, limit or answer"


def no_argument_ignored(cls: type[Component]) -> None:
    """Every constructor argument changes shapes, stages, first losses, calibration or answers, or is refused in words.

    It counts when it shows on any task of the card or kind of data. Values are those of ``probes``, or near the default.
    """
    known = arguments(cls)
    for name, default in known.items():
        hold(default is not inspect.Parameter.empty, f"argument {name} has no default")
    for name in probes_of(cls):
        hold(name in known, f"probes has values for {name!r}, which is no argument")
    looks = [_Look(cls, make) for make in _worlds(cls)]
    for name, default in known.items():
        values = candidates(cls, name, default)
        hold(
            bool(values),
            f"argument {name}: nobody can guess a value to try in place of {default!r}; name some by probes = "
            f"{{{name!r}: (…,)}} of {cls.__name__}",
        )
        hold(
            any(look.shows(name, value) for look in looks for value in values),
            f"argument {name} is ignored: {' or '.join(map(repr, values))} in place of {default!r} changes {SHOWN}",
        )


def probes_of(cls: type[Component]) -> dict[str, tuple[Any, ...]]:
    """Argument -> values to try, where the method names some."""
    return {name: tuple(values) for name, values in getattr(cls, "probes", {}).items()}


def _worlds(cls: type[Component]) -> Iterator[Callable[[], Dataset]]:
    """Data on which an argument may show: vectors with holes, which cost least, then mixed kinds for each task."""
    least, most = cls.card.modalities
    yield lambda: toy(tasks_of(cls)[0], rows=ROWS, modalities=max(least, min(3, most or 3)), holes=HOLES)
    for task in tasks_of(cls):
        yield partial(data_for, cls, task, absent=HOLES)


class _Look:
    """What can be seen of a method on one world, with its defaults and with another value of an argument.

    cls: the method; world: makes the data, when it is first asked for.
    """

    def __init__(self, cls: type[Component], world: Callable[[], Dataset]) -> None:
        self.cls, self.world = cls, world
        self.usual: tuple[Any, ...] | None = None

    def shows(self, name: str, value: Any) -> bool:
        """Does this value of an argument change anything? A text that nothing is called by counts when it is refused.

        Raises:
            AssertionError: the value is neither taken nor refused in words.
        """
        if self.usual is None:
            self.data = self.world()
            self.usual = seen(self.cls, self.data, {})
        try:
            return seen(self.cls, self.data, {name: value}) != self.usual
        except KintsugiError:
            return isinstance(value, str)
        except Exception as error:
            raise AssertionError(
                f"argument {name}={value!r} is neither taken nor refused in words: {type(error).__name__} in "
                f"{place_of(error)}: {error}; refuse what cannot be by ConfigError"
            ) from error


def seen(cls: type[Component], data: Dataset, hyper: dict[str, Any]) -> tuple[Any, ...]:
    """What an argument can change: shapes, stages, losses of first steps, what is calibrated, answers."""
    pipeline = build(cls, data.schema, **hyper)
    shapes = tuple((n, tuple(t.shape)) for n, t in pipeline.state_dict().items())
    stages = tuple(map(repr, pipeline.stages()))
    first: list[tuple[str, str, float]] = []
    trainer = Trainer(epochs=1, batch_size=ROWS, progress=False)
    trainer.observers.append(
        lambda batch: first.extend((batch.stage.name, name, float(x.detach())) for name, x in batch.losses.items())
    )
    trainer.fit(pipeline, Splits(*data.split()))
    limits = tuple(float(b.double().nan_to_num().sum()) for m in pipeline.monitors for b in m.buffers())
    rows = everything(data)
    if pipeline.adapts:  # row after row, in which the second may show what the first did
        rows = rows.rows(torch.arange(8))
    answer = ask(pipeline, rows)
    others = (answer.uncertainty, answer.reliability, answer.weights, *answer.unimodal.values())
    sums = tuple(float(x.double().nan_to_num().abs().sum()) for x in (answer.output, *others) if x is not None)
    return shapes, stages, tuple(first), limits, sums


# values to try ----------------------------------------------------------------------------------------------------------
def candidates(cls: type[Component], name: str, default: Any) -> list[Any]:
    """Values to try in place of a default: those of ``probes``, else some near it, of its type or of its annotation's."""
    named = probes_of(cls).get(name, ())
    values = list(named) if named else _near(default, annotation(cls, name))
    distinct: list[Any] = []
    for value in values:
        if not any(_equal(value, other) for other in (default, *distinct)):
            distinct.append(value)
    return distinct


def _equal(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def annotation(cls: type[Component], name: str) -> str:
    """The type of an argument as it is written; empty where it has none."""
    constructor: Any = cls.__init__
    for function in (constructor, getattr(cls, "pipeline", constructor)):
        parameter = inspect.signature(function).parameters.get(name)
        if parameter is not None and parameter.annotation is not parameter.empty:
            return str(parameter.annotation)
    return ""


def _near(default: Any, written: str) -> list[Any]:
    if isinstance(default, bool):
        return [not default]
    if isinstance(default, int):
        return [default + 1, default * 2, max(1, default - 1), max(1, default // 2), 1, 2]
    if isinstance(default, float):
        return [default * 0.5, default * 3 + 0.1]
    if isinstance(default, str):
        return [NONSENSE]
    if isinstance(default, tuple | list):
        numbers: list[Any] = [x for x in default if isinstance(x, int | float)]
        whole = bool(numbers) and len(numbers) == len(default)
        sort: Any = type(default)
        return [sort([x * 2 for x in numbers]), sort(numbers[::-1])] if whole else []
    return _by_annotation(written) if default is None else []


def _by_annotation(written: str) -> list[Any]:
    """For arguments whose default is None: values of the type that is written beside it."""
    if re.search(r"Sequence|tuple|list", written):  # one for each modality, as many as there may be
        first, others = (1.0, 0.5) if "float" in written else (1, 2)
        return [[first] + [others] * (count - 1) for count in (4, 3, 2, 1)]
    words = set(re.findall(r"\w+", written))
    tried: dict[str, list[Any]] = {"bool": [True], "int": [1, 2], "float": [0.5, 2.0], "str": [NONSENSE]}
    return [value for name, values in tried.items() if name in words for value in values]
