"""Losses that compare two tensors value by value."""

from __future__ import annotations

from torch import Tensor
from torch.linalg import vector_norm


def mse(a: Tensor, b: Tensor, rows: Tensor | None = None) -> Tensor:
    """Mean squared error over all features of ``rows`` (bool ``[B]`` or ``[B, T]``; default: all); ``0 * a.sum()`` if none.

    a, b: ``[B, ...]`` of one shape. What stands in ``b`` in the other rows is never read. ``rows`` may be of single numbers too.
    """
    if rows is not None:
        if not bool(rows.any()):
            return 0 * a.sum()
        a, b = a[rows], b[rows]
    if a.shape != b.shape:  # broadcasting would give a number that means nothing
        raise ValueError(f"mse of tensors of different shapes: {list(a.shape)} and {list(b.shape)}")
    return (a - b).square().mean()


def mae(a: Tensor, b: Tensor, rows: Tensor | None = None) -> Tensor:
    """Mean absolute error over all features of ``rows``, which may be steps or numbers; else as :func:`mse`.

    Raises:
        ValueError: tensors of different shapes.
    """
    if rows is not None:
        if not bool(rows.any()):
            return 0 * a.sum()
        a, b = a[rows], b[rows]
    if a.shape != b.shape:
        raise ValueError(f"mae of tensors of different shapes: {list(a.shape)} and {list(b.shape)}")
    return (a - b).abs().mean()


def norm_gap(a: Tensor, b: Tensor) -> Tensor:
    """``| ||a|| - ||b|| |`` of the Frobenius norms over all rows at once, a scalar: a and b ``[B, ...]``.

    Keeps a learned map from blowing up or shrinking what it maps; the stabiliser of M3Care (Zhang et al., KDD 2022) in
    the authors' code, where it weighs 1e-7. Give it the rows that have the modality.
    """
    gap: Tensor = (vector_norm(a) - vector_norm(b)).abs()
    return gap


def cmd(x: Tensor, y: Tensor, moments: int = 5, rows_x: Tensor | None = None, rows_y: Tensor | None = None) -> Tensor:
    """Central moment discrepancy of two batches of codes (Zellinger et al., ICLR 2017), a scalar of at least 0.

    ``||E x - E y|| + sum over k = 2 .. moments of ||c_k(x) - c_k(y)||``, with ``c_k(x) = E (x - E x)^k`` of each
    coordinate and Euclidean norms. The factors ``1 / |b - a|^k`` of the paper are left out, as in the authors' code of
    MISA (declare-lab/MISA): they are 1 for codes in an interval of length 1, such as those behind a sigmoid. Batches are
    compared, not rows: the order of rows does not matter, and the two may differ in their number. The gradient where two
    moments are equal is 0. Neither side is detached.

    Args:
        x, y: ``[B, D]`` and ``[C, D]``.
        moments: the highest one, 1 or more.
        rows_x, rows_y: bool ``[B]`` and ``[C]``: which rows count; default: all. The others are never read. If either side
            has none, the result is 0 with a gradient of 0.

    Raises:
        ValueError: codes that are not of one width, or no moment.
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"cmd takes codes [B, D] of one width, not {list(x.shape)} and {list(y.shape)}")
    if moments < 1:
        raise ValueError(f"cmd needs at least the first moment, not moments={moments}")
    x, y = x if rows_x is None else x[rows_x], y if rows_y is None else y[rows_y]
    if not len(x) or not len(y):
        return x[:0].sum() + y[:0].sum()
    mean_x, mean_y = x.mean(0), y.mean(0)
    gap: Tensor = vector_norm(mean_x - mean_y)
    for order in range(2, moments + 1):
        gap = gap + vector_norm((x - mean_x).pow(order).mean(0) - (y - mean_y).pow(order).mean(0))
    return gap
