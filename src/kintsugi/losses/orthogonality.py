"""Penalties on what two sets of codes have in common."""

from __future__ import annotations

from torch import Tensor
from torch.linalg import vector_norm

TINY = 1e-6  # added to norms by the authors' code of MISA


def soft_orthogonality(a: Tensor, b: Tensor, rows: Tensor | None = None) -> Tensor:
    """Mean squared entry of ``A' B``, a scalar of at least 0: 0 where no coordinate of a goes with one of b over the rows.

    A and B are the codes less their mean over the rows, each row divided by its own length plus 1e-6; lengths get no
    gradient. So it is in the authors' code of MISA (Hazarika et al., ACM MM 2020; declare-lab/MISA). The paper has the
    squared Frobenius norm, which is ``D * E`` times as much.

    Args:
        a, b: ``[B, D]`` and ``[B, E]``; neither is detached.
        rows: bool ``[B]``: which rows count; default: all. The others are never read. Where there is none, the result is 0
            with a gradient of 0.
    """
    a, b = (_directions(x if rows is None else x[rows]) for x in (a, b))
    if not len(a):
        return a.sum() + b.sum()
    return (a.T @ b).square().mean()


def _directions(codes: Tensor) -> Tensor:
    if not len(codes):  # the mean of nothing is NaN
        return codes
    codes = codes - codes.mean(0)
    return codes / (vector_norm(codes, dim=1, keepdim=True).detach() + TINY)
