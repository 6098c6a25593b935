"""Images: a small convolutional network."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from kintsugi.core.encoder import ENCODERS, Encoder
from kintsugi.core.errors import ConfigError, DataError
from kintsugi.core.features import Stream
from kintsugi.core.schema import Modality
from kintsugi.encoders._tokens import Tokens, ceil_div
from kintsugi.layers.normalisation import GroupNorm

SIDE = 4  # the grid has at most 4 x 4 tokens
WIDTHS = (8, 16, 32)


class Stage(nn.Module):
    """Convolution without stride, max-pooling, GroupNorm, GELU: ``[R, C, H, W] -> [R, C', H / pool, W / pool]``."""

    def __init__(self, before: int, width: int, pool: int | tuple[int, int]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, width, 3, padding=1, bias=False)
        self.pool = nn.MaxPool2d(pool, ceil_mode=True)
        self.norm = GroupNorm(4, width)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as in the class."""
        return functional.gelu(self.norm(self.pool(self.conv(x))))


def stem(channels: int, width: int, stride: int) -> nn.Sequential:
    """The first stage: its stride saves the cost of full resolution."""
    return nn.Sequential(nn.Conv2d(channels, width, 5, stride, padding=2, bias=False), GroupNorm(4, width), nn.GELU())


@ENCODERS.register("image")
class ImageEncoder(Encoder):
    """Three convolutions with GroupNorm, as many of them halving as bring the shorter side to about 4.

    x: float ``[R, C, H, W]`` in [0, 1], any size from 8 x 8 -> tokens ``[R, T, dim]`` with a grid of at most 4 x 4;
    larger maps are averaged down. There is no mask within an image.
    """

    def __init__(self, modality: Modality, dim: int) -> None:
        super().__init__()
        channels, height, width = modality.shape
        if channels is None:
            raise ConfigError(f"modality {modality.name!r}: the number of colour channels must be known")
        sides = [side for side in (height, width) if side is not None]
        halvings = min(3, max(0, math.ceil(math.log2(min(sides) / SIDE)))) if sides else 3
        steps = [1] * (3 - halvings) + [2] * halvings
        self.layers = nn.Sequential(
            stem(channels, WIDTHS[0], steps[0]),
            Stage(WIDTHS[0], WIDTHS[1], steps[1]),
            Stage(WIDTHS[1], WIDTHS[2], steps[2]),
        ).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # twice as fast on a CPU
        count = None
        if height is not None and width is not None:
            count = math.prod(_side(ceil_div(side, 2**halvings)) for side in (height, width))
        self.tokens = Tokens(WIDTHS[2], dim, count)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Stream:
        """Shapes as in the class."""
        if mask is not None:
            raise DataError("an image has no steps that could be masked; drop the whole image instead")
        x = self.layers(2 * x - 1)
        x = functional.avg_pool2d(x, (ceil_div(x.shape[2], SIDE), ceil_div(x.shape[3], SIDE)), ceil_mode=True)
        stream: Stream = self.tokens(x.flatten(2).transpose(1, 2), grid=tuple(x.shape[2:]))
        return stream


def _side(side: int) -> int:
    return ceil_div(side, ceil_div(side, SIDE))
