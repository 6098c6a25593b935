"""Generated data whose best possible result is known: shared, unique and synergistic factors behind every modality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from kintsugi.core.batch import Batch
from kintsugi.core.errors import ConfigError
from kintsugi.core.schema import Modality, Schema
from kintsugi.data.dataset import Dataset, TensorSource
from kintsugi.data.datasets import DATASETS
from kintsugi.tasks import Classification, Regression

HIDDEN = 32  # width of the fixed map from latent values to a modality
GATE, SHARED, UNIQUE = 0.5, 0.5, 1.0  # how far each latent moves a modality: less for those that repeat in all
NEAR = 0.7  # of a unique factor that speaks of the label at all: it is the label; else a class next to it
LABEL_NOISE = 0.2  # standard deviation that nothing explains, in a regression target of variance 1
SHARES = (0.60, 0.15, 0.25)  # train, val, test
LARGEST = 100_000  # combinations of unique values over which the best additive rule is searched


@dataclass(frozen=True)
class Law:
    """How labels and latent values go together, and how modalities show them.

    Every latent takes ``classes`` values. All rows share a gate ``g`` (0 or 1), a shared value ``s``, and one unique
    value ``u_m`` a modality; modality m shows ``code[m][g, s, u_m]`` plus Gaussian noise.

    codes: float ``[M, 2, C, C, dim]``; noise: standard deviation; synergy: share of rows with g = 1.
    given_shared: P(s | y), ``[C, C]`` with y first; given_unique: P(u_m | y), ``[M, C, C]``; both for g = 0.
    """

    codes: np.ndarray
    noise: float
    synergy: float
    shared: float
    unique: float

    @property
    def modalities(self) -> int:
        return len(self.codes)

    @property
    def classes(self) -> int:
        return int(self.codes.shape[2])

    @property
    def given_shared(self) -> np.ndarray:
        c = self.classes
        table: np.ndarray = self.shared * np.eye(c) + (1 - self.shared) / c
        return table

    @property
    def given_unique(self) -> np.ndarray:
        c, same = self.classes, np.eye(self.classes)
        neighbour = [np.roll(same, 1 + m % (c - 1), axis=1) for m in range(self.modalities)]  # another one a modality
        return np.stack([self.unique * (NEAR * same + (1 - NEAR) * n) + (1 - self.unique) / c for n in neighbour])

    @property
    def levels(self) -> np.ndarray:
        """Numbers with mean 0 and variance 1 that the values of a latent stand for in regression, ``[C]``."""
        c = self.classes
        numbers: np.ndarray = (np.arange(c) - (c - 1) / 2) / np.sqrt((c**2 - 1) / 12)
        return numbers

    @property
    def weights(self) -> tuple[float, float]:
        """Of the shared and of each unique factor in the additive part of a regression target of variance 1."""
        size = float(np.sqrt(self.shared**2 + self.modalities * self.unique**2))
        return self.shared / size, self.unique / size

    def show(self, g: np.ndarray, s: np.ndarray, u: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Modalities ``[M, N, dim]`` of rows with these latents: g, s ``[N]``, u ``[N, M]``."""
        clean = np.stack([self.codes[m][g, s, u[:, m]] for m in range(self.modalities)])
        return clean + self.noise * rng.normal(size=clean.shape)

    def classified(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Modalities ``[M, N, dim]`` and labels ``[N]``: the label is drawn first, then what speaks of it."""
        c = self.classes
        y = rng.integers(0, c, n)
        g = (rng.random(n) < self.synergy).astype(np.int64)
        s = np.where(g == 1, rng.integers(0, c, n), _draw(self.given_shared[y], rng))
        u = np.stack([_draw(p[y], rng) for p in self.given_unique], 1)
        free = rng.integers(0, c, u.shape)
        free[:, -1] = (y - free[:, :-1].sum(1)) % c
        return self.show(g, s, np.where(g[:, None] == 1, free, u), rng), y

    def regressed(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Modalities ``[M, N, dim]``, the number that the latents make ``[N]``, and that number with noise ``[N]``."""
        s, u = rng.integers(0, self.classes, n), rng.integers(0, self.classes, (n, self.modalities))
        shared, unique = self.weights
        additive = shared * self.levels[s] + unique * self.levels[u].sum(1)
        product = self.levels[u].prod(1)
        clean = np.sqrt(1 - self.synergy) * additive + np.sqrt(self.synergy) * product
        return self.show(np.zeros_like(s), s, u, rng), clean, clean + LABEL_NOISE * rng.normal(size=n)


def _draw(probabilities: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One value a row of ``[N, C]``."""
    edge = probabilities.cumsum(1)[:, :-1]
    drawn: np.ndarray = (rng.random(len(probabilities))[:, None] > edge).sum(1)
    return drawn


def make_codes(modalities: int, classes: int, dim: int, rng: np.random.Generator) -> np.ndarray:
    """Where each modality puts its latent values, ``[M, 2, C, C, dim]`` (gate, shared, unique), mean 0, variance 1.

    A fixed random map of one hidden layer: ``B tanh(a_g + a_s + a_u)`` with Gaussian ``a`` and ``B``. With 32 hidden
    units no two combinations coincide, so that the latents can be read back.
    """
    codes = []
    for _ in range(modalities):
        gate, shared, unique = (rng.normal(size=(n, HIDDEN)) for n in (2, classes, classes))
        inner = GATE * gate[:, None, None] + SHARED * shared[None, :, None] + UNIQUE * unique[None, None, :]
        code = np.tanh(inner) @ rng.normal(size=(HIDDEN, dim))
        code = code - code.mean((0, 1, 2))
        codes.append(code / code.std())
    return np.stack(codes)


@DATASETS.register("factors")
def factors(
    modalities: int = 3,
    rows: int = 2000,
    task: Literal["classification", "regression"] = "classification",
    classes: int = 3,
    shared: float = 0.4,
    unique: float = 0.92,
    synergy: float = 0.0,
    noise: float = 0.5,
    dim: int = 16,
    seed: int = 0,
) -> Dataset:
    """Generated modalities with known limits: what the best possible model reaches on every subset of them.

    Modality ``m1``, ``m2``, … is a vector ``[dim]``: a fixed nonlinear code of discrete latents (a gate and a shared
    value, the same in all modalities, and a unique value of its own) plus Gaussian noise. Fixed split 60 / 15 / 25 %.

    Classification: the label is drawn first. In a row with gate 0, evidence adds up: the shared value is the label with
    probability ``shared`` and random otherwise; each unique value speaks of the label with probability ``unique`` (and
    then is the label in 7 of 10 cases, else the class at a distance that differs between modalities) and is random
    otherwise, independently of the others given the label. Every modality alone is informative, and a sum of
    evidence is the best rule. In a row with gate 1, the label is the sum of all unique values modulo ``classes``:
    nothing less than all modalities says anything about it. The gate is 1 in a share ``synergy`` of the rows and every
    modality shows it.

    Regression: ``sqrt(1 - synergy) * A + sqrt(synergy) * P`` plus noise of standard deviation 0.2; A adds the shared
    and the unique values (as numbers, weighted by ``shared`` and ``unique``), P multiplies the unique ones; both have
    variance 1.

    ``note`` of the result holds what can be reached, computed from the law and not from the rows:

    * ``metric``: "accuracy" or "r2"; ``chance``: the value without any modality;
    * ``bayes``: tuple of names -> value of the best possible rule on these modalities, from the exact posterior,
      averaged over 10,000 fresh draws; ``se``: its standard error;
    * ``additive``: the best known rule of the form ``argmax_y sum_m f_m(x_m, y)`` (regression: ``sum_m f_m(x_m)``) on
      all modalities; ``additive_se``; see :func:`~kintsugi.data.factors_exact.additive` for how it is found;
    * ``additive_log_loss`` (classification): the additive rule that cross-entropy prefers, which on synergistic rows
      is to guess.

    Defaults are set so that all modalities together allow about 0.9, and one alone about 0.7. The default number of classes
    is a prime: a sum modulo 4 has a parity, which gradient descent learns first and may not get beyond.

    Args:
        modalities: 2 or more.
        rows: of all three parts together.
        task: "classification" or "regression".
        classes: number of classes and of values of each latent.
        shared: strength of the shared factor, 0 to 1.
        unique: strength of the unique factors, 0 to 1.
        synergy: share of the label that only all modalities together determine, 0 to 1.
        noise: standard deviation of the noise; codes have standard deviation 1.
        dim: width of a modality.
        seed: of codes and rows.
    """
    if modalities < 2 or classes < 2 or classes**modalities > LARGEST:
        raise ConfigError(
            f"factors needs 2 or more modalities and classes, and at most {LARGEST:,} combinations; "
            f"{classes} classes in {modalities} modalities make {classes**modalities:,}"
        )
    for name, value in (("shared", shared), ("unique", unique), ("synergy", synergy)):
        if not 0 <= value <= 1:
            raise ConfigError(f"{name} must be from 0 to 1, not {value}")
    if task not in ("classification", "regression"):
        raise ConfigError(f"task must be 'classification' or 'regression', not {task!r}")
    if task == "regression" and synergy < 1 and not max(shared, unique):
        raise ConfigError("with shared=0, unique=0 and synergy below 1 there is nothing to learn")
    if noise <= 0 or dim < 1 or rows < 10:
        raise ConfigError(f"noise and dim must be above 0 and rows 10 or more, not {noise}, {dim} and {rows}")
    codes = make_codes(modalities, classes, dim, np.random.default_rng([seed, 0]))
    law = Law(codes, noise, synergy, shared, unique)
    rng = np.random.default_rng([seed, 1])
    if task == "classification":
        x, y = law.classified(rows, rng)
    else:
        x, _, y = law.regressed(rows, rng)
    data = Dataset(_source(x, y, task, classes))
    data.note.update(_limits(law, task, data.schema.names, seed))
    return data


def _source(x: np.ndarray, y: np.ndarray, task: str, classes: int) -> TensorSource:
    n, names = x.shape[1], tuple(f"m{m + 1}" for m in range(len(x)))
    ends = np.round(np.cumsum(SHARES) * n).astype(int)
    parts = np.split(np.arange(n), ends[:2])
    split = {name: torch.from_numpy(rows) for name, rows in zip(("train", "val", "test"), parts, strict=True)}
    target = torch.from_numpy(y) if task == "classification" else torch.from_numpy(y).float()
    asked = (
        Classification([str(c) for c in range(classes)])
        if task == "classification"
        else Regression.fitted(target[split["train"]])
    )
    schema = Schema(tuple(Modality(name, "vector", (x.shape[2],)) for name in names), asked)
    inputs = {name: torch.from_numpy(x[m]).float() for m, name in enumerate(names)}
    present = torch.ones(n, len(names), dtype=torch.bool)
    source = TensorSource(schema, Batch(names, inputs, present, torch.arange(n), target), "factors")
    source.split = split
    return source


def _limits(law: Law, task: str, names: tuple[str, ...], seed: int) -> dict[str, Any]:
    from kintsugi.data.factors_exact import limits

    return limits(law, task, names, np.random.default_rng([seed, 2]))
