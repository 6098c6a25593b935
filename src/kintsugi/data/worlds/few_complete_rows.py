"""Two worlds of evidence that adds up: few rows have all of it, or every row has it and late fusion is the best rule."""

from __future__ import annotations

import numpy as np

from kintsugi.data.worlds.law import Law, as_kind, codebook
from kintsugi.data.worlds.rules import Rule, bumps
from kintsugi.data.worlds.world import Ask, Made, World

RELIABLE = (0.85, 0.75, 0.65, 0.55)  # how often a modality shows the class, else another one
FEWEST = 0.05  # of the training rows that are complete at strength 1
INFORMED = (0.8, 0.7, 0.6, 0.5)  # how often a modality speaks of the class at strength 1, else of any
VARIANTS = 6  # codewords that a class has in every modality
DIM, NOISE = 12, 0.7


def _independent(ask: Ask, shows: list[np.ndarray]) -> Law:
    """Modalities that are independent given the class; ``shows``: P(class that is shown | class) of each, ``[C, C]``."""
    rng, c = ask.rng(0), ask.classes
    codes, noise = as_kind(ask.kind, [codebook((c, VARIANTS), DIM, rng) for _ in shows], NOISE)
    tables = tuple(np.repeat(table, VARIANTS, axis=1) / VARIANTS for table in shows)
    return Law(np.full(c, 1 / c), np.eye(c), tables, codes, noise)


def _parts_of_rows(count: int, modalities: int, rng: np.random.Generator) -> np.ndarray:
    """Bool ``[count, M]``: any pattern but none and all, each as often as another."""
    number = rng.integers(1, 2**modalities - 1, count)
    here: np.ndarray = (number[:, None] >> np.arange(modalities)) % 2 == 1
    return here


def few_complete_rows(ask: Ask) -> Made:
    """Few training rows are complete; half of the validation and test rows are."""
    c, n = ask.classes, ask.rows[0]
    law = _independent(ask, [r * np.eye(c) + (1 - r) * (1 - np.eye(c)) / (c - 1) for r in RELIABLE[: ask.modalities]])
    rng = ask.rng(1)
    _, y, x = law.draw(sum(ask.rows), rng)
    complete = np.concatenate([np.arange(k) < round(k * s) for k, s in zip(ask.rows, _shares(ask), strict=True)])
    complete[:n] = rng.permutation(complete[:n])
    present = _parts_of_rows(len(y), ask.modalities, rng) | complete[:, None]
    whole = complete[ask.part("test")]
    parts = {"complete": whole, "holes": ~whole}
    return Made(ask, x, x, y, y, present, np.ones(len(y), dtype=bool), law, law, parts)


def _shares(ask: Ask) -> tuple[float, float, float]:
    """Of complete rows in training, validation and test."""
    return 1 - ask.strength * (1 - FEWEST), 0.5, 0.5


def _voters(made: Made, rows: np.ndarray) -> list[Rule]:
    """For each modality a rule from it alone to the target, learned from those of these training rows that own it."""
    train = made.ask.part("train")
    owned = [rows[made.present[train][rows, m]] for m in range(made.ask.modalities)]
    return [bumps(made.x[m, train][own], made.wide(train)[own]) for m, own in enumerate(owned)]


def _vote(made: Made, rules: list[Rule]) -> np.ndarray:
    """Late fusion on test rows: classes by the product of what modalities say, numbers by their precision, ``[n, K]``."""
    val, test, wide = made.ask.part("val"), made.ask.part("test"), made.wide(made.ask.part("val"))
    here = made.present[test]
    if made.ask.task == "classification":
        log = [np.log(np.clip(rule(made.x[m, test]), 0.02, 1)) for m, rule in enumerate(rules)]
        out: np.ndarray = sum(each * here[:, [m]] for m, each in enumerate(log)) + np.zeros((len(here), wide.shape[1]))
        return out
    mean, spread = wide.mean(), wide.var()
    total, weight = np.zeros(len(here)), np.full(len(here), 1 / spread)
    for m, rule in enumerate(rules):
        own = made.present[val][:, m]
        error = ((rule(made.x[m, val][own]) - wide[own]) ** 2).mean()
        if error < spread:  # a rule that is worse than the mean has nothing to say
            told = (rule(made.x[m, test])[:, 0] - mean) / error  # the rule has shrunk its answer already
            total, weight = total + here[:, m] * told, weight + here[:, m] * (1 / error - 1 / spread)
    return (mean + total / weight)[:, None]


def _judge_few(made: Made) -> tuple[float, float]:
    here = made.present[made.ask.part("train")]
    complete = np.flatnonzero(here.all(1))
    few, every = _voters(made, complete), _voters(made, np.arange(len(here)))
    return made.score(_vote(made, few)), made.score(_vote(made, every))


FEW_COMPLETE_ROWS = World(
    premise="few_complete_rows",
    title="One training row in twenty is complete",
    what="The other training rows own some of the modalities, and hold most of what there is to learn. A method that "
    "trains on complete rows starves. Half of the test rows are complete and half have holes, note['parts']; "
    "modalities are unequally reliable, so that two of them tell more than one.",
    made="Each modality shows the class with probability 0.85, 0.75, 0.65, else another class, by one of six codewords "
    "a class. Of the training rows 1 - 0.95 * strength are complete; the others own any proper part of the "
    "modalities.",
    control="The plain host on all rows: any ablation that is starved of rows is beaten by what is not.",
    rules="A vote of one rule for each modality, least squares with a Gaussian kernel. Without: learned from complete "
    "rows. With: from all rows.",
    draw=few_complete_rows,
    judge=_judge_few,
    relies=False,
)


def complementary(ask: Ask) -> Made:
    """Modalities that are independent given the class, complete everywhere."""
    c, s = ask.classes, ask.strength
    law = _independent(ask, [s * p * np.eye(c) + (1 - s * p) / c for p in INFORMED[: ask.modalities]])
    _, y, x = law.draw(sum(ask.rows), ask.rng(1))
    present, labelled = np.ones((len(y), ask.modalities), dtype=bool), np.ones(len(y), dtype=bool)
    return Made(ask, x, x, y, y, present, labelled, law, law)


def _judge_complementary(made: Made) -> tuple[float, float]:
    only = np.zeros((made.ask.rows[2], made.ask.modalities), dtype=bool)
    alone = []
    for m in range(made.ask.modalities):
        here = only.copy()
        here[:, m] = True
        alone.append(made.best(made.law, present=here))
    together = np.prod(alone, 0)  # classes are equally frequent, so that nothing is to be divided out
    return made.score(alone[0]), made.score(together / together.sum(1, keepdims=True))


COMPLEMENTARY = World(
    premise="complementary",
    title="Modalities are independent given the label: the control",
    what="Every modality has evidence of its own and nothing about the others, so that the product of what each says "
    "alone is Bayes' rule. Nothing can be predicted, disagreement is no sign of damage, and no interaction is to "
    "be learned: whoever gains here over late fusion gains by something else than a mechanism for imperfect data.",
    made="Each modality shows the class with probability 0.8, 0.7, 0.6 times strength and any class otherwise, by one "
    "of six codewords a class. Rows are complete.",
    control="It is one.",
    rules="Without: the posterior of m1 alone. With: the product of the posteriors of all modalities, which is the "
    "optimum at every strength.",
    draw=complementary,
    judge=_judge_complementary,
    margin=False,
)
