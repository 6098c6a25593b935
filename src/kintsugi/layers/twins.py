"""Two encoders of one modality, for methods of which two parts share no parameter."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kintsugi.core.encoder import Encoder
from kintsugi.core.features import Stream


class Twins(Encoder):
    """What two encoders make of a modality, side by side: one token ``[R, 1, 2 dim]``, the mean of those of each.

    Args:
        first, second: encoders of one width, each ``(x, mask) -> Stream``.
    """

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Stream:
        """x ``[R, *shape]``, mask bool ``[R, T]`` or None, as the encoders take them."""
        return Stream.vector(torch.cat([self.first(x, mask).pooled(), self.second(x, mask).pooled()], 1))
