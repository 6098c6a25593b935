"""Depth as a budget: residual blocks that a row may skip, and which of all modalities' blocks it keeps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

FORBIDDEN = -99.0  # the logit of a block that is not up for choice: the authors' code of ADMN
TINY = 1e-12  # keeps both logarithms of a Gumbel variable finite: the authors' code of ADMN


class SkippableBlocks(nn.Module):
    """Residual perceptrons ``x + W2 gelu(W1 LN x)`` on ``[B, D]``, of which each row keeps some.

    Args:
        dim: D.
        depth: number of blocks, as ``blocks[i]``.
        ratio: width of a hidden layer in units of D.
    """

    def __init__(self, dim: int, depth: int, ratio: int = 2) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Residual(dim, dim * ratio) for _ in range(depth))

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        """x ``[B, D]``, keep ``[B, depth]`` -> ``[B, D]``.

        A bool ``keep`` skips: a block is run on the rows that keep it and on no other. A float one blends,
        ``keep * block(x) + (1 - keep) * x``, so that it has a gradient in every block, kept or not.
        """
        for block, kept in zip(self.blocks, keep.unbind(1), strict=True):
            if keep.dtype != torch.bool:
                x = kept[:, None] * block(x) + (1 - kept[:, None]) * x
                continue
            rows = kept.nonzero()[:, 0]
            if len(rows) == len(x):
                x = block(x)
            elif len(rows):
                x = x.index_copy(0, rows, block(x[rows]))
        return x


class Residual(nn.Module):
    """``x + W2 gelu(W1 LN x)``: ``[B, dim] -> [B, dim]``."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.inside = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as in the class."""
        out: Tensor = x + self.inside(x)
        return out


def layer_drop(modalities: int, depth: int, rate: float, full: float) -> Tensor:
    """Bool ``[modalities, depth]``: the blocks that a whole batch keeps, each with probability ``1 - rate``.

    With probability ``full`` a modality keeps its first block alone. LayerDrop (Fan et al., ICLR 2020), with the loss of a
    whole modality that ADMN (Wu et al., NeurIPS 2025) adds in the authors' code.
    """
    keep = torch.rand(modalities, depth) >= rate
    first = torch.arange(depth) == 0
    return torch.where(torch.rand(modalities, 1) < full, first, keep)


def gumbel(uniform: Tensor) -> Tensor:
    """Standard Gumbel variables from uniform ones of any shape: ``-log(-log u)`` (Jang et al., ICLR 2017)."""
    return -torch.log(-torch.log(uniform + TINY) + TINY)


def select_blocks(
    logits: Tensor, present: Tensor, budget: int, noise: Tensor | None = None, tau: float = 1.0
) -> tuple[Tensor, Tensor]:
    """The blocks that rows keep, bool ``[B, M, n]``, and the softmax over all of them together, float of that shape.

    Every present modality keeps its first block; of all others of present modalities the ``budget`` less these with the
    largest logits are kept, so that a row keeps ``budget`` of them, or all where it has fewer. The softmax is over the same
    ones, and 0 elsewhere; ``kept + (softmax - softmax.detach())`` is the straight-through estimator (Bengio et al., 2013).
    ADMN (Wu et al., NeurIPS 2025), in the authors' code.

    Args:
        logits: ``[B, M, n]``.
        present: bool ``[B, M]``; no block of an absent modality is kept.
        budget: at least the number of modalities.
        noise: added to the logits, as in training; None: nothing.
        tau: temperature of the softmax.
    """
    first = torch.arange(logits.shape[2], device=logits.device) == 0
    free = (present[..., None] & ~first).flatten(1)
    scores = (logits if noise is None else logits + noise).flatten(1) / tau
    scores = torch.where(free, scores, FORBIDDEN)
    spare = budget - present.sum(1, keepdim=True)
    rank = scores.argsort(stable=True, dim=1, descending=True).argsort(1)
    kept = ((rank < spare) & free).view_as(logits) | (present[..., None] & first)
    return kept, torch.where(free, scores.softmax(1), 0).view_as(logits)
