"""Sound: a log-mel spectrogram and a small convolutional network over it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kintsugi.core.encoder import ENCODERS, Encoder
from kintsugi.core.errors import ConfigError
from kintsugi.core.features import Stream
from kintsugi.core.schema import Modality
from kintsugi.encoders._tokens import Tokens, pool_steps, window
from kintsugi.encoders.logmel import LogMel

BANDS = 32
WIDTHS = (16, 32, 32)
STRIDES = ((2, 2), (2, 2), (1, 2))  # time, bands


def logmel(modality: Modality) -> LogMel:
    """The front end for this modality."""
    if modality.rate is None:
        raise ConfigError(f"modality {modality.name!r}: audio needs its sampling rate; set rate= in Hz")
    return LogMel(modality.rate, BANDS)


@ENCODERS.register("audio")
class AudioEncoder(Encoder):
    """Log-mel frames, three convolutions with GroupNorm, and the bands of each step joined into one token.

    x: float ``[R, S]`` in [-1, 1] -> tokens ``[R, T, dim]`` over time, about 16 a second, at most 16 where the length is
    declared. mask: bool ``[R, S]``; what is masked counts as silence.
    """

    def __init__(self, modality: Modality, dim: int) -> None:
        super().__init__()
        self.logmel = logmel(modality)
        layers: list[nn.Module] = []
        before, bands, slower = 1, BANDS, 1
        for width, stride in zip(WIDTHS, STRIDES, strict=True):
            layers += [nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.GroupNorm(4, width), nn.GELU()]
            before, bands, slower = width, bands // stride[1], slower * stride[0]
        self.layers = nn.Sequential(*layers)
        samples = modality.shape[0]
        self.window = window(None if samples is None else -(-self.logmel.frames(samples) // slower))
        self.tokens = Tokens(before * bands, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Stream:
        if mask is not None:
            x = torch.where(mask, x, 0)
        x = self.logmel(x).to(self.tokens.gain.dtype)
        x = self.layers(x[:, None]).permute(0, 2, 3, 1).flatten(2)
        x, mask = pool_steps(x, x.new_ones(x.shape[:2], dtype=torch.bool), self.window)
        stream: Stream = self.tokens(x, mask)
        return stream
