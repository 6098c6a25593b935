"""Time series: dilated convolutions over the steps that exist."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from kintsugi.core.encoder import ENCODERS, Encoder
from kintsugi.core.errors import ConfigError
from kintsugi.core.features import Stream
from kintsugi.core.schema import Modality
from kintsugi.encoders._tokens import Tokens, pool_steps, window

DILATIONS = (1, 2, 4)


class Dilated(nn.Module):
    """``x + gelu(LN(conv x))`` with a kernel of 3; LayerNorm works within a step, so padding cannot shift a row."""

    def __init__(self, dim: int, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(dim, dim, 3, padding=dilation, dilation=dilation)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x ``[R, T, D]``, zero where masked -> the same; mask bool ``[R, T]``."""
        y = self.norm(self.conv(x.transpose(1, 2)).transpose(1, 2))
        return torch.where(mask[..., None], x + functional.gelu(y), 0)


@ENCODERS.register("series")
class SeriesEncoder(Encoder):
    """A small temporal convolutional network (Bai et al., 2018, not causal here), averaged to at most 16 steps.

    x: float ``[R, T, C]``, standardised; mask: bool ``[R, T]``, False where a step does not exist or was not seen (it
    may hold NaN); the mask is one more channel. -> tokens ``[R, ceil(T / window), dim]`` with their mask. The window
    follows from the declared length; where that is open, 4 steps make a token.
    """

    def __init__(self, modality: Modality, dim: int) -> None:
        super().__init__()
        steps, channels = modality.shape
        if channels is None:
            raise ConfigError(f"modality {modality.name!r}: the number of channels must be known")
        self.window = window(steps, default=4)
        self.lift = nn.Linear(channels + 1, dim)
        self.layers = nn.ModuleList(Dilated(dim, dilation) for dilation in DILATIONS)
        self.tokens = Tokens(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Stream:
        """Shapes as in the class."""
        if mask is None:
            mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        seen = mask[..., None]
        x = torch.cat([torch.where(seen, x, 0), seen.to(x.dtype)], 2)
        x = torch.where(seen, self.lift(x), 0)
        for layer in self.layers:
            x = layer(x, mask)
        stream: Stream = self.tokens(*pool_steps(x, mask, self.window))
        return stream
