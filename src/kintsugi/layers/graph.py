"""Graphs between rows: how alike two rows are in what both have, and what one takes over from the others.

Formulas of Zhang et al., "M3Care: learning with missing modalities in multimodal healthcare data", KDD 2022, and of the
authors' code (choczhang/M3Care), unless another source is named. Where their code lets what stands in an absent slot into a
similarity, it is left out here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kintsugi.core.errors import ConfigError, DataError
from kintsugi.layers.distance import euclidean

SCALES = (0.5, 1.0, 2.0)  # bandwidths of the kernels that are averaged, in units of the mean squared distance
NARROW = 1e-3  # a mean squared distance below it counts as 1


def bandwidth(x: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean squared Euclidean distance of two different valid rows, without gradient: ``[N, ...] ->`` a scalar.

    1 where it is below ``NARROW``, and where fewer than two rows are valid. Worked out as twice the sum of the
    variances, which is the same number without the N x N distances.

    Args:
        x: ``[N, ...]``.
        valid: bool ``[N]``; what stands in the other rows is never read. Default: all.
    """
    rows = _blank(x.detach(), valid).flatten(1)
    valid = rows.new_ones(len(rows), dtype=torch.bool) if valid is None else valid
    count = valid.sum()
    mean = rows.sum(0) / count.clamp(min=1)
    deviation = torch.where(valid[:, None], rows - mean, 0)
    width = 2 * deviation.square().sum() / (count - 1).clamp(min=1)
    return torch.where(width < NARROW, 1, width)


def cross_kernel(
    query: Tensor,
    stored: Tensor,
    query_valid: Tensor | None = None,
    stored_valid: Tensor | None = None,
    width: Tensor | float | None = None,
    scales: Sequence[float] = SCALES,
) -> Tensor:
    """Gaussian kernel of several bandwidths between queries and stored rows: ``[B, ...], [N, ...] -> [B, N]``.

    The mean over ``scales`` of ``exp(-D / (width * scale))`` with the squared Euclidean distance D; 0 where one of the
    two rows is not valid. No second derivative (see :func:`kintsugi.layers.distance.euclidean`).

    Args:
        query: ``[B, ...]``.
        stored: ``[N, ...]``, rows of the same shape.
        query_valid: bool ``[B]``; what stands in a row that is not valid is never read. Default: all are.
        stored_valid: bool ``[N]``, likewise.
        width: None: the :func:`bandwidth` of the stored rows, so that an answer does not depend on the other queries.
        scales: multiples of the width.

    Raises:
        ConfigError: no scale.
        DataError: rows of different shapes.
    """
    if not scales:
        raise ConfigError("a kernel needs at least one scale; M3Care has 0.5, 1 and 2")
    if width is None:
        width = bandwidth(stored, stored_valid)
    squared = euclidean(_blank(query, query_valid), _blank(stored, stored_valid)).square()
    kernel = torch.stack([torch.exp(-squared / (width * scale)) for scale in scales]).mean(0)
    if query_valid is not None:
        kernel = torch.where(query_valid[:, None], kernel, 0)
    return kernel if stored_valid is None else torch.where(stored_valid, kernel, 0)


def _blank(x: Tensor, valid: Tensor | None) -> Tensor:
    """Zero in the rows that are not valid: a weight of zero does not stop NaN."""
    return x if valid is None else torch.where(valid.view(-1, *[1] * (x.dim() - 1)), x, 0)


def mixed_kernel(learned: Tensor, plain: Tensor, share: Tensor | float, form: str = "product") -> Tensor:
    """A kernel of learned features and one of the plain ones, joined elementwise; all of one shape.

    ``product``: ``((1 - share) learned + share) plain``, the deep kernel of Liu et al. (ICML 2020), in the authors'
    notebook for ODIR. ``sum``: ``(1 - share) learned + share plain``, in that for OV.

    Raises:
        ConfigError: unknown form.
    """
    if form not in ("product", "sum"):
        raise ConfigError(f"unknown form {form!r} of a mixed kernel; known: product, sum")
    return ((1 - share) * learned + share) * plain if form == "product" else (1 - share) * learned + share * plain


def common_modality_mean(kernels: Tensor, query_present: Tensor, stored_present: Tensor) -> Tensor:
    """Mean likeness over the modalities that both rows have: ``[M, B, N] -> [B, N]``; 0 where they share none.

    Args:
        kernels: ``[M, B, N]``, one for each modality; what stands where one row lacks the modality is never read.
        query_present: bool ``[B, M]``.
        stored_present: bool ``[N, M]``.

    Raises:
        DataError: shapes that do not belong together.
    """
    shape = (query_present.shape[1], len(query_present), len(stored_present))
    if kernels.shape != shape or stored_present.shape[1] != shape[0]:
        raise DataError(
            f"kernels {list(kernels.shape)} do not belong to rows {list(query_present.shape)} and "
            f"{list(stored_present.shape)}; they must be [M, B, N], [B, M] and [N, M]"
        )
    shared = query_present.T[:, :, None] & stored_present.T[:, None]
    return torch.where(shared, kernels, 0).sum(0) / shared.sum(0).clamp(min=1)


def learned_threshold(likeness: Tensor, theta: Tensor) -> Tensor:
    """Values above ``t = sigmoid(theta)``, unchanged, and 0 in place of the others: the shape of ``likeness``.

    M3Care's ``relu(S - t) + 1[S > t] stopgrad(t)``: theta gets the gradient ``-sigmoid'(theta)`` for each survivor, so
    that a threshold that keeps too much rises, although no value is shifted.

    Args:
        likeness: any shape.
        theta: a scalar, or what broadcasts to ``likeness``.
    """
    t = torch.sigmoid(theta)
    return torch.where(likeness > t, likeness + (t.detach() - t), 0)


def normalise_rows(adjacency: Tensor) -> Tensor:
    """Each row divided by its sum, so that what is taken over does not grow with the number of rows: ``[R, S]``.

    Not in M3Care. A row of zeros stays; entries must not be negative.
    """
    total = adjacency.sum(1, keepdim=True)
    return adjacency / torch.where(total == 0, 1, total)


class GraphConvolution(nn.Module):
    """One step of aggregation, ``relu(A h W + b)``: Kipf and Welling, ICLR 2017, without normalisation by degree.

    Args:
        dim: width of a sender. out: width of the result.
    """

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, out)

    def forward(self, adjacency: Tensor, h: Tensor) -> Tensor:
        """Adjacency ``[R, S]`` (receivers by senders), h ``[S, dim]`` -> ``[R, out]``; a receiver need not be a sender."""
        return torch.relu(self.linear(adjacency @ h))
