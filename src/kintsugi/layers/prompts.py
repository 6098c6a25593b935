"""Prompts that a row's missing pattern picks."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CasePrompts(nn.Module):
    """One prompt for each of the ``2^M - 1`` patterns of present modalities and each prompted layer.

    Initialised to zero but for one token of ones, as Lee et al. (CVPR 2023) released it.
    """

    def __init__(self, modalities: int, layers: int, length: int, dim: int) -> None:
        super().__init__()
        start = torch.zeros(2**modalities - 1, layers, length, dim)
        start[:, :, :1] = 1
        self.table = nn.Parameter(start)
        self.register_buffer("powers", 2 ** torch.arange(modalities), persistent=False)

    def case(self, present: Tensor) -> Tensor:
        """Bool ``[B, M]`` -> int64 ``[B]``: 0 … 2^M - 2; a row with nothing reads case 0 and is answered by the prior."""
        code: Tensor = (present * self.get_buffer("powers")).sum(1) - 1
        return code.clamp(min=0)

    def forward(self, present: Tensor) -> list[Tensor]:
        """One prompt ``[B, length, dim]`` a layer."""
        return list(self.table[self.case(present)].unbind(1))
