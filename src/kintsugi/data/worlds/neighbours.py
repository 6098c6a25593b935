"""A world in which rows that are close share a label that no rule of one row alone can know."""

from __future__ import annotations

import numpy as np

from kintsugi.data.worlds.law import Law, as_kind, codebook
from kintsugi.data.worlds.rules import joined, line, nearest
from kintsugi.data.worlds.world import Ask, Made, World

CLUSTERS = 60
DIM, NOISE = 12, 0.9
OPEN = 0.2  # size of what a modality shows of the class itself, next to the place of the cluster
BOUND = 0.95  # how often the label is that of the cluster at strength 1, else any
CLOSE = 5  # rows that are asked


def neighbours(ask: Ask) -> Made:
    """Clusters of rows, each with a label that most of its rows have."""
    rng, c = ask.rng(0), ask.classes
    of = rng.permutation(np.arange(CLUSTERS) % c)  # the label of a cluster
    codes = []
    for _ in range(ask.modalities):
        place, told = codebook((CLUSTERS,), DIM, rng), codebook((c,), DIM, rng)
        codes.append((place[:, None] + OPEN * told[None]).reshape(-1, DIM))
    shown, noise = as_kind(ask.kind, codes, NOISE)
    bound = BOUND * ask.strength
    given = bound * np.eye(c)[of] + (1 - bound) / c  # [clusters, C]
    law = Law((given / CLUSTERS).reshape(-1), np.tile(np.eye(c), (CLUSTERS, 1)), (None,) * ask.modalities, shown, noise)
    _, y, x = law.draw(sum(ask.rows), ask.rng(1))
    present, labelled = np.ones((len(y), ask.modalities), dtype=bool), np.ones(len(y), dtype=bool)
    return Made(ask, x, x, y, y, present, labelled, law, law)


def _judge(made: Made) -> tuple[float, float]:
    train, test, rows = made.ask.part("train"), made.ask.part("test"), joined(made.x)
    alone = line(rows[train], made.wide(train))
    table = nearest(rows[train], made.wide(train), CLOSE)
    return made.score(alone(rows[test])), made.score(table(rows[test]))


NEIGHBOURS = World(
    premise="neighbours",
    title="Close rows share a label, so that reaching the rest of the table pays",
    what="Rows lie in 60 clusters, ten training rows in each, and a label belongs to a cluster. Where clusters lie "
    "says nothing about their labels: one has to remember the rows. What every row shows of its own class besides "
    "is weaker, and all that a rule of one row alone can use.",
    made="A modality shows the place of the cluster plus, at 0.2 of its size, the class; the noise is near to the "
    "distance of clusters. The label is that of the cluster with probability 0.95 * strength, and any otherwise.",
    control="The same model without the rest of the table; at strength 0 clusters have no label.",
    rules="Without: linear least squares from a row to its label. With: the mean label of the five nearest training "
    "rows.",
    draw=neighbours,
    judge=_judge,
)
