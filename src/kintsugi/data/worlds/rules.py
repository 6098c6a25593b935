"""Small rules that oracles are made of: least squares on Gaussian bumps, least squares on a line, and nearest rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Rule = Callable[[np.ndarray], np.ndarray]
PENALTY = 0.1  # of the squared weights of a rule, next to squared errors of standardised targets


def bumps(x: np.ndarray, y: np.ndarray, penalty: float = PENALTY) -> Rule:
    """Ridge regression with a Gaussian kernel: ``[N, P]`` and ``[N, K]`` -> a rule ``[n, P] -> [n, K]``.

    The width of the kernel is the median distance between training rows.
    """
    middle, mean, scale = x.mean(0), y.mean(0), y.std() + 1e-12
    z = x - middle
    square = _squares(z, z)
    width = float(np.median(square[~np.eye(len(z), dtype=bool)])) if len(z) > 1 else 1.0
    weights = np.linalg.solve(np.exp(-square / width) + penalty * np.eye(len(z)), (y - mean) / scale)

    def rule(new: np.ndarray) -> np.ndarray:
        out: np.ndarray = np.exp(-_squares(new - middle, z) / width) @ weights * scale + mean
        return out

    return rule


def line(x: np.ndarray, y: np.ndarray, penalty: float = 1.0) -> Rule:
    """Linear ridge regression: ``[N, P]`` and ``[N, K]`` -> a rule ``[n, P] -> [n, K]``."""
    middle, mean = x.mean(0), y.mean(0)
    z = x - middle
    weights = np.linalg.solve(z.T @ z + penalty * np.eye(z.shape[1]), z.T @ (y - mean))

    def rule(new: np.ndarray) -> np.ndarray:
        out: np.ndarray = (new - middle) @ weights + mean
        return out

    return rule


def nearest(x: np.ndarray, y: np.ndarray, count: int) -> Rule:
    """The mean target of the ``count`` nearest rows: ``[N, P]`` and ``[N, K]`` -> a rule ``[n, P] -> [n, K]``."""

    def rule(new: np.ndarray) -> np.ndarray:
        close = np.argpartition(_squares(new, x), count - 1, axis=1)[:, :count]
        out: np.ndarray = y[close].mean(1)
        return out

    return rule


def joined(x: np.ndarray) -> np.ndarray:
    """Modalities side by side: ``[M, N, P]`` -> ``[N, M * P]``."""
    return np.concatenate(list(x), 1)


def _squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distances ``[N, n]``."""
    out: np.ndarray = np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T, 0)
    return out
