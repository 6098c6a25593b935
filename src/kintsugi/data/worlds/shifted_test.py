"""The world of a shift: in use a modality says the same in other words, of which training shows few."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kintsugi.data.worlds.law import Law, as_kind, codebook, pick
from kintsugi.data.worlds.rules import bumps, joined
from kintsugi.data.worlds.world import Ask, Made, World

MEANINGS = 2  # of a class
WORDINGS = 6  # of a meaning, all as likely at strength 1
FEW = 0.02  # share of the training rows in another wording than the usual one
SHOWN = 0.3  # how often another modality shows the meaning, else any
DIM, NOISE = 12, 0.4


def _wordings(share: float, meanings: int) -> np.ndarray:
    """P(wording and meaning that the question shows | meaning), ``[G, WORDINGS * G]``: ``share`` have another than the usual."""
    chances = np.array([1 - share, *[share / (WORDINGS - 1)] * (WORDINGS - 1)])
    table: np.ndarray = np.concatenate([chance * np.eye(meanings) for chance in chances], 1)
    return table


def shifted_test(ask: Ask) -> Made:
    """The last modality asks for its meaning in the usual wording, at test in any; the others tell some of the meaning."""
    rng, c, test = ask.rng(0), ask.classes, ask.part("test")
    states, last = MEANINGS * c, ask.modalities - 1
    books = [codebook((WORDINGS, states) if m == last else (states,), DIM, rng) for m in range(ask.modalities)]
    codes, noise = as_kind(ask.kind, books, NOISE)
    some = SHOWN * np.eye(states) + (1 - SHOWN) / states
    usual = (*(some,) * last, _wordings(FEW, states))
    whole = Law(np.full(states, 1 / states), np.eye(c)[np.arange(states) % c], usual, codes, noise)
    share = (1 - ask.strength) * FEW + ask.strength * (1 - 1 / WORDINGS)
    law = replace(whole, tables=(*usual[:-1], _wordings(share, states)))
    rng = ask.rng(1)
    state, y, clean = whole.draw(sum(ask.rows), rng)
    x = clean.copy()
    word = pick(_wordings(share, states)[state[test]], rng)
    x[last, test] = codes[last][word] + noise * rng.normal(size=x[last, test].shape)
    other = word >= states
    full, labelled = np.ones((len(y), ask.modalities), dtype=bool), np.ones(len(y), dtype=bool)
    return Made(ask, x, clean, y, y, full, labelled, law, whole, {"usual": ~other, "reworded": other})


def _judge(made: Made) -> tuple[float, float]:
    ask, law = made.ask, made.law
    train, test, last = ask.part("train"), ask.part("test"), ask.modalities - 1
    state = made.whole.draw(sum(ask.rows), ask.rng(1))[0][train]
    rng, asked, wide = ask.rng(4), [], made.wide(train)
    for wording in range(WORDINGS):
        rows = made.x[:, train].copy()
        code = law.codes[last][wording * len(law.prior) + state]
        rows[last] = code + law.noise * rng.normal(size=code.shape)
        asked.append(joined(rows))
    once, often = bumps(joined(made.x)[train], wide), bumps(np.concatenate(asked), np.concatenate([wide] * WORDINGS))
    return made.score(once(joined(made.x)[test])), made.score(often(joined(made.x)[test]))


SHIFTED_TEST = World(
    premise="shifted_test",
    title="In use the same is said in other words",
    what="The last modality is a question whose meaning tells the class. Training and validation rows ask nearly all in the "
    "usual wording, test rows in any; what it means does not change. The other modalities tell some of the meaning, so that "
    "one could say what else might have been asked.",
    made="Two meanings a class; the question shows meaning and wording, one of six, as two latents of one codeword. Another "
    "wording than the usual one have 2 % of the training rows, and of the test rows 2 % at strength 0, 83 % at strength 1. The "
    "others show the meaning with probability 0.3 and any otherwise.",
    control="The same training without the questions that are made; at strength 0 test rows are as training rows.",
    rules="Least squares with a Gaussian kernel. Without: from training rows to labels. With: from the same rows, the question "
    "of each asked once in every wording.",
    draw=shifted_test,
    judge=_judge,
)
