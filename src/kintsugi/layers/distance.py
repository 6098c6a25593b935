"""Distances between rows that do not depend on which other rows are asked about at the same time."""

from __future__ import annotations

import torch
from torch import Tensor

from kintsugi.core.errors import DataError


def euclidean(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distance of every row of a ``[B, ...]`` from every row of b ``[N, ...]``: ``[B, N]``.

    Each pair is worked out by itself, not from a product of matrices: a row is at distance 0 from itself, and a
    number is the same whatever stands in the other rows. The gradient at distance 0 is 0; there is no second
    derivative. Half precision is computed in float32.

    Raises:
        DataError: rows of different shapes.
    """
    if a.shape[1:] != b.shape[1:]:
        raise DataError(
            f"distance between rows of shape {list(a.shape[1:])} and {list(b.shape[1:])}; give rows of one shape"
        )
    exact = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    a, b = a.flatten(1).to(exact), b.flatten(1).to(exact)
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
