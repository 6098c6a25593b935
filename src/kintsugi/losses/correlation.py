"""Correlation of several views of the same rows."""

from __future__ import annotations

import torch
from torch import Tensor

LEAST = 1e-12  # of the ridge: codes that do not vary at all have no correlation, rather than a division by zero


def covariances(codes: Tensor) -> tuple[Tensor, Tensor]:
    """Within and between the views: ``(R_W, R_B)``, each ``[D, D]`` in float64, of codes ``[B, N, D]`` of B >= 2 rows.

    With the codes H_l of view l less their means over the rows: ``R_W = sum_l H_l' H_l / (B - 1)``, ``R_T`` the same of the
    sum of the views, and ``R_B = (R_T - R_W) / (N - 1)`` (Somandepalli et al., 2019, arXiv 1904.01775; as in the authors'
    code, usc-sail/mica-deep-mcca).
    """
    rows, views, _ = codes.shape
    centred = codes.double()
    centred = centred - centred.mean(0)
    within = torch.einsum("bnd,bne->de", centred, centred) / (rows - 1)
    mixed = centred.sum(1)
    total = mixed.T @ mixed / (rows - 1)
    return within, (total - within) / (views - 1)


def multiset_correlations(codes: Tensor, shrinkage: float = 0.2, rows: Tensor | None = None) -> Tensor:
    """Generalised eigenvalues of ``R_B w = rho R_Wg w``, ascending, float64 ``[D]``, with gradients.

    ``R_Wg = (1 - g) R_W + g mean(diag R_W) I`` with ``g = shrinkage``. Without shrinkage each lies in [-1 / (N - 1), 1], and
    is 1 where all views agree; with it, one may exceed 1. The gradient needs no eigenvector's, so it is finite where
    eigenvalues repeat.

    Args:
        codes: ``[B, N, D]`` of N >= 2 views. shrinkage: g, in [0, 1].
        rows: bool ``[B]``: which rows count, those with all views; default: all. The others are never read. Below two rows
            the result is 0, with a gradient of 0.
    """
    codes = codes if rows is None else codes[rows]
    if len(codes) < 2:
        return (0 * codes).sum((0, 1)).double()
    within, between = covariances(codes)
    identity = torch.eye(len(within), dtype=within.dtype, device=within.device)
    ridge = shrinkage * within.diagonal().mean() + LEAST
    lower = torch.linalg.cholesky((1 - shrinkage) * within + ridge * identity)
    half = torch.linalg.solve_triangular(lower, between, upper=False)
    whitened = torch.linalg.solve_triangular(lower, half.T, upper=False)
    correlations: Tensor = torch.linalg.eigvalsh((whitened + whitened.T) / 2)
    return correlations
