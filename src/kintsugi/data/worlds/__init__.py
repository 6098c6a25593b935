"""Worlds: small generated data sets of one premise each, in which a method's mechanism can be judged; see ``docs/worlds.rst``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from kintsugi.core.errors import ConfigError, UnknownName
from kintsugi.data.dataset import Dataset
from kintsugi.data.datasets import DATASETS
from kintsugi.data.worlds.few_complete_rows import COMPLEMENTARY, FEW_COMPLETE_ROWS
from kintsugi.data.worlds.informative_absence import INFORMATIVE_ABSENCE
from kintsugi.data.worlds.law import Kind
from kintsugi.data.worlds.neighbours import NEIGHBOURS
from kintsugi.data.worlds.noise import HIDDEN_NOISE, VISIBLE_NOISE, VISIBLE_NOISE_AT_TEST
from kintsugi.data.worlds.privileged import NOISY_LABELS, PRIVILEGED
from kintsugi.data.worlds.redundant import REDUNDANT, UNPAIRED
from kintsugi.data.worlds.shifted_test import SHIFTED_TEST
from kintsugi.data.worlds.world import Ask, Made, TaskName, World, dataset

__all__ = ["WORLDS", "World", "make", "oracles", "worlds"]

WORLDS: Mapping[str, World] = MappingProxyType(
    {
        world.premise: world
        for world in (
            REDUNDANT, FEW_COMPLETE_ROWS, PRIVILEGED, VISIBLE_NOISE, VISIBLE_NOISE_AT_TEST, HIDDEN_NOISE,
            INFORMATIVE_ABSENCE, NEIGHBOURS, NOISY_LABELS, UNPAIRED, SHIFTED_TEST, COMPLEMENTARY,
        )
    }
)  # fmt: skip
MOST = 4  # modalities and classes
FEWEST_CLASSES = 3
FEWEST_ROWS = (100, 20, 20)  # of training, validation and test


@DATASETS.register("worlds")
def worlds(
    premise: str = "redundant",
    strength: float = 1.0,
    seed: int = 0,
    task: TaskName = "classification",
    kind: Kind = "vector",
    modalities: int | None = None,
    classes: int | None = None,
    rows: Sequence[int] | None = None,
    labels: float | None = None,
    trusted: float | None = None,
    others: float | None = None,
    where: str | None = None,
) -> Dataset:
    """Generated rows of which one premise holds, with the best that can be reached: where a mechanism can be judged.

    Modalities ``m1``, ``m2``, … show discrete latents by fixed random codewords plus Gaussian noise. The target is a class, or
    the number that the class stands for plus noise of 0.2. The premises are those of ``kintsugi.core.card.WORLDS``; what
    makes each a world stands in ``WORLDS[premise]`` of this package, and on the page "Worlds". ``split()`` gives the fixed parts.
    Rows that lack a modality never had it: nothing is kept as truth. Validation rows are like test rows, unless the world says
    that something happens at test only.

    ``note`` of the result:

    * ``premise``, ``strength``; ``metric``: "accuracy" or "r2"; ``chance``: the value of a guess;
    * ``optimum``: what Bayes' rule, exact and with the law known, reaches on the test rows as they are;
    * ``optimum_full``: what it reaches on the same rows with nothing missing or corrupted;
    * ``parts``: name -> positions among the test rows, such as "complete" and "holes"; ``optimum_parts``: its value on each;
    * ``auxiliary`` (unpaired): the table for ``fit(..., auxiliary=)``.

    Args:
        premise: which world.
        strength: how far the premise holds, from 0 (not at all) to 1.
        seed: of the law, the rows and all.
        task: "classification", or "regression" in all worlds but noisy_labels.
        kind: "vector", of 5 or 12 numbers a modality; "series", ``[8, 3]``, the same codewords as slow waves over time.
        modalities: 3 or 4, and 2 in worlds that do without a third; None: what the world has, 3, in hidden_noise 4. Margins of
            the oracles are tested with that alone.
        classes: 3 or 4; None: what the world has, 4.
        rows: of training, validation and test; None: 600, 500 and 2,000.
        labels: (redundant) share of labelled training rows; None: 0.05. 1.0 is the control.
        trusted: (noisy_labels) share of training rows whose label is right for sure; None: 0.1.
        others: (unpaired) share of the training rows that own another modality than m1; None: 0.1. With 0 only the auxiliary
            table has them.
        where: (hidden_noise) "test" (None) or "everywhere": which rows are corrupted.

    Raises:
        UnknownName: no such premise. ConfigError: an option that makes no sense, or that this world does not have.
    """
    made = make(
        premise, strength, seed, task=task, kind=kind, modalities=modalities, classes=classes, rows=rows, labels=labels,
        trusted=trusted, others=others, where=where,
    )  # fmt: skip
    return dataset(WORLDS[premise], made)


def oracles(premise: str, strength: float = 1.0, seed: int = 0, **options: Any) -> dict[str, float]:
    """Scores on the test rows of one rule "without" and "with" the premise: accuracy, or R² of a regression.

    Args:
        premise, strength, seed, options: as of :func:`worlds`.
    """
    world, made = _world(premise), make(premise, strength, seed, **options)
    without, with_ = world.judge(made)
    return {"without": without, "with": with_}


def make(premise: str, strength: float = 1.0, seed: int = 0, **options: Any) -> Made:
    """The rows of a world as arrays, with its law; options as of :func:`worlds`."""
    world = _world(premise)
    return world.draw(_asked(world, strength, seed, **options))


def _world(premise: str) -> World:
    if premise not in WORLDS:
        raise UnknownName("premise", premise, WORLDS)
    return WORLDS[premise]


def _asked(
    world: World,
    strength: float,
    seed: int,
    *,
    task: TaskName = "classification",
    kind: Kind = "vector",
    modalities: int | None = None,
    classes: int | None = None,
    rows: Sequence[int] | None = None,
    **own: Any,
) -> Ask:
    """The options, checked."""
    if not 0 <= strength <= 1:
        raise ConfigError(f"strength must be from 0 to 1, not {strength}")
    if task not in ("classification", "regression"):
        raise ConfigError(f"task must be 'classification' or 'regression', not {task!r}")
    if task not in world.tasks:
        able = ", ".join(name for name, other in WORLDS.items() if task in other.tasks)
        raise ConfigError(f"world {world.premise!r} has no {task}; those that have: {able}")
    if kind not in ("vector", "series"):
        raise ConfigError(f"kind must be 'vector' or 'series', not {kind!r}")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ConfigError(f"seed must be a whole number of 0 or more, not {seed!r}")
    counts = {
        "modalities": world.modalities if modalities is None else modalities,
        "classes": world.classes if classes is None else classes,
    }
    for name, least in (("modalities", world.fewest), ("classes", FEWEST_CLASSES)):
        if counts[name] not in range(least, MOST + 1):
            raise ConfigError(f"{name} of world {world.premise!r} must be {least} to {MOST}, not {counts[name]}")
    sizes = world.rows if rows is None else tuple(rows) if isinstance(rows, Sequence) else ()
    if len(sizes) != 3 or any(size < least for size, least in zip(sizes, FEWEST_ROWS, strict=True)):
        raise ConfigError(
            f"rows are those of training, validation and test, at least {', '.join(map(str, FEWEST_ROWS))}; not {rows!r}"
        )
    return Ask(
        float(strength), seed, task, kind, counts["modalities"], counts["classes"],
        (int(sizes[0]), int(sizes[1]), int(sizes[2])), _own(world, own),
    )  # fmt: skip


def _own(world: World, given: Mapping[str, Any]) -> dict[str, Any]:
    """What this world alone has, with its defaults."""
    values = dict(world.own)
    for name, value in given.items():
        if value is None:
            continue
        if name not in world.own:
            having = [premise for premise, other in WORLDS.items() if name in other.own]
            if not having:
                raise UnknownName("option of a world", name, {key for other in WORLDS.values() for key in other.own})
            raise ConfigError(
                f"{name} is an option of world {' and '.join(map(repr, having))}, not of {world.premise!r}"
            )
        if name == "where" and value not in ("test", "everywhere"):
            raise ConfigError(f"where must be 'test' or 'everywhere', not {value!r}")
        if name != "where" and not 0 <= value <= 1:
            raise ConfigError(f"{name} must be from 0 to 1, not {value}")
        values[name] = value
    return values
