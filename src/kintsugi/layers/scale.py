"""A temperature that is learned."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class LearnedScale(nn.Module):
    """``exp(s)``, the factor of similarities, one over the temperature: a scalar.

    s is trained and kept within [0, most] before it is used, and no gradient passes through that: CLIP (Radford et al., ICML
    2021), in the form of the authors' code of FLAVA (facebookresearch/multimodal), whose values are the defaults.

    Args:
        start: temperature at the start. most: of s; 4.6052 is a factor of 100.
    """

    def __init__(self, start: float = 0.07, most: float = 4.6052) -> None:
        super().__init__()
        self.most = most
        self.log = nn.Parameter(torch.tensor(-math.log(start)))

    def forward(self) -> Tensor:
        """Shape as in the class."""
        with torch.no_grad():
            self.log.clamp_(0, self.most)
        return self.log.exp()
