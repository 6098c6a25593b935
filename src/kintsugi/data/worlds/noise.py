"""Three worlds of corrupted modalities: noise that can be seen, in training too or at test only, and noise that cannot."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kintsugi.data.worlds.law import Law, as_kind, codebook
from kintsugi.data.worlds.world import Ask, Made, World

FEW_NUMBERS, NOISE = 5, 1.3
RATIO, NOISY = 8.0, 0.5  # a noisy modality has so many times the noise; share of them at strength 1
KINDS, KIND_NOISE, KIND_DIM = 12, 0.5, 12
SHOWN = (0.95, 0.85, 0.2, 0.1)  # how often a modality shows the class in hidden_noise, else any
SWAPPED = (0.4, 0.4, 0.2, 0.2)  # how often a modality is another row's at strength 1


def _levels(strength: float) -> tuple[tuple[float, float], ...]:
    return ((1.0, 1 - NOISY * strength), (RATIO, NOISY * strength))


def _parts(hit: np.ndarray) -> dict[str, np.ndarray]:
    return {"clean": ~hit, "noisy": hit}


def _visible(ask: Ask, everywhere: bool) -> Made:
    rng, c = ask.rng(0), ask.classes
    codes, noise = as_kind(ask.kind, [codebook((c,), FEW_NUMBERS, rng) for _ in range(ask.modalities)], NOISE)
    whole = Law(np.full(c, 1 / c), np.eye(c), (None,) * ask.modalities, codes, noise)
    law = replace(whole, levels=_levels(ask.strength))
    rng = ask.rng(1)
    _, y, clean = whole.draw(sum(ask.rows), rng)
    noisy = rng.random((len(y), ask.modalities)) < NOISY * ask.strength
    if not everywhere:
        noisy[: ask.part("test").start] = False
    more = noise * np.sqrt(RATIO**2 - 1) * rng.normal(size=clean.shape)
    x = clean + noisy.T[:, :, None] * more
    hit = np.any(noisy[ask.part("test")], axis=1)
    full, labelled = np.ones_like(noisy), np.ones(len(y), dtype=bool)
    return Made(ask, x, clean, y, y, full, labelled, law, whole, _parts(hit))


def visible_noise(ask: Ask) -> Made:
    """Loud noise on some modalities of training, validation and test rows alike."""
    return _visible(ask, everywhere=True)


def visible_noise_at_test(ask: Ask) -> Made:
    """Loud noise on some modalities of test rows; training and validation rows are clean."""
    return _visible(ask, everywhere=False)


def _judge_visible(made: Made) -> tuple[float, float]:
    usual = float(np.sqrt(sum(share * factor**2 for factor, share in made.law.levels)))
    deaf = made.best(replace(made.whole, noise=usual * made.whole.noise))
    return made.score(deaf), made.score(made.best(replace(made.whole, levels=_levels(1.0))))


_RULES = (
    "Bayes' rule with the right codewords. Without: one noise for every modality and row, the root mean square. With: "
    "half of the modalities are taken to have eight times the noise, and how likely that is of each is read off "
    "its numbers."
)
_MADE = (
    "One codeword a class in each modality, five numbers, noise of 1.3 standard deviations. With probability strength "
    "/ 2 for each modality and row the noise is eight times as large, which the size of the numbers shows."
)

VISIBLE_NOISE = World(
    premise="visible_noise",
    title="Noise that can be seen, in training as well",
    what="A modality is loud or it is not, in training, validation and test alike, and its numbers show which. "
    "Weighing modalities by row can be learned from the training rows; an even weight lets the loud ones speak "
    "loudest.",
    made=_MADE,
    control="One weight for each modality in all rows; at strength 0 all are alike.",
    rules=_RULES,
    draw=visible_noise,
    judge=_judge_visible,
)
VISIBLE_NOISE_AT_TEST = World(
    premise="visible_noise_at_test",
    title="Noise that can be seen, at test only",
    what="As visible_noise, but training and validation rows are clean. What is damaged has to be detected as unlike "
    "the training rows, or the model has to be robust by design or by augmentation; validation rows do not tell "
    "which epoch is robust.",
    made=_MADE + " Test rows only.",
    control="The same model without detection; at strength 0 test rows are as training rows.",
    rules=_RULES,
    draw=visible_noise_at_test,
    judge=_judge_visible,
)


def hidden_noise(ask: Ask) -> Made:
    """Corrupted modalities that show another row's state: plausible alone, at odds with the rest."""
    rng, c = ask.rng(0), ask.classes
    codes, noise = as_kind(ask.kind, [codebook((KINDS, c), KIND_DIM, rng) for _ in range(ask.modalities)], KIND_NOISE)
    states = KINDS * c  # kind of the row, class
    same_kind = np.kron(np.eye(KINDS), np.ones((c, c)))
    right = [p * np.eye(states) + (1 - p) * same_kind / c for p in SHOWN[: ask.modalities]]
    uniform = np.full((states, states), 1 / states)
    whole = Law(np.full(states, 1 / states), np.tile(np.eye(c), (KINDS, 1)), tuple(right), codes, noise)
    law = _swapping(whole, ask.strength)
    rng = ask.rng(1)
    _, y, clean = whole.draw(sum(ask.rows), rng)
    other = replace(whole, tables=(uniform,) * ask.modalities).draw(sum(ask.rows), rng)[2]
    swapped = rng.random((len(y), ask.modalities)) < np.array(SWAPPED[: ask.modalities]) * ask.strength
    if ask.own["where"] == "test":
        swapped[: ask.part("test").start] = False
    x = np.where(swapped.T[:, :, None], other, clean)
    hit = np.any(swapped[ask.part("test")], axis=1)
    full, labelled = np.ones_like(swapped), np.ones(len(y), dtype=bool)
    return Made(ask, x, clean, y, y, full, labelled, law, whole, _parts(hit))


