"""Losses that compare two tensors value by value."""

from __future__ import annotations

from torch import Tensor
from torch.linalg import vector_norm


def mse(a: Tensor, b: Tensor, rows: Tensor | None = None) -> Tensor:
    """Mean squared error over all features of ``rows`` (bool ``[B]``; default: all); ``0 * a.sum()`` if there is none.

    a, b: ``[B, ...]`` of one shape. What stands in ``b`` in the other rows is never read.
    """
    if rows is not None:
        if not bool(rows.any()):
            return 0 * a.sum()
        a, b = a[rows], b[rows]
    if a.shape != b.shape:  # broadcasting would give a number that means nothing
        raise ValueError(f"mse of tensors of different shapes: {list(a.shape)} and {list(b.shape)}")
    return (a - b).square().mean()


def norm_gap(a: Tensor, b: Tensor) -> Tensor:
    """``| ||a|| - ||b|| |`` of the Frobenius norms over all rows at once, a scalar: a and b ``[B, ...]``.

    Keeps a learned map from blowing up or shrinking what it maps; the stabiliser of M3Care (Zhang et al., KDD 2022) in
    the authors' code, where it weighs 1e-7. Give it the rows that have the modality.
    """
    gap: Tensor = (vector_norm(a) - vector_norm(b)).abs()
    return gap
