"""A world in which what is missing tells of the label."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np

from kintsugi.data.worlds.few_complete_rows import VARIANTS
from kintsugi.data.worlds.law import Law, as_kind, codebook, pick
from kintsugi.data.worlds.world import Ask, Made, World

SHOWN = 0.7  # how often a modality speaks of the class, else of any
TURN = 0.4  # from 0.5, of the probability that a modality is there, at strength 1
DIM, NOISE = 12, 0.9


def patterns(ask: Ask, strength: float) -> np.ndarray:
    """P(pattern | class), ``[C, 2 ** M]``: each class has modalities that are likely to be there; none is no pattern."""
    signs = np.array(list(product((-1, 1), repeat=ask.modalities)))[1:]  # all but "everything is rare"
    chosen = signs[ask.rng(4).permutation(len(signs))[: ask.classes]]
    there = 0.5 + TURN * strength * chosen  # [C, M]
    bits = (np.arange(2**ask.modalities)[:, None] >> np.arange(ask.modalities)) % 2 == 1
    table: np.ndarray = np.where(bits[None], there[:, None], 1 - there[:, None]).prod(2)
    table[:, 0] = 0
    return table / table.sum(1, keepdims=True)


def informative_absence(ask: Ask) -> Made:
    """Patterns of holes that depend on the class, in training, validation and test rows alike."""
    rng, c = ask.rng(0), ask.classes
    shows = SHOWN * np.eye(c) + (1 - SHOWN) / c
    codes, noise = as_kind(ask.kind, [codebook((c, VARIANTS), DIM, rng) for _ in range(ask.modalities)], NOISE)
    table = np.repeat(shows, VARIANTS, axis=1) / VARIANTS
    whole = Law(np.full(c, 1 / c), np.eye(c), (table,) * ask.modalities, codes, noise)
    law = replace(whole, patterns=patterns(ask, ask.strength))
    rng = ask.rng(1)
    _, y, x = whole.draw(sum(ask.rows), rng)
    number = pick(patterns(ask, ask.strength)[y], rng)
    present = (number[:, None] >> np.arange(ask.modalities)) % 2 == 1
    complete = present[ask.part("test")].all(1)
    parts = {"complete": complete, "holes": ~complete}
    return Made(ask, x, x, y, y, present, np.ones(len(y), dtype=bool), law, whole, parts)


def _judge(made: Made) -> tuple[float, float]:
    told = replace(made.whole, patterns=patterns(made.ask, 1.0))
    return made.score(made.best(made.whole)), made.score(made.best(told))


INFORMATIVE_ABSENCE = World(
    premise="informative_absence",
    fewest=3,
    title="What is missing tells of the label",
    what="Each class has its own modalities that are mostly there, in training, validation and test rows alike. Which "
    "are absent is evidence as good as a modality. Any learner that is trained on the holes as they are uses some "
    "of it: only one that draws its own holes, or weighs every pattern alike, does not. With nothing missing this "
    "evidence is gone, so that optimum_full may be below optimum.",
    made="Each modality shows the class with probability 0.7 and any otherwise, by one of six codewords a class. It is "
    "there with probability 0.5 ± 0.4 * strength, the sign depending on class and modality; rows without any are "
    "drawn again.",
    control="The same treatment of every pattern (shared prompts, one weight), or holes reweighted to fall at random; "
    "at strength 0 they do.",
    rules="Bayes' rule. Without: holes are ignored. With: they count as at strength 1.",
    draw=informative_absence,
    judge=_judge,
)
