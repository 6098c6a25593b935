"""Two worlds of wrong training labels: a clean modality in training knows better, or the mistakes follow a pattern."""

from __future__ import annotations

import numpy as np

from kintsugi.data.worlds.law import Law, as_kind, codebook
from kintsugi.data.worlds.rules import bumps, joined
from kintsugi.data.worlds.world import Ask, Made, World

STATES = 16  # hidden states of a class in privileged
RIGHT = 0.6  # of the training labels there
NOISE = {"privileged": 1.1, "noisy_labels": 1.5}
VARIANTS = 2  # codewords that a class has in noisy_labels
FLIP, OTHER_FLIPS = 0.6, 0.15  # of one class, of each of the others
DIM = 12


def privileged(ask: Ask) -> Made:
    """m3 shows the class in training rows, whose labels are often wrong, and is absent in validation and test."""
    rng, c, train = ask.rng(0), ask.classes, ask.part("train")
    states = STATES * c
    same = np.eye(c)[np.arange(states) % c]
    books = [codebook((c if m == 2 else states,), DIM, rng) for m in range(ask.modalities)]
    codes, noise = as_kind(ask.kind, books, NOISE["privileged"])
    shows = ask.strength * same + (1 - ask.strength) / c
    tables = tuple(shows if m == 2 else None for m in range(ask.modalities))
    law = Law(np.full(states, 1 / states), same, tables, codes, noise)
    rng = ask.rng(1)
    _, y, x = law.draw(sum(ask.rows), rng)
    given = y.copy()
    wrong = rng.random(ask.rows[0]) >= RIGHT
    given[train] = np.where(wrong, (y[train] + rng.integers(1, c, ask.rows[0])) % c, y[train])
    present = np.ones((len(y), ask.modalities), dtype=bool)
    present[train.stop :, 2] = False
    return Made(ask, x, x, y, given, present, np.ones(len(y), dtype=bool), law, law)


def _judge_privileged(made: Made) -> tuple[float, float]:
    train, test = made.ask.part("train"), made.ask.part("test")
    rest = joined(np.delete(made.x, 2, 0))
    plain = bumps(rest[train], made.wide(train))
    teacher = bumps(rest[train], made.x[2, train])
    head = bumps(made.x[2, train], made.wide(train), penalty=10.0)  # many rows, few groups, and wrong labels
    return made.score(plain(rest[test])), made.score(head(teacher(rest[test])))


PRIVILEGED = World(
    premise="privileged",
    fewest=3,
    title="A clean modality in training only, beside noisy labels",
    what="Training labels are right in 60 %; m3 shows the right class in training rows and is absent in validation and "
    "test, whose labels are right. The others show one of many states, so that the mistakes of the few rows of a "
    "state do not average out. Whoever learns from m3 as a second, dense and clean target is spared them.",
    made="16 states a class; the others show the state, m3 the class with probability strength and any class "
    "otherwise.",
    control="The same method with the labels in the place of what m3 says; at strength 0 m3 shows any class.",
    rules="Least squares with a Gaussian kernel. Without: from the others to the labels. With: from the others to m3, "
    "and from m3 to the labels.",
    draw=privileged,
    judge=_judge_privileged,
)


def transition(ask: Ask, strength: float) -> np.ndarray:
    """P(label that is said | right class), ``[C, C]``: a part of each class, most of class 0, is said to be the next one."""
    c = ask.classes
    share = strength * np.where(np.arange(c) == 0, FLIP, OTHER_FLIPS)
    table: np.ndarray = np.diag(1 - share) + share[:, None] * np.roll(np.eye(c), 1, axis=1)
    return table


def noisy_labels(ask: Ask) -> Made:
    """Training labels that are wrong by class; a few rows are known to be right."""
    rng, c, train = ask.rng(0), ask.classes, ask.part("train")
    words = VARIANTS * c
    codes, noise = as_kind(
        ask.kind, [codebook((words,), DIM, rng) for _ in range(ask.modalities)], NOISE["noisy_labels"]
    )
    same = np.eye(c)[np.arange(words) % c]
    law = Law(np.full(words, 1 / words), same, (None,) * ask.modalities, codes, noise)
    rng = ask.rng(1)
    _, y, x = law.draw(sum(ask.rows), rng)
    given = y.copy()
    trusted = np.ones(len(y), dtype=bool)
    trusted[train] = False
    trusted[train][rng.permutation(ask.rows[0])[: round(ask.own["trusted"] * ask.rows[0])]] = True
    wrong = ~trusted[train] & (rng.random(ask.rows[0]) >= transition(ask, ask.strength).diagonal()[y[train]])
    given[train] = np.where(wrong, (y[train] + 1) % c, y[train])
    present, labelled = np.ones((len(y), ask.modalities), dtype=bool), np.ones(len(y), dtype=bool)
    return Made(ask, x, x, y, given, present, labelled, law, law, trusted=trusted)


def _judge_noisy_labels(made: Made) -> tuple[float, float]:
    train, test = made.ask.part("train"), made.ask.part("test")
    rows = joined(made.x)
    said = np.clip(bumps(rows[train], made.wide(train), penalty=1.0)(rows[test]), 0, None)
    right = said @ np.linalg.inv(transition(made.ask, 1.0))
    return made.score(said), made.score(right)


NOISY_LABELS = World(
    premise="noisy_labels",
    title="Training labels are wrong by class, and some rows are trusted",
    what="Most of class 0 is said to be class 1 in training, less of the others to be the next class. So many rows do "
    "not average it out: the label that is said most often is the wrong one. One row in ten is trusted "
    "(data.trusted): its label is right, so that the pattern of the mistakes can be read off. Validation and test "
    "labels are right.",
    made="Two codewords a class in every modality, with noise; 60 % of class 0 and 15 % of each other class carry the "
    "label of the next class, times strength.",
    control="Mistakes that fall on all classes alike, which change nothing but the variance; at strength 0 labels are "
    "right.",
    rules="Least squares with a Gaussian kernel from rows to the labels that are said. With: its answer times the "
    "inverse of P(said | right), of strength 1.",
    draw=noisy_labels,
    judge=_judge_noisy_labels,
    own={"trusted": 0.1},
    tasks=("classification",),
)
