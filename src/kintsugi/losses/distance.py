"""Losses that compare two tensors value by value."""

from __future__ import annotations

from torch import Tensor


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
