"""Vectors: a small MLP."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kintsugi.core.encoder import ENCODERS, Encoder
from kintsugi.core.errors import ConfigError
from kintsugi.core.features import Stream
from kintsugi.core.schema import Modality


@ENCODERS.register("vector")
class VectorEncoder(Encoder):
    """``Linear, GELU, LayerNorm, Linear, LayerNorm``: x float ``[R, D]``, standardised -> one token ``[R, 1, dim]``.

    mask: bool ``[R, D]``; what is masked counts as zero, the mean of standardised data.
    """

    def __init__(self, modality: Modality, dim: int) -> None:
        super().__init__()
        width, hidden = modality.shape[0], 4 * dim
        if width is None:
            raise ConfigError(f"modality {modality.name!r}: the length of a vector must be known")
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.LayerNorm(hidden), nn.Linear(hidden, dim), nn.LayerNorm(dim)
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Stream:
        """Shapes as in the class."""
        return Stream.vector(self.mlp(x if mask is None else torch.where(mask, x, 0)))
