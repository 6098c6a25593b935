"""Two worlds in which one modality can be predicted from the rest and labels are scarce: within the table, or beside it."""

from __future__ import annotations

import numpy as np

from kintsugi.data.worlds.law import Law, as_kind, codebook
from kintsugi.data.worlds.rules import bumps, joined
from kintsugi.data.worlds.world import Ask, Made, World

STATES = 8  # hidden states of a class
DIM, NOISE = 12, 0.7
WITHIN = 0.5  # how far states of one class lie apart in m1, next to its classes


def _law(ask: Ask) -> Law:
    """m1 shows the class openly; the others show states by codewords that have nothing to do with it.

    A tied row shows one state in all modalities. Otherwise m1 shows a state drawn from all, and each of the others its own
    state of the class, so that they tell of one another nothing but the label, and m1 tells nothing at all.
    """
    rng, c = ask.rng(0), ask.classes
    states = STATES * c
    of = np.arange(states) % c  # the class of a state
    opened = codebook((c,), DIM, rng)[of] + WITHIN * codebook((states,), DIM, rng)
    codes, noise = as_kind(
        ask.kind, [opened, *(codebook((states,), DIM, rng) for _ in range(1, ask.modalities))], NOISE
    )
    same = np.eye(c)[of]  # [states, C]
    first = np.concatenate([np.eye(states), np.full((c, states), 1 / states)])
    other = np.concatenate([np.eye(states), same.T / STATES])
    prior = np.concatenate([np.full(states, ask.strength / states), np.full(c, (1 - ask.strength) / c)])
    classes = np.concatenate([same, np.eye(c)])
    return Law(prior, classes, (first, *[other] * (ask.modalities - 1)), codes, noise)


def _few(y: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Bool ``[N]``: ``count`` rows, as many of each class as can be."""
    order = rng.permutation(len(y))
    turn = np.zeros(len(y), dtype=np.int64)
    for label in np.unique(y):
        of = order[y[order] == label]
        turn[of] = np.arange(len(of))
    chosen = np.zeros(len(y), dtype=bool)
    chosen[order[np.argsort(turn[order], kind="stable")][:count]] = True
    return chosen


def redundant(ask: Ask) -> Made:
    """Complete training rows of which few are labelled; validation and test rows without m1."""
    law, rng, train = _law(ask), ask.rng(1), ask.part("train")
    _, y, x = law.draw(sum(ask.rows), rng)
    present = np.ones((len(y), ask.modalities), dtype=bool)
    present[train.stop :, 0] = False
    labelled = np.ones(len(y), dtype=bool)
    labelled[train] = _few(y[train], max(ask.classes, round(ask.own["labels"] * ask.rows[0])), rng)
    return Made(ask, x, x, y, y, present, labelled, law, law)


def _judge_redundant(made: Made) -> tuple[float, float]:
    train, test = made.ask.part("train"), made.ask.part("test")
    known = np.flatnonzero(made.labelled[train])
    rest = joined(made.x[1:])
    plain = bumps(rest[train][known], made.wide(train)[known])
    imagined = bumps(rest[train], made.x[0, train])
    head = bumps(made.x[0, train][known], made.wide(train)[known])
    return made.score(plain(rest[test])), made.score(head(imagined(rest[test])))


REDUNDANT = World(
    premise="redundant",
    title="What is missing can be predicted from the rest, and labels are scarce",
    what="Validation and test rows lack m1. Training rows are complete, but one in twenty has a label. m1 is easy to "
    "read, the others are not: a label for each of their states would be needed. All rows show how the others go "
    "with m1, so whoever learns to predict it has 600 rows to learn from where others have 30. What is predicted "
    "from the rest holds no information of its own, so with all rows labelled there is nothing to gain.",
    made="A state of 8 a class, shown by every modality of a row with probability strength. In m1 the states of a "
    "class lie together, in the others anywhere. Other rows are untied: m1 shows any state, the others each a "
    "state of the class of their own.",
    control="labels=1.0, the same rows with all labels; at strength 0 no modality tells of another anything but the "
    "label.",
    rules="Least squares with a Gaussian kernel. Without: from the others to the labels of the labelled rows. With: "
    "from the others to m1 on all rows, and from m1 to the labels.",
    draw=redundant,
    judge=_judge_redundant,
    own={"labels": 0.05},
)


def unpaired(ask: Ask) -> Made:
    """Labelled rows of one modality each, mostly m1; an auxiliary table of complete rows; test rows of all but m1."""
    law, rng, train, n = _law(ask), ask.rng(1), ask.part("train"), ask.rows[0]
    _, y, x = law.draw(sum(ask.rows), rng)
    present = np.ones((len(y), ask.modalities), dtype=bool)
    present[train.stop :, 0] = False
    rare = round(n * ask.own["others"])
    owner = np.zeros(n, dtype=np.int64)
    few = np.flatnonzero(_few(y[train], rare, rng))
    owner[few] = 1 + np.arange(len(few)) % (ask.modalities - 1)
    present[train] = owner[:, None] == np.arange(ask.modalities)
    _, _, pairs = law.draw(n, ask.rng(3))
    return Made(ask, x, x, y, y, present, np.ones(len(y), dtype=bool), law, law, auxiliary=pairs)


def _judge_unpaired(made: Made) -> tuple[float, float]:
    train, test = made.ask.part("train"), made.ask.part("test")
    assert made.auxiliary is not None
    wide, here = made.wide(train), made.present[train]
    plain = np.zeros((made.ask.rows[2], wide.shape[1])) + wide.mean(0)
    for m in range(1, made.ask.modalities):
        own = np.flatnonzero(here[:, m])
        if len(own):
            plain += bumps(made.x[m, train][own], wide[own])(made.x[m, test]) / (made.ask.modalities - 1) - (
                wide.mean(0) / (made.ask.modalities - 1)
            )
    open_rows = np.flatnonzero(here[:, 0])
    head = bumps(made.x[0, train][open_rows], wide[open_rows])
    bridge = bumps(joined(made.auxiliary[1:]), made.auxiliary[0])
    return made.score(plain), made.score(head(bridge(joined(made.x[1:, test]))))


UNPAIRED = World(
    premise="unpaired",
    title="An auxiliary table has the pairs that training lacks",
    what="No training row owns two modalities. Nine in ten own m1 alone, each of the others is owned by few, and "
    "validation and test rows own the others without m1. The auxiliary table, note['auxiliary'], has complete rows "
    "without labels: it shows how the modalities go together, which the training rows do not. With others=0 no "
    "training row owns any modality but m1, and only a method whose card says modality_only_in=('auxiliary',) can "
    "be trained.",
    made="As redundant: states shown by all modalities of a row with probability strength; 600 training rows of one "
    "modality each, and 600 auxiliary ones of all.",
    control="The same training without the auxiliary table; at strength 0 its rows pair m1 with others at random.",
    rules="Least squares with a Gaussian kernel. Without: from each other modality to the labels of the few rows that "
    "own it, averaged. With: from the others to m1 on the auxiliary rows, and from m1 to the labels.",
    draw=unpaired,
    judge=_judge_unpaired,
    own={"others": 0.1},
)
