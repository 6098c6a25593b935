"""Text as bytes: strided convolutions, then a small transformer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from kintsugi.core.encoder import ENCODERS, Encoder
from kintsugi.core.features import Stream
from kintsugi.core.schema import Modality
from kintsugi.encoders._tokens import MOST, Tokens, ceil_div
from kintsugi.layers.streams import Block

BYTES = 257  # 0: padding, 1 to 256: byte + 1
KERNEL, STRIDE = 5, 4


class Shorten(nn.Module):
    """A convolution over steps that leaves one step for every ``stride``; what is masked counts as zero.

    Step t of what is left looks at steps ``stride * t - (kernel - stride)`` to ``stride * (t + 1) - 1`` (centred, and
    residual, for stride 1) and exists where one of its own ``stride`` does; the end of a row and padding look the same.
    """

    def __init__(self, dim: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = KERNEL // 2 if stride == 1 else KERNEL - stride
        self.conv = nn.Conv1d(dim, dim, KERNEL, stride)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """x ``[R, L, D]``, zero where masked, mask bool ``[R, L]`` -> ``[R, ceil(L / stride), D]`` and its mask."""
        left = ceil_div(x.shape[1], self.stride)
        spare = left * self.stride - x.shape[1]
        after = KERNEL - self.stride - self.before + spare
        mask = functional.pad(mask, (0, spare)).view(-1, left, self.stride).any(2)
        y = self.conv(functional.pad(x.transpose(1, 2), (self.before, after))).transpose(1, 2)
        y = functional.gelu(self.norm(y))
        if self.stride == 1:
            y = x + y
        return torch.where(mask[..., None], y, 0), mask


@ENCODERS.register("text")
class TextEncoder(Encoder):
    """Byte embedding, convolutions that shorten it to a quarter (as often as it takes to have about 16), one block.

    x: int64 ``[R, L]``, 0 for padding and 1 to 256 for byte + 1, or ids below ``modality.vocab``; mask: bool ``[R, L]``
    -> tokens ``[R, ceil(L / 4), dim]`` with their mask. A row without any text gives zeros and a mask of False.
    """

    def __init__(self, modality: Modality, dim: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(modality.vocab or BYTES, dim)
        length, shorten = modality.shape[0] or 0, [Shorten(dim, 1), Shorten(dim, STRIDE)]
        while (length := ceil_div(length, STRIDE)) > MOST:
            shorten.append(Shorten(dim, STRIDE))
        self.shorten = nn.ModuleList(shorten)
        self.window = STRIDE ** (len(shorten) - 1)  # ids that make one token
        self.tokens = Tokens(dim, dim)
        self.block = Block(dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Stream:
        """Shapes as in the class."""
        mask = x > 0 if mask is None else mask & (x > 0)
        x = torch.where(mask[..., None], self.embed(torch.where(mask, x, 0)), 0)
        for layer in self.shorten:
            x, mask = layer(x, mask)
        stream: Stream = self.tokens(x, mask)
        y = self.norm(self.block(stream.tokens, mask))
        return Stream(torch.where(mask[..., None], y, 0), mask)
