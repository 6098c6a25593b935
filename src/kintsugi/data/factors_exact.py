"""What can be reached on the data of :mod:`kintsugi.data.factors`: the exact posterior, and the best additive rule."""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations, product
from typing import Any

import numpy as np
import torch

from kintsugi.data.factors import LABEL_NOISE, Law

DRAWS = 10_000  # fresh rows over which a limit is averaged; the standard error of an accuracy is at most 0.005
TINY = 1e-12
STARTS, STEPS = 32, 400  # of the search for the best additive rule; fewer starts where a table is large
SCALES = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0)  # see additive(); 0 first


def limits(law: Law, task: str, names: tuple[str, ...], rng: np.random.Generator) -> dict[str, Any]:
    """The ``note`` of :func:`~kintsugi.data.factors.factors`."""
    subsets = [keep for k in range(1, len(names) + 1) for keep in combinations(range(len(names)), k)]
    found: dict[str, Any] = {"bayes": {}, "se": {}}
    if task == "classification":
        like = likelihood(law, law.classified(DRAWS, rng)[0])
        for keep in subsets:
            best = posterior(law, like, keep).max(1)  # its mean is the accuracy, and varies less than counted hits
            key = tuple(names[m] for m in keep)
            found["bayes"][key], found["se"][key] = float(best.mean()), float(best.std() / np.sqrt(DRAWS))
        whole = posterior(law, like, subsets[-1])
        hits = [whole[np.arange(DRAWS), additive(law, like, scale).argmax(1)] for scale in SCALES]
        guess, hit = hits[0], max(hits, key=lambda each: float(each.mean()))
        return {
            "metric": "accuracy",
            "chance": 1 / law.classes,
            **found,
            "additive": float(hit.mean()),
            "additive_se": float(hit.std() / np.sqrt(DRAWS)),
            "additive_log_loss": float(guess.mean()),
        }
    x, clean, _ = law.regressed(DRAWS, rng)
    like = likelihood(law, x)[:, :, 0]
    variance = float((clean**2).mean()) + LABEL_NOISE**2  # of these draws: a ratio varies less than its numerator
    for keep in subsets:
        explained = expectation(law, like, keep) ** 2 / variance  # its mean is R²: the best guess has mean 0
        key = tuple(names[m] for m in keep)
        found["bayes"][key], found["se"][key] = float(explained.mean()), float(explained.std() / np.sqrt(DRAWS))
    rule = additive_number(law, like)
    gain = (2 * expectation(law, like, subsets[-1]) * rule - rule**2) / variance
    return {
        "metric": "r2",
        "chance": 0.0,
        **found,
        "additive": float(gain.mean()),
        "additive_se": float(gain.std() / np.sqrt(DRAWS)),
    }


def likelihood(law: Law, x: np.ndarray) -> np.ndarray:
    """P(x_m | g, s, u_m) up to a factor for each row and modality: ``[M, N, dim]`` -> ``[M, N, 2, C, C]``."""
    out = []
    for code, seen in zip(law.codes, x, strict=True):
        flat = code.reshape(-1, code.shape[-1])
        distance = (seen**2).sum(1)[:, None] + (flat**2).sum(1)[None] - 2 * seen @ flat.T
        log = -distance / (2 * law.noise**2)
        out.append(np.exp(log - log.max(1, keepdims=True)).reshape(-1, *code.shape[:3]))
    return np.stack(out)


def posterior(law: Law, like: np.ndarray, keep: tuple[int, ...]) -> np.ndarray:
    """P(y | modalities in ``keep``), exact: ``[N, C]``.

    The sum over all latents factorises: given label, gate and shared value, modalities are independent where the gate
    is 0; where it is 1, the sum of the unique values is a cyclic convolution, and without all of them it is uniform.
    """
    c = law.classes
    apart = np.ones((like.shape[1], c, c))  # gate 0: [N, y, s]
    for m in keep:
        apart *= np.einsum("nsu,yu->nys", like[m][:, 0], law.given_unique[m])
    evidence = (1 - law.synergy) / c * np.einsum("nys,ys->ny", apart, law.given_shared)
    total = np.zeros((like.shape[1], c, c))  # gate 1: [N, s, sum of unique values modulo C]
    total[:, :, 0] = 1
    shift = (np.arange(c)[:, None] - np.arange(c)[None]) % c  # [sum after, value] -> sum before
    for m in keep:
        total = np.einsum("nsau,nsu->nsa", total[:, :, shift], like[m][:, 1]) / c
    together = total.sum(1) if len(keep) == law.modalities else total.sum((1, 2))[:, None] / c
    evidence = evidence + law.synergy / c * together
    out: np.ndarray = evidence / evidence.sum(1, keepdims=True)
    return out


