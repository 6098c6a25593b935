"""Cascaded residual autoencoders: predict the embedding of what is absent from the embedding of what is there."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kintsugi.layers.mlp import mlp


class Imaginer(nn.Module):
    """A cascade of autoencoders, each fed the sum of its predecessor's input and output.

    After Tran et al., Missing Modalities Imputation via Cascaded Residual Autoencoder (CVPR 2017), in the form of
    Zhao et al. (MMIN, ACL 2021): a two-layer transition turns the last sum into the imagined embedding. The bottleneck is
    linear: the authors' code deletes the activation after the encoder's last layer.

    Args:
        width: of the embedding ``[B, width]``.
        blocks: autoencoders in the cascade.
        shrink: widths of an autoencoder's layers as shares of ``width``; MMIN: 256, 128, 64 of 384.
    """

    def __init__(self, width: int, blocks: int = 5, shrink: Sequence[float] = (2 / 3, 1 / 3, 1 / 6)) -> None:
        super().__init__()
        sizes = [width, *(max(1, round(width * s)) for s in shrink)]
        self.down = nn.ModuleList([mlp(sizes) for _ in range(blocks)])
        self.up = nn.ModuleList([mlp(sizes[::-1]) for _ in range(blocks)])
        self.transition = mlp([width, width, width])
        self.code_dim = sizes[-1] * blocks

    def codes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The last sum ``[B, width]``, and all bottlenecks side by side ``[B, code_dim]``."""
        out, codes = torch.zeros_like(x), []
        for down, up in zip(self.down, self.up, strict=True):
            x = x + out
            codes.append(down(x))
            out = up(codes[-1])
        return x + out, torch.cat(codes, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Imagined embedding ``[B, width]`` and bottlenecks ``[B, code_dim]``."""
        last, codes = self.codes(x)
        return self.transition(last), codes
