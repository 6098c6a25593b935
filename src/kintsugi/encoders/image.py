"""Images: a small convolutional network."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional

from kintsugi.core.encoder import ENCODERS, Encoder
from kintsugi.core.errors import DataError
from kintsugi.core.features import Stream
from kintsugi.core.schema import Modality
from kintsugi.encoders._tokens import Tokens

SIDE = 4  # the grid has at most 4 x 4 tokens
WIDTHS = (16, 32, 64)


@ENCODERS.register("image")
class ImageEncoder(Encoder):
    """Three convolutions with GroupNorm, as many of stride 2 as bring the shorter side to about 4.

    x: float ``[R, C, H, W]`` in [0, 1], any size from 8 x 8 -> tokens ``[R, T, dim]`` with a grid of at most 4 x 4 (larger
    maps are averaged down). There is no mask within an image.
    """

    def __init__(self, modality: Modality, dim: int) -> None:
        super().__init__()
        channels, *sides = modality.shape
        if channels is None:
            raise DataError(f"modality {modality.name!r}: the number of colour channels must be known")
        known = [side for side in sides if side is not None]
        halvings = min(3, math.ceil(math.log2(max(min(known) / SIDE, 1)))) if known else 3
        layers: list[nn.Module] = []
        for i, width in enumerate(WIDTHS):
            kernel = 5 if i == 0 else 3
            stride = 2 if i < halvings else 1
            layers += [
                nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=False),
                nn.GroupNorm(4, width),
                nn.GELU(),
            ]
            channels = width
        self.layers = nn.Sequential(*layers)
        self.tokens = Tokens(WIDTHS[-1], dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Stream:
        if mask is not None:
            raise DataError("an image has no steps that could be masked; drop the whole image instead")
        x = self.layers(2 * x - 1)
        x = functional.avg_pool2d(x, tuple(math.ceil(n / SIDE) for n in x.shape[2:]), ceil_mode=True)
        stream: Stream = self.tokens(x.flatten(2).transpose(1, 2), grid=tuple(x.shape[2:]))
        return stream