def additive(law: Law, like: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """Scores ``sum_m f_m(x_m, y)``, ``[N, C]``, of an additive rule that is good or best.

    ``f_m`` is the mean of two tables, weighted by how probable each gate is given x_m alone. Gate 0: the log evidence
    of the unique value plus 1/M of that of the shared one, which without noise is Bayes' rule itself. Gate 1: ``scale``
    times the table that :func:`best_table` finds for a sum modulo C. With ``scale=0`` it is the rule that cross-entropy
    prefers there: each unique value alone is independent of the label, so that the uniform answer is the minimum. The
    limit in ``note`` is that of the best of several scales, since a doubtful gate mixes both tables.
    """
    c, modalities = law.classes, law.modalities
    table = scale * best_table(c, modalities) if scale else np.zeros((modalities, c, c))
    scores = np.zeros((like.shape[1], c))
    for m in range(modalities):
        either = np.einsum("ys,yu->su", law.given_shared, law.given_unique[m]) / c
        zero = (1 - law.synergy) * like[m][:, 0] * either
        one = law.synergy * like[m][:, 1] / c**2
        gate = one.sum((1, 2)) / (one.sum((1, 2)) + zero.sum((1, 2)))
        unique = like[m][:, 0].sum(1) @ law.given_unique[m].T
        shared = like[m][:, 0].sum(2) @ law.given_shared.T
        apart = np.log(unique + TINY) + np.log(shared + TINY) / modalities
        value = like[m][:, 1].sum(1)
        together = (value / value.sum(1, keepdims=True)) @ table[m]
        scores += (1 - gate)[:, None] * apart + gate[:, None] * together
    return scores


@lru_cache(maxsize=16)
def best_table(classes: int, modalities: int) -> np.ndarray:
    """Tables ``[M, C, C]`` (value, label) whose sum over modalities predicts a sum modulo C best, as far as found.

    Search over all ``C**M`` combinations, each as probable as any other: Adam on the expected accuracy of the softmax
    of the scores, sharpened step by step, from random starts (seed 0) and one that is known to be good: the label of
    the nearest of C consecutive plain sums around the mean. The best table by exact accuracy wins. Finding the optimum
    is a combinatorial problem, so the result is a lower bound of it.
    """
    values = torch.tensor(list(product(range(classes), repeat=modalities)))  # [K, M]
    label = values.sum(1) % classes
    starts = max(4, min(STARTS, 4096 // len(values)))
    start = torch.randn(starts, modalities, classes, classes, generator=torch.Generator().manual_seed(0))
    low = (modalities * (classes - 1) - classes + 1) // 2
    centre = torch.empty(classes)
    for t in range(low, low + classes):
        centre[t % classes] = t
    steps = torch.arange(classes).float()
    start[0] = 2 * steps[:, None] * centre[None] - centre[None] ** 2 / modalities
    table = start.clone().requires_grad_()
    adam = torch.optim.Adam([table], lr=0.05)
    best, value = start[0].clone(), -1.0
    for step in range(STEPS + 1):
        scores = sum(table[:, m, values[:, m]] for m in range(modalities))
        assert isinstance(scores, torch.Tensor)
        exact = (scores.argmax(-1) == label).float().mean(1)
        if float(exact.max()) > value:
            value, best = float(exact.max()), table[int(exact.argmax())].detach().clone()
        if step == STEPS:
            break
        sharp = 1 + 9 * step / STEPS
        hit = (sharp * scores).softmax(-1)[:, torch.arange(len(label)), label].mean(1)
        adam.zero_grad()
        (-hit.sum()).backward()
        adam.step()
    return best.double().numpy()


def expectation(law: Law, like: np.ndarray, keep: tuple[int, ...]) -> np.ndarray:
    """E[y | modalities in ``keep``], exact, for regression: like ``[M, N, C, C]`` -> ``[N]``."""
    joint = np.prod([like[m].sum(2) for m in keep], axis=0)
    given = joint / joint.sum(1, keepdims=True)  # P(s | x)
    mean = {m: (like[m] @ law.levels) / (like[m].sum(2) + TINY * TINY) for m in keep}  # E[u_m | s, x_m], [N, s]
    shared, unique = law.weights
    added = shared * (given @ law.levels) + unique * sum((given * mean[m]).sum(1) for m in keep)
    product_ = np.zeros(like.shape[1])
    if len(keep) == law.modalities:
        product_ = (given * np.prod([mean[m] for m in keep], axis=0)).sum(1)
    out: np.ndarray = np.sqrt(1 - law.synergy) * added + np.sqrt(law.synergy) * product_
    return out


def additive_number(law: Law, like: np.ndarray) -> np.ndarray:
    """The best additive rule for regression: the additive part of the law, each latent estimated from its modality.

    The product of the unique values is uncorrelated with any function of one modality, so that it adds nothing. The
    shared value is the mean of the M estimates, which without noise is exact.
    """
    shared, unique = law.weights
    out = np.zeros(like.shape[1])
    for table in like:
        given = table / table.sum((1, 2), keepdims=True)
        out += shared / law.modalities * (given.sum(2) @ law.levels) + unique * (given.sum(1) @ law.levels)
    scaled: np.ndarray = np.sqrt(1 - law.synergy) * out
    return scaled
