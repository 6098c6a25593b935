"""The law of a world: a hidden state behind every row, what each modality shows of it, and the exact posterior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kintsugi.data.factors import HIDDEN

STEPS, CHANNELS = 8, 3  # of a series
Kind = Literal["vector", "series"]
FLOOR = 1e-300  # below it a likelihood is no evidence of anything, and its logarithm would be infinite


@dataclass(frozen=True)
class Law:
    """A row has one of G hidden states; modality m shows one of K_m codewords, drawn given the state, plus Gaussian noise.

    prior: P(state), ``[G]``; classes: P(class | state), ``[G, C]``.
    tables: for each modality P(codeword | state), ``[G, K_m]``; None: the codeword is the state itself.
    codes: for each modality its codewords, ``[K_m, P]``, P numbers each.
    noise: standard deviation. levels: pairs (factor of the noise, probability), drawn for each row and modality alone.
    patterns: P(which modalities are there | class), ``[C, 2 ** M]``, bit m of the column for modality m; None: it tells nothing.
    """

    prior: np.ndarray
    classes: np.ndarray
    tables: tuple[np.ndarray | None, ...]
    codes: tuple[np.ndarray, ...]
    noise: float
    levels: tuple[tuple[float, float], ...] = ((1.0, 1.0),)
    patterns: np.ndarray | None = None

    def draw(self, rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """States ``[N]``, classes ``[N]`` and modalities ``[M, N, P]`` with noise of level 1."""
        state = rng.choice(len(self.prior), rows, p=self.prior)
        label = pick(self.classes[state], rng)
        words = [state if table is None else pick(table[state], rng) for table in self.tables]
        clean = np.stack([code[word] for code, word in zip(self.codes, words, strict=True)])
        return state, label, clean + self.noise * rng.normal(size=clean.shape)

    def likelihood(self, m: int, x: np.ndarray) -> np.ndarray:
        """P(x_m | state) up to a factor for each row: ``[N, P]`` -> ``[N, G]``."""
        code = self.codes[m]
        distance = (x**2).sum(1)[:, None] + (code**2).sum(1)[None] - 2 * x @ code.T
        width = code.shape[1]
        log = np.stack(
            [
                np.log(max(share, FLOOR)) - width * np.log(factor) - distance / (2 * (factor * self.noise) ** 2)
                for factor, share in self.levels
            ]
        )
        word = np.exp(log - log.max((0, 2), keepdims=True)).sum(0)
        table = self.tables[m]
        out: np.ndarray = word if table is None else word @ table.T
        return out

    def posterior(self, x: np.ndarray, present: np.ndarray) -> np.ndarray:
        """P(class | what is there), exact: ``[M, N, P]`` and bool ``[N, M]`` -> ``[N, C]``."""
        log = np.zeros((len(present), len(self.prior))) + np.log(np.maximum(self.prior, FLOOR))
        for m, seen in enumerate(x):
            here = present[:, m]
            if here.any():
                log[here] += np.log(np.maximum(self.likelihood(m, seen[here]), FLOOR))
        joint = np.exp(log - log.max(1, keepdims=True)) @ self.classes
        if self.patterns is not None:
            joint = joint * self.patterns[:, pattern(present)].T
        out: np.ndarray = joint / joint.sum(1, keepdims=True)
        return out


def pattern(present: np.ndarray) -> np.ndarray:
    """The number of each row's pattern, bit m standing for modality m: bool ``[N, M]`` -> int ``[N]``."""
    numbers: np.ndarray = present @ (1 << np.arange(present.shape[1]))
    return numbers


def pick(probabilities: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One value a row of ``[N, K]``."""
    edge = probabilities.cumsum(1)[:, :-1]
    drawn: np.ndarray = (rng.random(len(probabilities))[:, None] > edge).sum(1)
    return drawn


def codebook(sizes: Sequence[int], dim: int, rng: np.random.Generator) -> np.ndarray:
    """Where a modality puts its latent values: ``[prod(sizes), dim]``, mean 0, variance 1.

    As in :func:`kintsugi.data.factors.make_codes`: a fixed random map of one hidden layer, ``B tanh(a_1 + a_2 + …)``, of
    latents that take ``sizes`` values, the last one running fastest.
    """
    inner = np.zeros((1, HIDDEN))
    for size in sizes:
        inner = (inner[:, None] + rng.normal(size=(size, HIDDEN))[None] / np.sqrt(len(sizes))).reshape(-1, HIDDEN)
    code = np.tanh(inner) @ rng.normal(size=(HIDDEN, dim))
    code = code - code.mean(0)
    shown: np.ndarray = code / code.std()
    return shown


def over_time(dim: int) -> np.ndarray:
    """How ``dim`` numbers are spread over a series: ``[dim, STEPS * CHANNELS]``, row vectors of one length, orthogonal.

    Each number is the weight of one slow wave (of the discrete cosine transform, DCT-II) in one channel. A codeword keeps its
    distances to all others but for the common factor that keeps its numbers at variance 1.
    """
    time = (np.arange(STEPS) + 0.5) * np.pi / STEPS
    waves = np.stack([np.cos(k * time) * np.sqrt((1 if k == 0 else 2) / STEPS) for k in range(STEPS)])
    spread = np.zeros((dim, STEPS, CHANNELS))
    for number in range(dim):
        spread[number, :, number % CHANNELS] = waves[number // CHANNELS]
    scaled: np.ndarray = spread.reshape(dim, -1) * np.sqrt(STEPS * CHANNELS / dim)
    return scaled


def as_kind(kind: Kind, codes: Sequence[np.ndarray], noise: float) -> tuple[tuple[np.ndarray, ...], float]:
    """Codewords and noise as vectors, or as series flattened to ``STEPS * CHANNELS`` numbers that are as hard to read."""
    if kind == "vector":
        return tuple(codes), noise
    dim = codes[0].shape[1]
    return tuple(code @ over_time(dim) for code in codes), noise * float(np.sqrt(STEPS * CHANNELS / dim))
