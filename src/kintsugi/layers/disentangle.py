"""Codes in two parts: what a modality shares with the others, and what is its own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class SharedSpecific(nn.Module):
    """One encoder for all modalities, with the same weights, and one of its own for each.

    The common part of MISA (Hazarika et al., ACM MM 2020) and ShaSpec (Wang et al., CVPR 2023). What makes the parts differ
    are losses: see :mod:`kintsugi.losses.orthogonality` and :func:`kintsugi.losses.distance.cmd`.

    Args:
        make: a new encoder ``[B, D] -> [B, E]``, called once for the shared one and once for each modality.
        count: number of modalities.
    """

    def __init__(self, make: Callable[[], nn.Module], count: int) -> None:
        super().__init__()
        self.shared = make()
        self.specific = nn.ModuleList(make() for _ in range(count))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x ``[B, M, D]``, finite everywhere -> shared and specific codes, ``[B, M, E]`` each."""
        own = [encoder(one) for encoder, one in zip(self.specific, x.unbind(1), strict=True)]
        return self.shared(x), torch.stack(own, 1)