def _swapping(whole: Law, strength: float) -> Law:
    """The law of rows in which modalities are replaced: any codeword is as likely as another in their place."""
    shares, states = [strength * share for share in SWAPPED], len(whole.prior)
    right = [table for table in whole.tables if table is not None]
    tables = [(1 - share) * table + share / states for share, table in zip(shares, right, strict=False)]
    return replace(whole, tables=tuple(tables))


def _judge_hidden(made: Made) -> tuple[float, float]:
    ask, test = made.ask, made.ask.part("test")
    alone = [
        np.maximum(made.law.likelihood(m, made.x[m, test]) @ made.law.classes, 1e-300) for m in range(ask.modalities)
    ]
    log = sum(np.log(each / each.sum(1, keepdims=True)) for each in alone)
    apart = np.exp(log - np.max(log, 1, keepdims=True))
    return made.score(apart / apart.sum(1, keepdims=True)), made.score(made.best(_swapping(made.whole, 1.0)))


HIDDEN_NOISE = World(
    premise="hidden_noise",
    fewest=3,
    title="Noise that only disagreement shows",
    what="A corrupted modality shows a row that might have been: the same distribution, another state. Nothing in it "
    "is unusual. But all modalities of a row are of one kind out of twelve, which has nothing to do with the "
    "label, and a corrupted one is mostly of another kind than the rest. Modalities are unequally telling, so that "
    "a vote is not the best rule: m3 and m4 say little of the class, but bear witness to the kind.",
    made="Four modalities show the kind of the row and the class (with probability 0.95, 0.85, 0.2, 0.1, else any) by "
    "one codeword for each pair. With probability 0.4 (m1, m2) or 0.2 (m3, m4) times strength a modality is "
    "replaced by one of a random kind and class; in test rows, or with where='everywhere' in training and "
    "validation rows as well.",
    control="A model that weighs modalities by how reliable they are on the whole; at strength 0 none is corrupted.",
    rules="Bayes' rule. Without: modalities speak for themselves, and each is known to be corrupted as often as it is. "
    "With: they are compared, and taken to be corrupted as often as at strength 1.",
    draw=hidden_noise,
    judge=_judge_hidden,
    modalities=4,
    own={"where": "test"},
)
